"""Resizing as Pillow does it, on whatever device a picture lies.

Arrays, and tensors on the CPU, go through Pillow. Elsewhere a resize is two matrix products, one an axis: with Pillow's
own fixed-point weights as whole numbers in float64 every sum is exact, so that each product is Pillow's, bit for bit.
Columns come first, then rows; Pillow 13 turns that round for some shapes, which moves a few values by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data2vec.errors import UserError
from data2vec.processing.processor import is_tensor

if TYPE_CHECKING:
    import torch

_PRECISION = 2.0**22
"""Pillow's weights of 8-bit pictures are whole multiples of 1 / 2^22 (Resample.c, PRECISION_BITS)."""


_F54, _F46 = float(np.float32(0.54)), float(np.float32(0.46))  # Pillow's constants are single precision


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _hamming(x: float) -> float:
    x = abs(x)
    return 0.0 if x >= 1 else _sinc(x) * (_F54 + _F46 * math.cos(math.pi * x))


_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {  # Pillow's number -> kernel, half its width
    1: (_lanczos, 3.0),
    2: (lambda x: max(0.0, 1 - abs(x)), 1.0),
    3: (_cubic, 2.0),
    4: (lambda x: float(-0.5 < x <= 0.5), 0.5),
    5: (_hamming, 1.0),
}


@lru_cache(maxsize=64)
def _matrix(source: int, target: int, resample: int) -> npt.NDArray[np.float64]:
    """Weights (target, source) of one axis, in units of 1 / 2^22."""
    kernel, half = _FILTERS[resample]
    scale = source / target
    stretch = max(scale, 1.0)
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(0, int(centre - half * stretch + 0.5))
        last = min(source, int(centre + half * stretch + 0.5))
        weights = np.array([kernel((x - centre + 0.5) * (1.0 / stretch)) for x in range(first, last)])
        total = weights.sum()
        weights = weights / total if total else weights
        matrix[row, first:last] = np.trunc(weights * _PRECISION + np.copysign(0.5, weights))
    return matrix


def resize(image: Any, size: tuple[int, int], resample: int, name: str) -> Any:
    """Resize (C, H, W) as the published processors do: by way of 8 bits, and back to 0..1 where it came from there.

    Args:
        image: array or tensor; 8-bit values, or floats within 0..1.
        size: (height, width).
        resample: Pillow's number of a filter.
        name: what to call the picture in an error.

    Raises:
        UserError: values neither within 0..1 nor 8-bit.
    """
    eight_bit, scaled = _eight_bit(image, name)
    if resample == 0:
        resized = resize_nearest(eight_bit, size)
    else:
        resized = (resize_tensor if is_tensor(image) else _resize_array)(eight_bit, size, resample)
    if not scaled:
        return resized
    if is_tensor(resized):
        return (resized.double() * (1 / 255)).float()
    return (resized.astype(np.float64) * (1 / 255)).astype(np.float32)


def _eight_bit(image: Any, name: str) -> tuple[Any, bool]:
    """8-bit values, and whether the picture was within 0..1."""
    tensor = is_tensor(image)
    if str(image.dtype).removeprefix("torch.") == "uint8":
        return image, False
    low, high = float(image.min()), float(image.max())
    whole = image.trunc() if tensor and image.is_floating_point() else image if tensor else np.trunc(image)
    if bool((abs(image - whole) <= 1e-8 + 1e-5 * abs(whole)).all()):
        if low < 0 or high > 255:
            raise UserError(f"{name} holds values from {low:g} to {high:g}: expected 0..255, or 0..1 as floats")
        scale = 1.0
    elif low < 0 or high > 1:
        raise UserError(f"{name} holds values from {low:g} to {high:g}: expected 0..255, or 0..1 as floats")
    else:
        scale = 255.0
    if tensor:
        scaled = (image.double() * scale).float()
        return scaled.byte(), scale != 1
    return (image.astype(np.float64) * scale).astype(np.float32).astype(np.uint8), scale != 1


def _resize_array(image: npt.NDArray[Any], size: tuple[int, int], resample: int) -> npt.NDArray[Any]:
    """(C, H, W) uint8 through Pillow."""
    picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(np.moveaxis(image, 0, -1)))
    resized = np.array(picture.resize((size[1], size[0]), Image.Resampling(resample)))
    return resized[None] if resized.ndim == 2 else np.moveaxis(resized, -1, 0)


def resize_tensor(image: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """(C, H, W) uint8 on its device: through Pillow on the CPU, by `resize_by_products` elsewhere."""
    if image.device.type != "cpu":
        return resize_by_products(image, size, resample)
    return image.new_tensor(_resize_array(image.numpy(), size, resample))


def resize_by_products(image: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor:
    """(C, H, W) uint8, columns first and rows then, rounded to 8 bits after each."""
    values = image.double()
    for axis in (2, 1):
        weights = values.new_tensor(_matrix(values.shape[axis], size[axis - 1], resample))
        values = values @ weights.T if axis == 2 else weights @ values
        values = ((values + _PRECISION / 2) / _PRECISION).floor().clamp(0, 255)
    return values.byte()


def resize_nearest(image: Any, size: tuple[int, int]) -> Any:
    """Nearest neighbour over the last two axes of an array or tensor: no value appears that was not there."""
    height, width = image.shape[-2:]
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.int64)
    if is_tensor(image):
        index = image.new_tensor
        return image[..., index(rows).long()[:, None], index(columns).long()]
    return image[..., rows[:, None], columns]


def crop(image: Any, height: int, width: int, *, fill: int) -> Any:
    """The middle of the last two axes; what lies outside is `fill`."""
    shape = (*image.shape[:-2], height, width)
    canvas = image.new_full(shape, fill) if is_tensor(image) else np.full(shape, fill, image.dtype)
    (y, top, rows), (x, left, columns) = _window(image.shape[-2], height), _window(image.shape[-1], width)
    canvas[..., top : top + rows, left : left + columns] = image[..., y : y + rows, x : x + columns]
    return canvas


def _window(source: int, target: int) -> tuple[int, int, int]:
    """First place to read, first place to write, and how many."""
    start = (source - target) // 2
    return max(0, start), max(0, -start), min(source, target)


def target_size(size: Mapping[str, int], height: int, width: int) -> tuple[int, int]:
    """(height, width) that a picture is resized to.

    Raises:
        UserError: `size` has none of the published forms.
    """
    match dict(size):
        case {"height": int(new_height), "width": int(new_width)}:
            return new_height, new_width
        case {"shortest_edge": int(short), "longest_edge": int(long)}:
            exact = float(short)
            if max(height, width) / min(height, width) * short > long:
                exact = long * min(height, width) / max(height, width)
                short = round(exact)
            if min(height, width) == short:
                return height, width
            longer = int(exact * max(height, width) / min(height, width))
            return (longer, short) if width < height else (short, longer)
        case {"shortest_edge": int(short)}:
            longer = int(short * max(height, width) / min(height, width))
            return (longer, short) if width <= height else (short, longer)
        case {"max_height": int(most_rows), "max_width": int(most_columns)}:
            scale = min(most_rows / height, most_columns / width)
            return int(height * scale), int(width * scale)
    raise UserError(f"size={dict(size)}: expected height and width, shortest_edge, or max_height and max_width")


def bilinear_matrix(source: int, target: int, like: torch.Tensor) -> torch.Tensor:
    """Weights (target, source) of bilinear interpolation, corners not aligned, in float32 or `like`'s wider type."""
    place = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    low = np.minimum(place.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1 - (place - low))
    np.add.at(matrix, (rows, high), place - low)
    import torch

    return torch.from_numpy(matrix).to(like.device, torch.promote_types(like.dtype, torch.float32))
