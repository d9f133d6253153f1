"""The audit on ways of writing a step that are common in public repositories and that it once got wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit import Audit, audit

NUM = 4  # samples in a batch
DIM = 16  # a multiple of it, as in practice


def mlp(num_in: int = 12, num_out: int = DIM) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(num_in, 32), nn.GELU(), nn.Linear(32, num_out))


def convnet(num_out: int = DIM) -> nn.Sequential:
    """Pictures [b, 3, h, w] of any size to one embedding each, with batch normalisation."""
    first = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, num_out))


def spread(z: Tensor) -> Tensor:
    return F.relu(1 - z.std(0)).mean()


def kinds(result: Audit) -> set[str]:
    return {finding.kind for finding in result.findings}


def driving(result: Audit) -> Any:
    """The comparison with the largest share."""
    return next(term for term in result.terms if term.target is not None and term.family != "regulariser")


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.usefixtures("one_process")
def test_keys_gathered_from_all_processes() -> None:
    """`all_gather` fills a list where no torch function is called; the negatives wait in a queue."""
    encoder, slow = mlp(), mlp()
    slow.requires_grad_(False)
    queue = F.normalize(torch.randn(DIM, 8), dim=0)

    def step(query: Tensor, key: Tensor) -> Tensor:
        q, parts = F.normalize(encoder(query), dim=1), [torch.ones(NUM, DIM)]
        with torch.no_grad():
            dist.all_gather(parts, F.normalize(slow(key), dim=1))
        positive = torch.einsum("nc,nc->n", [q, torch.cat(parts)]).unsqueeze(-1)
        logits = torch.cat([positive, q @ queue], dim=1) / 0.07
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    assert audit(step, {"query": torch.randn(NUM, 12), "key": torch.randn(NUM, 12)}, steps=2).verdict == "contrastive"


def log_softmax_by_hand(a: Tensor, b: Tensor) -> Tensor:
    z = torch.cat([a, b])
    logits = z @ z.T / 0.1
    logits = logits - logits.max(1, keepdim=True).values.detach()
    others = 1 - torch.eye(len(z))
    log_prob = logits - torch.log((logits.exp() * others).sum(1, keepdim=True))
    positive = torch.eye(len(a)).repeat(2, 2) * others
    return -((positive * log_prob).sum(1) / positive.sum(1)).mean()


def quotient_of_exponentials(a: Tensor, b: Tensor) -> Tensor:
    positive, all_pairs = ((a * b).sum(-1) / 0.1).exp(), (a @ b.T / 0.1).exp()
    return -torch.log(positive / all_pairs.sum(1)).mean()


@pytest.mark.parametrize("loss", [log_softmax_by_hand, quotient_of_exponentials])
def test_contrast_by_hand(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    encoder, batch = mlp(), {"view1": torch.randn(NUM, 12), "view2": torch.randn(NUM, 12)}
    result = audit(lambda **views: loss(*(F.normalize(encoder(v), dim=1) for v in views.values())), batch, steps=2)
    assert result.verdict == "contrastive"
    assert "collapse" not in kinds(result)


def test_features_correlated_over_a_batch_that_divides_them() -> None:
    encoder, norm = mlp(), nn.BatchNorm1d(DIM, affine=False)

    def step(y1: Tensor, y2: Tensor) -> Tensor:
        c = norm(encoder(y1)).T @ norm(encoder(y2)) / NUM
        return (torch.diagonal(c) - 1).pow(2).sum() + 0.01 * (c - torch.diag(torch.diagonal(c))).pow(2).sum()

    result = audit(step, {"y1": torch.randn(NUM, 12), "y2": torch.randn(NUM, 12)}, steps=2)
    assert result.verdict == "invariance"
    assert "decorrelated features" in driving(result).anti_collapse


def test_views_stacked_in_one_input_against_their_mean() -> None:
    encoder = mlp()

    def step(x: Tensor) -> Tensor:
        z = encoder(x.flatten(0, 1)).reshape(NUM, 3, DIM).transpose(0, 1)
        return (z.mean(0) - z).square().mean() + spread(z[0])

    result = audit(step, {"x": torch.randn(NUM, 3, 12)}, steps=2)
    assert result.verdict == "invariance"
    assert driving(result).novelty == 0


@pytest.mark.parametrize("learned", [True, False])
def test_codebook_is_no_prediction(learned: bool) -> None:
    """A commitment ties an embedding to its own code; the reconstruction alone compares."""
    encoder, decoder, book = mlp(), mlp(DIM, 12), torch.randn(8, DIM)
    book = nn.Parameter(book) if learned else book

    def step(x: Tensor) -> Tensor:
        z = encoder(x)
        distance = z.pow(2).sum(1, keepdim=True) - 2 * z @ book.T + book.pow(2).sum(1)
        code = F.one_hot(distance.argmin(1), 8).float() @ book
        commitment = F.mse_loss(z, code.detach()) + (F.mse_loss(code, z.detach()) if learned else 0)
        return F.mse_loss(decoder(z + (code - z).detach()), x) + commitment

    result = audit(step, {"x": torch.randn(NUM, 12)}, encoder=encoder, steps=2)
    assert result.verdict == "generative"
    assert driving(result).novelty == 0
    assert not kinds(result) & {"leak", "collapse"}


def test_rectified_autoencoder_leaks_nothing() -> None:
    """Units that a rectifier silences hide pixels from a small change, not from the decoder."""
    down = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*down, nn.ConvTranspose2d(4, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2))
    result = audit(lambda x: F.mse_loss(net(x), x), {"x": torch.rand(NUM, 1, 16, 16)}, steps=2)
    assert (result.verdict, driving(result).novelty) == ("generative", 0)
    assert "leak" not in kinds(result)


def test_branch_that_starts_at_zero_is_no_average() -> None:
    """Its layers get a gradient of zero; what weight decay does to them is not following."""
    branch, gate = nn.Linear(12, 12), nn.Parameter(torch.zeros(12))
    nn.init.zeros_(branch.bias)
    result = audit(lambda x: F.mse_loss(x + gate * branch(x), x.roll(1, 1)), {"x": torch.randn(NUM, 12)}, steps=2)
    assert (result.averages, set(result.parameters)) == ((), {"online"})


def test_next_frame_through_batch_norm() -> None:
    """The statistics of a batch tie all frames together; still a later frame is hidden from its prediction."""
    encoder, predictor = convnet(), mlp(DIM)

    def step(video: Tensor) -> Tensor:
        z = encoder(video.flatten(0, 1)).unflatten(0, (NUM, 3))
        return F.mse_loss(predictor(z[:, 0]), z[:, 2]) + spread(z[:, 0])

    result = audit(step, {"video": torch.rand(NUM, 3, 3, 8, 8)}, steps=2)
    assert (result.verdict, driving(result).novelty) == ("JEPA-style", 1)


def test_crops_made_in_the_step() -> None:
    """Another path at every step, and two crops that overlap: one term, and invariance."""
    online, predictor = convnet(), mlp(DIM)
    slow = copy.deepcopy(online).requires_grad_(False)

    def augment(x: Tensor) -> Tensor:
        top, left = torch.randint(0, 3, (2,)).tolist()
        return (x.pow(1.5) if torch.rand(()) < 0.5 else x)[..., top : top + 6, left : left + 6]

    @torch.no_grad()
    def after_step() -> None:
        for fast, copied in zip(online.parameters(), slow.parameters(), strict=True):
            copied.lerp_(fast, 0.01)

    def step(images: Tensor) -> Tensor:
        one, two = augment(images), augment(images)
        return 2 - 2 * (F.normalize(predictor(online(one)), dim=1) * F.normalize(slow(two), dim=1)).sum(1).mean()

    result = audit(step, {"images": torch.rand(NUM, 3, 8, 8)}, after_step=after_step, steps=6)
    assert result.verdict == "invariance"
    assert [(t.label, round(t.share, 3)) for t in result.terms] == [("EMBEDDING-INVARIANCE (EMA)", 1)]


class LanguageModel(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(31, DIM), nn.Linear(DIM, 31)
        self.layer = nn.TransformerEncoderLayer(DIM, 2, 32, dropout=0.0, batch_first=batch_first)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(self.layer(self.table(tokens), mask)).flatten(0, 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_labels_that_are_the_next_tokens(batch_first: bool, causal: bool) -> None:
    net = LanguageModel(batch_first=batch_first)
    text = torch.randint(0, 30, (NUM, 13))
    x, y = text[:, :-1].contiguous(), text[:, 1:].contiguous()
    if not batch_first:
        x, y = x.T.contiguous(), y.T.reshape(-1)
    mask = nn.Transformer.generate_square_subsequent_mask(12) if causal else None
    result = audit(lambda x, y: F.cross_entropy(net(x, mask), y.flatten()), {"x": x, "y": y}, steps=2)
    assert (result.verdict, driving(result).label) == ("generative", "GENERATIVE-TOKEN")
    assert driving(result).novelty == float(causal)
    assert kinds(result) == (set() if causal else {"leak"})


def test_labels_that_say_what_a_mask_token_hid() -> None:
    net = LanguageModel(batch_first=True)
    text = torch.randint(0, 30, (NUM, 12))
    hidden = torch.rand(text.shape) < 0.3
    batch = {"input_ids": text.masked_fill(hidden, 30), "labels": text.masked_fill(~hidden, -100)}
    result = audit(lambda input_ids, labels: F.cross_entropy(net(input_ids), labels.flatten()), batch, steps=2)
    assert (result.verdict, driving(result).label) == ("generative", "GENERATIVE-TOKEN")
    assert not kinds(result) & {"privileged", "leak"}


@pytest.mark.parametrize("form", ["x and y", "tuple", "list under a name", "two sizes"])
def test_views_without_a_name(form: str) -> None:
    """Both terms mirror each other: each input is target and prediction in turn."""
    encoder, predictor = convnet(), mlp(DIM)
    a, b = torch.rand(NUM, 3, 8, 8), torch.rand(NUM, 3, 8, 8)

    def loss(one: Tensor, two: Tensor) -> Tensor:
        z1, z2 = encoder(one), encoder(two)
        return F.mse_loss(predictor(z1), z2.detach()) + F.mse_loss(predictor(z2), z1.detach())

    forms: dict[str, tuple[Any, Any]] = {
        "x and y": (lambda x, y: loss(x, y), {"x": a, "y": b}),
        "list under a name": (lambda images: loss(*images), {"images": [a, b]}),
        "tuple": (lambda batch: loss(*batch), (a, b)),
        "two sizes": (lambda batch: loss(*batch), (a, b[..., :6, :6])),
    }
    result = audit(*forms[form], steps=2)
    assert result.verdict == "invariance"
    assert "privileged" not in kinds(result)


@pytest.mark.parametrize("with_action", [True, False])
def test_transition_without_names(with_action: bool) -> None:
    """One way only, through a predictor: what comes second is predicted, and said to be taken for that."""
    encoder, predictor, a, b = mlp(), mlp(DIM + 2), torch.randn(NUM, 12), torch.randn(NUM, 12)

    def step(batch: tuple[Tensor, ...]) -> Tensor:
        act = batch[1] if with_action else torch.zeros(NUM, 2)
        return F.mse_loss(predictor(torch.cat([encoder(batch[0]), act], 1)), encoder(batch[-1]).detach())

    result = audit(step, (a, torch.randn(NUM, 2), b) if with_action else (a, b), steps=2)
    assert (result.verdict, driving(result).novelty) == ("JEPA-style", 1)
    assert "view1" in driving(result).ambiguous


@pytest.mark.parametrize("length", [NUM, NUM + 2])
def test_world_model_with_time_first(length: int) -> None:
    """One state more than actions: the batch is the second axis, and one place a sample is changed at a time."""
    encoder, dynamics = mlp(), mlp(DIM + 2)

    def step(obs: Tensor, action: Tensor) -> Tensor:
        with torch.no_grad():
            later = [encoder(frame) for frame in obs[1:]]
        z, losses = encoder(obs[0]), []
        for act, target in zip(action, later, strict=True):
            z = dynamics(torch.cat([z, act], 1))
            losses.append(F.mse_loss(z, target))
        return torch.stack(losses).mean()

    batch = {"obs": torch.randn(length, NUM, 12), "action": torch.randn(length - 1, NUM, 2)}
    result = audit(step, batch, steps=2)
    assert (result.verdict, driving(result).novelty) == ("JEPA-style", 1)


def test_windows_that_overlap_are_no_crops() -> None:
    encoder, predictor = mlp(36), mlp(DIM)

    def step(x: Tensor) -> Tensor:
        return F.mse_loss(predictor(encoder(x[:, :3])), encoder(x[:, 1:]).detach())

    result = audit(step, {"x": torch.randn(NUM, 4, 12)}, steps=2)
    assert (result.verdict, 0 < driving(result).novelty < 1) == ("JEPA-style", True)


def test_sum_that_is_a_difference() -> None:
    """(sigma * score + noise) squared: the score is held against the negated noise."""
    net = mlp(12, 12)

    def step(x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        return ((net(x + noise / 2) / 2 + noise) ** 2).mean()

    result = audit(step, {"x": torch.randn(NUM, 12)}, steps=2)
    assert (result.verdict, driving(result).label) == ("generative", "GENERATIVE-NOISE")


@pytest.mark.parametrize(("kind", "novelty"), [(torch.float32, 0.0), (torch.uint8, None)])
def test_what_drawn_codes_hide_is_followed_or_called_unknown(kind: torch.dtype, novelty: float | None) -> None:
    """A discrete autoencoder with a straight-through gradient; bytes cannot be followed through it."""
    encoder, decoder = nn.Linear(12, 4 * 8), nn.Linear(4 * 8, 12)

    def step(x: Tensor) -> Tensor:
        pixels = x.float() / 255
        codes = torch.distributions.OneHotCategoricalStraightThrough(logits=encoder(pixels).view(-1, 4, 8)).rsample()
        return F.mse_loss(decoder(codes.flatten(1)), pixels)

    result = audit(step, {"x": torch.randint(0, 256, (NUM, 12)).to(kind)}, encoder=encoder, steps=2)
    assert (result.verdict, driving(result).novelty) == ("generative", novelty)
