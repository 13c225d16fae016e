"""The project's own promises: floors, pins, commands, and what the test run itself checks."""

import ast
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import checked
import jaxtyping
import pytest
import torch
from jaxtyping import Float
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from torch import Tensor

import asap

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Rooms of the house, the folders and loose files of the package, by floor, the lowest first. A file
# imports only from its own room and from floors below. `asap/__init__.py`, the public API, is the
# roof; `__main__.py` of a room is an entry as run.py is.
FLOORS = (
    ("errors",),
    ("core", "spec", "records"),
    ("backbones", "data", "methods", "report"),
    ("engine", "tasks"),
    ("measure", "shared_prefix"),
    ("calibrate", "publish"),
    ("experiment",),
    ("cli",),
    ("run", "show", "compare", "dashboards"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms}
SOURCES = sorted((ROOT / "asap").rglob("*.py"))
LONGEST, MOST_ARROWS, MOST_FLOORS, MOST_ROOMS = 300, 90, 9, 20


def room_of(module: str) -> str:
    """The folder or loose file of the package that a dotted name below asap is in."""
    return module.split(".")[0]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name below asap) of everything of the project that the file imports."""
    package = ["asap", *path.relative_to(ROOT / "asap").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            names = [
                f"{source}.{alias.name}" if source == "asap" else source for alias in node.names
            ]
        for name in dict.fromkeys(names):
            if name.split(".")[0] == "asap" and name not in ("asap", "asap._compat"):
                yield node.lineno, name.removeprefix("asap.")


def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports from) -> where it does."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in SOURCES:
        room = room_of(".".join(path.relative_to(ROOT / "asap").with_suffix("").parts))
        if room in ("__init__", "_compat") or path.name == "__main__.py":
            continue
        for line, target in imports(path):
            if room_of(target) != room:
                where = f"{path.relative_to(ROOT)}:{line}"
                found.setdefault((room, room_of(target)), []).append(where)
    return found


def test_imports_go_down_the_floors_only():
    """So there is no circle of rooms either."""
    rooms = {room_of(path.relative_to(ROOT / "asap").with_suffix("").parts[0]) for path in SOURCES}
    assert rooms - {"__init__", "_compat"} <= FLOOR.keys(), "a new room: add it to FLOORS"
    up = {pair: at for pair, at in arrows().items() if FLOOR[pair[1]] >= FLOOR[pair[0]]}
    assert not up, f"these import from their own floor or from above: {up}"


def test_the_house_is_small_enough_to_live_in():
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    long = {p.relative_to(ROOT).as_posix(): n for p, n in lengths.items() if n > LONGEST}
    assert not long, f"longer than {LONGEST} lines: {long}"
    assert len(FLOORS) <= MOST_FLOORS and len(FLOOR) <= MOST_ROOMS
    counted = [pair for pair in arrows() if pair[1] != "errors"]
    assert len(counted) <= MOST_ARROWS, f"{len(counted)} arrows between rooms: {sorted(counted)}"


def test_the_documented_floors_are_the_enforced_ones():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = re.findall(r"^(\d+)  ((?:[a-z_]+(?:\.py|/) *)+)", text, re.MULTILINE)
    documented = {
        int(floor): set(re.findall(r"([a-z_]+)(?:\.py|/)", rooms)) for floor, rooms in table
    }
    assert documented == {floor: set(rooms) for floor, rooms in enumerate(FLOORS, 1)}


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "README.md"])
def test_what_a_document_names_exists(document):
    """`<name>` in a path stands for any name."""
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(r"`((?:asap|configs|docs|examples|scripts|tests)/[^`\s]*)`", text)
    assert named
    missing = [path for path in named if not any(ROOT.glob(re.sub("<[a-z]+>", "*", path)))]
    assert not missing, f"{document} names what is not there: {missing}"


def test_a_file_that_the_architecture_page_names_exists():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_/]+\.py)`", text))
    folders = ("asap", "scripts", "tests")
    files = [f"/{path.as_posix()}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    missing = [name for name in named if not any(file.endswith(f"/{name}") for file in files)]
    assert named and not missing, f"the page names what is not there: {missing}"


def test_every_room_is_in_the_readme():
    readme = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"`asap/([a-z_]+)/`", readme))
    assert named == {room for room in FLOOR if (ROOT / "asap" / room).is_dir()}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(r) for r in sum(extras, start=[*PROJECT["dependencies"]])]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines), "a package is pinned twice"
    assert all(name == canonicalize_name(name) for name in found)
    return {name: Version(version) for name, version in found.items()}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_the_pin_of_a_requirement_is_in_its_range(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_pins_fit_cpu_and_cuda_builds():
    assert [name for name, version in pins().items() if version.local] == []


def test_what_users_ask_for_is_an_ordinary_dependency():
    names = {Requirement(r).name for r in PROJECT["dependencies"]}
    wanted = "torch torchvision timm hydra-core omegaconf decord av fvcore pandas pyarrow wandb"
    assert set(wanted.split()) <= names


def test_ci_runs_the_command_of_the_readme():
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    command = [line for line in lines if line and not line.startswith("#")][-1]
    readme = (ROOT / "README.md").read_text("utf-8")
    documented = re.findall(r"`(make test[^`]*)`|^(?:\$ )?(make test[^#\n]*)", readme, re.MULTILINE)
    assert command == "make test"
    assert {(inline or block).strip() for inline, block in documented} == {command}


def test_every_documented_make_target_exists():
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    readme = (ROOT / "README.md").read_text("utf-8")
    named = re.findall(r"(?:`|^(?:\$ )?)make ([a-z0-9-]+)", readme, re.MULTILINE)
    assert set(named) <= set(targets)


def test_every_method_is_explained():
    """Each config is in the table of docs/methods.md, which leads to sections that exist."""
    text = (ROOT / "docs" / "methods.md").read_text("utf-8")
    listed = set(re.findall(r"^\| \[`([a-z_]+)`\]\(#", text, re.MULTILINE))
    assert listed == {path.stem for path in (ROOT / "configs" / "method").glob("*.yaml")}
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in headings}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", text)) <= slugs


def test_shapes_are_checked_while_the_tests_run():
    assert any(type(finder).__module__.startswith("jaxtyping") for finder in sys.meta_path)
    assert jaxtyping.jaxtyped is checked.jaxtyped
    with pytest.raises(jaxtyping.TypeCheckError):
        asap.methods.ToMe(r={})  # the fields of a dataclass as well
    three, four = torch.zeros(3), torch.zeros(4)
    assert _pair(three, three) is three
    for wrong in ((three, four), (three.long(), three), (three, three, four), (four, three)):
        with pytest.raises(jaxtyping.TypeCheckError):
            _pair(*wrong)


@checked.jaxtyped(typechecker=None)
def _pair(
    one: Float[Tensor, "n"], other: Float[Tensor, "n"], answer: Tensor | None = None
) -> Float[Tensor, "n"]:
    return one if answer is None else answer


def test_warnings_of_the_project_are_errors_and_of_others_are_not():
    def warn(module):
        warnings.warn_explicit("a warning", UserWarning, "file.py", 1, module=module)

    with pytest.raises(UserWarning):
        warn("asap.core.diffusion")
    with pytest.raises(UserWarning):  # raised by asap with stacklevel=2, in the name of its caller
        warn(__name__)
    with pytest.warns(UserWarning):
        warn("someone.else")


# A stand-in torchvision: how it begins, and what the guard makes of it.
TORCHVISIONS = {
    "works": (
        "lib = torch.library.Library('torchvision', 'DEF'); lib.define('nms(Tensor t) -> Tensor')",
        "0 declared, imported 1 times",
    ),
    "lacks its operators": ("", "1 declared, imported 2 times"),
    "is broken otherwise": ("raise RuntimeError('another reason')", "RuntimeError: another reason"),
}
TORCHVISION = """
import builtins
import torch

builtins.imported = getattr(builtins, "imported", 0) + 1
{beginning}
torch.library.register_fake("torchvision::nms")(lambda *args: args[0])
"""
GUARDED = """
import builtins
import runpy
import sys

sys.path.insert(0, sys.argv[1])
found = runpy.run_path(sys.argv[2])
sys.stdout.write(f"{len(found['_definitions'])} declared, imported {builtins.imported} times")
"""


@pytest.mark.process
@pytest.mark.parametrize("state", TORCHVISIONS)
def test_the_guard_repairs_torchvision_only_if_operators_are_missing(state, tmp_path):
    beginning, expected = TORCHVISIONS[state]
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(TORCHVISION.format(beginning=beginning))
    command = [sys.executable, "-c", GUARDED, tmp_path, ROOT / "asap" / "_compat.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.stdout or done.stderr.strip().splitlines()[-1]) == expected


@pytest.mark.process
def test_nothing_that_a_run_leaves_is_committed():
    """Without its records, the page of a fresh clone would show its rows as gone."""
    command = ["git", "ls-files", "results/tables", "results/runs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "", done.stderr
