"""Images for training: one picture a sample, augmented as data2vec 1 and 2 do it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data2vec.data.audio import Sample
from data2vec.data.config import VisionDataConfig
from data2vec.data.manifest import Manifest, read_manifest
from data2vec.data.sampler import Ints
from data2vec.data.seeds import Stream, generator
from data2vec.data.skips import Skipped
from data2vec.errors import BadSample
from data2vec.processing.pixels import BICUBIC, IMAGE_SUFFIXES, center_crop, load_image, resize_shortest, to_array


class VisionData:
    """A map from sample ids to pictures. A damaged file shows only when it is decoded."""

    def __init__(self, manifest: Manifest, config: VisionDataConfig, seed: int = 1) -> None:
        self.manifest = manifest
        self.config = config
        self.seed = seed
        self.skipped: list[Skipped] = []

    @classmethod
    def open(cls, source: str | Path, config: VisionDataConfig, *, seed: int = 1) -> VisionData:
        """List the pictures of a folder, zip or manifest.

        Raises:
            UserError: there are none.
        """
        return cls(read_manifest(source, IMAGE_SUFFIXES), config, seed)

    @property
    def total(self) -> int:
        """Files, good and bad."""
        return len(self.manifest)

    def sizes(self, epoch: int) -> Ints:
        """(samples,) ones: every picture costs the same."""
        return np.ones(len(self.manifest), dtype=np.int64)

    def load(self, index: int, epoch: int, crop: int | None = None) -> Sample:
        """One picture, augmented.

        Returns:
            pixel_values: (3, size, size) float32, normalised.

        Raises:
            BadSample: it cannot be decoded.
        """
        try:
            image = load_image(self.manifest.open(index))
        except BadSample as error:
            raise BadSample(self.manifest.describe(index), error.reason) from error
        image = augment(image, self.config, generator(Stream.AUGMENT, self.seed, epoch, index))
        return {"pixel_values": to_array(image, self.config.mean, self.config.std)}


def augment(image: Image.Image, config: VisionDataConfig, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of ``config.image_size`` squared.

    ``jitter_flip_crop`` is the v1 pipeline (BEiT fork `DataAugmentationForBEiT`), ``crop_flip`` that of v2 (MAE).
    """
    size = config.image_size
    if config.augment == "jitter_flip_crop":
        image = jitter(image, config.jitter, rng)
        image = flip(image, rng)
        return random_resized_crop(image, size, config.scale, rng)
    if config.augment == "crop_flip":
        return flip(random_resized_crop(image, size, config.scale, rng), rng)
    if image.size != (size, size):
        image = center_crop(resize_shortest(image, size), size)
    if config.augment == "tiny":
        image = shift(flip(image, rng), size // 8, rng)
    return image


def jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation, in random order, each by a factor ~ U(1 - strength, 1 + strength)."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which, factor in zip(rng.permutation(3), rng.uniform(1 - strength, 1 + strength, 3), strict=True):
        image = enhancers[which](image).enhance(float(factor))
    return image


def flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirror left and right in half of the cases."""
    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def shift(image: Image.Image, reach: int, rng: np.random.Generator) -> Image.Image:
    """Move by up to `reach` pixels in each direction; the border is black."""
    left, top = (int(step) for step in rng.integers(-reach, reach + 1, 2))
    return image.crop((left, top, left + image.width, top + image.height))


def random_resized_crop(
    image: Image.Image, size: int, scale: tuple[float, float], rng: np.random.Generator
) -> Image.Image:
    """A random part of the picture, resized (bicubic) to `size` squared.

    Its share of the area ~ U(scale), its aspect log-uniform in 3/4 .. 4/3; after ten parts that do not fit, the largest
    middle part whose aspect is allowed (the rules of torchvision's `RandomResizedCrop`, which both versions use).
    """
    width, height = image.size
    aspects = (3 / 4, 4 / 3)
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(aspects[0]), math.log(aspects[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return image.crop((left, top, left + w, top + h)).resize((size, size), BICUBIC)
    w, h = min(width, max(1, round(height * aspects[1]))), min(height, max(1, round(width / aspects[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h)).resize((size, size), BICUBIC)
