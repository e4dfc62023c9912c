"""``data2vec verify``: right, wrong and missing checkpoints, on a local stand-in for the hub."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))  # zoo

from data2vec.cli import verify
from data2vec.cli.main import main


def test_right_and_wrong_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import zoo

    monkeypatch.setattr(verify, "_IDS", (0, 4, 5, 6, 2))
    model = zoo.build("Data2VecTextForMaskedLM")
    model.save_pretrained(tmp_path)
    corner = model(torch.tensor([verify._IDS])).logits[0, :3, :3].tolist()
    right = replace(verify.CHECKS[0], checkpoint=str(tmp_path), expected=corner)
    monkeypatch.setattr(verify, "CHECKS", (right, replace(right, needs="image")))
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ok       {tmp_path}: scores of three tokens",
        f"skipped  {tmp_path}: scores of three tokens (give --image FILE)",
    ]
    corner[1][1] += 0.001
    monkeypatch.setattr(verify, "CHECKS", (replace(right, expected=corner),))
    assert main(["verify"]) == 1
    assert capsys.readouterr().out.startswith("WRONG")


def test_offline_and_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from data2vec import hub

    def refuse(*_: object, **__: object) -> None:
        raise hub.UserError("'facebook/data2vec-text-base' could not be downloaded: offline")

    monkeypatch.setattr(hub, "_download", refuse)
    assert main(["verify", "facebook/data2vec-text-base"]) == 2
    assert "could not be downloaded" in capsys.readouterr().err
    assert main(["verify", "someone/else"]) == 2
    assert "no number is known of 'someone/else'; known: facebook/" in capsys.readouterr().err


def test_agreement() -> None:
    assert verify.agrees([[1.0, 2.00009]], [[1.0, 2.0]])
    assert not verify.agrees([[1.0, 2.0002]], [[1.0, 2.0]])
    assert not verify.agrees([1.0], [1.0, 2.0])
    assert verify.agrees("a", "a")
    assert not verify.agrees([1, 197, 767], [1, 197, 768])
