"""Tasks of images.

An input is a path, the bytes of a file, a Pillow image, or an array or tensor (C, H, W) or (H, W, C).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data2vec.modeling import PreTrainedModel
from data2vec.pipelines.labels import names, ranked
from data2vec.processing.pixels import load_image
from data2vec.processing.vision import BeitImageProcessor


def classify(
    model: PreTrainedModel,
    processor: BeitImageProcessor,
    inputs: Sequence[Any],
    *,
    top_k: int | None = 5,
    function_to_apply: str | None = None,
) -> list[Any]:
    """What a picture shows.

    Returns:
        ``[{"score", "label"}, ...]`` each, best first, `top_k` of them (all if None).
    """
    return ranked(model, _run(model, processor, _open(inputs)).logits, top_k, function_to_apply)


def segment(model: PreTrainedModel, processor: BeitImageProcessor, inputs: Sequence[Any]) -> list[Any]:
    """Where in a picture each class is.

    Returns:
        ``[{"score": None, "label", "mask"}, ...]`` each, a Pillow mask (255 = the class) of the picture's own size for
        every class that is in it, in the order of the classes.
    """
    pictures = _open(inputs)
    output = _run(model, processor, pictures)
    output.logits = output.logits.float().cpu()
    maps = processor.post_process_semantic_segmentation(output, [_size(picture) for picture in pictures])
    labels = names(model)
    answers = []
    for found in maps:
        present = found.unique().tolist()
        masks = {index: Image.fromarray(((found == index) * 255).numpy().astype(np.uint8)) for index in present}
        answers.append([{"score": None, "label": labels[index], "mask": mask} for index, mask in masks.items()])
    return answers


def features(
    model: PreTrainedModel, processor: BeitImageProcessor, inputs: Sequence[Any], *, return_tensors: bool = False
) -> list[Any]:
    """The last hidden states, (1, tokens, width) each: nested lists, or tensors."""
    hidden = _run(model, processor, _open(inputs)).last_hidden_state.float().cpu()
    return [row[None] if return_tensors else [row.tolist()] for row in hidden]


def _open(inputs: Sequence[Any]) -> list[Any]:
    """Files as pictures, decoded once."""
    files = (str, Path, bytes, io.IOBase)
    return [load_image(item) if isinstance(item, files) else item for item in inputs]  # type: ignore[arg-type]


def _run(model: PreTrainedModel, processor: BeitImageProcessor, pictures: Sequence[Any]) -> Any:
    pixels: torch.Tensor = processor(list(pictures), return_tensors="pt")["pixel_values"]
    expected = tuple(model.config.image_shape)
    other = {"interpolate_pos_encoding": True} if tuple(pixels.shape[2:]) != expected else {}
    return model(pixels.to(model.device, model.dtype), **other)


def _size(picture: Any) -> tuple[int, int]:
    """(height, width)."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    shape = tuple(picture.shape)
    if len(shape) == 2:
        return shape
    return shape[1:] if shape[0] in (1, 3, 4) else shape[:2]
