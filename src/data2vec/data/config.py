"""What a recipe says about data. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data2vec.configuration import check_fields, check_order, positive, probability, ranged
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

    seed: int = ranged(1, low=0)
    workers: int = ranged(2, low=0)
    prefetch: int = positive(4)
    pin_memory: bool = False
    bucket_ratio: float = ranged(0.05, low=0)
    drop_last: bool = False
    max_bad_share: float = probability(0.01)

    def __post_init__(self) -> None:
        check_fields(self, "loader")


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

    sampling_rate: int = positive(16_000)
    min_samples: int = positive(32_000)
    max_samples: int = positive(320_000)
    min_crop: int | None = ranged(None, low=1)
    concatenate: int | None = ranged(None, low=1)
    segment_samples: int = positive(960_000)
    normalize: bool = True
    batch_samples: int = positive(3_800_000)

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if self.concatenate is None:
            check_order(self, "data", "min_samples", "max_samples")
        check_order(self, "data", "min_crop", "max_samples")
        check_order(self, "data", "min_crop", "concatenate")
        check_order(self, "data", "max_samples", "segment_samples")
        check_order(self, "data", "max_samples", "batch_samples")

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

    image_size: int = positive(224)
    augment: Augment = "jitter_flip_crop"
    scale: tuple[float, float] = ranged((0.08, 1.0), high=1, above=0)
    jitter: float = probability(0.4)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = ranged(IMAGENET_STD, above=0)
    batch_images: int = positive(2048)

    def __post_init__(self) -> None:
        check_fields(self, "data")
        if self.scale[0] > self.scale[1]:
            raise UserError(f"data.scale={self.scale} must be two shares of the area, the smaller one first")

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

    block_size: int = ranged(512, low=4)
    blocks: Blocks = "stream"
    documents: Documents = "auto"
    column: str = "text"
    tokenizer: str | None = None
    vocab_size: int = ranged(32_768, low=261)  # 256 bytes, 5 special tokens
    lowercase: bool = False
    batch_tokens: int = positive(131_072)

    def __post_init__(self) -> None:
        check_fields(self, "data")
        check_order(self, "data", "block_size", "batch_tokens")

    @property
    def batch_size(self) -> int:
        """The sampler's budget: tokens a global batch."""
        return self.batch_tokens


DataConfig = AudioDataConfig | VisionDataConfig | TextDataConfig
