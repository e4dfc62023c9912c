"""Handwritten digits of 8 x 8 pixels, as scikit-learn carries them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data2vec.errors import require


def write_digits(folder: Path, *, limit: int | None = None) -> None:
    """Write ``train/DIGIT/NUMBER.png`` and ``dev/DIGIT/NUMBER.png``, 8 x 8 pixels in shades of grey.

    The 1,797 digits are the test part of the UCI set "Optical recognition of handwritten digits" (13 writers). Every
    fourth is dev.

    Args:
        folder: where to.
        limit: only so many digits.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    digits = require("sklearn.datasets", extra="demo").load_digits()
    images, labels = digits.images[:limit], digits.target[:limit]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / ("dev" if number % 4 == 3 else "train") / str(label) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(image * (255 / 16)), "L").save(file)
