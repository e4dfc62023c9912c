"""Every kind of picture becomes upright RGB, and what is no picture is named."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec.data import config
from data2vec.errors import BadSample
from data2vec.processing import pixels
from data2vec.processing.pixels import center_crop, load_image, resize_shortest, to_array


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def gradient() -> Image.Image:
    column, row = np.meshgrid(np.arange(40), np.arange(30))
    return Image.fromarray(np.stack([column * 6, row * 8, column + row], axis=2).astype(np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_containers(kind: str) -> None:
    image = load_image(encoded(gradient(), kind))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    assert np.abs(np.asarray(image, float) - np.asarray(gradient(), float)).mean() < 12


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("1", "PNG")]
)
def test_modes(mode: str, kind: str) -> None:
    source = gradient().convert(mode)
    image = load_image(encoded(source, kind))
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, float) - np.asarray(source.convert("RGB"), float)).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range(kind: str) -> None:
    wide = (np.arange(1200).reshape(30, 40) * 54).astype(np.uint16)
    image = load_image(encoded(Image.fromarray(wide), kind))
    np.testing.assert_array_equal(np.asarray(image)[:, :, 0], np.rint(wide / 257).astype(np.uint8))


def test_float_pictures_are_read_as_shares() -> None:
    image = load_image(encoded(Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)), "TIFF"))
    assert (np.asarray(image).min(), np.asarray(image).max()) == (0, 255)


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to be upright
    image = load_image(encoded(gradient(), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(image), np.rot90(np.asarray(gradient()), -1))


def test_palette_with_transparency_and_odd_sources(tmp_path: Path) -> None:
    image = gradient().convert("P")
    path = tmp_path / "p.png"
    image.save(path, transparency=b"\x00" * 10)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), Image.open(path)):
        assert load_image(source).mode == "RGB"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no picture", "not a picture"),
        (encoded(gradient().resize((400, 300)), "JPEG")[:900], "decoded"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(BadSample, match=reason) as caught:
        load_image(path)
    assert caught.value.source == str(path)
    with pytest.raises(BadSample, match="no such file"):
        load_image(tmp_path / "gone.jpg")


def test_resize_crop_and_array() -> None:
    image = resize_shortest(gradient(), 60)
    assert image.size == (80, 60)
    assert center_crop(image, 50).size == (50, 50)
    array = to_array(image)
    assert (array.shape, array.dtype) == ((3, 60, 80), np.float32)
    plain = np.asarray(image, np.float64).transpose(2, 0, 1) / 255
    for channel in range(3):
        expected = (plain[channel] - pixels.IMAGENET_MEAN[channel]) / pixels.IMAGENET_STD[channel]
        np.testing.assert_allclose(array[channel], expected, atol=1e-5)
    np.testing.assert_allclose(to_array(image, None, None), plain, atol=1e-6)


def test_the_recipe_and_the_processor_mean_the_same_statistics() -> None:
    assert (config.IMAGENET_MEAN, config.IMAGENET_STD) == (pixels.IMAGENET_MEAN, pixels.IMAGENET_STD)


def test_real_photos(data_dir: Path) -> None:
    for path in sorted((data_dir / "kodak").glob("*.png")):
        assert sorted(load_image(path).size) == [512, 768]
