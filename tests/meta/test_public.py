"""What a user can name: importable, documented, the same for people and type checkers, and quick to import."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import data2vec
from data2vec.cli.main import _COMMANDS

HOME = data2vec._HOME
LIGHT = sorted(
    name
    for _, name, is_package in pkgutil.walk_packages(data2vec.__path__, "data2vec.")
    if is_package
    or name.rpartition(".")[2] in ("config", "configuration", "errors")
    or name.startswith("data2vec.recipes")
)


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("name", HOME)
def test_public_name_is_importable_and_documented(name: str) -> None:
    if name.startswith("TF"):
        pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")
    value = getattr(data2vec, name)
    assert value.__module__ == HOME[name], "the table names the module that defines it"
    assert (value.__doc__ or "").strip()


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(data2vec.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == HOME
    assert {*HOME} <= {*dir(data2vec)} & {*data2vec.__all__}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Data2VecSmellModel"):
        data2vec.Data2VecSmellModel  # noqa: B018


def test_light_modules_load_no_torch() -> None:
    assert "data2vec.models.audio.config" in LIGHT
    code = f"import importlib, sys\nfor name in {LIGHT}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_import_is_quick() -> None:
    """A generous bound, for a busy machine; benchmarks/import_time.py measures (the target is 50 ms)."""
    imports = "import sys, time; t = time.perf_counter(); import data2vec;"
    code = f"{imports} print(time.perf_counter() - t, 'torch' in sys.modules)"
    seconds, torch_loaded = run_python(code).split()
    assert torch_loaded == "False"
    assert float(seconds) < 0.5


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in _COMMANDS)], ids=" ".join)
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from data2vec.cli.main import main
try:
    status = main({arguments})
except SystemExit as stop:
    status = stop.code
assert not status, status
assert 'torch' not in sys.modules
"""
    assert "usage" in run_python(code)


def test_commands_exist() -> None:
    for module, line in _COMMANDS.values():
        assert callable(importlib.import_module(module).main)
        assert line
