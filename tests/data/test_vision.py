"""Augmentation of pictures: sizes, ranges, statistics, seeds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec.data.config import VisionDataConfig
from data2vec.data.vision import VisionData, augment, flip, jitter, random_resized_crop, shift
from data2vec.errors import BadSample

RNG = np.random.default_rng


def ramp(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row (in 0..255)."""
    column, row = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([column, row, np.full_like(row, 128)], axis=2).astype(np.uint8))


@pytest.mark.parametrize("kind", ["jitter_flip_crop", "crop_flip", "tiny", "none"])
@pytest.mark.parametrize("size", [(60, 40), (32, 32), (7, 90), (1, 1), (500, 20)])
def test_every_augmentation_gives_the_size_asked_for(kind: str, size: tuple[int, int]) -> None:
    config = VisionDataConfig(image_size=32, augment=kind)  # type: ignore[arg-type]
    for seed in range(5):
        image = augment(ramp(*size), config, RNG(seed))
        assert (image.size, image.mode) == ((32, 32), "RGB")


def test_crops_cover_the_share_and_aspect_asked_for() -> None:
    image = ramp(256, 256)
    shares, aspects = [], []
    for seed in range(300):
        part = np.asarray(random_resized_crop(image, 64, (0.2, 1.0), RNG(seed)), float)
        width = part[:, -1, 0].mean() - part[:, 0, 0].mean()
        height = part[-1, :, 1].mean() - part[0, :, 1].mean()
        shares.append(width * height / 255**2)
        aspects.append(width / height)
    assert 0.17 < min(shares) < 0.25
    assert max(shares) > 0.9
    assert np.mean(shares) == pytest.approx(0.58, abs=0.04)
    assert 0.7 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.42
    assert np.mean(np.log(aspects)) == pytest.approx(0, abs=0.03)


def test_a_picture_too_long_for_any_part_is_cut_in_the_middle() -> None:
    image = ramp(1000, 10)
    part = np.asarray(random_resized_crop(image, 16, (1.0, 1.0), RNG(0)), float)
    assert abs(part[:, :, 0].mean() - 127.5) < 2


def test_flip_mirrors_half_of_the_time() -> None:
    image = ramp(8, 8)
    flipped = [np.asarray(flip(image, RNG(seed)))[0, 0, 0] == 255 for seed in range(400)]
    assert 160 < sum(flipped) < 240


def test_shift_moves_and_fills_with_black() -> None:
    image = Image.fromarray(np.full((16, 16, 3), 200, np.uint8))
    seen = set()
    for seed in range(200):
        moved = np.asarray(shift(image, 2, RNG(seed)))[:, :, 0]
        rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
        assert min(len(rows), len(columns)) >= 14
        seen.add((rows[0] - (15 - rows[-1]), columns[0] - (15 - columns[-1])))
    assert len(seen) == 25


def test_jitter_by_hand() -> None:
    image = ramp(8, 8)
    np.testing.assert_array_equal(np.asarray(jitter(image, 0.0, RNG(0))), np.asarray(image))
    grey = Image.fromarray(np.full((4, 4, 3), 100, np.uint8))
    values = [np.asarray(jitter(grey, 0.4, RNG(seed))).mean() for seed in range(300)]
    assert 60 <= min(values) < 65  # of plain grey, only brightness changes
    assert 135 < max(values) <= 140


def test_the_same_seed_epoch_and_sample_give_the_same_picture(tmp_path: Path) -> None:
    for name in "abc":
        ramp(50, 40).save(tmp_path / f"{name}.png")
    data = VisionData.open(tmp_path, VisionDataConfig(image_size=16), seed=1)
    first = data.load(0, 0)["pixel_values"]
    assert (first.shape, first.dtype) == ((3, 16, 16), np.float32)
    np.testing.assert_array_equal(first, data.load(0, 0)["pixel_values"])
    assert not np.array_equal(first, data.load(0, 1)["pixel_values"])
    assert not np.array_equal(first, data.load(1, 0)["pixel_values"])
    other = VisionData.open(tmp_path, VisionDataConfig(image_size=16), seed=2)
    assert not np.array_equal(first, other.load(0, 0)["pixel_values"])
    assert data.sizes(0).tolist() == [1, 1, 1]


def test_bad_pictures_in_a_zip_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    ramp(20, 20).save(buffer, "PNG")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.png", buffer.getvalue())
        archive.writestr("b.png", buffer.getvalue()[:60])
    data = VisionData.open(tmp_path / "p.zip", VisionDataConfig(image_size=16, augment="none"))
    assert data.load(0, 0)["pixel_values"].shape == (3, 16, 16)
    with pytest.raises(BadSample) as caught:
        data.load(1, 0)
    assert caught.value.source == f"{tmp_path / 'p.zip'}!b.png"


def test_real_zip_and_folder_agree(data_dir: Path) -> None:
    config = VisionDataConfig(image_size=32, augment="none")
    zipped = VisionData.open(data_dir / "cifar10/train_6000.zip", config)
    folder = VisionData.open(data_dir / "cifar10/train", config)
    assert (zipped.total, folder.total) == (6000, 1500)
    name = folder.manifest.names[700]
    index = next(i for i, member in enumerate(zipped.manifest.names) if member.endswith(name))
    np.testing.assert_array_equal(zipped.load(index, 0)["pixel_values"], folder.load(700, 0)["pixel_values"])
