"""What a recipe says about data. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data2vec.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Augment = Literal["jitter_flip_crop", "crop_flip", "tiny", "none"]
Blocks = Literal["stream", "complete", "document"]
Documents = Literal["auto", "line", "paragraph", "file"]


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are ordered and fetched, in every modality.

    Attributes:
        seed: of order, crops, augmentation and masks.
        workers: processes that decode; 0 decodes in the training process.
        prefetch: batches each worker holds ready.
        pin_memory: copy batches into page-locked memory (useful with a GPU only).
        bucket_ratio: lengths within this ratio of one another count as equal: their order is random; 0 sorts exactly.
        drop_last: leave out an epoch's last rows where they fill no whole batch.
        max_bad_share: stop when more than this share of the files cannot be used.
    """

    seed: int = 1
    workers: int = 2
    prefetch: int = 4
    pin_memory: bool = False
    bucket_ratio: float = 0.05
    drop_last: bool = False
    max_bad_share: float = 0.01

    def __post_init__(self) -> None:
        _at_least(self, seed=0, workers=0, prefetch=1, bucket_ratio=0)
        _within(self, "max_bad_share", 0, 1)


@dataclass(frozen=True)
class AudioDataConfig:
    """Speech: what is cut from which files. Lengths are samples at `sampling_rate`.

    Attributes:
        sampling_rate: Hz that the model expects.
        min_samples: shorter files are skipped (fairseq ``min_sample_size``).
        max_samples: longest crop (fairseq ``max_sample_size``).
        min_crop: a batch's crop is drawn uniformly from min_crop..max_samples; None: always the longest that fits.
        concatenate: join clips of any length, in an order drawn every epoch, to samples of at least this length; None:
            one file is one sample.
        segment_samples: recordings longer than this count as several samples of equal length, each read by itself.
        normalize: scale each utterance to mean 0 and variance 1 before it is cropped.
        batch_samples: rows x crop of one optimizer step, over all processes.
    """

    sampling_rate: int = 16_000
    min_samples: int = 32_000
    max_samples: int = 320_000
    min_crop: int | None = None
    concatenate: int | None = None
    segment_samples: int = 960_000
    normalize: bool = True
    batch_samples: int = 3_800_000

    def __post_init__(self) -> None:
        _at_least(self, sampling_rate=1, min_samples=1, batch_samples=1)
        _at_least(self, max_samples=1 if self.concatenate else self.min_samples, segment_samples=self.max_samples)
        if self.min_crop is not None:
            _within(self, "min_crop", 1, self.max_samples)
        if self.concatenate is not None:
            _at_least(self, concatenate=self.min_crop or 1)
        if self.batch_samples < self.max_samples:
            raise UserError(
                f"data.batch_samples={self.batch_samples} is less than one crop (data.max_samples={self.max_samples})"
            )

    @property
    def batch_size(self) -> int:
        """The sampler's budget: samples a global batch."""
        return self.batch_samples


@dataclass(frozen=True)
class VisionDataConfig:
    """Images: size and augmentation.

    Attributes:
        image_size: pixels on a side.
        augment: ``jitter_flip_crop`` (v1: colour jitter, flip, random resized crop), ``crop_flip`` (v2),
            ``tiny`` (flip, then shift by up to an eighth; for pictures that already have about `image_size`),
            ``none`` (resize and centre crop).
        scale: share of a picture's area that a random crop covers: (.08, 1) in v1, (.2, 1) in v2.
        jitter: strength of brightness, contrast and saturation.
        mean: subtracted, per channel.
        std: divided by, per channel.
        batch_images: images of one optimizer step, over all processes.
    """

    image_size: int = 224
    augment: Augment = "jitter_flip_crop"
    scale: tuple[float, float] = (0.08, 1.0)
    jitter: float = 0.4
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    batch_images: int = 2048

    def __post_init__(self) -> None:
        _at_least(self, image_size=1, batch_images=1)
        _within(self, "jitter", 0, 1)
        _one_of(self, "augment", Augment)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"data.scale={self.scale} must be two shares of the area: 0 < smallest <= largest <= 1")
        if min(self.std) <= 0:
            raise UserError(f"data.std={self.std} must be positive")

    @property
    def batch_size(self) -> int:
        """The sampler's budget: images a global batch."""
        return self.batch_images


@dataclass(frozen=True)
class TextDataConfig:
    """Text: where documents end, how they fill rows, and which tokens.

    Attributes:
        block_size: tokens a row, with the leading ``<s>``.
        blocks: ``stream`` (documents follow one another, every row is full), ``complete`` (a row never crosses the end
            of a document), ``document`` (the beginning of one document a row, for short texts).
        documents: where a document ends in a .txt: at each ``line``, at an empty line (``paragraph``), with the
            ``file``; ``auto``: lines when one file is given, files when a folder is.
        column: of a .csv or .jsonl, the column that holds the text.
        tokenizer: folder or file of a published byte-level BPE; None: train one on the text.
        vocab_size: of a BPE trained on the text.
        lowercase: fold the case before tokenizing.
        batch_tokens: rows x row length of one optimizer step, over all processes.
    """

    block_size: int = 512
    blocks: Blocks = "stream"
    documents: Documents = "auto"
    column: str = "text"
    tokenizer: str | None = None
    vocab_size: int = 32_768
    lowercase: bool = False
    batch_tokens: int = 131_072

    def __post_init__(self) -> None:
        _at_least(self, block_size=4, vocab_size=261, batch_tokens=self.block_size)  # 261: 256 bytes, 5 special tokens
        _one_of(self, "blocks", Blocks)
        _one_of(self, "documents", Documents)

    @property
    def batch_size(self) -> int:
        """The sampler's budget: tokens a global batch."""
        return self.batch_tokens


DataConfig = AudioDataConfig | VisionDataConfig | TextDataConfig


def _at_least(config: object, **floors: float) -> None:
    for name, floor in floors.items():
        if not getattr(config, name) >= floor:
            raise UserError(f"data.{name}={getattr(config, name)} must be at least {floor}")


def _within(config: object, name: str, low: float, high: float) -> None:
    if not low <= getattr(config, name) <= high:
        raise UserError(f"data.{name}={getattr(config, name)} must lie in {low} .. {high}")


def _one_of(config: object, name: str, choices: object) -> None:
    known: tuple[str, ...] = getattr(choices, "__args__", ())
    assert known
    if getattr(config, name) not in known:
        raise UserError(f"data.{name}={getattr(config, name)!r} is none of {', '.join(known)}")
