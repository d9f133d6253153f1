"""Small steps, each with a switch that puts in one defect seen in a public package. The line at fault is marked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit_cases import Case, move_towards

WIDTH, NUM_TOKENS, NUM_WORDS = 16, 6, 20


def network(num_in: int = 8, num_out: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_in, WIDTH), nn.GELU(), nn.Linear(WIDTH, num_out))


def attention(*, batch_first: bool = True) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, batch_first=batch_first, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def slow_copy(student: nn.Module) -> nn.Module:
    return copy.deepcopy(student).requires_grad_(False)


def make_case(
    step: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    *,
    after_step: Callable[[], None] | None = None,
    **modules: nn.Module,
) -> Case:
    """The first module is the encoder; what requires a gradient is trained."""
    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    return Case(step, inputs, modules, optimizer, next(iter(modules.values())), after_step)


def clips(**more: Tensor) -> dict[str, Tensor]:
    return {"x": torch.randn(5, NUM_TOKENS, 8), "x_next": torch.randn(5, NUM_TOKENS, 8), **more}


def next_word(*, causal: bool) -> Case:
    """A language model; without the causal mask each word is read off the input."""
    embed, body, head = nn.Embedding(NUM_WORDS, WIDTH), attention(), nn.Linear(WIDTH, NUM_WORDS)
    model = nn.ModuleDict({"embed": embed, "body": body, "head": head})
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None

    def step(text: Tensor) -> Tensor:
        found = head(body(embed(text), mask=mask))[:, :-1]
        return F.cross_entropy(found.flatten(0, 1), text[:, 1:].flatten())  # <-

    return make_case(step, {"text": torch.randint(NUM_WORDS, (5, 7))}, model=model)


def masked_pixels(*, context: tuple[int, ...]) -> Case:
    """Tokens 3 to 5 are predicted from the context, in pixels."""
    embed, body, head = nn.Linear(8, WIDTH), attention(), nn.Linear(WIDTH, 8)
    encoder = nn.ModuleDict({"embed": embed, "body": body})
    places = nn.Parameter(torch.randn(NUM_TOKENS, WIDTH))
    head.register_parameter("places", places)

    def step(x: Tensor) -> Tensor:
        hidden = torch.tensor([place not in context for place in range(NUM_TOKENS)])
        tokens = torch.where(hidden[:, None], torch.zeros(WIDTH), embed(x)) + places
        return F.mse_loss(head(body(tokens))[:, 3:], x[:, 3:])  # <-

    return make_case(step, {"x": torch.randn(5, NUM_TOKENS, 8)}, encoder=encoder, head=head)


def masked_embeddings(*, context: tuple[int, ...], teacher_attends: bool) -> Case:
    """Embeddings of tokens 3 to 5 are predicted from the context; the teacher sees the whole picture, as in I-JEPA."""
    student = nn.Sequential(nn.Linear(8, WIDTH), attention() if teacher_attends else nn.LayerNorm(WIDTH))
    teacher, predictor = slow_copy(student), attention()
    places = nn.Parameter(torch.randn(NUM_TOKENS, WIDTH))
    predictor.register_parameter("places", places)

    def step(x: Tensor) -> Tensor:
        with torch.no_grad():
            target = F.layer_norm(teacher(x), (WIDTH,))[:, 3:]
        seen = student(x[:, list(context)]) + places[list(context)]
        asked = places[3:].expand(len(x), -1, -1)
        found = predictor(torch.cat([seen, asked], dim=1))[:, len(context) :]
        return F.mse_loss(found, target)  # <-

    inputs = {"x": torch.randn(5, NUM_TOKENS, 8)}
    after = lambda: move_towards(teacher, student, 0.05)  # noqa: E731
    return make_case(step, inputs, after_step=after, student=student, teacher=teacher, predictor=predictor)


def sequence_encoder(*, batch_first: bool) -> Case:
    """torch's transformer takes [tokens, batch, width] unless it is told otherwise."""
    embed, body, predictor = nn.Linear(8, WIDTH), attention(batch_first=batch_first), nn.Linear(WIDTH, WIDTH)
    encoder = nn.Sequential(embed, body)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        z = encoder(x)  # <-
        with torch.no_grad():
            target = encoder(x_next)  # <-
        return F.mse_loss(predictor(z), target)  # <-

    return make_case(step, clips(), encoder=encoder, predictor=predictor)


def normalised_encoder(*, normalise: type[nn.Module]) -> Case:
    encoder = nn.Sequential(nn.Linear(8, WIDTH), normalise(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
    head = nn.Linear(WIDTH, 8)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return F.mse_loss(head(encoder(x)), x_next)  # <-

    inputs = {name: value[:, 0] for name, value in clips().items()}
    return make_case(step, inputs, encoder=encoder, head=head)


def contrast_of_views() -> Case:
    """Here samples meet in the loss, where they should."""
    encoder = network()

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        first, second = (F.normalize(encoder(view), dim=-1) for view in (view1, view2))
        return F.cross_entropy(first @ second.mT / 0.1, torch.arange(len(view1)))

    views = torch.randn(5, 8) + 0.1 * torch.randn(2, 5, 8)
    return make_case(step, {"view1": views[0], "view2": views[1]}, encoder=encoder)


def true_state(*, detached: bool) -> Case:
    """The simulator's state is regressed from the embedding: a judge if it is detached, a teacher if not."""
    encoder, predictor, reader = network(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
    teacher = slow_copy(encoder)

    def step(x: Tensor, x_next: Tensor, label: Tensor) -> Tensor:
        z = encoder(x)
        with torch.no_grad():
            target = teacher(x_next)
        read = reader(z.detach() if detached else z)
        return F.mse_loss(predictor(z), target) + F.mse_loss(read, label)  # <-

    inputs = clips(label=torch.randn(5, NUM_TOKENS, 2))
    after = lambda: move_towards(teacher, encoder, 0.05)  # noqa: E731
    modules = {"encoder": encoder, "teacher": teacher, "predictor": predictor, "reader": reader}
    return make_case(step, inputs, after_step=after, **modules)


def two_terms(*, detach_embedding: bool = False, detach_pixels: bool = False, weight: float = 1.0) -> Case:
    """The next embedding and the next pixels."""
    encoder, predictor, decoder = network(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8)
    teacher = slow_copy(encoder)

    def step(x: Tensor, x_next: Tensor) -> dict[str, Tensor]:
        z = encoder(x)
        with torch.no_grad():
            target = teacher(x_next)
        latent = F.mse_loss(predictor(z), target)
        seen = decoder(z.detach() if detach_embedding else z)
        pixel = F.mse_loss(seen.detach() if detach_pixels else seen, x_next)  # <-
        return {"loss": latent + weight * pixel, "latent": latent, "pixel": pixel}

    after = lambda: move_towards(teacher, encoder, 0.05)  # noqa: E731
    modules = {"encoder": encoder, "teacher": teacher, "predictor": predictor, "decoder": decoder}
    return make_case(step, clips(), after_step=after, **modules)


def two_embeddings(*, stop_gradient: bool = False, spread: bool = False) -> Case:
    """Two views of one sample, pulled together."""
    encoder, predictor = network(), network(WIDTH)

    def step(view1: Tensor, view2: Tensor) -> Tensor:
        first, second = encoder(view1), encoder(view2)
        if stop_gradient:
            return F.mse_loss(predictor(first), second.detach())
        loss = F.mse_loss(predictor(first), second)  # <-
        if spread:
            loss = loss + sum(F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean() for z in (first, second))
        return loss

    views = torch.randn(9, 8) + 0.1 * torch.randn(2, 9, 8)
    return make_case(step, {"view1": views[0], "view2": views[1]}, encoder=encoder, predictor=predictor)


def slow_teacher(*, rate: float | None, another: bool = False) -> Case:
    """A copy of the encoder that follows it at this rate (None: nobody wrote that line); or another network, frozen."""
    encoder, predictor = network(), nn.Linear(WIDTH, WIDTH)
    teacher = network().requires_grad_(False) if another else slow_copy(encoder)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        with torch.no_grad():
            target = teacher(x_next)
        return F.mse_loss(predictor(encoder(x)), target)

    after = None if rate is None else lambda: move_towards(teacher, encoder, rate)
    modules = {"encoder": encoder, "teacher": teacher, "predictor": predictor}
    return make_case(step, clips(), after_step=after, **modules)


def order_of_updates(*, teacher_first: bool) -> Case:
    """The slow copy must follow the weights that the optimizer has just made."""
    encoder, predictor = network(), nn.Linear(WIDTH, WIDTH)
    teacher = slow_copy(encoder)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *predictor.parameters()], lr=1e-3)

    def step(x: Tensor, x_next: Tensor) -> None:
        with torch.no_grad():
            target = teacher(x_next)
        optimizer.zero_grad()
        F.mse_loss(predictor(encoder(x)), target).backward()
        if teacher_first:
            with torch.no_grad():
                for slow, fast in zip(teacher.parameters(), encoder.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)  # <-
        optimizer.step()
        if not teacher_first:
            move_towards(teacher, encoder, 0.05)

    case = make_case(step, clips(), encoder=encoder, teacher=teacher, predictor=predictor)
    case.optimizer, case.owned = None, {"optimizer": optimizer.state_dict}
    return case


def forgotten_head(*, frozen: bool) -> Case:
    """A head left over from another objective."""
    encoder, decoder, head = network(), nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 3).requires_grad_(not frozen)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        return F.mse_loss(decoder(encoder(x)), x_next)

    return make_case(step, clips(), encoder=encoder, decoder=decoder, head=head)


def action_in_the_batch(*, read: bool) -> Case:
    """A world model that was meant to be steered."""
    encoder, decoder, steer = network(), nn.Linear(WIDTH, 8), nn.Linear(2, WIDTH)

    def step(batch: dict[str, Tensor]) -> Tensor:
        z = encoder(batch["x"])
        z = z + steer(batch["action"] if read else torch.zeros(5, NUM_TOKENS, 2))
        return F.mse_loss(decoder(z), batch["x_next"])

    inputs = clips(action=torch.randn(5, NUM_TOKENS, 2))
    return make_case(step, inputs, encoder=encoder, decoder=decoder, steer=steer)
