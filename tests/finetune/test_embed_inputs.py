"""`embed`: inputs that cannot be read are named, or left out when asked, and never written as NaN."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file

from data2vec.cli.main import main
from data2vec.data.labelled.example import Example
from data2vec.errors import BadSample
from data2vec.evaluation.frozen import features_of, open_frozen
from data2vec.processing.pixels import load_image
from data2vec.tasks.embed import embed

TOO_SHORT = "short.wav: is too short: 300 samples, the model needs 400"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips of their own lengths, and one that is shorter than a frame."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, samples in (("a", 6400), ("b", 4800), ("c", 8000), ("short", 300)):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(samples), 16_000)
    return folder


def test_a_short_clip_is_named_or_left_out(
    clips: Path, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.st"
    for files in ([clips], [clips / "a.wav", clips / "short.wav"], [clips / "short.wav"]):
        command = ["embed", str(encoders["audio"]), *map(str, files), "--out", str(out), "--device", "cpu"]
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and said[0].endswith(str(clips / TOO_SHORT))
        assert not out.exists()

    assert main([*command, "--skip-bad"]) == 2  # nothing is left
    assert TOO_SHORT in capsys.readouterr().err
    (clips / "d.wav").write_bytes(b"RIFF")
    command = ["embed", str(encoders["audio"]), str(clips), "--out", str(out), "--batch-size", "2"]
    assert main([*command, "--device", "cpu", "--skip-bad"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"3 inputs: {out}\n"
    left = shown.err.splitlines()
    assert left[1] == f"left out: {clips / TOO_SHORT}"
    assert len(left) == 2 and left[0].startswith(f"left out: {clips / 'd.wav'}: ")
    found = load_file(out)
    assert {Path(name).name for name in found} == {"a.wav", "b.wav", "c.wav"}
    assert all(value.isfinite().all() for value in found.values())
    frozen = open_frozen(encoders["audio"])
    pair = embed(frozen, [clips / "a.wav", clips / "b.wav"])
    torch.testing.assert_close(found[str(clips / "b.wav")], pair[1])


def test_blank_inputs(
    clips: Path,
    encoders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A blank line is none; a blank argument is an empty text, and no folder to be searched."""
    monkeypatch.chdir(clips)
    out = tmp_path / "x.st"
    monkeypatch.setattr("sys.stdin", io.StringIO("a.wav\n\n  \nb.wav\n"))
    assert main(["embed", str(encoders["audio"]), "-", "--out", str(out), "--device", "cpu"]) == 0
    assert load_file(out).keys() == {"a.wav", "b.wav"}
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["embed", str(encoders["audio"]), "-", "--out", str(out), "--device", "cpu"]) == 2
    assert "give files or texts" in capsys.readouterr().err

    for model in ("audio", "text"):
        assert main(["embed", str(encoders[model]), " ", "--out", str(out), "--device", "cpu"]) == 2
        assert "' ': is empty" in capsys.readouterr().err
    command = ["embed", str(encoders["text"]), "the cat", "", "--out", str(out), "--device", "cpu"]
    assert main([*command, "--skip-bad"]) == 0
    assert "left out: '': is empty" in capsys.readouterr().err
    assert load_file(out).keys() == {"the cat"}


def test_a_batch_of_none(encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["embed", str(encoders["text"]), "the cat", "--out", str(tmp_path / "x.st"), "--batch-size", "0"]
    assert main(command) == 2
    assert "batch_size=0: must be at least 1" in capsys.readouterr().err


def test_an_example_that_a_probe_cannot_read_is_named(clips: Path, encoders: dict[str, Path]) -> None:
    """The row, where the file comes as bytes out of a table or a zip."""

    class Stored:
        def read(self) -> bytes:
            return (clips / "short.wav").read_bytes()

    frozen = open_frozen(encoders["audio"])
    with pytest.raises(BadSample, match=r"^table\.csv: line 3: is too short: 300 samples, the model needs 400$"):
        features_of(frozen, [Example("table.csv: line 3", Stored(), "x")])


def test_pictures_are_read_as_ever(encoders: dict[str, Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    frozen = open_frozen(encoders["vision"])
    (once,) = embed(frozen, [tmp_path / "0.png"])
    (again,) = embed(frozen, [(tmp_path / "0.png").read_bytes()])
    torch.testing.assert_close(once, again)
    assert frozen.read(tmp_path / "0.png").tobytes() == load_image(tmp_path / "0.png").tobytes()
