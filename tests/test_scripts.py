"""Every script starts: what it imports exists, and its `--help` is printed."""

import ast
import importlib
import pkgutil
import runpy
from pathlib import Path

import pytest
from in_process import run_here

from asap.engine import kernels
from asap.engine.kernels import launch

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
COMMANDS = [p.stem for p in sorted(SCRIPTS.glob("*.py")) if "__main__" in p.read_text("utf-8")]
PARTS = [p.stem for p in sorted(SCRIPTS.glob("*.py")) if p.stem not in COMMANDS]
GUARDED = {"timm", "torchvision", "transformers"}  # import torchvision, which asap may have to mend


@pytest.fixture(autouse=True)
def _kernels_stay_interpreted(monkeypatch):
    """A script may turn Triton's interpreter off: for itself, and for no kernel of other tests."""
    for info in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{info.name}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_starts(name, capsys):
    if name == "compile_kernels" and not launch.INSTALLED:
        pytest.skip("Triton is not installed")
    script = str(SCRIPTS / f"{name}.py")
    ended = run_here(
        "--help", capsys=capsys, main=lambda: runpy.run_path(script, run_name="__main__")
    )
    assert ended.code == 0, ended.err
    assert ended.out


@pytest.mark.parametrize("name", PARTS)
def test_what_scripts_share_can_be_imported(name):
    importlib.import_module(name)


@pytest.mark.parametrize("name", COMMANDS + PARTS)
def test_asap_comes_before_what_imports_torchvision(name):
    """Here asap is imported already; a script that starts alone would fail without its guard."""
    seen: set[str] = set()
    for node in ast.parse((SCRIPTS / f"{name}.py").read_text("utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = {(module or alias.name).split(".")[0] for alias in node.names}
            assert "asap" in seen or not names & GUARDED, f"line {node.lineno}: import asap first"
            seen |= names
