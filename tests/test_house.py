"""The rules of the house that no linter knows: sizes, names, lazy imports, versions, what must not be in the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import jepalab

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
DEPENDENCIES = [Requirement(line) for line in sum(EXTRAS.values(), PYPROJECT["project"]["dependencies"])]

# The lowest floor stands on little, and the audit on torch alone: it must work on anybody's training step.
ALLOWED = {
    "types.py": {"torch", "jaxtyping"},
    "dist.py": {"torch", "jaxtyping"},
    "audit/*.py": {"torch"},
    "audit/steps/*.py": {"torch"},
}
GROUND_FLOOR = [
    pytest.param(path, allowed, id=path.stem)
    for pattern, allowed in ALLOWED.items()
    for path in sorted((ROOT / "src/jepalab").glob(pattern))
]

# The first two alternatives are folders of one machine, the others package hosts; no line of this file matches them.
MACHINE = re.compile(
    r"(?:^|[^\w.])/(?:work|farm|tmp|root|opt|home|Users)/"
    r"|\b[A-Z]:\\Users\\"
    r"|--?(?:extra-)?index-url|--?find-links|^(?:index|registry)(?:-url)? *="
    r"|pypi\.org/simple|files\.pythonhosted\.org|download\.pytorch\.org",
    re.MULTILINE,
)


def path_in_repository(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def repository_files() -> list[Path]:
    """What git tracks, or would on the next `git add`."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=path_in_repository)
def test_module_is_short_and_introduces_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300, "a file past 300 lines is usually two files"
    assert ast.get_docstring(ast.parse(text)), "the first line of a module says what it is"


@pytest.mark.parametrize("path", SOURCES, ids=path_in_repository)
def test_module_has_a_name_that_says_something(path: Path) -> None:
    named = path.parent if path.stem == "__init__" else path
    assert named.stem.strip("_") not in {"util", "utils", "helper", "helpers", "common", "misc", "base"}


@pytest.mark.parametrize(("path", "allowed"), GROUND_FLOOR)
def test_ground_floor_rests_on_torch(path: Path, allowed: set[str]) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    imported += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    packages = {name.split(".")[0] for name in imported}
    assert packages - sys.stdlib_module_names - {"jepalab"} <= allowed


def test_no_traces_of_one_machine(repository_files: list[Path]) -> None:
    traces = []
    for path in repository_files:
        content = path.read_bytes()
        if b"\0" not in content:
            found = MACHINE.finditer(content.decode())
            traces += [f"{path_in_repository(path)}: {match.group()!r}" for match in found]
    assert not traces


@pytest.mark.parametrize("trace", ["cd /" + "tmp/x", "pip --extra-ind" + "ex-url u", "https://pypi" + ".org/simple"])
def test_traces_are_recognised(trace: str) -> None:
    assert MACHINE.search(trace)


def modules_loaded_by(*arguments: str) -> set[str]:
    process = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_loaded_by("-c", "import jepalab")
    assert "jepalab" in loaded
    assert not loaded & {"torch", "numpy"}


def test_help_needs_neither_torch_nor_tyro() -> None:
    loaded = modules_loaded_by("-m", "jepalab", "--help")
    assert "jepalab.cli" in loaded
    assert not loaded & {"torch", "numpy", "tyro"}


def test_one_version_everywhere() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation
    assert jepalab.__version__ == PYPROJECT["project"]["version"] == citation[1]


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=str)
def test_dependency_has_a_lower_bound_and_no_pin(dependency: Requirement) -> None:
    assert {specifier.operator for specifier in dependency.specifier} & {">=", "~="}
    assert "==" not in str(dependency.specifier)
    assert dependency.url is None


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert not {need.name for need in DEPENDENCIES} - pins.keys()
    assert not [str(need) for need in DEPENDENCIES if not need.specifier.contains(pins[need.name])]
