"""Pipelines of images: classes, masks of the picture's size, features."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from alike import same
from PIL import Image

import data2vec
from data2vec.errors import UserError
from data2vec.pipelines.pipeline import pipeline
from data2vec.processing.vision import BeitImageProcessor

Folder = Callable[..., Path]
PICTURES = [
    Image.fromarray(np.random.default_rng(i).integers(0, 255, (h, w, 3), dtype=np.uint8))
    for i, (h, w) in enumerate(((40, 30), (32, 32), (20, 50)))
]


def test_classes_of_files_bytes_and_arrays(folder: Folder, tmp_path: Path) -> None:
    run = pipeline("image-classification", folder("Data2VecVisionForImageClassification"))
    PICTURES[0].save(tmp_path / "a.png")
    content = io.BytesIO()
    PICTURES[0].save(content, "png")
    array = np.asarray(PICTURES[0])
    given = [str(tmp_path / "a.png"), content.getvalue(), PICTURES[0], array, array.transpose(2, 0, 1)]
    answers = run(given, batch_size=5)
    for answer in answers:
        same(answer, answers[0])
    assert sum(row["score"] for row in answers[0]) == pytest.approx(1)
    assert len(run(PICTURES[0], top_k=1)) == 1
    same(run(PICTURES, batch_size=3), run(PICTURES))


def test_masks_have_the_pictures_size_and_cover_it_once(folder: Folder) -> None:
    run = pipeline("image-segmentation", folder("Data2VecVisionForSemanticSegmentation"))
    for picture, found in zip(PICTURES, run(PICTURES, batch_size=3), strict=True):
        assert all(part["mask"].size == picture.size for part in found)
        assert (sum(np.asarray(part["mask"]).astype(int) for part in found) == 255).all()
        alone = run(picture)
        assert [part["label"] for part in alone] == [part["label"] for part in found]
        assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(alone, found, strict=True))
    assert len(run(np.asarray(PICTURES[0]))[0]["mask"].size) == 2


def test_features_and_data2vec_2(folder: Folder) -> None:
    run = pipeline("feature-extraction", folder("Data2VecVisionModel"))
    same(run(PICTURES, batch_size=3), run(PICTURES))
    assert run(PICTURES[0], return_tensors=True).shape == (1, 17, 32)
    config = data2vec.Data2Vec2VisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        prenet_depth=0,
    )  # fmt: skip
    model = data2vec.Data2Vec2VisionForImageClassification(config)
    second = pipeline("image-classification", model, processor=BeitImageProcessor(size=40, crop_size=40))
    same(second(PICTURES, batch_size=3), second(PICTURES))


def test_what_is_no_picture_is_said(folder: Folder, tmp_path: Path) -> None:
    run = pipeline("image-classification", folder("Data2VecVisionForImageClassification"))
    for bad, said in ((tmp_path / "none.png", "no such file"), (b"abc", "picture"), (3, "images"), (b"", "empty")):
        with pytest.raises(UserError, match=said):
            run(bad)
    with pytest.raises(UserError, match="top_k"):
        run(PICTURES[0], top_k=0)
