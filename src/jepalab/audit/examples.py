"""Four classic ways to learn without labels, each a complete training step, to be read and to be audited.

They differ in one thing that matters here: what the loss compares. Networks and data are toys, made in a moment on one
CPU core; the way from the data to the loss is that of the published methods, and what was left out is said.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.examine import audit
from jepalab.audit.report import Audit

WIDTH, NUM_HEADS, PATCH = 32, 4, 4
NUM_SAMPLES = 16
TEXT = (
    "a child drops a cup and looks at the floor before it breaks. nobody told her where to look; she had seen things "
    "fall. to learn like that is to guess what comes next and to be wrong in a useful way. but what should be guessed? "
    "every splinter of the cup, or only that it will break? the splinters are different every time, and no one can "
    "know them. that the cup breaks is the same each time, and it is what she will need tomorrow."
)


@dataclass(frozen=True)
class Example:
    """A training step with all that belongs to it, and what to say about it.

    hidden, loss  what has to be guessed, and what the guess is held against, in words.
    rewards       what this loss rewards.
    """

    name: str
    step: Callable[[Tensor], Tensor]
    inputs: dict[str, Tensor]
    encoder: nn.Module
    optimizer: torch.optim.Optimizer
    hidden: str
    loss: str
    rewards: str
    after_step: Callable[[], None] | None = None


def examples() -> tuple[Example, ...]:
    """The four, with the same weights and data every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return next_token(), masked_picture(), diffusion(), masked_clip()


def audit_examples(*, steps: int = 10, confirm: bool = True) -> list[Audit]:
    """What each of the four compares; takes a few seconds."""
    found = []
    for each in examples():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)  # the masks and the noise of the steps
            found.append(
                audit(
                    each.step,
                    each.inputs,
                    encoder=each.encoder,
                    optimizer=each.optimizer,
                    after_step=each.after_step,
                    steps=steps,
                    confirm=confirm,
                    title=each.name,
                )
            )
    return found


# The four steps ------------------------------------------------------------------------------------------------------


def next_token() -> Example:
    """The next letter of a text from the letters before it, as GPT learns (there, words from the whole web)."""
    alphabet = sorted(set(TEXT))
    letters = torch.tensor([alphabet.index(letter) for letter in TEXT])
    x = letters[: NUM_SAMPLES * 25].reshape(NUM_SAMPLES, 25)
    encoder = Encoder(nn.Embedding(len(alphabet), WIDTH), num_tokens=24)
    head = nn.Linear(WIDTH, len(alphabet))

    def step(x: Tensor) -> Tensor:
        z = encoder(x[:, :-1], causal=True)  # no letter sees a later one
        scores = head(z)
        return F.cross_entropy(scores.flatten(0, 1), x[:, 1:].flatten())

    return Example(
        name="next token",
        step=step,
        inputs={"x": x},
        encoder=encoder,
        optimizer=adamw(encoder, head),
        hidden="the next letter, given all letters before it",
        loss="cross-entropy between the predicted distribution and the letter that came",
        rewards="guessing every letter: the one that carries the meaning, and the one that might as well be another",
    )


def masked_picture() -> Example:
    """The embedding of a hidden block from the rest of the picture: I-JEPA, with one block instead of four."""
    grid = 6
    x = patches(discs(NUM_SAMPLES, num_frames=1, size=grid * PATCH))
    encoder = Encoder(nn.Linear(x.shape[-1], WIDTH), num_tokens=grid**2)
    predictor = Predictor(num_tokens=grid**2)
    teacher = deepcopy(encoder).requires_grad_(False)

    def step(x: Tensor) -> Tensor:
        shown, hidden = split(random_block(len(x), grid, size=4))
        z_pred = predictor(encoder(x, keep=shown), shown, hidden)
        with torch.no_grad():
            z_target = take(F.layer_norm(teacher(x), (WIDTH,)), hidden)  # the teacher sees the whole picture
        return F.smooth_l1_loss(z_pred, z_target)

    return Example(
        name="masked picture",
        step=step,
        inputs={"x": x},
        encoder=encoder,
        optimizer=adamw(encoder, predictor),
        after_step=lambda: follow(teacher, encoder),
        hidden="a block of the picture, given the patches around it",
        loss="smooth L1 between the predicted embeddings and those of a slowly following copy of the encoder",
        rewards="guessing what the embedding keeps of the block; the encoder itself has a say in what that is",
    )


def diffusion() -> Example:
    """The noise that was mixed into a picture: the noise-prediction form of denoising diffusion."""
    grid = 6
    x = patches(discs(NUM_SAMPLES, num_frames=1, size=grid * PATCH))
    encoder = Encoder(nn.Linear(x.shape[-1] + 1, WIDTH), num_tokens=grid**2)
    head = nn.Linear(WIDTH, x.shape[-1])

    def step(x: Tensor) -> Tensor:
        angle = torch.rand(len(x), 1, 1) * torch.pi / 2  # 0: the picture alone, pi/2: noise alone
        noise = torch.randn_like(x)
        noisy = angle.cos() * x + angle.sin() * noise
        z = encoder(torch.cat([noisy, angle.expand(*x.shape[:2], 1)], dim=-1))  # it is told how much noise there is
        return F.mse_loss(head(z), noise)

    return Example(
        name="diffusion",
        step=step,
        inputs={"x": x},
        encoder=encoder,
        optimizer=adamw(encoder, head),
        hidden="the noise, given the mixture of picture and noise",
        loss="mean squared error between the predicted noise and the noise that was drawn",
        rewards="telling picture from noise in every pixel, and so knowing how every pixel may look",
    )


def masked_clip() -> Example:
    """The embedding of tubes that are hidden in all frames of a clip: V-JEPA, with one block instead of several."""
    grid, num_frames = 4, 8
    x = patches(discs(NUM_SAMPLES, num_frames=num_frames, size=grid * PATCH), depth=2)
    num_tokens = grid**2 * num_frames // 2
    encoder = Encoder(nn.Linear(x.shape[-1], WIDTH), num_tokens=num_tokens)
    predictor = Predictor(num_tokens=num_tokens)
    teacher = deepcopy(encoder).requires_grad_(False)

    def step(x: Tensor) -> Tensor:
        place = random_block(len(x), grid, size=3)
        shown, hidden = split(place.repeat(1, num_frames // 2))  # the same place in every frame
        z_pred = predictor(encoder(x, keep=shown), shown, hidden)
        with torch.no_grad():
            z_target = take(F.layer_norm(teacher(x), (WIDTH,)), hidden)
        return F.l1_loss(z_pred, z_target)

    return Example(
        name="masked clip",
        step=step,
        inputs={"x": x},
        encoder=encoder,
        optimizer=adamw(encoder, predictor),
        after_step=lambda: follow(teacher, encoder),
        hidden="a block of every frame of the clip, given what is around it",
        loss="L1 between the predicted embeddings and those of a slowly following copy of the encoder",
        rewards="guessing what passes behind the block, as far as the embedding keeps it",
    )


# What they share -----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        q, k, v = (part.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Tokens [b, n, ...] to embeddings [b, n, d], or [b, k, d] where only the tokens `keep` [b, k] are to be seen."""

    def __init__(self, embed: nn.Module, *, num_tokens: int) -> None:
        super().__init__()
        self.embed, self.positions = embed, nn.Parameter(0.2 * torch.randn(num_tokens, WIDTH))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, keep: Tensor | None = None, causal: bool = False) -> Tensor:
        x = self.embed(x) + self.positions
        x = x if keep is None else take(x, keep)
        for block in self.blocks:
            x = block(x, causal)
        return self.norm(x)


class Predictor(nn.Module):
    """Embeddings of the shown tokens in, guesses of the hidden ones out; it knows places, not contents."""

    def __init__(self, *, num_tokens: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.2 * torch.randn(num_tokens, WIDTH))
        self.asked = nn.Parameter(torch.zeros(WIDTH))
        self.block, self.out = Block(), nn.Linear(WIDTH, WIDTH)

    def forward(self, z: Tensor, shown: Tensor, hidden: Tensor) -> Tensor:
        questions = self.asked + self.positions[hidden]
        x = self.block(torch.cat([z + self.positions[shown], questions], dim=1))
        return self.out(x[:, z.shape[1] :])


def adamw(*modules: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for module in modules for p in module.parameters()], lr=1e-3)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float = 0.99) -> None:
    """teacher = momentum x teacher + (1 - momentum) x student"""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Tokens of x [b, n, d] at index [b, k]."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def random_block(num_samples: int, grid: int, *, size: int) -> Tensor:
    """A square block somewhere in each grid: [b, grid * grid], true inside."""
    top, left = torch.randint(0, grid - size + 1, (2, num_samples, 1, 1))
    row, column = torch.arange(grid).unsqueeze(1), torch.arange(grid)
    inside = (top <= row) & (row < top + size) & (left <= column) & (column < left + size)
    return inside.flatten(1)


def split(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the shown and of the hidden tokens; every sample hides the same number of them."""
    order = hidden.int().argsort(dim=1, stable=True)
    num_shown = hidden.shape[1] - int(hidden[0].sum())
    return order[:, :num_shown], order[:, num_shown:]


def discs(num_samples: int, *, num_frames: int, size: int) -> Tensor:
    """Clips [b, t, size, size] of a soft disc that flies over a shaded ground; with one frame, pictures."""
    start, speed = torch.rand(num_samples, 1, 2) * size, torch.randn(num_samples, 1, 2)
    place = (start + speed * torch.arange(num_frames).reshape(1, -1, 1)) % size
    pixel = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), dim=-1).float()
    distance = (pixel - place[:, :, None, None]).norm(dim=-1)
    slope = torch.randn(num_samples, 1, 1, 1, 2)
    return 2 * torch.sigmoid(3 - distance) + (slope * pixel / size).sum(-1)


def patches(clips: Tensor, *, depth: int = 1) -> Tensor:
    """[b, t, h, w] cut into tokens of `depth` frames x PATCH x PATCH pixels: [b, n, depth * PATCH * PATCH]."""
    parts = clips.unfold(1, depth, depth).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return parts.flatten(4).flatten(1, 3)
