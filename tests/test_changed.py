"""Environments that look otherwise: what happens stays the same, what is seen changes as it was said."""

from __future__ import annotations

import pytest
import torch

from jepalab.envs.changed import Changed
from jepalab.envs.environment import Environment
from jepalab.envs.two_rooms import TwoRooms

ENV = TwoRooms()


def test_only_what_is_seen_changes() -> None:
    changed = Changed(ENV, noise=0.1, brightness=0.5, tint=0.2)
    assert isinstance(changed, Environment)
    state = changed.reset(5, torch.Generator().manual_seed(0))
    plain = ENV.reset(5, torch.Generator().manual_seed(0))
    action = torch.ones(5, 2)
    after, wanted = changed.step(state, action), ENV.step(plain, action)
    assert torch.equal(after.position, wanted.position)
    assert torch.equal(changed.distance(after, state), ENV.distance(wanted, plain))
    assert not torch.equal(changed.render(after), ENV.render(wanted))
    assert changed.factors(state).keys() == ENV.factors(plain).keys()
    assert changed.success(state, state, radius=1.0).all()
    start, goal = changed.random_pairs(4, torch.Generator().manual_seed(1), min_distance=5.0)
    assert not changed.success(start, goal, radius=5.0).any()
    assert (changed.bounds.max_norm, changed.picture_shape) == (ENV.bounds.max_norm, ENV.picture_shape)
    assert changed.proprioception(state).shape == (5, 0)


def test_noise_is_as_large_as_it_was_said_and_new_at_every_step() -> None:
    state = ENV.reset(40, torch.Generator().manual_seed(0))
    seen = Changed(ENV, noise=0.05, tint=0.5).render(state)
    off = (seen - ENV.render(state))[:, 0, :, :20]  # far from the dot's peak and from the cut at 1
    inside = off[(seen[:, 0, :, :20] > 0) & (seen[:, 0, :, :20] < 1)]
    assert float(inside.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(inside.std()) == pytest.approx(0.05, rel=0.05)
    later = ENV.step(state, torch.zeros(40, 2))
    again = Changed(ENV, noise=0.05, tint=0.5).render(later)
    assert not torch.equal(again, seen)
    alone = Changed(ENV, noise=0.05, tint=0.5).render(state[:1])
    assert torch.equal(alone[0], seen[0])


def test_brightness_and_tint_are_exact() -> None:
    state = ENV.reset(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(Changed(ENV, brightness=0.25).render(state), ENV.render(state) / 4)
    tinted = Changed(ENV, tint=0.1).render(state)
    torch.testing.assert_close(tinted[:, 0], (ENV.render(state)[:, 0] + 0.1).clamp(max=1))
    assert torch.equal(tinted[:, 1], ENV.render(state)[:, 1])


@pytest.mark.parametrize("settings", [{"noise": -0.1}, {"brightness": -1.0}])
def test_less_than_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Changed(ENV, **settings)
