"""Row 28: scores against codes that the network itself gives to a view or a picture."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures, two_views
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import (
    DIM,
    ConvNet,
    DINOHead,
    MaskedViT,
    adamw,
    ema_update,
    frozen,
    projector,
    random_mask,
)

SELF_CODES = Expect(
    space="own-embedding",
    process="classify-token",
    target_learning="joint",
    stop_gradient=True,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (discrete self-codes)",
    ambiguous=True,
)
NUM_CLUSTERS = 4


@torch.no_grad()
def sinkhorn(out: Tensor) -> Tensor:
    """Codes [b, k] that spread the batch evenly over the prototypes."""
    Q = torch.exp(out / 0.05).t()
    num_samples, num_prototypes = Q.shape[1], Q.shape[0]
    Q /= torch.sum(Q)
    for _ in range(3):
        Q /= torch.sum(Q, dim=1, keepdim=True)
        Q /= num_prototypes
        Q /= torch.sum(Q, dim=0, keepdim=True)
        Q /= num_samples
    Q *= num_samples
    return Q.t()


@row(number=28, name="swav", verdict="invariance", terms=[SELF_CODES])
def swav(generator: torch.Generator) -> Row:
    """The scores of one view over prototypes, held against balanced codes of the other view: SwAV."""
    backbone, head, prototypes = ConvNet(), projector(DIM, 20, 8), nn.Linear(8, 15, bias=False)
    modules = {"backbone": backbone, "head": head, "prototypes": prototypes}
    optimizer = torch.optim.SGD([p for m in modules.values() for p in m.parameters()], lr=0.1)

    def step(batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            w = prototypes.weight.data.clone()
            w = F.normalize(w, dim=1, p=2)
            prototypes.weight.copy_(w)
        inputs = torch.cat([batch["view1"], batch["view2"]])
        embedding = F.normalize(head(backbone(inputs)), dim=1, p=2)
        output = prototypes(embedding)
        bs, loss = len(batch["view1"]), 0
        for i, crop_id in enumerate([0, 1]):
            with torch.no_grad():
                out = output[bs * crop_id : bs * (crop_id + 1)].detach()
                q = sinkhorn(out)[-bs:]
            v = 1 - i
            x = output[bs * v : bs * (v + 1)] / 0.1
            loss -= torch.mean(torch.sum(q * F.log_softmax(x, dim=1), dim=1))
        loss /= 2
        optimizer.zero_grad()
        loss.backward()  # pyrefly: ignore[missing-attribute]
        optimizer.step()
        return loss  # pyrefly: ignore[bad-return]

    return Row(step, two_views(generator), modules, backbone, optimizer)


@row(number=28, name="deepcluster", verdict="invariance", terms=[SELF_CODES])
def deepcluster(generator: torch.Generator) -> Row:
    """The scores of a picture over clusters, held against the cluster that k-means puts it into: DeepCluster.

    k-means over the features of the batch from centres drawn at random, then its cluster numbers as labels.
    """
    backbone, top_layer = ConvNet(), nn.Linear(DIM, NUM_CLUSTERS)
    modules = {"backbone": backbone, "top_layer": top_layer}

    @torch.no_grad()
    def kmeans(features: Tensor) -> Tensor:
        centroids = features[torch.randperm(features.shape[0])[:NUM_CLUSTERS]]
        for _ in range(3):
            assignments = torch.cdist(features, centroids).argmin(dim=1)
            for k in range(NUM_CLUSTERS):
                if (assignments == k).any():
                    centroids[k] = features[assignments == k].mean(dim=0)
        return torch.cdist(features, centroids).argmin(dim=1)

    def step(x: Tensor) -> Tensor:
        features = backbone(x)
        pseudo_labels = kmeans(F.normalize(features, dim=1))
        return F.cross_entropy(top_layer(F.relu(features)), pseudo_labels)

    return Row(step, {"x": pictures(generator)}, modules, backbone, adamw(modules))


@row(
    number=28,
    name="ibot",
    verdict="JEPA-style",
    terms=[
        Expect(
            space="ema-embedding",
            process="classify-token",
            target_learning="ema",
            stop_gradient=True,
            novelty="positive",
            family="JEPA-style",
            label="EMBEDDING-PREDICTION (discrete self-codes)",
            ambiguous=True,
        )
    ],
)
def ibot(generator: torch.Generator) -> Row:
    """The scores of masked patches over learned classes, held against a slow copy's, which sees them: iBOT.

    Its masked-patch half: the teacher sees the whole picture, its centred and sharpened scores are the codes.
    """
    student = nn.ModuleDict({"backbone": MaskedViT(), "head": DINOHead()})
    teacher = frozen(deepcopy(student))
    center = nn.Module()
    center.register_buffer("center2", torch.zeros(1, 1, 15))
    modules = {"student": student, "teacher": teacher, "center": center}

    def step(x: Tensor) -> Tensor:
        mask = random_mask(x.shape[0], 7)
        with torch.no_grad():
            teacher_patch = teacher["head"](teacher["backbone"](x))
            teacher_patch_c = F.softmax((teacher_patch - center.center2) / 0.07, dim=-1)
        student_patch = student["head"](student["backbone"](x, mask)) / 0.1
        loss2 = torch.sum(-teacher_patch_c.detach() * F.log_softmax(student_patch, dim=-1), dim=-1)
        loss2 = torch.sum(loss2 * mask.float(), dim=-1) / mask.sum(dim=-1).clamp(min=1.0)
        with torch.no_grad():
            mean = teacher_patch.mean(dim=(0, 1), keepdim=True)
            center.center2.mul_(0.9).add_(mean, alpha=0.1)  # pyrefly: ignore[not-callable]
        return loss2.mean()

    after_step = lambda: ema_update(teacher, student)  # noqa: E731
    return Row(step, {"x": pictures(generator)}, modules, student["backbone"], adamw(modules), after_step)
