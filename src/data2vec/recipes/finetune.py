"""Everything that decides a fine-tuning run, in one value, and its presets. No torch.

``little`` is for thousands of examples or fewer and a model that a CPU trains; its values are ours. ``base`` holds the
published values of the base models (algorithms.md 4 names the files they are from).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from data2vec.data.config import LoaderConfig
from data2vec.errors import UserError
from data2vec.tasks.config import UNITS, AugmentConfig, LabelledConfig, TaskName
from data2vec.training.config import OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A whole fine-tuning run.

    Attributes:
        task: what is learned.
        data: what is read, and the size of a batch.
        augment: what is done to training examples.
        network: fields of the model's config.json to change: dropouts, drop path, time and channel masks ...; on the
            command line, one that the preset leaves alone is given by ``--set name=value``.
        freeze: ``frontend``: the convolutions, patch or word embeddings stay as they are; ``encoder``: all but the
            head does.
        freeze_updates: only the head learns for so many updates.
        lora: rank of low-rank adapters on the attention's q and v, with the rest of the encoder frozen; 0 is off.
        scratch: begin with fresh weights (of the same architecture) instead of the model's.
        optim: optimizer and schedule.
        train: the loop; evaluated on the held-out examples every `eval_every` updates.
        loader: order and workers.
    """

    task: TaskName
    data: LabelledConfig = field(default_factory=LabelledConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    network: dict[str, Any] = field(default_factory=dict)
    freeze: Literal["none", "frontend", "encoder"] = "none"
    freeze_updates: int = 0
    lora: int = 0
    scratch: bool = False
    optim: OptimConfig
    train: TrainConfig
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(max_bad_share=0.0))

    def __post_init__(self) -> None:
        if self.freeze_updates < 0 or self.lora < 0:
            raise UserError(f"freeze_updates={self.freeze_updates}, lora={self.lora}: must not be negative")
        if self.augment.soft and self.task not in (
            "audio-classification",
            "text-classification",
            "image-classification",
        ):
            raise UserError(f"mixup, cutmix and smoothing are for classes, not for {self.task}")
        if (self.augment.mixup or self.augment.cutmix) and self.task == "text-classification":
            raise UserError("texts cannot be blended: augment.mixup=0, augment.cutmix=0")

    @property
    def budget(self) -> int:
        """Size of a global batch as the sampler counts it: samples (of 16 kHz), tokens or images."""
        return round(self.data.batch * (16_000 if UNITS[self.task] == "seconds" else 1))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinetuneConfig:
        """What `to_dict` wrote.

        Raises:
            UserError: a name or a value that this version does not know.
        """
        try:
            return _read(cls, {name: value for name, value in values.items() if name in _NAMES})  # type: ignore[no-any-return]
        except (KeyError, TypeError) as error:
            raise UserError(f"these are not the settings of a fine-tuning run of this version: {error}") from error


_NAMES = {item.name for item in dataclasses.fields(FinetuneConfig)}


def _read(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})
    return tuple(value) if isinstance(value, list) else value


# Presets


def _optim(lr: float, **changes: Any) -> OptimConfig:
    """Adam, a tenth of warm-up, linear to 0."""
    plain = OptimConfig(lr=lr, weight_decay=0.01, clip_norm=1.0, schedule="polynomial", warmup=0.1, hold=0.0)
    return replace(plain, **changes)


def _tri_stage(lr: float) -> OptimConfig:
    """wav2vec 2.0's fine-tuning: a tenth up, four tenths held, the rest exponentially down to a twentieth."""
    return OptimConfig(
        lr=lr,
        betas=(0.9, 0.98),
        eps=1e-8,
        weight_decay=0.0,
        schedule="tri_stage",
        warmup=0.1,
        hold=0.4,
        init_scale=0.01,
        final_scale=0.05,
    )


def _train(updates: int, evaluations: int = 20, patience: int = 0) -> TrainConfig:
    return TrainConfig(
        updates=updates, eval_every=max(1, updates // evaluations), patience=patience, log_every=max(1, updates // 40)
    )


def asr_little() -> FinetuneConfig:
    """Minutes of transcribed speech, a small encoder: tri-stage, the head alone first, clips at several speeds.

    The head learns fast and the blocks below ever slower: at one rate for all, nothing but blanks is written for a long
    time.
    """
    return FinetuneConfig(
        task="asr",
        data=LabelledConfig(batch=20),
        augment=AugmentConfig(speed=0.15, noise=20.0),
        network={
            "mask_time_prob": 0.1,
            "mask_time_length": 3,
            "mask_feature_prob": 0.0,
            "hidden_dropout": 0.1,
            "layerdrop": 0.0,
            "final_dropout": 0.1,
        },
        freeze_updates=100,
        optim=replace(_tri_stage(lr=4e-3), layer_decay=0.5),
        train=_train(2000),
    )


def asr_base() -> FinetuneConfig:
    """``base_100h.yaml`` of fairseq: 100 hours of LibriSpeech, 80,000 updates of 27 minutes (2 GPUs x 4 x 3.2 M)."""
    return FinetuneConfig(
        task="asr",
        data=LabelledConfig(batch=1600, max_seconds=36),
        network={
            "mask_time_prob": 0.65,
            "mask_time_length": 10,
            "mask_feature_prob": 0.5,
            "mask_feature_length": 64,
            "layerdrop": 0.1,
            "activation_dropout": 0.1,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "final_dropout": 0.0,
        },
        freeze="frontend",
        optim=_tri_stage(lr=3e-5),
        train=_train(80_000),
    )


def asr_base_10h() -> FinetuneConfig:
    """``base_10h.yaml`` of fairseq: the encoder is frozen for half of the 20,000 updates."""
    base = asr_base()
    return replace(
        base,
        network={**base.network, "layerdrop": 0.05},
        freeze_updates=10_000,
        optim=_tri_stage(lr=5e-5),
        train=_train(20_000),
    )


def audio_classification_little() -> FinetuneConfig:
    """Minutes of clips, a small encoder."""
    return FinetuneConfig(
        task="audio-classification",
        data=LabelledConfig(batch=16),
        augment=AugmentConfig(speed=0.1, noise=20.0),
        network={"mask_time_prob": 0.1, "mask_time_length": 3, "mask_time_min_masks": 1, "classifier_proj_size": 256},
        optim=_optim(2e-3),
        train=_train(1200),
    )


def audio_frames_little() -> FinetuneConfig:
    """Minutes of recordings with turns, a small encoder under a fast head: at one rate, all stays silence for long."""
    return FinetuneConfig(
        task="audio-frames",
        data=LabelledConfig(batch=20, max_seconds=15),
        augment=AugmentConfig(noise=20.0),
        network={"mask_time_prob": 0.1, "mask_time_length": 5, "mask_time_min_masks": 1},
        optim=_optim(3e-3, layer_decay=0.6),
        train=_train(500),
    )


def speaker_verification_little() -> FinetuneConfig:
    """Minutes of clips of a few speakers, a small encoder; an x-vector head of 128 channels that reads .1 s, not .3."""
    return FinetuneConfig(
        task="speaker-verification",
        data=LabelledConfig(batch=16),
        augment=AugmentConfig(noise=20.0),
        network={
            "mask_time_prob": 0.1,
            "mask_time_length": 3,
            "mask_time_min_masks": 1,
            "tdnn_dim": [128, 128, 256],
            "tdnn_kernel": [3, 3, 1],
            "tdnn_dilation": [1, 1, 1],
            "xvector_output_dim": 128,
        },
        optim=_optim(1e-3),
        train=_train(400),
    )


def _text_little(task: TaskName, updates: int, **data: Any) -> FinetuneConfig:
    return FinetuneConfig(
        task=task,
        data=LabelledConfig(**{"batch": 2048, **data}),
        network={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        optim=_optim(1e-3),
        train=_train(updates),
    )


def token_classification_little() -> FinetuneConfig:
    """Thousands of sentences, a small encoder."""
    little = _text_little("token-classification", 800, batch=1024)
    return replace(little, augment=AugmentConfig(hide=0.15))


def question_answering_little() -> FinetuneConfig:
    """Hundreds of questions, a small encoder: enough to run, too little to learn to answer."""
    return _text_little("question-answering", 800, stride=32)


def multiple_choice_little() -> FinetuneConfig:
    """Thousands of choices, a small encoder."""
    return _text_little("multiple-choice", 800)


def fill_mask_little() -> FinetuneConfig:
    """Plain text of a domain, a small encoder."""
    return _text_little("fill-mask", 1000, dev_share=0.1)


def causal_lm_little() -> FinetuneConfig:
    """A book, a small encoder."""
    return _text_little("causal-lm", 1000, dev_share=0.1)


def semantic_segmentation_little() -> FinetuneConfig:
    """Dozens of pictures with label maps, a small encoder."""
    return FinetuneConfig(
        task="semantic-segmentation",
        data=LabelledConfig(batch=4, image_size=96),
        network={"drop_path_rate": 0.1},
        optim=_optim(1e-3, layer_decay=0.8, weight_decay=0.05),
        train=_train(600, evaluations=6),
    )


def text_classification_little() -> FinetuneConfig:
    """Thousands of texts, a small encoder: classified by the mean of their tokens, as the first was never trained.

    Hidden tokens and dropout, because such a model knows thousands of texts by heart within a few passes.
    """
    return FinetuneConfig(
        task="text-classification",
        data=LabelledConfig(batch=1024),
        augment=AugmentConfig(hide=0.25),
        network={"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1, "classifier_pooling": "mean"},
        optim=_optim(7e-4),
        train=_train(600),
    )


def image_classification_little() -> FinetuneConfig:
    """Thousands of pictures, a small encoder."""
    return FinetuneConfig(
        task="image-classification",
        data=LabelledConfig(batch=64),
        augment=AugmentConfig(images="tiny", mixup=0.4, cutmix=1.0, mix_prob=0.5, smoothing=0.1),
        network={"drop_path_rate": 0.1},
        optim=_optim(1e-3, layer_decay=0.75, weight_decay=0.05, schedule="cosine"),
        train=_train(2000),
    )


def text_classification_base() -> FinetuneConfig:
    """GLUE's settings (SST-2: 20,935 updates of 32 sentences; other tasks differ in length and batch)."""
    return FinetuneConfig(
        task="text-classification",
        data=LabelledConfig(batch=32 * 128, max_length=0),
        optim=OptimConfig(lr=2e-5, weight_decay=0.1, schedule="polynomial", warmup=0.06, hold=0.0, decay="all"),
        train=_train(20_935),
    )


def image_classification_base() -> FinetuneConfig:
    """ViT-B of data2vec 1 on ImageNet (README of the original): 100 epochs of 1024 pictures."""
    return FinetuneConfig(
        task="image-classification",
        data=LabelledConfig(batch=1024),
        augment=AugmentConfig(
            images="crop_flip", mixup=0.8, cutmix=1.0, smoothing=0.1, rand_augment=2, magnitude=9, erasing=0.25
        ),
        network={"drop_path_rate": 0.2},
        optim=OptimConfig(
            optimizer="adamw",
            lr=4e-3,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
            schedule="cosine",
            warmup=0.1,
            layer_decay=0.65,
        ),
        train=_train(125_100, evaluations=100),
    )


FINETUNE: Mapping[TaskName, Mapping[str, Callable[[], FinetuneConfig]]] = {
    "asr": {"little": asr_little, "base": asr_base, "base-10h": asr_base_10h},
    "audio-classification": {"little": audio_classification_little},
    "audio-frames": {"little": audio_frames_little},
    "speaker-verification": {"little": speaker_verification_little},
    "fill-mask": {"little": fill_mask_little},
    "causal-lm": {"little": causal_lm_little},
    "text-classification": {"little": text_classification_little, "base": text_classification_base},
    "token-classification": {"little": token_classification_little},
    "question-answering": {"little": question_answering_little},
    "multiple-choice": {"little": multiple_choice_little},
    "image-classification": {"little": image_classification_little, "base": image_classification_base},
    "semantic-segmentation": {"little": semantic_segmentation_little},
}


def finetune_preset(task: str, name: str) -> FinetuneConfig:
    """The preset of that name.

    Raises:
        UserError: unknown; names the known ones.
    """
    if task not in FINETUNE:
        raise UserError(f"unknown task {task!r}; known: {', '.join(FINETUNE)}")
    presets = FINETUNE[task]  # type: ignore[index]
    if name not in presets:
        raise UserError(f"unknown preset {name!r} for {task}; known: {', '.join(presets)}")
    return presets[name]()
