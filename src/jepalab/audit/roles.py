"""What the step is fed: which tensor of a batch plays which role, and how the step wants to be called."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

NAMES = {
    "x": "x image images img imgs pixel_values input_ids tokens ids input_values input_features video videos frames "
    "clip clips obs observation observations data inputs input sequence seq series signal audio",
    "x_next": "x_next next next_x next_obs next_observation next_observations x_future future target_frame",
    "label": "label labels y class classes cls state states position positions factors targets target",
    "action": "action actions act a",
    "reward": "reward rewards r discount is_terminal terminal cont returns value values",
    "text": "text texts caption captions text_ids",
    "": "mask attention_mask bool_masked_pos padding_mask key_padding_mask ids_keep ids_mask done "
    "terminated truncated is_first is_last "
    "mask_time_indices sampled_negative_indices token_type_ids position_ids",
}
ROLE = {word: role for role, words in NAMES.items() for word in words.split()}
VIEW = re.compile(r"(?:view|views?\.|v|crop|aug)_?(\d+|[ab])$")
IGNORED = -100  # the label that cross-entropy passes over
MASK = re.compile(r"(?:^|[_.])masks?(?:[_.]|$)")
COUNTERS = ("batch_idx", "batch_index", "batch_nb", "global_step", "epoch", "iteration")  # arguments that count: 0
LABELS = frozenset(("label",))  # roles whose content only a person or an instrument can have given


def kind_of(root: str) -> str:
    """The role a root plays: "x:pixel_values" is an "x"."""
    return root.partition(":")[0]


def is_view(root: str) -> bool:
    return kind_of(root).startswith("view")


class Inputs:
    """The tensors of a batch by role, and the batch as the step wants it."""

    def __init__(self, given: Any, roles: Mapping[str, str] | None = None) -> None:
        self.given = given
        self.tensors: dict[str, Tensor] = {}
        for path, tensor in walk(given):
            role = self._role(path, tensor, roles or {})
            if role and not any(tensor is known for known in self.tensors.values()):
                _give_every_element_its_own_place(tensor)
                self.tensors[role] = tensor
        if not self.tensors:
            raise ValueError(
                "The audit needs the step's inputs: a mapping of role to tensor such as {'x': images}, or a batch that "
                f"holds tensors. It was given {type(given).__name__} without any."
            )
        words = self.tensors.get("x")
        if words is not None:
            hidden = [role for role, t in self.tensors.items() if role != "x" and hidden_under_masks(words, t)]
            self.tensors = {f"x:{r}" if r in hidden else r: tensor for r, tensor in self.tensors.items()}
        self.copies: dict[str, tuple[str, int | None]] = {}
        for role, tensor in self.tensors.items():
            for other, first in self.tensors.items():
                if other == role:
                    break
                if other not in self.copies and (axis := copied_along(first, tensor)) is not False:
                    self.copies[role] = other, axis  # labels that are the input once more: next-token prediction
                    break
        whose = {role: self.copies.get(role, (role, None))[0] for role in self.tensors}
        self.by_id = {id(tensor): whose[role] for role, tensor in self.tensors.items()}

    @property
    def batch_axis(self) -> int:
        """0, or 1 where time comes first: tokens followed by their next ones, or one more state than actions."""
        shapes = [tensor.shape for tensor in self.tensors.values() if tensor.ndim > 1]
        time_first = len({shape[0] for shape in shapes}) > 1 and len({shape[1] for shape in shapes}) == 1
        return int(time_first or any(axis == 0 for _, axis in self.copies.values()))

    @property
    def batch_size(self) -> int | None:
        axis = self.batch_axis
        return next((tensor.shape[axis] for tensor in self.tensors.values() if tensor.ndim > axis), None)

    def follow(self) -> None:
        """Makes copies of an input's tokens agree with it again, after it was changed."""
        for role, (source, axis) in self.copies.items():
            copy, tokens = self.tensors[role], self.tensors[source]
            view = copy.detach().view(tokens.shape)
            if axis is None:
                view.copy_(torch.where(view == IGNORED, view, tokens.to(view)))
            else:
                size = tokens.shape[axis] - 1
                view.narrow(axis, 0, size).copy_(tokens.narrow(axis, 1, size))

    def _role(self, path: str, tensor: Tensor, roles: Mapping[str, str]) -> str:
        if not path:
            return "x"
        word = path.rpartition(".")[2].lower()
        if path in roles or word in roles:
            role = roles.get(path, roles.get(word, ""))
        elif match := VIEW.search(path.lower()):
            number = match[1]
            start = path.lower()[: match.start(1)].endswith(".")
            role = f"view{int(number) + start if number.isdigit() else 'ab'.index(number) + 1}"
        elif word.isdigit():
            first = path.partition(".")[0].lower()
            plain = ROLE.get(first)
            listed = path if plain is None else plain  # in a list under a name, not in a tuple
            role = self._by_position(int(word), tensor) if first == path else listed
        else:
            role = next((ROLE[part] for part in (word, path.partition(".")[0].lower()) if part in ROLE), word)
            if role == "label" and word in ("y", "target", "targets") and self._is_like_another(tensor):
                role = word  # a picture beside a picture: a second view, a clean copy
        if MASK.search(path.lower()):
            role = ""
        if role in self.tensors:
            role = f"{role}:{path}"
        return role

    def _is_like_another(self, tensor: Tensor) -> bool:
        alike = any(tensor.shape == known.shape for known in self.tensors.values())
        return tensor.ndim > 2 and tensor.is_floating_point() and alike

    def _by_position(self, index: int, tensor: Tensor) -> str:
        if index == 0:
            return "x"
        return "label" if tensor.ndim == 1 and not tensor.is_floating_point() else f"x:{index}"


def _give_every_element_its_own_place(tensor: Tensor) -> None:
    """Unshares an expanded tensor, one of whose elements could not be changed alone; its values stay."""
    if any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        tensor.data = tensor.detach().clone(memory_format=torch.contiguous_format)


def walk(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a nested batch with the dotted path to it."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if depth > 6:
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        yield from walk(item, f"{path}.{key}" if path else str(key), depth + 1)


def hidden_under_masks(a: Tensor, b: Tensor) -> bool:
    """Whether b holds the tokens that stood where a now shows a mask: most places it asks about look the same in a."""
    if a.is_floating_point() or b.is_floating_point() or a.ndim < 2 or a.shape != b.shape:
        return False
    shown = a[b != IGNORED]
    if not len(shown) or len(shown) == a.numel():
        return False
    counts = shown.unique(return_counts=True)[1]
    return bool(counts.max() > 0.6 * len(shown)) and len(b[b != IGNORED].unique()) > 2


def copied_along(a: Tensor, b: Tensor) -> int | bool | None:
    """How b repeats the indices in a: None for the same, the axis along which b is one place ahead, False for not."""
    whole = not a.is_floating_point() and not b.is_floating_point() and a.dtype != torch.bool
    if not whole or a.ndim < 2 or a.numel() != b.numel() or not b.is_contiguous():
        return False
    view = b.view(a.shape)
    if bool(((a == view) | (view == IGNORED)).all() and (view != IGNORED).any()):
        return None
    for axis in (1, 0):
        size = a.shape[axis] - 1
        if size > 1 and torch.equal(a.narrow(axis, 1, size), view.narrow(axis, 0, size).to(a)):
            return axis
    return False


def calling(step: Callable[..., Any], given: Any) -> Callable[[], Any]:
    """The step with its inputs bound: none where it takes none, by name where the names fit, else the whole batch."""
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except (TypeError, ValueError):
        return lambda: step(given)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)]
    counters = [p.name for p in named if p.name in COUNTERS and p.default is p.empty]
    if counters and not (isinstance(given, Mapping) and set(counters) & set(given)):
        return calling(partial(step, **dict.fromkeys(counters, 0)), given)
    needed = [p for p in named if p.default is p.empty]
    if not named and not takes_any and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return lambda: step()
    if isinstance(given, Mapping):
        fitting = {p.name for p in named if p.name in given and p.kind is not p.POSITIONAL_ONLY}
        if takes_any:
            return lambda: step(**given)
        if fitting and {p.name for p in needed} <= fitting:
            return lambda: step(**{name: given[name] for name in fitting})
    if not needed and not isinstance(given, Mapping):
        return lambda: step(given)
    if len(needed) <= 1:
        return (lambda: step(given)) if needed or not isinstance(given, Mapping) else (lambda: step())
    if isinstance(given, (list, tuple)) and len(given) == len(needed):
        return lambda: step(*given)
    wanted, got = ", ".join(p.name for p in needed), list(given) if isinstance(given, Mapping) else type(given).__name__
    raise ValueError(
        f"The step wants the arguments {wanted}; the inputs are {got}. Name the inputs like the step's arguments, "
        "or let "
        "the step take the whole batch as its only argument."
    )


def loss_in(result: Any) -> Tensor | None:
    """The scalar to minimise in what a step returned: itself, `loss`, `total`, or the first scalar with a gradient."""
    if isinstance(result, Tensor):
        return result if result.numel() == 1 else None
    found = dict(walk(result))
    for name in ("loss", "total", "total_loss", "objective"):
        if name in found and found[name].numel() == 1:
            return found[name]
    scalars = {path: tensor for path, tensor in found.items() if tensor.numel() == 1 and tensor.requires_grad}
    if isinstance(result, Mapping) and scalars:
        return torch.stack([tensor.reshape(()) for tensor in scalars.values()]).sum()
    return next(iter(scalars.values()), None)
