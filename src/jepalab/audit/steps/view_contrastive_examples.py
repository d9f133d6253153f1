"""Row 19: two views, or two halves of one thing, told from those of all other samples."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures, sentences, series, two_views
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, NUM_WORDS, ConvNet, ViT, adamw, mlp
from jepalab.audit.steps.view_stopped_examples import augment

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
    """The other view of a picture, told from all other views in the batch by its embedding: SimCLR."""
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
    """The other view of a picture, told from all others by its embedding, both drawn in the step: SimCLR.

    One root for both sides; the diagonal is masked out and the positive found by its index.
    """
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
    """The text of a picture, told from the other texts in the batch by its embedding, and the reverse: CLIP."""
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
        return {"value": loss.detach(), "loss": loss}

    return Row(step, {"x": pictures(generator), "text": sentences(generator)}, modules, visual, optimizer)


@row(number=19, name="siglip", verdict="contrastive", terms=[CONTRAST])
def siglip(generator: torch.Generator) -> Row:
    """Whether a picture and a text belong together, for each pair in the batch, by their embeddings: SigLIP."""
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
    """The other view of a picture in a slow copy's embedding, told from a queue of earlier ones: MoCo.

    The average moves before the optimizer, inside forward, as published.
    """
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
    """The last embedding of a series from those before, told from those of other series: CPC."""
    encoder, context, step_ahead = mlp(7, 20, DIM), nn.GRU(DIM, 14, batch_first=True), nn.Linear(14, DIM, bias=False)
    modules = {"encoder": encoder, "context": context, "step_ahead": step_ahead}

    def step(x: Tensor) -> Tensor:
        z = encoder(x)
        c, _ = context(z[:, :-1])
        pred = step_ahead(c[:, -1])
        total = torch.mm(z[:, -1], pred.transpose(0, 1))
        return -torch.diag(F.log_softmax(total, dim=1)).mean()

    return Row(step, {"x": series(generator)}, modules, encoder, adamw(modules))
