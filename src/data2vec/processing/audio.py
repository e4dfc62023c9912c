"""Sound as a model takes it: one channel, one rate, zero mean, unit variance, padded to a batch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS
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
from data2vec.processing.tokens import PADDINGS
from data2vec.processing.waveform import audio_info, load_waveform, resample

_EPS = 1e-7
"""Added to the variance, as in the published extractor."""
_MAX_CHANNELS = 8


class Wav2Vec2FeatureExtractor:
    """Clips to ``input_values``: checked, normalised over their own samples, padded.

    Other than the published extractor unless ``compat="transformers"``: the mask is returned by default, and padding
    never takes part in the mean and the variance.

    Args:
        feature_size: values a sample; 1.
        sampling_rate: samples a second that the model was trained on.
        padding_value: what clips are padded with.
        return_attention_mask: return the mask; None means yes (no under `compat`).
        do_normalize: bring each clip to mean 0 and variance 1.
        padding_side: ``"right"`` or ``"left"``.
        compat: ``"transformers"`` for that library's results, defects included.

    Raises:
        UserError: a field out of its range.
    """

    types = ("Wav2Vec2FeatureExtractor",)
    model_input_names = ("input_values", "attention_mask")

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        return_attention_mask: bool | None = None,
        do_normalize: bool = True,
        *,
        padding_side: str = "right",
        compat: str | None = None,
    ) -> None:
        if feature_size != 1:
            raise UserError(f"feature_size={feature_size}: a waveform has 1 value a sample")
        if not isinstance(sampling_rate, int) or sampling_rate <= 0:
            raise UserError(f"sampling_rate={sampling_rate!r} must be a positive integer")
        if padding_side not in ("left", "right"):
            raise UserError(f"padding_side={padding_side!r}: choose 'left' or 'right'")
        self.feature_size, self.sampling_rate, self.padding_value = 1, sampling_rate, float(padding_value)
        self.do_normalize, self.padding_side, self.compat = bool(do_normalize), padding_side, check_compat(compat)
        self.return_attention_mask = compat is None if return_attention_mask is None else bool(return_attention_mask)
        self.extra: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict()})"

    def __call__(
        self,
        raw_speech: Any,
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
        *,
        resample: bool = False,
        mix_down: bool = False,
    ) -> BatchFeature:
        """Prepare one clip or a batch.

        Args:
            raw_speech: a clip or a list of clips. A clip is an array, tensor or list of samples, a path, or the
                bytes of a file. A 2-D array is a batch (clips, samples), or with `mix_down` one clip's channels.
            padding: False, True or ``"longest"``, ``"max_length"``.
            max_length: samples, for ``padding="max_length"`` and for `truncation`.
            truncation: cut clips at `max_length`.
            pad_to_multiple_of: round the length up to a multiple.
            return_attention_mask: return the mask (1 = sample, 0 = padding); the field of that name if None.
            return_tensors: ``"pt"``, ``"np"`` or None for a list of arrays.
            sampling_rate: rate of arrays and tensors; files know their own.
            resample: bring other rates to `sampling_rate` of the extractor, in place of an error.
            mix_down: average channels, in place of an error.

        Returns:
            ``input_values`` (clips, samples) float32 and ``attention_mask`` (clips, samples) int32, on the device of
            the tensors that came in.

        Raises:
            UserError: wrong rate, several channels, no samples, NaN, or nothing that is sound.
        """
        sources = _clips(raw_speech, mix_down)
        if sampling_rate is None and not all(_is_file(source) for source in sources):
            warnings.warn("pass sampling_rate: a wrong rate cannot be noticed without it", stacklevel=2)
        clips = [self._clip(source, i, sampling_rate, resample, mix_down) for i, source in enumerate(sources)]
        masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        clips, width = self._cut(clips, padding, max_length, truncation, pad_to_multiple_of)
        if self.do_normalize and not (self.compat and width):
            clips = [_normalize(clip) for clip in clips]
        values = [self._fill(clip, width, self.padding_value) for clip in clips]
        masks = [self._fill(_ones(clip), width, 0) for clip in clips]
        if self.do_normalize and self.compat and width:
            values = [
                _normalize_padded(row, mask if masked else None, self.padding_value)
                for row, mask in zip(values, masks, strict=True)
            ]
        batch = {"input_values": collate(values, return_tensors, "input_values")}
        if masked:
            batch["attention_mask"] = collate(masks, return_tensors, "attention_mask")
        return BatchFeature(batch)

    def pad(
        self,
        processed_features: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pad clips that were prepared before, as a data loader collates them.

        Args:
            processed_features: a dict of lists or a list of dicts: ``input_values``, perhaps ``attention_mask``.
            padding: as in a call; True by default.
            max_length: as in a call.
            truncation: as in a call.
            pad_to_multiple_of: as in a call.
            return_attention_mask: as in a call.
            return_tensors: ``"pt"``, ``"np"``, or None for the kind that came in.
        """
        if isinstance(processed_features, Mapping):
            columns = dict(processed_features)
        else:
            keys = processed_features[0] if processed_features else ()
            columns = {key: [row[key] for row in processed_features] for key in keys}
        if "input_values" not in columns:
            raise UserError(f"processed_features: pad needs input_values, found {', '.join(columns) or 'nothing'}")
        clips = [_as_array(clip, i) for i, clip in enumerate(columns["input_values"])]
        given = columns.get("attention_mask")
        masks = (
            [_ones(clip) for clip in clips]
            if given is None
            else [_as_array(mask, i, int) for i, mask in enumerate(given)]
        )
        masked = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        clips, width = self._cut(clips, padding, max_length, truncation, pad_to_multiple_of)
        masks = [mask[: len(clip)] for mask, clip in zip(masks, clips, strict=True)]
        kind = return_tensors or ("pt" if any(is_tensor(clip) for clip in clips) else "np")
        values = [self._fill(clip, width, self.padding_value) for clip in clips]
        batch = {**columns, "input_values": collate(values, kind, "input_values")}
        if masked or given is not None:
            batch["attention_mask"] = collate([self._fill(mask, width, 0) for mask in masks], kind, "attention_mask")
        return BatchFeature(batch)

    def _clip(self, source: Any, i: int, rate: int | None, resample_to: bool, mix_down: bool) -> Any:
        """One clip as a float32 vector at the extractor's rate."""
        if _is_file(source):
            source = source.read() if hasattr(source, "read") else source
            info = audio_info(source)
            name = source if isinstance(source, (str, Path)) else f"raw_speech[{i}]"
            self._check_rate(info.rate, resample_to, f"{name}: ")
            if info.channels > 1 and not mix_down:
                raise UserError(f"{name} has {info.channels} channels: pass mix_down=True to average them")
            return load_waveform(source, self.sampling_rate)
        if rate is not None:
            self._check_rate(rate, resample_to, "")
        clip = _as_array(source, i)
        if clip.ndim == 2 and mix_down:
            if min(clip.shape) > _MAX_CHANNELS:
                raise UserError(f"raw_speech[{i}]: shape {tuple(clip.shape)} is no clip of several channels")
            clip = clip.mean(int(clip.shape[0] > clip.shape[1]))
        if clip.ndim != 1:
            hint = "; pass mix_down=True to average its channels" if clip.ndim == 2 else ""
            raise UserError(f"raw_speech[{i}] has shape {tuple(clip.shape)}, expected (samples,){hint}")
        if not len(clip):
            raise UserError(f"raw_speech[{i}] is empty: it has no samples")
        if not bool((abs(clip) < float("inf")).all()):
            raise UserError(f"raw_speech[{i}] holds NaN or infinite samples")
        if rate in (None, self.sampling_rate):
            return clip
        if is_tensor(clip):
            return clip.new_tensor(resample(clip.cpu().numpy(), rate, self.sampling_rate))
        return resample(clip, rate, self.sampling_rate)

    def _check_rate(self, rate: int, resample_to: bool, where: str) -> None:
        if rate != self.sampling_rate and not resample_to:
            raise UserError(f"{where}sampling_rate is {rate}, the model needs {self.sampling_rate}: pass resample=True")

    def _cut(
        self, clips: list[Any], padding: bool | str, max_length: int | None, truncation: bool, multiple: int | None
    ) -> tuple[list[Any], int | None]:
        """Truncate clips; the length to pad them to, or None for no padding."""
        choice = padding if isinstance(padding, str) else "longest" if padding else "do_not_pad"
        if choice not in PADDINGS:
            raise UserError(f"padding={padding!r}: choose True, False or one of {', '.join(PADDINGS)}")
        if max_length is None and (truncation or choice == "max_length"):
            raise UserError(f"max_length is needed for {'truncation=True' if truncation else 'padding=max_length'}")
        step = multiple or 1
        limit = None if max_length is None else -(-max_length // step) * step
        if truncation:
            clips = [clip[:limit] for clip in clips]
        if choice == "longest":
            return clips, -(-max((len(clip) for clip in clips), default=0) // step) * step
        return clips, limit if choice == "max_length" else None

    def _fill(self, row: Any, width: int | None, value: float) -> Any:
        missing = max(0, (width or 0) - len(row))
        if not missing:
            return row
        if is_tensor(row):
            import torch

            fill = row.new_full((missing,), value)
            return torch.cat([row, fill] if self.padding_side == "right" else [fill, row])
        return np.pad(row, (0, missing) if self.padding_side == "right" else (missing, 0), constant_values=value)

    # Files

    def to_dict(self) -> dict[str, Any]:
        """The published fields."""
        names = (
            "do_normalize",
            "feature_size",
            "padding_side",
            "padding_value",
            "return_attention_mask",
            "sampling_rate",
        )
        compat = {"compat": self.compat} if self.compat else {}
        return {
            **self.extra,
            **compat,
            "feature_extractor_type": self.types[0],
            **{name: getattr(self, name) for name in names},
        }

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, **options: Any) -> Self:
        """Read ``preprocessor_config.json`` (or ``processor_config.json``) from a folder or a hub id.

        Args:
            path_or_id: folder or hub id.
            options: override fields, or go to `data2vec.hub.resolve`.

        Raises:
            UserError: no such file, the file of another kind of processor, or an option that there is not.
        """
        hub = {key: options.pop(key) for key in HUB_ARGUMENTS if key in options}
        known = inspect.signature(cls).parameters
        if unknown := options.keys() - known.keys():
            raise UserError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}")
        settings = load_settings(path_or_id, "feature_extractor", cls.types, **hub)
        extra = {key: settings.pop(key) for key in list(settings) if key not in known}
        extractor = cls(**{**settings, **options})
        extractor.extra = extra
        return extractor

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``preprocessor_config.json`` into a folder."""
        write_json(new_folder(path) / PREPROCESSOR_FILE, self.to_dict())


def _is_file(source: object) -> bool:
    return isinstance(source, (str, Path, bytes)) or hasattr(source, "read")


def _clips(raw: Any, mix_down: bool) -> list[Any]:
    """What a call was given, as a list of clips."""
    if _is_file(raw):
        return [raw]
    if isinstance(raw, (list, tuple)):
        if not raw:
            raise UserError("raw_speech is empty: it has no clips")
        return [raw] if isinstance(raw[0], (int, float, np.number)) else list(raw)
    if not isinstance(raw, np.ndarray) and not is_tensor(raw):
        raise UserError(f"raw_speech is {type(raw).__name__}: expected arrays, tensors, paths or bytes")
    if raw.ndim == 2 and not mix_down and raw.shape[1] <= _MAX_CHANNELS < raw.shape[0]:
        raise UserError(
            f"raw_speech has shape {tuple(raw.shape)}, which reads as (samples, channels) of one clip: "
            "pass mix_down=True to average its channels"
        )
    return list(raw) if raw.ndim == 3 or (raw.ndim == 2 and not mix_down) else [raw]


def _as_array(value: Any, i: int, dtype: type = float) -> Any:
    """A float32 (or int32) array, or tensor where it is one."""
    if is_tensor(value):
        value = value.detach()
        return value.float() if dtype is float else value.int()
    try:
        return np.asarray(value).astype(np.float32 if dtype is float else np.int32, casting="unsafe")
    except (TypeError, ValueError) as error:
        raise UserError(f"raw_speech[{i}] is no clip of samples: {type(value).__name__} ({error})") from error


def _ones(clip: Any) -> Any:
    if is_tensor(clip):
        import torch

        return torch.ones(len(clip), dtype=torch.int32, device=clip.device)
    return np.ones(len(clip), dtype=np.int32)


def _normalize(clip: Any) -> Any:
    """(samples,) array or tensor with mean 0 and variance 1; silence stays 0."""
    centred = clip - clip.mean()
    return centred / ((centred**2).mean() + _EPS) ** 0.5


def _normalize_padded(row: Any, mask: Any, padding_value: float) -> Any:
    """What transformers does, after padding: without a mask padding counts, with one clips are taken to lie left."""
    valid = row if mask is None else row[: int(mask.sum())]
    centred = valid - valid.mean()
    row = (row - valid.mean()) / ((centred**2).mean() + _EPS) ** 0.5
    row[len(valid) :] = padding_value
    return row
