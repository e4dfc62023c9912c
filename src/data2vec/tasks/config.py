"""What a user says about a downstream task's data. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data2vec.errors import UserError

TaskName = Literal[
    "asr",
    "audio-classification",
    "audio-frames",
    "speaker-verification",
    "fill-mask",
    "causal-lm",
    "text-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "image-classification",
    "semantic-segmentation",
]
TASKS: tuple[TaskName, ...] = TaskName.__args__  # type: ignore[attr-defined]

UNITS: dict[TaskName, str] = {
    **dict.fromkeys(("asr", "audio-classification", "audio-frames", "speaker-verification"), "seconds"),
    **dict.fromkeys(("fill-mask", "causal-lm", "text-classification", "token-classification"), "tokens"),
    **dict.fromkeys(("question-answering", "multiple-choice"), "tokens"),
    **dict.fromkeys(("image-classification", "semantic-segmentation"), "images"),
}
"""What `LabelledConfig.batch` counts."""


@dataclass(frozen=True)
class LabelledConfig:
    """Labelled data: what is read, what is held out, how much makes a batch.

    Attributes:
        batch: of one optimizer step over all processes: seconds of sound, tokens, or images (padding counts).
        label: of a table, the column of the label; found by its usual name if empty.
        texts: of a table, the column or the two columns of text, likewise.
        separator: what parts several labels of one text.
        problem: of text-classification: one class, several labels, or a value; found out from the labels if empty.
        lowercase: fold the case of text (asr: upper where the tokenizer's letters are).
        symbols: asr: what the recogniser writes: ``letters``, ``words`` (a few dozen known ones: commands, digits) or
            ``phones`` (read from ``.phn``).
        frames: audio-frames: ``names`` (each speaker is a class), ``speech`` (somebody speaks or nobody does),
            ``turns`` (speakers are numbered as it suits each recording: new ones can be told apart), or ``phones``
            (``.phn`` with times).
        speakers: audio-frames with ``turns``: the most that speak in a recording.
        trials: speaker-verification: the list of pairs to be judged by; ``trials_dev.txt`` in the data if empty.
        dev_share: held out where the data do not say what is.
        seed: of that draw.
        skip_bad: leave bad rows out instead of stopping at the first.
        max_seconds: longer recordings are cut into windows (audio-frames), or left out of training (asr).
        max_length: tokens a row; as many as the model has positions if 0.
        stride: question-answering: tokens that windows of a long context share.
        image_size: pixels on a side; the model's own if 0.
        min_per_class: a class with fewer examples to train on is an error.
    """

    batch: float = 64
    label: str = ""
    texts: tuple[str, ...] = ()
    separator: str = ""
    problem: Literal["", "single_label", "multi_label", "regression"] = ""
    lowercase: bool = False
    symbols: Literal["letters", "words", "phones"] = "letters"
    frames: Literal["names", "speech", "turns", "phones"] = "names"
    speakers: int = 3
    trials: str = ""
    dev_share: float = 0.2
    seed: int = 0
    skip_bad: bool = False
    max_seconds: float = 30.0
    max_length: int = 0
    stride: int = 128
    image_size: int = 0
    min_per_class: int = 1

    def __post_init__(self) -> None:
        _positive(self, "batch", "max_seconds")
        _share(self, "dev_share")
        _not_negative(self, "seed", "max_length", "stride", "image_size", "min_per_class")
        if not 1 <= self.speakers <= 5:
            raise UserError(f"data.speakers={self.speakers} must lie in 1 .. 5")
        if len(self.texts) > 2:
            raise UserError(f"data.texts={self.texts}: one or two columns")


@dataclass(frozen=True)
class DecodeConfig:
    """How a recogniser's scores become text.

    Attributes:
        beam: texts kept by the beam search; 1 takes the best symbol of each frame.
        lm: an n-gram file that kenlm reads (extra ``lm``).
        lm_weight: of the language model against the sound.
        word_bonus: a word, against the language model's wish for few words.
        hotwords: words and phrases to listen for.
        hotword_weight: natural log-score of a hot word.
    """

    beam: int = 1
    lm: str = ""
    lm_weight: float = 0.5
    word_bonus: float = 1.5
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = 6.0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise UserError(f"decode.beam={self.beam} must be at least 1")
        if self.beam == 1 and (self.lm or self.hotwords):
            object.__setattr__(self, "beam", 50)


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training examples beside what the network does itself (time and channel masks, drop path).

    Attributes:
        mixup: alpha of Beta(alpha, alpha): each example is blended with another; 0 is off.
        cutmix: alpha: a rectangle of each picture comes from another; with `mixup` too, one of them is drawn.
        mix_prob: share of the examples that are mixed at all.
        smoothing: label smoothing.
        images: ``none``; ``tiny`` (flip, shift by up to an eighth); ``crop_flip`` (random resized crop, flip).
        crop_scale: of ``crop_flip``: the share of the area that a crop covers.
        rand_augment: number of random operations a picture (RandAugment, arXiv 1909.13719); 0 is off.
        magnitude: of those operations, 0..10.
        erasing: share of the pictures in which a rectangle is replaced by noise (arXiv 1708.04896).
        speed: clips are played faster or slower by up to this share.
        noise: decibels below the clip at which white noise is added, at most; 0 is off.
        hide: share of a text's tokens that become the mask token, as in pre-training.
        balanced: draw classes equally often, however many examples they have.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    smoothing: float = 0.0
    images: Literal["none", "tiny", "crop_flip"] = "none"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    rand_augment: int = 0
    magnitude: float = 9.0
    erasing: float = 0.0
    speed: float = 0.0
    noise: float = 0.0
    hide: float = 0.0
    balanced: bool = False

    def __post_init__(self) -> None:
        _share(self, "mix_prob", "smoothing", "erasing", "speed", "hide")
        _not_negative(self, "mixup", "cutmix", "rand_augment", "magnitude", "noise")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"augment.crop_scale={self.crop_scale} must be two shares: 0 < smallest <= largest <= 1")

    @property
    def soft(self) -> bool:
        """Whether a label becomes a distribution over classes."""
        return bool(self.mixup or self.cutmix or self.smoothing)


def _positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{name}={getattr(config, name)} must be above 0")


def _not_negative(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"{name}={getattr(config, name)} must not be negative")


def _share(config: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < 1 + (name == "mix_prob"):
            raise UserError(f"{name}={getattr(config, name)} must lie in 0 .. 1")
