"""The README's commands are those that exist."""

import ast
import importlib
import re
from pathlib import Path

import data2vec
from data2vec.cli.main import _COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SHELL = "\n".join(code for language, code in BLOCKS if language in ("sh", "bash", ""))


def test_make_targets_of_the_readme_exist() -> None:
    wanted = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test"} <= wanted
    assert wanted <= set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def test_commands_of_the_readme_exist() -> None:
    wanted = set(re.findall(r"^(?:data2vec|.*-m data2vec) ([a-z]+)", SHELL, flags=re.MULTILINE))
    assert wanted
    assert wanted <= set(_COMMANDS)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_python_of_the_readme_names_what_exists() -> None:
    examples = [code for language, code in BLOCKS if language == "python"]
    assert examples
    for code in examples:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("data2vec"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_the_version_is_in_the_changelog_or_unreleased() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{data2vec.__version__}]" in changelog or (
        "dev" in data2vec.__version__ and "## [Unreleased]" in changelog
    )
