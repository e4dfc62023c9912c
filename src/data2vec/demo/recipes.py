"""Recipes for a minute of one core: the presets ``tiny``, made smaller still. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.objectives.masking import BeitBlockMask
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import preset
from data2vec.training.config import TrainConfig

T = TypeVar("T")

METHODS: Mapping[str, str] = {"v1": "tiny", "v2": "v2-tiny"}
"""A method, and the preset that its recipes start from."""

PATIENCE: Mapping[str, float] = {"speech": 1.0, "images": 1.0, "text": 5 / 3}
"""Of each modality's training, as a multiple of the time asked for: words take longest."""


def recipe(modality: str, method: str, minutes: float, seed: int) -> PretrainConfig:
    """A run of so many minutes of CPU time.

    Args:
        modality: a name of `RECIPES`.
        method: a name of `METHODS`.
        minutes: CPU time of the training.
        seed: of weights, order and masks.
    """
    door = {"speech": "audio", "images": "vision"}.get(modality, modality)
    return replace(
        RECIPES[modality](preset(door, METHODS[method])),
        train=TrainConfig(max_minutes=minutes, clock="cpu", precision="fp32", log_every=10, save_minutes=0, seed=seed),
        loader=LoaderConfig(workers=0, seed=seed),
    )


def speech(base: PretrainConfig) -> PretrainConfig:
    """Words at 8 kHz joined to 2 s; frames of 20 ms."""
    return replace(
        base,
        model=base.model.replace(
            **_size(96, depth=4), conv_dim=(48,) * 6, conv_stride=(5, 2, 2, 2, 2, 2), conv_kernel=(10, 3, 3, 3, 3, 2)
        ),
        objective=_paced(base, updates=800),
        data=AudioDataConfig(
            sampling_rate=8000,
            min_samples=800,
            min_crop=8000,
            max_samples=16_000,
            concatenate=16_000,
            batch_samples=_one_of(base, 96_000, 48_000),
        ),
        optim=replace(base.optim, lr=1e-3),
    )


def images(base: PretrainConfig) -> PretrainConfig:
    """Digits of 8 x 8 pixels in patches of 2."""
    return replace(
        base,
        model=base.model.replace(
            **_size(96, depth=4), **_one_of(base, {}, {"prenet_depth": 1}), image_size=8, patch_size=2
        ),
        objective=_paced(base, updates=800),
        mask=_one_of(base, BeitBlockMask(prob=0.6, min_area=2), base.mask),
        data=VisionDataConfig(
            image_size=8, augment="none", mean=(0.3,) * 3, std=(0.35,) * 3, batch_images=_one_of(base, 64, 16)
        ),
    )


def text(base: PretrainConfig) -> PretrainConfig:
    """Rows of 48 tokens of a vocabulary of 3,000; a slow teacher: with a fast one the targets shrink to a point.

    Distances instead of learned positions (data2vec 2: by the preset): those would explain most of the targets.
    """
    objective = _paced(base, updates=1500, layers=2)
    if base.version == 2:
        objective = replace(objective, decoder=replace(objective.decoder, channels=192))
    return replace(
        base,
        model=base.model.replace(
            **_size(64, depth=2),
            **_one_of(base, {"position_embedding_type": "relative_key"}, {}),
            vocab_size=3000,
            max_position_embeddings=50,
        ),
        objective=replace(objective, ema=replace(objective.ema, start=0.999, end=0.9999)),
        data=TextDataConfig(block_size=48, blocks="complete", vocab_size=3000, batch_tokens=32 * 48),
        optim=replace(base.optim, lr=1e-3),
    )


RECIPES: Mapping[str, Callable[[PretrainConfig], PretrainConfig]] = {"speech": speech, "images": images, "text": text}


def _one_of(base: PretrainConfig, v1: T, v2: T) -> T:
    return v1 if base.version == 1 else v2


def _size(width: int, depth: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": 4,
        "intermediate_size": 4 * width,
    }


def _paced(base: PretrainConfig, updates: int, layers: int = 3) -> Any:
    """The preset's objective for a run of about so many updates: a teacher that follows ten times as fast."""
    objective = base.objective
    ema = replace(objective.ema, start=0.99, end=0.999, anneal_updates=updates)
    return replace(objective, target=replace(objective.target, layers=layers), ema=ema)
