"""The image processor: pictures of any kind, label maps that keep their classes, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data2vec import BeitImageProcessor, UserError
from data2vec.processing.pixels import load_image
from data2vec.processing.resize import bilinear_matrix, crop, resize, resize_by_products, resize_nearest, target_size

SIZES = st.integers(1, 40)


def picture(height: int = 30, width: int = 50, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture
def processor() -> BeitImageProcessor:
    return BeitImageProcessor(size=16, crop_size=12)


def test_every_kind_of_picture_gives_the_same(processor: BeitImageProcessor, tmp_path: Path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    expected = processor(array)["pixel_values"][0]
    assert expected.shape == (3, 16, 16)
    assert expected.dtype == np.float32
    data = (tmp_path / "a.png").read_bytes()
    first = np.moveaxis(array, -1, 0)
    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), data, io.BytesIO(data), Image.fromarray(array), first]
    for kind in [*kinds, torch.from_numpy(array), torch.from_numpy(first.copy()), array.astype(np.int64)]:
        np.testing.assert_array_equal(np.asarray(processor(kind)["pixel_values"][0]), expected)
    batch = processor([array, Image.fromarray(array)], return_tensors="pt").pixel_values
    assert batch.shape == (2, 3, 16, 16)
    assert processor(np.stack([array, array]), return_tensors="np")["pixel_values"].shape == (2, 3, 16, 16)
    assert isinstance(processor(torch.from_numpy(array))["pixel_values"][0], torch.Tensor), (
        "tensors come back as tensors"
    )


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(range(1, 6)), st.integers(0, 9))
def test_products_are_pillow_axis_by_axis(h: int, w: int, h2: int, w2: int, resample: int, seed: int) -> None:
    """Bit for bit: that is what lets a picture stay on its device."""
    array = picture(h, w, 3, seed)
    ours = resize_by_products(torch.from_numpy(array).permute(2, 0, 1), (h2, w2), resample)
    pillow = Image.fromarray(array).resize((w2, h), resample).resize((w2, h2), resample)
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), np.asarray(pillow))


def test_products_are_within_rounding_of_pillow_on_photographs(data_dir: Path) -> None:
    for file in sorted((data_dir / "kodak").glob("*.png"))[:3]:
        for turned in (np.asarray(load_image(file)), np.asarray(load_image(file)).transpose(1, 0, 2)):
            channels_first = np.moveaxis(turned, -1, 0)
            ours = resize_by_products(torch.from_numpy(channels_first.copy()), (224, 224), 3).numpy().astype(int)
            theirs = resize(channels_first, (224, 224), 3, "photograph").astype(int)
            assert abs(ours - theirs).max() <= 2, "of 255 levels"
            assert (ours != theirs).mean() < 0.25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_stay_on_their_device(processor: BeitImageProcessor) -> None:
    array = np.moveaxis(picture(300, 500), -1, 0).copy()
    batch = processor(torch.from_numpy(array).cuda(), torch.zeros(300, 500, device="cuda"), return_tensors="pt")
    assert batch.pixel_values.is_cuda
    assert batch.labels.is_cuda
    expected = processor(array)["pixel_values"][0]
    np.testing.assert_allclose(batch.pixel_values[0].cpu(), expected, atol=2 / 127.5)


@given(SIZES, SIZES, SIZES, SIZES, st.booleans())
def test_label_maps_keep_their_classes(h: int, w: int, h2: int, w2: int, tensor: bool) -> None:
    labels = np.random.default_rng(h * w).choice([0, 1, 7, 255], (h, w))
    resized = resize_nearest(torch.from_numpy(labels) if tensor else labels, (h2, w2))
    assert resized.shape == (h2, w2)
    for i in range(h2):
        for j in range(w2):
            assert resized[i, j] == labels[int((i + 0.5) * h / h2), int((j + 0.5) * w / w2)]


def test_label_maps(processor: BeitImageProcessor, tmp_path: Path) -> None:
    labels = np.zeros((30, 50), np.uint8)
    labels[10:, 25:] = 3
    labels[20:, :10] = 255
    Image.fromarray(labels).save(tmp_path / "labels.png")
    expected = processor(picture(), labels)["labels"][0]
    assert set(np.unique(expected)) == {0, 3, 255}
    assert expected.dtype == np.int64
    for kind in (Image.fromarray(labels), tmp_path / "labels.png", torch.from_numpy(labels), labels[None], [labels]):
        np.testing.assert_array_equal(np.asarray(processor(picture(), kind)["labels"][0]), expected)
    assert processor([picture()] * 2, [labels] * 2, return_tensors="pt").labels.shape == (2, 16, 16)
    reduced = processor(picture(), labels, do_reduce_labels=True)["labels"][0]
    np.testing.assert_array_equal(reduced, np.where((expected == 0) | (expected == 255), 255, expected - 1))
    assert set(np.unique(labels)) == {0, 3, 255}, "the caller's map is left alone"
    like = BeitImageProcessor(size=16, compat="transformers")(picture(), labels)["labels"][0]
    assert len(np.unique(like)) > 3, "bicubic labels, as in transformers"
    cropped = processor(picture(), labels, do_resize=False, do_center_crop=True, crop_size=40)["labels"][0]
    assert cropped.shape == (40, 40)
    assert (cropped[:5] == 255).all(), "a border is no class"


@given(SIZES, SIZES, SIZES, SIZES)
def test_crop_is_the_middle(h: int, w: int, h2: int, w2: int) -> None:
    image = np.arange(1, h * w + 1).reshape(1, h, w)
    out = crop(image, h2, w2, fill=0)
    assert out.shape == (1, h2, w2)
    for i in range(h2):
        for j in range(w2):
            y, x = i + (h - h2) // 2, j + (w - w2) // 2
            assert out[0, i, j] == (image[0, y, x] if 0 <= y < h and 0 <= x < w else 0)
    np.testing.assert_array_equal(crop(torch.from_numpy(image), h2, w2, fill=0), out)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"height": 5, "width": 7}, (5, 7)),
        ({"shortest_edge": 15}, (15, 25)),
        ({"shortest_edge": 15, "longest_edge": 20}, (12, 20)),
        ({"shortest_edge": 30, "longest_edge": 99}, (30, 50)),
        ({"max_height": 10, "max_width": 100}, (10, 16)),
    ],
)
def test_target_sizes(size: dict[str, int], expected: tuple[int, int]) -> None:
    assert target_size(size, 30, 50) == expected
    assert target_size(size, 50, 30) == (expected[::-1] if "shortest_edge" in size else target_size(size, 50, 30))


@given(SIZES, SIZES)
def test_bilinear_matrix_is_interpolation(source: int, target: int) -> None:
    values = torch.randn(1, 1, source, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(values, size=target, mode="linear", align_corners=False)
    torch.testing.assert_close(
        bilinear_matrix(source, target, values) @ values[0, 0], expected[0, 0], atol=1e-12, rtol=0
    )


def test_maps_from_scores(processor: BeitImageProcessor) -> None:
    logits = torch.randn(2, 4, 8, 10)
    outputs = SimpleNamespace(logits=logits)
    plain = processor.post_process_semantic_segmentation(outputs)
    torch.testing.assert_close(torch.stack(plain), logits.argmax(1))
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=[(16, 20), (5, 6)])
    assert [tuple(labels.shape) for labels in maps] == [(16, 20), (5, 6)]
    scored = processor.post_process_semantic_segmentation(outputs, torch.tensor([[16, 20], [5, 6]]), True)
    assert scored[1].segmentation_scores.shape == (4, 5, 6)
    torch.testing.assert_close(scored[0].segmentation, maps[0])
    with pytest.raises(UserError, match="target_sizes has 1"):
        processor.post_process_semantic_segmentation(outputs, [(16, 20)])


def test_options_of_one_call(processor: BeitImageProcessor) -> None:
    array = picture()
    raw = processor(array, do_resize=False, do_rescale=False, do_normalize=False)["pixel_values"][0]
    np.testing.assert_array_equal(raw, np.moveaxis(array, -1, 0))
    assert processor(array)["pixel_values"][0].shape == (3, 16, 16), "and the next call is as before"
    ambiguous = np.zeros((3, 4, 3), np.uint8)
    assert processor(ambiguous, do_resize=False, input_data_format="channels_last")["pixel_values"][0].shape == (
        3,
        3,
        4,
    )
    with pytest.warns(UserWarning, match="do_rescale=False"):
        processor(array.astype(np.float32) / 255, do_resize=False)
    with pytest.raises(UserError, match="no option do_resise"):
        processor(array, do_resise=False)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(channels=1)[..., 0], r"images\[0\] has 1 channels, image_mean has 3; pass do_convert_rgb=True"),
        ([picture(), picture(channels=4)], r"images\[1\] has 4 channels, image_mean has 3"),
        (Image.fromarray(picture(channels=1)[..., 0]), r"images\[0\] has 1 channels"),
        (np.zeros((5, 6, 7)), r"images\[0\].*which axis is the channels"),
        (np.zeros((3, 0, 7)), r"images\[0\] has shape \(3, 0, 7\)"),
        (np.full((3, 8, 8), np.nan), r"images\[0\] holds NaN"),
        (np.full((3, 8, 8), 300.0), r"images\[0\] holds values from 300 to 300"),
        (np.full((3, 8, 8), -0.5), r"images\[0\] holds values from -0.5"),
        ("missing.png", "missing.png: no such file"),
        (b"no picture", "not a picture"),
        (None, r"images\[0\] is NoneType"),
    ],
)
def test_bad_pictures(processor: BeitImageProcessor, image: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        processor(image)


def test_pictures_are_converted_when_asked(processor: BeitImageProcessor) -> None:
    grey = picture(channels=1)[..., 0]
    for kind in (grey, Image.fromarray(grey), torch.from_numpy(grey)):
        values = np.asarray(processor(kind, do_convert_rgb=True)["pixel_values"][0])
        np.testing.assert_array_equal(values[0], values[2])
    rgba = picture(channels=4)
    np.testing.assert_array_equal(
        processor(rgba, do_convert_rgb=True)["pixel_values"][0], processor(rgba[..., :3])["pixel_values"][0]
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 5, 6, 7)), r"segmentation_maps\[0\] has shape"),
        ([np.zeros((4, 5))] * 2, "2 segmentation_maps for 1 images"),
        (b"no picture", r"segmentation_maps\[0\] cannot be read"),
        (None, None),
        ([None], r"segmentation_maps\[0\] is NoneType"),
    ],
)
def test_bad_label_maps(processor: BeitImageProcessor, labels: object, message: str | None) -> None:
    if message is None:
        assert "labels" not in processor(picture(), labels)
        return
    with pytest.raises(UserError, match=message):
        processor(picture(), labels)


@pytest.mark.parametrize("field", [{"size": 0}, {"size": "big"}, {"crop_size": {"shortest_edge": 3}}, {"resample": 9}])
def test_bad_fields(field: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(field))}="):
        BeitImageProcessor(**field)
    with pytest.raises(UserError, match="size="):
        BeitImageProcessor(size={"longest_edge": 3})(picture())
