"""Environments that look otherwise: what happens stays the same, what is seen changes as it was said."""

from __future__ import annotations

import pytest
import torch

from jepalab.envs.changed import Changed
from jepalab.envs.environment import Environment
from jepalab.envs.television import Television
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
    changed = Changed(ENV, noise=0.05)
    seen = changed.render(state)
    # What is cut at 0 is half of a normal distribution, whose mean square is half of its variance.
    dark = seen[:, 0][ENV.render(state)[:, 0] < 1e-6]
    assert float(dark.square().mean()) == pytest.approx(0.05**2 / 2, rel=0.05)
    later = ENV.step(state, torch.zeros(40, 2))
    again = changed.render(later)
    assert not torch.equal(again, seen)
    alone = changed.render(state[:1])
    assert torch.equal(alone[0], seen[0])


def test_brightness_and_tint_are_exact() -> None:
    state = ENV.reset(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(Changed(ENV, brightness=0.25).render(state), ENV.render(state) / 4)
    plain, tinted = ENV.render(state), Changed(ENV, tint=0.25).render(state)
    torch.testing.assert_close(tinted[:, 0], 0.75 * plain[:, 0])  # nothing but the dot is in the first channel
    torch.testing.assert_close(tinted[:, 1], (plain[:, 1] + 0.25 * plain[:, 0]).clamp(max=1))


def test_what_is_tinted_is_the_dot_and_not_the_television() -> None:
    rooms = TwoRooms(television=Television.showing("noise", share=0.1))
    state = rooms.reset(20, torch.Generator().manual_seed(0))
    far = state.position.amax(1) < 40  # from the screen in the lower right corner
    off = (Changed(rooms, tint=1.0).render(state) - rooms.render(state))[far]
    assert float(off[:, :, 48:, 48:].abs().max()) < 1e-6
    assert float(off[:, 0].amin()) < -0.9
    assert far.any()


def test_a_tint_is_a_share() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Changed(ENV, tint=1.5)


@pytest.mark.parametrize("settings", [{"noise": -0.1}, {"brightness": -1.0}])
def test_less_than_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Changed(ENV, **settings)
