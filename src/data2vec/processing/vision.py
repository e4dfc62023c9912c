"""Pictures and label maps as a model takes them: resized, cropped, scaled, normalised."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from PIL import Image, UnidentifiedImageError

from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS
from data2vec.processing.pixels import load_image, to_rgb
from data2vec.processing.processor import (
    PREPROCESSOR_FILE,
    BatchFeature,
    check_compat,
    collate,
    is_tensor,
    load_settings,
    new_folder,
    write_json,
)
from data2vec.processing.resize import bilinear_matrix, crop, resize, resize_nearest, target_size

if TYPE_CHECKING:
    import torch

IGNORED_LABEL = 255
"""What label maps hold where there is no label; losses leave it out."""
_CHANNELS = (1, 3, 4)


@dataclass
class BeitImageProcessor:
    """Pictures to ``pixel_values``, label maps to ``labels``, and a model's scores back to label maps.

    Other than the published processor unless ``compat="transformers"``: label maps are resized by nearest neighbour, so
    that no class appears that was not there; what a crop adds round a label map is 255, not class 0; inputs are never
    changed. Tensors are processed on their device, with the results that Pillow gives, and come back as tensors.

    Every field can be given for one call too.

    Attributes:
        do_resize: resize to `size`.
        size: ``{"height", "width"}``, ``{"shortest_edge"}``, ``{"shortest_edge", "longest_edge"}``,
            ``{"max_height", "max_width"}``, or one number for a square.
        resample: Pillow's filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
        do_center_crop: cut `crop_size` from the middle; smaller pictures get a black border.
        crop_size: ``{"height", "width"}`` or one number.
        do_rescale: multiply by `rescale_factor`.
        rescale_factor: 1/255 brings 8-bit values to 0..1.
        do_normalize: subtract `image_mean`, divide by `image_std`.
        image_mean: one number, or one a channel.
        image_std: one number, or one a channel.
        do_reduce_labels: labels one lower, with 0 (background) as 255.
        do_convert_rgb: convert pictures that are not RGB.
        compat: ``"transformers"`` for that library's results, defects included.
        extra: fields of the file that we do not know; written back.

    Raises:
        UserError: a field of a wrong form.
    """

    types: ClassVar[tuple[str, ...]] = (
        "BeitImageProcessor",
        "BeitImageProcessorFast",
        "BeitImageProcessorPil",
        "BeitFeatureExtractor",
    )
    model_input_names: ClassVar[tuple[str, ...]] = ("pixel_values",)

    do_resize: bool = True
    size: Any = field(default_factory=lambda: {"height": 224, "width": 224})
    resample: int = 3
    do_center_crop: bool = False
    crop_size: Any = field(default_factory=lambda: {"height": 224, "width": 224})
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Any = (0.5, 0.5, 0.5)
    image_std: Any = (0.5, 0.5, 0.5)
    do_reduce_labels: bool = False
    do_convert_rgb: bool | None = None
    compat: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("size", "crop_size"):
            value = getattr(self, name)
            if isinstance(value, int):
                value = {"height": value, "width": value}
            elif isinstance(value, (list, tuple)) and len(value) == 2:
                value = {"height": value[0], "width": value[1]}
            if not isinstance(value, Mapping) or not all(isinstance(n, int) and n > 0 for n in value.values()):
                raise UserError(f"{name}={value!r}: expected a positive integer or a dict of them")
            setattr(self, name, dict(value))
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            if not all(isinstance(number, (int, float)) for number in numbers) or (
                name == "image_std" and 0 in numbers
            ):
                raise UserError(f"{name}={value!r}: expected a number or one a channel, none of them 0 for image_std")
            setattr(self, name, numbers if isinstance(value, (list, tuple)) else value)
        if not {"height", "width"} <= self.crop_size.keys():
            raise UserError(f"crop_size={self.crop_size}: height and width are needed")
        if self.resample not in range(6):
            raise UserError(f"resample={self.resample!r}: choose one of Pillow's filters, 0 to 5")
        check_compat(self.compat)

    def __call__(
        self,
        images: Any,
        segmentation_maps: Any = None,
        return_tensors: str | None = None,
        input_data_format: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Prepare a picture or a batch, and their label maps.

        Args:
            images: a picture, a list of them, or one array for a batch. A picture is an array or tensor (C, H, W) or
                (H, W, C), a Pillow image, a path, or the bytes of a file.
            segmentation_maps: for each picture a map of classes (H, W): array, tensor, Pillow image, path or bytes.
            return_tensors: ``"pt"``, ``"np"`` or None for lists.
            input_data_format: ``"channels_first"`` or ``"channels_last"``; found out from the shape if None.
            options: fields to change for this call.

        Returns:
            ``pixel_values`` (B, C, H, W) float32 and, where maps were given, ``labels`` (B, H, W) int64.

        Raises:
            UserError: what is given is no picture, its channels do not match `image_mean`, or there are more or fewer
                maps than pictures.
        """
        chosen = self._changed(options)
        pictures = [_channels_first(p, i, chosen, input_data_format) for i, p in enumerate(_items(images, 3))]
        pixels = [chosen._picture(picture, i) for i, picture in enumerate(pictures)]
        batch = {"pixel_values": collate(pixels, return_tensors, "pixel_values")}
        if segmentation_maps is not None:
            maps = [_label_map(item, i) for i, item in enumerate(_items(segmentation_maps, 2))]
            if len(maps) != len(pictures):
                raise UserError(f"{len(maps)} segmentation_maps for {len(pictures)} images")
            batch["labels"] = collate([chosen._labels(labels) for labels in maps], return_tensors, "labels")
        return BatchFeature(batch)

    preprocess = __call__

    def _changed(self, options: dict[str, Any]) -> Self:
        known = {item.name for item in fields(self)} - {"extra", "compat"}
        if unknown := options.keys() - known:
            raise UserError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    def _picture(self, image: Any, i: int) -> Any:
        """(C, H, W) of any dtype to float32."""
        if self.do_resize:
            image = resize(image, target_size(self.size, *image.shape[1:]), self.resample, f"images[{i}]")
        if self.do_center_crop:
            image = crop(image, self.crop_size["height"], self.crop_size["width"], fill=0)
        if self.do_rescale:
            if not self.do_resize and _is_float(image) and image.min() >= 0 and image.max() <= 1:
                warnings.warn(f"images[{i}] is within 0..1 already: pass do_rescale=False", stacklevel=4)
            image = _double(image) * self.rescale_factor
        image = _float(image)
        if not self.do_normalize:
            return image
        mean, std = (self._each_channel(name, image, i) for name in ("image_mean", "image_std"))
        return (image - mean) / std

    def _each_channel(self, name: str, image: Any, i: int) -> Any:
        value = getattr(self, name)
        numbers = (
            [float(value)] * len(image) if isinstance(value, (int, float)) else [float(number) for number in value]
        )
        if len(numbers) != len(image):
            hint = "; pass do_convert_rgb=True" if len(numbers) == 3 else ""
            raise UserError(f"images[{i}] has {len(image)} channels, {name} has {len(numbers)}{hint}")
        array = np.asarray(numbers, dtype=np.float32)[:, None, None]
        return image.new_tensor(array) if is_tensor(image) else array

    def _labels(self, labels: Any) -> Any:
        """(H, W) of classes to int64."""
        if self.do_reduce_labels:
            labels = labels - 1
            labels[(labels == -1) | (labels == IGNORED_LABEL - 1)] = IGNORED_LABEL
        if self.do_resize:
            size = target_size(self.size, *labels.shape)
            if self.compat:
                labels = resize(labels[None], size, self.resample, "segmentation_maps")[0]
            else:
                labels = resize_nearest(labels, size)
        if self.do_center_crop:
            fill = 0 if self.compat else IGNORED_LABEL
            labels = crop(labels, self.crop_size["height"], self.crop_size["width"], fill=fill)
        return labels.long() if is_tensor(labels) else labels.astype(np.int64)

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Any = None, return_segmentation_scores: bool = False
    ) -> list[Any]:
        """Scores of a segmentation model to one map of classes a picture.

        Args:
            outputs: what the model returned, with ``logits`` (B, classes, h, w).
            target_sizes: (height, width) of each map; the scores' own size if None.
            return_segmentation_scores: return the resized scores too.

        Returns:
            A list of (height, width) maps; or of ``segmentation`` and ``segmentation_scores`` (classes, height, width).

        Raises:
            UserError: `target_sizes` has not one size a picture.
        """
        logits: torch.Tensor = outputs.logits
        sizes = None if target_sizes is None else [(int(height), int(width)) for height, width in target_sizes]
        if sizes is not None and len(sizes) != len(logits):
            raise UserError(f"target_sizes has {len(sizes)} sizes for {len(logits)} pictures")
        scores = list(logits)
        for i, (height, width) in enumerate(sizes or []):
            rows = bilinear_matrix(logits.shape[2], height, logits)
            columns = bilinear_matrix(logits.shape[3], width, logits)
            scores[i] = (rows @ logits[i].to(rows.dtype) @ columns.T).to(logits.dtype)
        maps = [score.argmax(0) for score in scores]
        if not return_segmentation_scores:
            return maps
        return [
            BatchFeature({"segmentation": labels, "segmentation_scores": score})
            for labels, score in zip(maps, scores, strict=True)
        ]

    # Files

    def to_dict(self) -> dict[str, Any]:
        """The published fields."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}
        return {**self.extra, **values, "image_processor_type": self.types[0]}

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, **options: Any) -> Self:
        """Read ``preprocessor_config.json`` from a folder or a hub id.

        Args:
            path_or_id: folder or hub id.
            options: override fields, or go to `data2vec.hub.resolve`.

        Raises:
            UserError: no such file, the file of another kind of processor, or an option that there is not.
        """
        hub = {key: options.pop(key) for key in HUB_ARGUMENTS if key in options}
        known = {item.name for item in fields(cls)} - {"extra"}
        if unknown := options.keys() - known:
            raise UserError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}")
        settings = load_settings(path_or_id, "image_processor", cls.types, **hub)
        if "reduce_labels" in settings:  # its name before 4.26
            settings.setdefault("do_reduce_labels", settings.pop("reduce_labels"))
        for name in ("image_processor_type", "feature_extractor_type"):
            settings.pop(name, None)
        extra = {name: settings.pop(name) for name in list(settings) if name not in known}
        return cls(**{**{k: v for k, v in settings.items() if v is not None}, **options}, extra=extra)

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``preprocessor_config.json`` into a folder."""
        write_json(new_folder(path) / PREPROCESSOR_FILE, self.to_dict())


def _items(value: Any, dimensions: int) -> list[Any]:
    """One picture (or map), a list, or an array of them, as a list."""
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _items(part, dimensions)]
    if not isinstance(value, np.ndarray) and not is_tensor(value):
        return [value]
    return list(value) if value.ndim == dimensions + 1 else [value]


def _channels_first(image: Any, i: int, settings: BeitImageProcessor, layout: str | None) -> Any:
    """A picture as (C, H, W)."""
    if layout not in (None, "channels_first", "channels_last"):
        raise UserError(f"input_data_format={layout!r}: choose 'channels_first' or 'channels_last'")
    if isinstance(image, (str, Path, bytes)) or hasattr(image, "read"):
        image = load_image(image)
    if isinstance(image, Image.Image):
        layout = "channels_last"
        image = np.array(to_rgb(image) if settings.do_convert_rgb else image)
    if not isinstance(image, np.ndarray) and not is_tensor(image):
        raise UserError(
            f"images[{i}] is {type(image).__name__}: expected an array, a tensor, a Pillow image, a path or bytes"
        )
    if image.ndim == 2:
        image, layout = image[None], "channels_first"
    if image.ndim != 3 or 0 in image.shape:
        raise UserError(f"images[{i}] has shape {tuple(image.shape)}, expected 3 axes: channels, height, width")
    if layout is None:
        if image.shape[0] not in _CHANNELS and image.shape[2] not in _CHANNELS:
            raise UserError(
                f"images[{i}] has shape {tuple(image.shape)}: which axis is the channels? pass input_data_format"
            )
        layout = "channels_first" if image.shape[0] in _CHANNELS else "channels_last"
    if layout == "channels_last":
        image = image.permute(2, 0, 1) if is_tensor(image) else np.moveaxis(image, -1, 0)
    if _is_float(image) and bool((image != image).any()):
        raise UserError(f"images[{i}] holds NaN")
    return _to_three(image) if settings.do_convert_rgb and len(image) in (1, 4) else image


def _to_three(image: Any) -> Any:
    """Grey to three equal channels; alpha left out."""
    return image[[0, 0, 0]] if len(image) == 1 else image[:3]


def _label_map(labels: Any, i: int) -> Any:
    """A map of classes as (H, W) int64 that is ours to change."""
    if isinstance(labels, (str, Path, bytes)) or hasattr(labels, "read"):
        try:
            labels = Image.open(io.BytesIO(labels) if isinstance(labels, bytes) else labels)
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(f"segmentation_maps[{i}] cannot be read: {error}") from error
    if isinstance(labels, Image.Image):
        labels = np.array(labels)
    if not isinstance(labels, np.ndarray) and not is_tensor(labels):
        raise UserError(
            f"segmentation_maps[{i}] is {type(labels).__name__}: expected an array, a tensor, a path or bytes"
        )
    if labels.ndim != 2:
        raise UserError(f"segmentation_maps[{i}] has shape {tuple(labels.shape)}, expected (height, width) of classes")
    return labels.long().clone() if is_tensor(labels) else labels.astype(np.int64)


def _is_float(image: Any) -> bool:
    return bool(image.is_floating_point()) if is_tensor(image) else np.issubdtype(image.dtype, np.floating)


def _double(image: Any) -> Any:
    return image.double() if is_tensor(image) else image.astype(np.float64)


def _float(image: Any) -> Any:
    return image.float() if is_tensor(image) else image.astype(np.float32)
