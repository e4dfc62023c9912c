"""``data2vec demo --fast``: from nothing to a report."""

from pathlib import Path

import pytest

from data2vec.cli.main import main
from data2vec.demo.recipes import METHODS, RECIPES, recipe

pytest.importorskip("sklearn")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("modality", RECIPES)
def test_recipes_are_of_their_method_and_end_by_the_clock(modality: str, method: str) -> None:
    config = recipe(modality, method, 0.5, seed=3)
    assert f"v{config.version}" == method
    assert (config.train.max_minutes, config.train.clock, config.train.updates) == (0.5, "cpu", None)
    assert config.train.seed == config.loader.seed == 3


def test_from_nothing_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--fast", "--only", "images", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert str(out / "report.html") in said
    assert "images  v1" in said and "images  v2" in said
    assert "<h2>Images</h2>" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "images-v2" / "model" / "config.json").is_file()
    assert main(["probe", str(out / "images-v1" / "model"), str(out / "files" / "images")]) == 0
    assert main(["demo", "--fast", "--only", "images", "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--minutes", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
