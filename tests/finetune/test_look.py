"""Pictures: what is drawn is what is there, for every kind of task, on pages that load nothing from elsewhere."""

import io
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec.cli.main import main
from data2vec.data.labelled.example import Turn, divide
from data2vec.tasks.config import LabelledConfig
from data2vec.tasks.figures import heat, laid_over, matrix, over_time, palette, picture, plane, scatter, spectrogram
from data2vec.tasks.look import attention, features_plot, look
from data2vec.tasks.names import task_class
from data2vec.tasks.run import evaluate, usable

SHOWN = {  # task -> data, modality, pictures an example, what else the page has
    "asr": ("strings", "audio", 1, "<svg"),
    "audio-classification": ("clips", "audio", 1, "attention"),
    "audio-frames": ("turns", "audio", 1, "bob"),
    "text-classification": ("text.csv", "text", 1, "cat"),
    "token-classification": ("ner", "text", 1, "rome"),
    "question-answering": ("qa", "text", 1, "sat"),
    "multiple-choice": ("choices", "text", 1, "day"),
    "fill-mask": ("plain", "text", 1, "mask"),
    "image-classification": ("pictures", "vision", 3, "head 2"),
    "semantic-segmentation": ("seg", "vision", 3, "true (white"),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("task", SHOWN)
def test_every_task_is_seen(
    task: str, version: int, encoders: dict[str, Path], encoders2: dict[str, Path], labelled: Path
) -> None:
    if (task, version) == ("fill-mask", 2):
        pytest.skip("data2vec 2 has no masked language model")
    folder, modality, figures, words = SHOWN[task]
    cls, config = task_class(task), LabelledConfig()
    splits = divide(cls.read(labelled / folder, config))
    model = cls.begin((encoders, encoders2)[version - 1][modality], splits.train, config)
    items, _ = usable(model, splits.dev)
    found = evaluate(model, items, 100_000)
    parts = [part for part in look(model, items, found.predictions, 2) if "<figure" in part]
    assert len(parts) == min(2, len(found.examples))
    assert all(part.count("<figure") == figures for part in parts)
    assert words in "".join(parts)
    assert not re.search(r'(src|href)="(?!data:)', "".join(parts))
    plot = features_plot(model, items, 100_000)
    classes = task in ("audio-classification", "text-classification", "image-classification")
    assert plot.count("<circle") == (len(items) if classes else 0)
    weights = attention(model, items[0])
    assert weights.ndim == 3
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-4)


def test_pages_of_predict_and_embed(
    encoders: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "f.safetensors", tmp_path / "pages/f.html"
    source = str(labelled / "pictures")
    assert main(["embed", str(encoders["vision"]), source, "--out", str(out), "--page", str(page)]) == 0
    assert page.read_text().count("<circle") == 16
    assert "dark" in page.read_text()


def test_a_spectrogram_shows_a_tone_where_it_is() -> None:
    t = np.arange(16_000) / 16_000
    wave = np.where(t < 0.5, 0, np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
    image = np.asarray(spectrogram(wave, 16_000, bands=64))
    assert image[:, :40].min() == 255  # silence is white
    darkest = image[:, 60:95].mean(axis=1).argmin()
    mel = 2595 * np.log10(1 + np.array([1000, 8000]) / 700)
    assert abs((64 - darkest) - 64 * mel[0] / mel[1]) < 2


def test_spans_lie_where_the_words_are() -> None:
    svg = over_time(Image.new("L", (100, 10)), 2.0, [("answered", [Turn(0.5, 1.0, "<one>")])])
    x, width = map(float, re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg).groups())  # type: ignore[union-attr]
    assert (x, width) == (70 + 440 * 0.25, 440 * 0.25)
    assert "&lt;one&gt;" in svg and "<one>" not in svg


def test_colours() -> None:
    assert heat(np.array([0.0, 1.0])).tolist() == [[20, 11, 53], [252, 255, 164]]
    assert len({tuple(colour) for colour in palette(64).tolist()}) == 64
    labels = np.zeros((4, 6), np.uint8)
    over = np.asarray(laid_over(Image.new("RGB", (6, 4)), labels, strength=1.0))
    assert (over == palette()[0]).all()
    data = picture(Image.new("RGB", (3, 2), (1, 2, 3))).split("base64,")[1].split('"')[0]
    assert Image.open(io.BytesIO(b64decode(data))).getpixel((0, 0)) == (1, 2, 3)


def test_the_plane_keeps_distances_of_points_that_lie_in_one() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((20, 2))
    basis, _ = np.linalg.qr(rng.standard_normal((7, 2)))
    found = plane(flat @ basis.T + 3)
    np.testing.assert_allclose(
        np.linalg.norm(found[:, None] - found, axis=-1), np.linalg.norm(flat[:, None] - flat, axis=-1), atol=1e-9
    )
    assert plane(np.ones((4, 1))).shape == (4, 2)
    assert scatter(found, ["a", "b"] * 10).count("<circle") == 20
    assert matrix(["a", "b"], np.eye(2)).count("<rect") == 4
