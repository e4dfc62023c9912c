"""The answers of transformers' own pipelines for the same folders; where ours differ, docs/differences.md says how."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data2vec.pipelines.pipeline import pipeline

transformers = pytest.importorskip("transformers", reason="transformers is the oracle here")

Folder = Callable[..., Path]
CLIP = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 30, 3), dtype=np.uint8))
TEXT = "To be or not to be, that is the question."
SPECIAL = ("<s>", "</s>", "<unk>")  # ours leaves them out of speech, transformers only the blank


def answers(folder: Path, task: str, given: Any, theirs: str | None = None, **options: Any) -> tuple[Any, Any]:
    """Ours and transformers'."""
    other = transformers.pipeline(theirs or task, model=str(folder))
    return pipeline(task, folder)(given, **options), other(given.copy() if given is CLIP else given, **options)


def alike(ours: Any, theirs: Any) -> None:
    """Equal values, numbers to 1e-5; lists of lists as arrays."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            alike(ours[key], theirs[key])
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            alike(a, b)
    elif isinstance(theirs, Image.Image):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    elif isinstance(theirs, list | float | np.floating):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    ("task", "name", "given", "options"),
    [
        ("audio-classification", "AudioForSequenceClassification", CLIP, {"top_k": 3}),
        ("fill-mask", "TextForMaskedLM", "The quick <mask> fox", {"top_k": 3}),
        ("text-classification", "TextForSequenceClassification", TEXT, {"top_k": None}),
        ("image-classification", "VisionForImageClassification", PICTURE, {}),
        ("image-segmentation", "VisionForSemanticSegmentation", PICTURE, {}),
        ("feature-extraction", "TextModel", TEXT, {}),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else "",
)
def test_same_answers(folder: Folder, task: str, name: str, given: Any, options: dict[str, Any]) -> None:
    alike(*answers(folder(f"Data2Vec{name}"), task, given, **options))


def test_image_features_under_their_task(folder: Folder) -> None:
    alike(*answers(folder("Data2VecVisionModel"), "feature-extraction", PICTURE, "image-feature-extraction"))


def test_speech_without_special_tokens(folder: Folder) -> None:
    ours, theirs = answers(folder("Data2VecAudioForCTC"), "automatic-speech-recognition", CLIP)
    said = theirs["text"]
    assert any(token in said for token in SPECIAL)  # an untrained model's, or the test would not show the difference
    for token in SPECIAL:
        said = said.replace(token, "")
    assert ours["text"].split() == said.split()


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_tokens_with_the_words_of_the_text(folder: Folder, strategy: str) -> None:
    run = answers(
        folder("Data2VecTextForTokenClassification"), "token-classification", TEXT, aggregation_strategy=strategy
    )
    for ours, theirs in zip(*run, strict=True):
        assert ours["word"] == TEXT[ours["start"] : ours["end"]]
        alike({**ours, "word": ""}, {**theirs, "word": ""})
        assert ours["word"].strip() == theirs["word"].replace("Ġ", " ").strip()


def test_text_goes_on_as_there_with_their_positions(folder: Folder) -> None:
    """Transformers' closes the prompt with ``</s>`` unless it is given with its ``<s>`` and no others are asked for."""
    path, options = folder("Data2VecTextForCausalLM", compat="transformers"), {"max_new_tokens": 4}
    ours = pipeline("text-generation", path)("The quick brown", return_full_text=False, **options)
    run = transformers.pipeline("text-generation", model=str(path))
    theirs = run("<s>The quick brown", add_special_tokens=False, return_full_text=False, do_sample=False, **options)
    alike(ours, theirs)
