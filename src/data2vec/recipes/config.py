"""Everything that decides a pre-training run, in one value: what a recipe returns and a run folder keeps. No torch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data2vec.configuration import PretrainedConfig
from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.errors import UserError
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, ObjectiveConfig
from data2vec.objectives.masking import BeitBlockMask, BlockMask1d, BlockMask2d, RandomMask, SpanMask, TextMask
from data2vec.training.config import OptimConfig, TrainConfig

Modality = Literal["audio", "vision", "text"]
Mask = SpanMask | TextMask | BeitBlockMask | RandomMask | BlockMask1d | BlockMask2d

_MODELS: dict[tuple[int, str], type[PretrainedConfig]] = {
    (1, "audio"): Data2VecAudioConfig,
    (1, "vision"): Data2VecVisionConfig,
    (1, "text"): Data2VecTextConfig,
    (2, "audio"): Data2Vec2AudioConfig,
    (2, "vision"): Data2Vec2VisionConfig,
    (2, "text"): Data2Vec2TextConfig,
}
_OBJECTIVES: dict[int, type] = {1: ObjectiveConfig, 2: Data2Vec2ObjectiveConfig}
_DATA: dict[str, type] = {"audio": AudioDataConfig, "vision": VisionDataConfig, "text": TextDataConfig}
_MASKS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(Mask)}
_PLAIN: dict[str, type] = {"optim": OptimConfig, "train": TrainConfig, "loader": LoaderConfig}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A whole pre-training run.

    Attributes:
        model: the network, saved as ``config.json`` beside the weights.
        objective: targets, teacher, loss.
        mask: what is hidden from the student.
        copies: masks drawn for each sample; data2vec 2 only, data2vec 1 has one.
        data: what is cut from which files, and the size of a global batch.
        optim: optimizer and schedule.
        train: the loop: how long, in which precision, what is saved.
        loader: order and workers.

    Raises:
        UserError: parts that do not fit each other.
    """

    model: Data2VecAudioConfig | Data2VecVisionConfig | Data2VecTextConfig
    objective: ObjectiveConfig | Data2Vec2ObjectiveConfig
    mask: Mask
    copies: int = 1
    data: AudioDataConfig | VisionDataConfig | TextDataConfig
    optim: OptimConfig
    train: TrainConfig
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        depth, layers = self.model.num_hidden_layers, self.objective.target.layers
        blocks = f"model.num_hidden_layers={depth}"
        if isinstance(self.model, Data2Vec2AudioConfig | Data2Vec2VisionConfig | Data2Vec2TextConfig):
            depth, blocks = depth - self.model.prenet_depth, f"{blocks} - model.prenet_depth={self.model.prenet_depth}"
        if layers > depth:
            raise UserError(f"objective.target.layers={layers} exceeds {blocks}")
        if self.copies < 1 or (self.copies > 1 and self.version == 1):
            raise UserError(f"copies={self.copies}: data2vec 2 draws one mask or more for each sample, data2vec 1 one")
        match self.model, self.data:
            case Data2VecVisionConfig() as model, VisionDataConfig() as data:
                if model.image_shape != (data.image_size, data.image_size):
                    raise UserError(f"data.image_size={data.image_size} is not model.image_size={model.image_size}")
                if self.version == 1 and not model.use_mask_token:
                    raise UserError("model.use_mask_token=False: pre-training needs the mask token")
            case Data2VecTextConfig() as model, TextDataConfig() as data:
                if data.block_size > model.max_length:
                    raise UserError(
                        f"data.block_size={data.block_size} exceeds the {model.max_length} tokens that "
                        f"model.max_position_embeddings={model.max_position_embeddings} allows"
                    )
            case Data2VecAudioConfig() as model, AudioDataConfig() as data:
                if model.frames(data.min_samples) < 2:
                    raise UserError(f"data.min_samples={data.min_samples} is shorter than two frames of the model")
            case _:
                raise UserError("the data are of another modality than the model")
        assert type(self.model) is _MODELS[self.version, self.modality], "model and objective are of one version"

    @property
    def version(self) -> int:
        """1 or 2: whose objective it is. The model's class goes with it."""
        return 2 if isinstance(self.objective, Data2Vec2ObjectiveConfig) else 1

    @property
    def modality(self) -> Modality:
        """Which front door the model has."""
        match self.model:
            case Data2VecAudioConfig():
                return "audio"
            case Data2VecVisionConfig():
                return "vision"
            case Data2VecTextConfig():
                return "text"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        plain = {name: dataclasses.asdict(getattr(self, name)) for name in ("data", *_PLAIN)}
        model = {**self.model.to_dict(), "attn_implementation": self.model.attn_implementation}
        mask = {"kind": type(self.mask).__name__, **dataclasses.asdict(self.mask)}
        objective = dataclasses.asdict(self.objective)
        parts = {"model": model, "objective": objective, "mask": mask, "copies": self.copies}
        return {"version": self.version, "modality": self.modality, **parts, **plain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """What `to_dict` wrote.

        Raises:
            UserError: a part is missing, or has a value or a name that this version does not know.
        """
        try:
            version, modality, mask = values["version"], values["modality"], dict(values["mask"])
            parts: dict[str, Any] = {name: _read(kind, values[name]) for name, kind in _PLAIN.items()}
            parts["model"] = _MODELS[version, modality].from_dict(values["model"])
            parts["objective"] = _read(_OBJECTIVES[version], values["objective"])
            parts["copies"] = values["copies"]
            parts["mask"] = _read(_MASKS[mask.pop("kind")], mask)
            parts["data"] = _read(_DATA[modality], values["data"])
            return cls(**parts)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"these are not the settings of a pre-training run of this version: {error}") from error

    def summary(self) -> str:
        """The few lines that tell a person what is going to be trained."""
        model, optim, train, target = self.model, self.optim, self.train, self.objective.target
        ema = self.objective.ema
        length = f"{train.updates:,} updates" if train.updates else f"{train.max_minutes:g} minutes ({train.clock})"
        return "\n".join(
            [
                f"data2vec   {self.version}, {self.modality}: {model.num_hidden_layers} layers of {model.hidden_size}",
                f"targets    mean of the top {target.layers} layers, EMA {ema.start:g} -> {ema.end:g}",
                f"mask       {_changed(self.mask)}{f', {self.copies} a sample' if self.copies > 1 else ''}",
                f"batch      {self.data.batch_size:,} {_UNITS[self.modality]}, {length}",
                f"optimizer  {optim.optimizer}, lr {optim.lr:g} {optim.schedule}, {train.precision}",
            ]
        )


def _changed(mask: Mask) -> str:
    """The mask with those of its values that are not the defaults."""
    values = {item.name: getattr(mask, item.name) for item in dataclasses.fields(mask)}
    plain = type(mask)()
    return f"{type(mask).__name__}({', '.join(f'{k}={v}' for k, v in values.items() if v != getattr(plain, k))})"


_UNITS = {"audio": "samples", "vision": "images", "text": "tokens"}


def _read(kind: Any, value: Any) -> Any:
    """JSON values as the type `kind`: dataclasses by their fields, lists as tuples where the field is one."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and not issubclass(kind, PretrainedConfig):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})
    return tuple(_read(None, item) for item in value) if isinstance(value, list) else value
