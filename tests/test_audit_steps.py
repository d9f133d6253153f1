"""The steps of the label table as a user meets them: found, built, read, and put under the audit."""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
from pathlib import Path

import pytest
import torch

from jepalab.audit import Audit, steps
from jepalab.audit.steps import Case, audit_case, find_cases

CASES = find_cases()
BY_NAME = {case.name: case for case in CASES}
FAMILY = '''"""One more family."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.batches import pictures
from jepalab.audit.steps.case import Row, row
from jepalab.audit.steps.pixel_shown_examples import autoencoder

NOT_ITS_OWN = autoencoder


@row(number=4, name="one more autoencoder", verdict="generative", terms=None)
def one_more(generator: torch.Generator) -> Row:
    """A picture from its own embedding, held against the same pixels: one more autoencoder."""
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 3, padding=1))

    def step(x: Tensor) -> Tensor:
        return F.mse_loss(net(x), x)

    return Row(step, {"x": pictures(generator)}, {"net": net}, net, torch.optim.SGD(net.parameters(), lr=0.1))
'''

every_case = pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.number} {case.name}") for case in CASES])


def test_cases_are_many_have_names_of_their_own_and_stand_in_order() -> None:
    assert len(CASES) >= 25
    assert len(BY_NAME) == len(CASES)
    assert [case.number for case in CASES] == sorted(case.number for case in CASES)
    assert find_cases() == CASES
    for one, next_one in itertools.pairwise(CASES):
        if one.number == next_one.number and one.make.__module__ == next_one.make.__module__:
            assert inspect.getsourcelines(one.make)[1] < inspect.getsourcelines(next_one.make)[1]


@every_case
def test_source_is_the_function_alone(case: Case) -> None:
    source = case.source()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    assert source.startswith(f"def {case.make.__name__}(generator: torch.Generator) -> Row:\n")
    assert not definition.decorator_list
    assert isinstance(definition.body[-1], ast.Return)
    assert not any(word in source for word in ("noqa", "pyrefly", "type: ignore"))


@every_case
def test_summary_is_a_line_of_its_own(case: Case) -> None:
    summary = case.summary()
    assert summary.endswith(".")
    assert "\n" not in summary
    assert summary in case.source()


def test_every_case_says_something_else() -> None:
    assert len({case.summary() for case in CASES}) == len(CASES)


@every_case
def test_building_leaves_the_random_numbers_alone(case: Case) -> None:
    before = torch.get_rng_state()
    first = case.build()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    second = case.build()
    for name, module in first.parameters.items():
        others = second.parameters[name].state_dict()
        assert all(torch.equal(tensor, others[key]) for key, tensor in module.state_dict().items())
    assert all(torch.equal(x, second.inputs[name]) for name, x in first.inputs.items())


def test_audit_is_the_same_each_time_and_leaves_the_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    first = audit_case(BY_NAME["mae"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert audit_case(BY_NAME["mae"]).to_json() == first.to_json()


def test_audit_has_the_title_the_steps_and_the_tests_that_were_asked_for() -> None:
    plain = audit_case(BY_NAME["autoencoder"])
    assert isinstance(plain, Audit)
    assert (plain.title, plain.verdict, plain.num_steps, plain.confirmations) == ("autoencoder", "generative", 3, ())
    asked = audit_case(BY_NAME["autoencoder"], steps=2, confirm=True)
    assert asked.num_steps == 2
    assert asked.confirmations


def test_unsupported_step_comes_out_as_such() -> None:
    assert audit_case(BY_NAME["reinforce"]).verdict == "unsupported"


@pytest.mark.parametrize("name", ["ijepa", "mudreamer", "diffusion, predicts noise"])
def test_comparison_stands_in_the_source_that_is_shown(name: str) -> None:
    for term in audit_case(BY_NAME[name]).terms:
        assert Path(term.place.file).name == f"{BY_NAME[name].make.__module__.rpartition('.')[2]}.py"
        line = (term.called_from or term.place).text
        assert line
        assert line in BY_NAME[name].source()


@pytest.fixture
def with_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A folder that counts as part of the package, with one file in it."""
    (tmp_path / f"{request.param}.py").write_text(FAMILY, encoding="utf-8")
    monkeypatch.setattr(steps, "__path__", [*steps.__path__, str(tmp_path)])
    name = f"{steps.__name__}.{request.param}"
    monkeypatch.setitem(sys.modules, name, None)  # so that it is removed again afterwards
    monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("with_a_new_file")
@pytest.mark.parametrize("with_a_new_file", ["one_more_examples"], indirect=True)
def test_a_new_file_is_found_by_itself() -> None:
    found = find_cases()
    (new,) = [case for case in found if case not in CASES]
    assert tuple(case for case in found if case is not new) == CASES
    assert [case.number for case in found] == sorted(case.number for case in found)
    assert new.summary().endswith("one more autoencoder.")
    assert audit_case(new).verdict == "generative"


@pytest.mark.usefixtures("with_a_new_file")
@pytest.mark.parametrize("with_a_new_file", ["one_more_family"], indirect=True)
def test_a_new_file_of_another_name_is_refused() -> None:
    """Its lines would count as the audit's own."""
    with pytest.raises(AssertionError, match=r"one_more_family\.py holds steps: call it"):
        find_cases()


def test_nothing_of_the_new_files_is_left() -> None:
    assert find_cases() == CASES
