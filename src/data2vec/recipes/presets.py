"""The presets of ``data2vec pretrain``: published recipes by name, and two sizes for small machines.

``tiny`` is for twenty minutes of one CPU core, ``small`` for a laptop with patience. Their values are ours, not
published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from data2vec.data.config import AudioDataConfig, TextDataConfig, VisionDataConfig
from data2vec.errors import UserError
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.v2.config import Data2Vec2AudioConfig
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, DecoderConfig, ObjectiveConfig
from data2vec.objectives.masking import BeitBlockMask, BlockMask2d
from data2vec.recipes import v1, v2
from data2vec.recipes.config import PretrainConfig
from data2vec.training.config import OptimConfig, TrainConfig


def audio_tiny() -> PretrainConfig:
    """0.9 M parameters, clips joined to 4 s."""
    base, updates = v1.audio_base_960h(), 5000
    return replace(
        base,
        model=Data2VecAudioConfig(
            **_size(128, depth=4, heads=4),
            **_NO_DROPOUT,
            conv_dim=(64, 64, 64, 64, 64, 128, 128),
            conv_pos_kernel_size=3,  # sees 15 frames; 95, most of a crop, invites features of the position alone
        ),
        objective=_objective(base, layers=3, anneal_updates=updates * 3 // 4),
        data=AudioDataConfig(
            min_samples=1600, min_crop=32_000, max_samples=64_000, concatenate=64_000, batch_samples=256_000
        ),
        optim=_cosine(base, lr=1e-3, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def audio_small() -> PretrainConfig:
    """12 M parameters, crops of up to 10 s."""
    base, updates = v1.audio_base_960h(), 50_000
    return replace(
        base,
        model=Data2VecAudioConfig(
            **_size(384, depth=6, heads=6), conv_dim=(256,) * 7, layerdrop=0.0, activation_dropout=0.0
        ),
        objective=_objective(base, layers=4, anneal_updates=updates // 10),
        data=AudioDataConfig(min_samples=16_000, max_samples=160_000, batch_samples=1_600_000),
        optim=_cosine(base, lr=5e-4, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def vision_tiny() -> PretrainConfig:
    """1 M parameters, 32 x 32 pixels in patches of 4.

    Absolute positions beside the published relative ones, which begin at 0: without them a mask token does not know
    where it is, and within minutes nothing is learned. Targets and loss are those of data2vec 2.
    """
    base, updates = v1.vision_base(), 3000
    objective = _objective(base, layers=3, start=0.99, end=0.999, anneal_updates=updates * 3 // 4)
    target = replace(objective.target, source="ffn", layer_norm="instance")
    return replace(
        base,
        model=base.model.replace(
            **_size(128, depth=5, heads=4),
            image_size=32,
            patch_size=4,
            use_absolute_position_embeddings=True,
            layer_scale_init_value=0.0,
            drop_path_rate=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        objective=replace(objective, target=target, loss_beta=0.0, loss_scale="rsqrt"),
        mask=BeitBlockMask(prob=0.6, min_area=4),
        data=VisionDataConfig(image_size=32, augment="tiny", batch_images=32),
        optim=_cosine(base, lr=1e-3, clip_norm=3.0),
        train=TrainConfig(updates=updates),
    )


def vision_small() -> PretrainConfig:
    """11 M parameters, 96 x 96 pixels in patches of 8."""
    base, updates = v1.vision_base(), 50_000
    return replace(
        base,
        model=base.model.replace(
            **_size(384, depth=6, heads=6), image_size=96, patch_size=8, layer_scale_init_value=0.1, drop_path_rate=0.1
        ),
        objective=_objective(base, layers=3, start=0.998, end=0.9998, anneal_updates=updates // 2),
        mask=BeitBlockMask(prob=0.6, min_area=12),
        data=VisionDataConfig(image_size=96, batch_images=128),
        optim=_cosine(base, lr=1e-3, clip_norm=3.0),
        train=TrainConfig(updates=updates),
    )


def text_tiny() -> PretrainConfig:
    """3.9 M parameters, wide and shallow, a BPE of 4,000 and rows of 64 tokens."""
    base, updates = v1.text_base(), 1600
    return replace(
        base,
        model=base.model.replace(
            **_size(320, depth=2, heads=5), vocab_size=4000, max_position_embeddings=66, mask_token_id=None
        ),
        objective=_objective(base, layers=2, anneal_updates=updates * 3 // 4),
        data=TextDataConfig(block_size=64, blocks="complete", vocab_size=4000, batch_tokens=32 * 64),
        optim=_cosine(base, lr=1e-3, clip_norm=2.0),
        train=TrainConfig(updates=updates),
    )


def text_small() -> PretrainConfig:
    """17 M parameters, a BPE of 16,000 and rows of 256 tokens."""
    base, updates = v1.text_base(), 50_000
    return replace(
        base,
        model=base.model.replace(
            **_size(384, depth=6, heads=6), vocab_size=16_000, max_position_embeddings=258, mask_token_id=None
        ),
        objective=_objective(base, layers=4, anneal_updates=updates // 3),
        data=TextDataConfig(block_size=256, vocab_size=16_000, batch_tokens=64 * 256),
        optim=_cosine(base, lr=5e-4, clip_norm=5.0),
        train=TrainConfig(updates=updates),
    )


def audio_tiny_v2() -> PretrainConfig:
    """As `audio_tiny`, with data2vec 2: eight masks a sample, two samples of 4 s."""
    base, updates = v2.audio_base(), 4000
    model = Data2Vec2AudioConfig(
        **_size(128, depth=4, heads=4),
        **_NO_DROPOUT,
        prenet_dropout=0.0,
        conv_dim=(64, 64, 64, 64, 64, 128, 128),
        conv_pos_kernel_size=3,
    )
    return replace(
        base,
        model=model,
        objective=_objective_v2(base, 4, DecoderConfig(128, 7, 4), end=0.9999, anneal_updates=updates * 3 // 4),
        data=AudioDataConfig(
            min_samples=1600, min_crop=32_000, max_samples=64_000, concatenate=64_000, batch_samples=128_000
        ),
        optim=_cosine(base, lr=1e-3, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def audio_small_v2() -> PretrainConfig:
    """As `audio_small`, with data2vec 2: eight masks a crop."""
    base, updates = v2.audio_base(), 50_000
    return replace(
        base,
        model=base.model.replace(**_size(384, depth=6, heads=6), conv_dim=(256,) * 7, layerdrop=0.0),
        objective=_objective_v2(base, 4, DecoderConfig(384, 7, 4), end=0.9999, anneal_updates=updates // 10),
        data=AudioDataConfig(min_samples=16_000, max_samples=160_000, batch_samples=800_000),
        optim=_cosine(base, lr=5e-4, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def vision_tiny_v2() -> PretrainConfig:
    """As `vision_tiny`, with data2vec 2: two blocks of its own, three shared, eight masks a picture."""
    base, updates = v2.vision_base(), 2800
    decoder = DecoderConfig(128, 3, 4, dimensions=2, dropout=0.0)
    ema = {"start": 0.99, "end": 0.999, "anneal_updates": updates * 3 // 4}
    return replace(
        base,
        model=base.model.replace(**_size(128, depth=5, heads=4), image_size=32, patch_size=4),
        objective=_objective_v2(base, 3, decoder, **ema),
        mask=BlockMask2d(prob=0.75, adjust=0.1, length=2, inverse=True),
        copies=8,
        data=VisionDataConfig(image_size=32, augment="tiny", batch_images=16),
        optim=_cosine(base, lr=1e-3, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def vision_small_v2() -> PretrainConfig:
    """As `vision_small`, with data2vec 2: two blocks of its own, four shared, eight masks a picture."""
    base, updates = v2.vision_base(), 50_000
    decoder = DecoderConfig(384, 3, 4, dimensions=2, dropout=0.0)
    return replace(
        base,
        model=base.model.replace(**_size(384, depth=6, heads=6), image_size=96, patch_size=8),
        objective=_objective_v2(base, 4, decoder, start=0.998, end=0.9998, anneal_updates=updates // 2),
        mask=BlockMask2d(prob=0.75, adjust=0.1, length=3, inverse=True),
        copies=8,
        data=VisionDataConfig(image_size=96, batch_images=64),
        optim=_cosine(base, lr=1e-3, clip_norm=4.0),
        train=TrainConfig(updates=updates),
    )


def text_tiny_v2() -> PretrainConfig:
    """As `text_tiny`, with data2vec 2: two masks a row, distances (ALiBi) instead of learned positions.

    Those grow to explain most of the targets of so small a model. Norm over each token, as for data2vec 1: the
    published one over time takes a text's mean, its topic, away.
    """
    base, updates = v2.text_base(), 1600
    decoder = DecoderConfig(320, 5, 3, groups=16, residual=False, projection_layers=2)
    objective = _objective_v2(base, 2, decoder, start=0.999, end=0.9999, anneal_updates=updates * 3 // 4)
    return replace(
        base,
        model=base.model.replace(
            **_size(320, depth=2, heads=5),
            vocab_size=4000,
            max_position_embeddings=66,
            use_alibi=True,
            use_position_embeddings=False,
        ),
        objective=replace(objective, target=replace(objective.target, layer_norm="layer")),
        copies=2,
        data=TextDataConfig(block_size=64, blocks="complete", vocab_size=4000, batch_tokens=32 * 64),
        optim=_cosine(base, lr=1e-3, clip_norm=1.0),
        train=TrainConfig(updates=updates),
    )


def text_small_v2() -> PretrainConfig:
    """As `text_small`, with data2vec 2: four masks a row."""
    base, updates = v2.text_base(), 50_000
    decoder = DecoderConfig(384, 9, 5, groups=1, residual=False, projection_layers=2)
    return replace(
        base,
        model=base.model.replace(**_size(384, depth=6, heads=6), vocab_size=16_000, max_position_embeddings=258),
        objective=_objective_v2(base, 4, decoder, start=0.999, end=0.9999, anneal_updates=updates // 3),
        copies=4,
        data=TextDataConfig(block_size=256, vocab_size=16_000, batch_tokens=32 * 256),
        optim=_cosine(base, lr=5e-4, clip_norm=1.0),
        train=TrainConfig(updates=updates),
    )


_NO_DROPOUT: dict[str, Any] = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "layerdrop": 0.0,
}


def _size(width: int, depth: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


def _objective_v2(base: PretrainConfig, layers: int, decoder: DecoderConfig, **ema: Any) -> Data2Vec2ObjectiveConfig:
    published = base.objective
    assert isinstance(published, Data2Vec2ObjectiveConfig)
    target, pace = replace(published.target, layers=layers), replace(published.ema, **ema)
    return replace(published, target=target, ema=pace, decoder=decoder)


def _objective(base: PretrainConfig, layers: int, **ema: Any) -> ObjectiveConfig:
    """The published objective of a modality with another K and another pace of the teacher."""
    published = base.objective
    assert isinstance(published, ObjectiveConfig)
    return replace(published, target=replace(published.target, layers=layers), ema=replace(published.ema, **ema))


def _cosine(base: PretrainConfig, lr: float, clip_norm: float) -> OptimConfig:
    """The published optimizer of a modality with a tenth of warm-up and a cosine to 0."""
    return replace(
        base.optim, lr=lr, clip_norm=clip_norm, schedule="cosine", warmup=0.1, init_scale=0.0, final_scale=0.0
    )


PRESETS: Mapping[str, Mapping[str, Callable[[], PretrainConfig]]] = {
    "audio": {
        "tiny": audio_tiny,
        "small": audio_small,
        "base": v1.audio_base_960h,
        "audioset": v1.audio_audioset,
        "v2-tiny": audio_tiny_v2,
        "v2-small": audio_small_v2,
        "v2-base": v2.audio_base,
        "v2-large": v2.audio_large,
    },
    "vision": {
        "tiny": vision_tiny,
        "small": vision_small,
        "base": v1.vision_base,
        "large": v1.vision_large,
        "v2-tiny": vision_tiny_v2,
        "v2-small": vision_small_v2,
        "v2-base": v2.vision_base,
        "v2-large": v2.vision_large,
        "v2-huge": v2.vision_huge,
    },
    "text": {
        "tiny": text_tiny,
        "small": text_small,
        "base": v1.text_base,
        "v2-tiny": text_tiny_v2,
        "v2-small": text_small_v2,
        "v2-base": v2.text_base,
        "v2-large": v2.text_large,
    },
}


def preset(modality: str, name: str) -> PretrainConfig:
    """The preset of that name.

    Raises:
        UserError: unknown; names the known ones.
    """
    if modality not in PRESETS:
        raise UserError(f"unknown modality {modality!r}; known: {', '.join(PRESETS)}")
    if name not in PRESETS[modality]:
        raise UserError(f"unknown preset {name!r} for {modality}; known: {', '.join(PRESETS[modality])}")
    return PRESETS[modality][name]()
