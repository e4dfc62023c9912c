"""Habits of the house that no linter holds: sizes of files and functions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_outgrows_its_reader(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 550


def test_functions_fit_on_a_screen() -> None:
    """The 95th percentile stays under 60 lines, docstring included."""
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    )
    assert lengths[int(len(lengths) * 0.95)] < 60
