"""Rows 13, 14, 19, 20 and 28: steps that make two views of one thing agree, with or without negatives or codes."""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_networks import (
    DIM,
    NUM_WORDS,
    ConvNet,
    MaskedViT,
    ViT,
    adamw,
    ema_update,
    frozen,
    mlp,
    projector,
    random_mask,
)
from audit_rows import NUM_SAMPLES, STATISTIC, Expect, Row, pictures, row, sentences, series

EMA = Expect(
    space="ema-embedding",
    process="regress",
    target_learning="ema",
    stop_gradient=True,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (EMA)",
)
STOP_GRADIENT = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=True,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (stop-grad)",
)
JOINT = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=False,
    novelty="zero",
    family="invariance",
    label="EMBEDDING-INVARIANCE (joint)",
)
CONTRAST = Expect(
    space="own-embedding",
    process="contrast",
    target_learning="joint",
    stop_gradient=False,
    family="contrastive",
    label="CONTRASTIVE",
)
QUEUE = Expect(
    space="ema-embedding",
    process="contrast",
    target_learning="ema",
    stop_gradient=True,
    family="contrastive",
    label="CONTRASTIVE",
)


def two_views(generator: torch.Generator) -> dict[str, Tensor]:
    """A picture brighter and noisier, and the same mirrored: what a loader with two transforms hands over."""
    x = pictures(generator)
    noise = 0.1 * torch.randn(x.shape, generator=generator)
    return {"view1": (1.2 * x + noise).clamp(0, 1), "view2": x.flip(-1) * 0.9}


@row(number=13, name="byol", verdict="invariance", terms=[EMA])
def byol(generator: torch.Generator) -> Row:
    online, predictor = nn.Sequential(ConvNet(), projector(DIM, 20, 14)), projector(14, 20, 14)
    target = deepcopy(online).requires_grad_(False)
    modules = {"online": online, "predictor": predictor, "target": target}
    optimizer = adamw(modules)

    def regression_loss(x: Tensor, y: Tensor) -> Tensor:
        x, y = F.normalize(x, dim=-1, p=2), F.normalize(y, dim=-1, p=2)
        return 2 - 2 * (x * y).sum(dim=-1)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        predictions_from_view_1 = predictor(online(view1))
        predictions_from_view_2 = predictor(online(view2))
        with torch.no_grad():
            targets_to_view_2 = target(view1)
            targets_to_view_1 = target(view2)
        loss = regression_loss(predictions_from_view_1, targets_to_view_1)
        loss = loss + regression_loss(predictions_from_view_2, targets_to_view_2)
        loss = loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema_update(target, online, 0.996)
        return loss

    return Row(step, two_views(generator), modules, online[0], optimizer)


class DINOHead(nn.Module):
    """Three layers, a bottleneck, and a last layer whose rows have length one."""

    def __init__(self, num_prototypes: int = 15) -> None:
        super().__init__()
        self.mlp = mlp(DIM, 20, 8)
        self.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, num_prototypes, bias=False))
        self.last_layer.parametrizations.weight.original0.data.fill_(1)
        self.last_layer.parametrizations.weight.original0.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1, p=2))


class DINOLoss(nn.Module):
    center: Tensor

    def __init__(self, num_prototypes: int = 15) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1, num_prototypes))

    def forward(self, student_output: Tensor, teacher_output: Tensor) -> Tensor:
        student_out = (student_output / 0.1).chunk(2)
        teacher_out = F.softmax((teacher_output - self.center) / 0.04, dim=-1).detach().chunk(2)
        total_loss, n_loss_terms = 0, 0
        for iq, q in enumerate(teacher_out):
            for v in range(len(student_out)):
                if v == iq:
                    continue
                loss = torch.sum(-q * F.log_softmax(student_out[v], dim=-1), dim=-1)
                total_loss += loss.mean()
                n_loss_terms += 1
        self.update_center(teacher_output)
        return total_loss / n_loss_terms

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        batch_center = torch.sum(teacher_output, dim=0, keepdim=True) / len(teacher_output)
        self.center = self.center * 0.9 + batch_center * (1 - 0.9)


@row(
    number=13,
    name="dino",
    verdict="invariance",
    terms=[
        Expect(
            space="ema-embedding",
            process="classify-token",
            target_learning="ema",
            stop_gradient=True,
            novelty="zero",
            family="invariance",
            label="EMBEDDING-INVARIANCE (EMA)",
        )
    ],
)
def dino(generator: torch.Generator) -> Row:
    backbone, head, dino_loss = ConvNet(), DINOHead(), DINOLoss()
    student = nn.Sequential(backbone, head)
    teacher = nn.Sequential(ConvNet(), DINOHead())
    teacher.load_state_dict(student.state_dict())
    for p in teacher.parameters():
        p.requires_grad = False
    modules = {"student": student, "teacher": teacher, "dino_loss": dino_loss}
    optimizer = adamw(modules)

    def train_step(batch: dict[str, Tensor]) -> None:
        images = torch.cat([batch["view1"], batch["view2"]])
        teacher_output = teacher(images)
        student_output = student(images)
        loss = dino_loss(student_output, teacher_output)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            m = 0.99
            for param_q, param_k in zip(student.parameters(), teacher.parameters(), strict=True):
                param_k.data.mul_(m).add_((1 - m) * param_q.detach().data)

    return Row(train_step, two_views(generator), modules, backbone, optimizer)


@row(number=14, name="simsiam", verdict="invariance", terms=[STOP_GRADIENT])
def simsiam(generator: torch.Generator) -> Row:
    encoder, proj, predictor = ConvNet(), projector(DIM, 20, 14), projector(14, 8, 14)
    modules = {"encoder": encoder, "projector": proj, "predictor": predictor}
    criterion = nn.CosineSimilarity(dim=1)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        z1, z2 = proj(encoder(view1)), proj(encoder(view2))
        p1, p2 = predictor(z1), predictor(z2)
        z1, z2 = z1.detach(), z2.detach()
        return -(criterion(p1, z2).mean() + criterion(p2, z1).mean()) * 0.5

    return Row(step, two_views(generator), modules, encoder, adamw(modules))


def augment(x: Tensor) -> Tensor:
    """Brightness and noise, drawn anew at each call."""
    brightness = 0.6 + 0.8 * torch.rand(x.shape[0], 1, 1, 1)
    return x * brightness + 0.05 * torch.randn_like(x)


@row(number=14, name="simsiam, views made in the step", verdict="invariance", terms=[STOP_GRADIENT])
def simsiam_own_views(generator: torch.Generator) -> Row:
    encoder, proj, predictor = ViT(), mlp(DIM, 20, 14), mlp(14, 8, 14)
    modules = {"encoder": encoder, "projector": proj, "predictor": predictor}
    optimizer = adamw(modules)

    def step(x: Tensor) -> Tensor:
        z1, z2 = (proj(encoder(augment(x)).mean(dim=1)) for _ in range(2))
        loss = 0
        for p, z in ((predictor(z1), z2.detach()), (predictor(z2), z1.detach())):
            p, z = F.normalize(p, dim=1), F.normalize(z, dim=1)
            loss = loss - (p * z).sum(dim=1).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, {"x": pictures(generator)}, modules, encoder, optimizer)


def nt_xent(z: Tensor, temperature: float = 0.5) -> Tensor:
    """z [2 n, d]: the two views of a sample are n rows apart, all others are negatives."""
    features = F.normalize(z, dim=1)
    n = features.shape[0] // 2
    labels = torch.cat([torch.arange(n) for _ in range(2)], dim=0)
    labels = (labels.unsqueeze(0) == labels.unsqueeze(1)).float()
    similarity_matrix = torch.matmul(features, features.T)
    mask = torch.eye(labels.shape[0], dtype=torch.bool)
    labels = labels[~mask].view(labels.shape[0], -1)
    similarity_matrix = similarity_matrix[~mask].view(similarity_matrix.shape[0], -1)
    positives = similarity_matrix[labels.bool()].view(labels.shape[0], -1)
    negatives = similarity_matrix[~labels.bool()].view(similarity_matrix.shape[0], -1)
    logits = torch.cat([positives, negatives], dim=1)
    return F.cross_entropy(logits / temperature, torch.zeros(logits.shape[0], dtype=torch.long))


@row(number=19, name="simclr", verdict="contrastive", terms=[CONTRAST])
def simclr(generator: torch.Generator) -> Row:
    backbone, head = ConvNet(), mlp(DIM, 20, 14)
    modules = {"backbone": backbone, "head": head}
    optimizer = adamw(modules)

    def step(batch: dict[str, Tensor]) -> Tensor:
        images = torch.cat([batch["view1"], batch["view2"]], dim=0)
        loss = nt_xent(head(backbone(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, two_views(generator), modules, backbone, optimizer)


@row(number=19, name="simclr, views made in the step", verdict="contrastive", terms=[CONTRAST])
def simclr_own_views(generator: torch.Generator) -> Row:
    """One root for both sides; the diagonal is masked out and the positive found by its index."""
    backbone, head = ViT(), mlp(DIM, 20, 14)
    modules = {"backbone": backbone, "head": head}

    def step(x: Tensor) -> Tensor:
        z1, z2 = (F.normalize(head(backbone(augment(x)).mean(dim=1)), dim=-1) for _ in range(2))
        z = torch.cat([z1, z2])
        sim = z @ z.t() / 0.2
        sim.fill_diagonal_(-1e9)
        n = x.shape[0]
        targets = torch.cat([torch.arange(n, 2 * n), torch.arange(n)])
        return F.cross_entropy(sim, targets)

    return Row(step, {"x": pictures(generator)}, modules, backbone, adamw(modules))


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(NUM_WORDS, DIM), nn.Parameter(torch.randn(9, DIM) * 0.1)
        self.attn, self.norm = nn.MultiheadAttention(DIM, 2, batch_first=True), nn.LayerNorm(DIM)

    def forward(self, text: Tensor) -> Tensor:
        x = self.words(text) + self.positions
        attended, _ = self.attn(x, x, x, need_weights=False)
        return self.norm(x + attended)[torch.arange(x.shape[0]), text.argmax(dim=-1)]


@row(number=19, name="clip", verdict="contrastive", terms=[CONTRAST])
def clip(generator: torch.Generator) -> Row:
    visual, transformer = ViT(), TextEncoder()
    image_projection, text_projection = nn.Linear(DIM, 14, bias=False), nn.Linear(DIM, 14, bias=False)
    logit_scale = nn.ParameterDict({"logit_scale": nn.Parameter(torch.tensor(math.log(1 / 0.07)))})
    modules = {"visual": visual, "text": transformer, "vp": image_projection, "tp": text_projection, "s": logit_scale}
    optimizer = adamw(modules)

    def step(x: Tensor, text: Tensor) -> dict[str, Tensor]:
        image_features = F.normalize(image_projection(visual(x).mean(dim=1)), dim=-1)
        text_features = F.normalize(text_projection(transformer(text)), dim=-1)
        scale = logit_scale["logit_scale"].exp()
        logits_per_image = scale * image_features @ text_features.T
        logits_per_text = logits_per_image.T
        labels = torch.arange(logits_per_image.shape[0], dtype=torch.long)
        loss = (F.cross_entropy(logits_per_image, labels) + F.cross_entropy(logits_per_text, labels)) / 2
        return {"contrastive": loss.detach(), "loss": loss}

    return Row(step, {"x": pictures(generator), "text": sentences(generator)}, modules, visual, optimizer)


@row(number=19, name="siglip", verdict="contrastive", terms=[CONTRAST])
def siglip(generator: torch.Generator) -> Row:
    visual, transformer = ViT(), TextEncoder()
    scale = nn.ParameterDict({"t": nn.Parameter(torch.tensor(math.log(10.0))), "b": nn.Parameter(torch.tensor(-10.0))})
    modules = {"visual": visual, "text": transformer, "scale": scale}

    def step(batch: dict[str, Tensor]) -> Tensor:
        zimg = F.normalize(visual(batch["x"]).mean(dim=1), dim=-1)
        ztxt = F.normalize(transformer(batch["text"]), dim=-1)
        logits = zimg @ ztxt.T * scale["t"].exp() + scale["b"]
        labels = 2 * torch.eye(logits.shape[0]) - torch.ones_like(logits)
        return -F.logsigmoid(labels * logits).sum() / logits.shape[0]

    return Row(step, {"x": pictures(generator), "text": sentences(generator)}, modules, visual, adamw(modules))


class MoCo(nn.Module):
    queue: Tensor
    queue_ptr: Tensor

    def __init__(self, num_keys: int = 18) -> None:
        super().__init__()
        self.num_keys = num_keys
        self.encoder_q = nn.Sequential(ConvNet(), nn.Linear(DIM, 14))
        self.encoder_k = nn.Sequential(ConvNet(), nn.Linear(DIM, 14))
        for param_q, param_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            param_k.data.copy_(param_q.data)
            param_k.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(14, num_keys), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def _momentum_update_key_encoder(self) -> None:
        for param_q, param_k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            param_k.data = param_k.data * 0.99 + param_q.data * (1.0 - 0.99)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys: Tensor) -> None:
        ptr = int(self.queue_ptr)
        self.queue[:, ptr : ptr + keys.shape[0]] = keys.T
        self.queue_ptr[0] = (ptr + keys.shape[0]) % self.num_keys

    def forward(self, im_q: Tensor, im_k: Tensor) -> tuple[Tensor, Tensor]:
        q = F.normalize(self.encoder_q(im_q), dim=1)
        with torch.no_grad():
            self._momentum_update_key_encoder()
            idx_shuffle = torch.randperm(im_k.shape[0])
            k = F.normalize(self.encoder_k(im_k[idx_shuffle]), dim=1)
            k = k[torch.argsort(idx_shuffle)]
        l_pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
        l_neg = torch.einsum("nc,ck->nk", [q, self.queue.clone().detach()])
        logits = torch.cat([l_pos, l_neg], dim=1) / 0.07
        labels = torch.zeros(logits.shape[0], dtype=torch.long)
        self._dequeue_and_enqueue(k)
        return logits, labels


@row(number=19, name="moco", verdict="contrastive", terms=[QUEUE])
def moco(generator: torch.Generator) -> Row:
    """The average moves before the optimizer, inside forward, as published."""
    model = MoCo()
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        output, target = model(im_q=view1, im_k=view2)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, two_views(generator), {"model": model}, model.encoder_q, optimizer)


@row(number=19, name="contrastive predictive coding", verdict="contrastive", terms=[CONTRAST])
def cpc(generator: torch.Generator) -> Row:
    encoder, context, step_ahead = mlp(7, 20, DIM), nn.GRU(DIM, 14, batch_first=True), nn.Linear(14, DIM, bias=False)
    modules = {"encoder": encoder, "context": context, "step_ahead": step_ahead}

    def step(x: Tensor) -> Tensor:
        z = encoder(x)
        c, _ = context(z[:, :-1])
        pred = step_ahead(c[:, -1])
        total = torch.mm(z[:, -1], pred.transpose(0, 1))
        return -torch.diag(F.log_softmax(total, dim=1)).mean()

    return Row(step, {"x": series(generator)}, modules, encoder, adamw(modules))


def off_diagonal(x: Tensor) -> Tensor:
    n, _ = x.shape
    return x.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


@row(number=20, name="vicreg", verdict="invariance", terms=[JOINT, STATISTIC])
def vicreg(generator: torch.Generator) -> Row:
    backbone, expander = ConvNet(), projector(DIM, 20, 14)
    modules = {"backbone": backbone, "projector": expander}
    optimizer = adamw(modules)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        x, y = expander(backbone(view1)), expander(backbone(view2))
        repr_loss = F.mse_loss(x, y)
        x = x - x.mean(dim=0)
        y = y - y.mean(dim=0)
        std_x = torch.sqrt(x.var(dim=0) + 0.0001)
        std_y = torch.sqrt(y.var(dim=0) + 0.0001)
        std_loss = torch.mean(F.relu(1 - std_x)) / 2 + torch.mean(F.relu(1 - std_y)) / 2
        cov_x = (x.T @ x) / (x.shape[0] - 1)
        cov_y = (y.T @ y) / (y.shape[0] - 1)
        cov_loss = off_diagonal(cov_x).pow_(2).sum().div(14) + off_diagonal(cov_y).pow_(2).sum().div(14)
        loss = 25.0 * repr_loss + 25.0 * std_loss + 1.0 * cov_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, two_views(generator), modules, backbone, optimizer)


@row(
    number=20,
    name="barlow twins",
    verdict="invariance",
    terms=[
        Expect(
            space="own-embedding",
            process=("regress", "match-statistic"),
            target_learning="joint",
            stop_gradient=False,
            family="invariance",
            label="EMBEDDING-INVARIANCE (joint)",
        ),
        # What is off the diagonal may be read as a statistic of the pair.
        Expect(label=("EMBEDDING-INVARIANCE (joint)", "STATISTIC"), required=False),
    ],
)
def barlow_twins(generator: torch.Generator) -> Row:
    backbone, proj, bn = ConvNet(), projector(DIM, 20, 14), nn.BatchNorm1d(14, affine=False)
    modules = {"backbone": backbone, "projector": proj, "bn": bn}

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        z1, z2 = proj(backbone(view1)), proj(backbone(view2))
        c = bn(z1).T @ bn(z2)
        c.div_(NUM_SAMPLES)
        on_diag = torch.diagonal(c).add_(-1).pow_(2).sum()
        off_diag = off_diagonal(c).pow_(2).sum()
        return on_diag + 0.0051 * off_diag

    return Row(step, two_views(generator), modules, backbone, adamw(modules))


@row(number=20, name="lejepa", verdict="invariance", terms=[JOINT, STATISTIC])
def lejepa(generator: torch.Generator) -> Row:
    """Every view against the mean of all, and a Gaussian embedding; no teacher, no stop-gradient."""
    encoder, proj = ViT(), mlp(DIM, 20, 8)
    modules = {"encoder": encoder, "proj": proj}

    def sigreg(x: Tensor) -> Tensor:
        A = torch.randn(x.size(-1), 16)
        A /= A.norm(p=2, dim=0)
        t = torch.linspace(-5, 5, 17)
        exp_f = torch.exp(-0.5 * t**2)
        x_t = (x @ A).unsqueeze(2) * t
        ecf = (1j * x_t).exp().mean(0)
        err = (ecf - exp_f).abs().square().mul(exp_f)
        return (torch.trapz(err, t, dim=1) * x.size(0)).mean()

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        views = torch.cat([batch["view1"], batch["view2"]])
        z = proj(encoder(views).mean(dim=1)).unflatten(0, (2, -1))
        inv_loss = (z.mean(0) - z).square().mean()
        sigreg_loss = sigreg(z.flatten(0, 1))
        return {"loss": sigreg_loss * 0.02 + inv_loss * (1 - 0.02), "inv": inv_loss, "sigreg": sigreg_loss}

    return Row(step, two_views(generator), modules, encoder, adamw(modules))


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
        loss.backward()
        optimizer.step()
        return loss

    return Row(step, two_views(generator), modules, backbone, optimizer)


@row(number=28, name="deepcluster", verdict="invariance", terms=[SELF_CODES])
def deepcluster(generator: torch.Generator) -> Row:
    """k-means over the features of the batch from centres drawn at random, then its cluster numbers as labels."""
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


NUM_CLUSTERS = 4


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
    """Its masked-patch half: the teacher sees the whole picture, its centred and sharpened scores are the codes."""
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
            center.center2.mul_(0.9).add_(teacher_patch.mean(dim=(0, 1), keepdim=True), alpha=0.1)
        return loss2.mean()

    after_step = lambda: ema_update(teacher, student)  # noqa: E731
    return Row(step, {"x": pictures(generator)}, modules, student["backbone"], adamw(modules), after_step)
