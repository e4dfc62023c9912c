"""Image files as RGB pictures and float arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from data2vec.errors import BadSample

Pixels = npt.NDArray[np.float32]
ImageSource = str | Path | bytes | BinaryIO | Image.Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BICUBIC = Image.Resampling.BICUBIC


def load_image(source: ImageSource) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The EXIF orientation is applied. Grey, palette, CMYK and 16-bit pictures are converted; an alpha channel is dropped,
    as the published loaders do. Of an animation this is the first frame.

    Raises:
        BadSample: the file is missing, empty, cut short, or not a picture.
    """
    name = _name(source)
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise BadSample(name, "no such file")
    if source == b"" or (isinstance(source, (str, Path)) and Path(source).stat().st_size == 0):
        raise BadSample(name, "is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF, palettes with transparency, pictures over 89 megapixels
            if isinstance(source, Image.Image):
                return to_rgb(ImageOps.exif_transpose(source))
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise BadSample(name, "is not a picture that Pillow can read") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise BadSample(name, f"cannot be decoded ({error})") from error


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of a picture with its EXIF orientation applied, known without decoding it."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB. Integer modes of more than 8 bits are read as 0..65535, floats as 0..1."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        return Image.fromarray(np.clip(np.asarray(image) * 255 + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip at 255
        wide = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize_shortest(image: Image.Image, size: int, resample: Image.Resampling = BICUBIC) -> Image.Image:
    """Resize so that the shorter side is `size` pixels, keeping the aspect (the longer side is rounded down)."""
    width, height = image.size
    short = min(width, height)
    return image.resize((max(size, size * width // short), max(size, size * height // short)), resample)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut a `size` x `size` square from the middle; what lies outside the picture is black."""
    left = round((image.width - size) / 2)
    top = round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def to_array(
    image: Image.Image, mean: Sequence[float] | None = IMAGENET_MEAN, std: Sequence[float] | None = IMAGENET_STD
) -> Pixels:
    """A picture as (3, H, W) float32 in 0..1, then ``(x - mean) / std`` per channel where these are given."""
    array: Pixels = np.asarray(image if image.mode == "RGB" else to_rgb(image), dtype=np.float32) / np.float32(255)
    if mean is not None:
        array -= np.asarray(mean, dtype=np.float32)
    if std is not None:
        array /= np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def _name(source: ImageSource) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    return str(getattr(source, "name", None) or getattr(source, "filename", None) or "<image bytes>")
