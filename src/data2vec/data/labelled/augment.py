"""Augmentation of labelled examples: RandAugment, random erasing, and blends of two examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from data2vec.data.audio import Sample

Pixels = npt.NDArray[np.float32]
_FILL = (128, 128, 128)


def _affine(*matrix: Callable[[float], float]) -> Callable[[Image.Image, float], Image.Image]:
    def apply(image: Image.Image, amount: float) -> Image.Image:
        values = [entry(amount) for entry in matrix]
        values[2], values[5] = values[2] * image.width, values[5] * image.height
        return image.transform(image.size, Image.Transform.AFFINE, values, Image.Resampling.BICUBIC, fillcolor=_FILL)

    return apply


def _zero(_: float) -> float:
    return 0.0


def _one(_: float) -> float:
    return 1.0


def _amount(a: float) -> float:
    return a


_OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, bool]] = {
    # name: (what it does with an amount, the amount at magnitude 10, whether its sign is drawn)
    "autocontrast": (lambda image, _: ImageOps.autocontrast(image), 0.0, False),
    "equalize": (lambda image, _: ImageOps.equalize(image), 0.0, False),
    "posterize": (lambda image, a: ImageOps.posterize(image, max(1, 8 - round(a))), 4.0, False),
    "solarize": (lambda image, a: ImageOps.solarize(image, 256 - round(a)), 256.0, False),
    "colour": (lambda image, a: ImageEnhance.Color(image).enhance(1 + a), 0.9, True),
    "contrast": (lambda image, a: ImageEnhance.Contrast(image).enhance(1 + a), 0.9, True),
    "brightness": (lambda image, a: ImageEnhance.Brightness(image).enhance(1 + a), 0.9, True),
    "sharpness": (lambda image, a: ImageEnhance.Sharpness(image).enhance(1 + a), 0.9, True),
    "rotate": (lambda image, a: image.rotate(a, Image.Resampling.BICUBIC, fillcolor=_FILL), 30.0, True),
    "shear_x": (_affine(_one, _amount, _zero, _zero, _one, _zero), 0.3, True),
    "shear_y": (_affine(_one, _zero, _zero, _amount, _one, _zero), 0.3, True),
    "translate_x": (_affine(_one, _zero, _amount, _zero, _one, _zero), 0.45, True),
    "translate_y": (_affine(_one, _zero, _zero, _zero, _one, _amount), 0.45, True),
}


def rand_augment(image: Image.Image, operations: int, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """RandAugment (arXiv 1909.13719) in the form that BEiT trains with (``rand-m9-mstd0.5-inc1``).

    Args:
        image: RGB.
        operations: how many, drawn with replacement; each is made in half of the cases.
        magnitude: 0..10; each operation's own is drawn round it, deviation 0.5.
        rng: draws everything.
    """
    names = list(_OPERATIONS)
    for place in rng.integers(len(names), size=operations):
        apply, most, signed = _OPERATIONS[names[place]]
        level = float(np.clip(rng.normal(magnitude, 0.5), 0, 10)) / 10 * most
        sign = -1.0 if signed and rng.random() < 0.5 else 1.0
        if rng.random() < 0.5:
            image = apply(image, sign * level)
    return image


def erase(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Replace a rectangle of 2 to 33 % of a picture (C, H, W) by noise (arXiv 1708.04896)."""
    _, height, width = pixels.shape
    for _ in range(10):
        area = height * width * rng.uniform(0.02, 1 / 3)
        aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            pixels = pixels.copy()
            pixels[:, top : top + h, left : left + w] = rng.standard_normal((len(pixels), h, w), dtype=np.float32)
            return pixels
    return pixels


def mixup(one: Sample, other: Sample, share: float) -> Sample:
    """Blend two examples and their labels (arXiv 1710.09412); the shorter of two clips is followed by silence."""
    mixed = {}
    for name, array in one.items():
        left, right = _same_length(array, other[name])
        mixed[name] = (share * left + (1 - share) * right).astype(np.float32)
    return mixed


def cutmix(one: Sample, other: Sample, share: float, rng: np.random.Generator) -> Sample:
    """Put a rectangle of `other` into a picture, and blend the labels by area (arXiv 1905.04899)."""
    pixels = one["pixel_values"].copy()
    _, height, width = pixels.shape
    h, w = round(height * math.sqrt(1 - share)), round(width * math.sqrt(1 - share))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = max(0, y - h // 2), min(height, y + h - h // 2)
    left, right = max(0, x - w // 2), min(width, x + w - w // 2)
    pixels[:, top:bottom, left:right] = other["pixel_values"][:, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    labels = kept * one["labels"] + (1 - kept) * other["labels"]
    return {"pixel_values": pixels, "labels": labels.astype(np.float32)}


def smooth(labels: npt.NDArray[np.float32], amount: float) -> npt.NDArray[np.float32]:
    """Move `amount` of a distribution (C,) to all classes alike (arXiv 1512.00567)."""
    return ((1 - amount) * labels + amount / len(labels)).astype(np.float32)


def _same_length(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> tuple[Pixels, Pixels]:
    if one.shape == other.shape:
        return one, other
    longest = max(len(one), len(other))
    return tuple(np.pad(array, (0, longest - len(array))) for array in (one, other))  # type: ignore[return-value]
