"""Values out of range are named before anything is read."""

from __future__ import annotations

import pytest

from data2vec.data.config import AudioDataConfig, LoaderConfig, TextDataConfig, VisionDataConfig
from data2vec.errors import UserError


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (LoaderConfig, "workers", -1),
        (LoaderConfig, "prefetch", 0),
        (LoaderConfig, "max_bad_share", 1.5),
        (LoaderConfig, "bucket_ratio", float("nan")),
        (AudioDataConfig, "sampling_rate", 0),
        (AudioDataConfig, "max_samples", 100),
        (AudioDataConfig, "min_crop", 400_000),
        (AudioDataConfig, "segment_samples", 10),
        (AudioDataConfig, "batch_samples", 100_000),
        (AudioDataConfig, "concatenate", 0),
        (VisionDataConfig, "image_size", 0),
        (VisionDataConfig, "augment", "blur"),
        (VisionDataConfig, "scale", (0.5, 0.2)),
        (VisionDataConfig, "std", (1.0, 0.0, 1.0)),
        (TextDataConfig, "vocab_size", 100),
        (TextDataConfig, "blocks", "sentences"),
        (TextDataConfig, "batch_tokens", 100),
    ],
)
def test_each_field_out_of_range_is_named(config: type, field: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"(data|loader)\.{field}\b"):
        config(**{field: value})


def test_budgets() -> None:
    assert AudioDataConfig(batch_samples=640_000).batch_size == 640_000
    assert VisionDataConfig(batch_images=64).batch_size == 64
    assert TextDataConfig(batch_tokens=8192).batch_size == 8192
