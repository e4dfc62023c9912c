"""Configurations of data2vec 2 (arXiv 2212.07525). Defaults are the base models'.

They extend those of data2vec 1, so that a front door or a head reads both. `num_hidden_layers` counts all blocks; the
first `prenet_depth` belong to the modality and are never targets.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from data2vec.configuration import PretrainedConfig, positive, probability, ranged
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.vision.config import Data2VecVisionConfig


@dataclass(kw_only=True)
class Data2Vec2AudioConfig(Data2VecAudioConfig):
    """``config.json`` of ``data2vec2-audio``.

    Attributes:
        prenet_depth: blocks of the modality, the first of `num_hidden_layers`.
        prenet_dropout: after the norm in front of the blocks.
        num_extra_tokens: learned tokens in front of the sequence.
        use_alibi: bias attention by distance.
        learn_alibi_scale: whether the bias has a learned factor; else it is 1.
        alibi_scale_per_head: a factor a head, not one for all.
        alibi_scale_per_layer: factors a block, not one set for all.
        conv_pos_pre_norm: a learned norm in front of the positional convolutions (the original's `conv_pos_pre_ln`).
        zero_padded_frames: set padded frames to 0 before each positional convolution, so that a clip gives the same
            features alone and in a batch; the released code does not (algorithms P8).
        mask_noise_std: fine-tuning hides frames behind noise of this standard deviation; 0: behind zeros.
    """

    model_type: ClassVar[str] = "data2vec2-audio"

    activation_dropout: float = probability(0.0)
    layerdrop: float = probability(0.05)
    prenet_depth: int = ranged(0, low=0)
    prenet_dropout: float = probability(0.1)
    num_extra_tokens: int = ranged(0, low=0)
    use_alibi: bool = True
    learn_alibi_scale: bool = True
    alibi_scale_per_head: bool = True
    alibi_scale_per_layer: bool = False
    conv_pos_pre_norm: bool = False
    zero_padded_frames: bool = True
    mask_noise_std: float = ranged(0.01, low=0.0)

    def validate(self) -> None:
        """As for data2vec 1, and the prenet against the depth."""
        super().validate()
        _check_prenet(self)

    @classmethod
    def base(cls) -> Data2Vec2AudioConfig:
        """93 M parameters (`base_librispeech.yaml`)."""
        return cls()

    @classmethod
    def large(cls) -> Data2Vec2AudioConfig:
        """313 M parameters (`large_vox.yaml`)."""
        return cls(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            prenet_depth=8,
            layerdrop=0.0,
        )


@dataclass(kw_only=True)
class Data2Vec2TextConfig(Data2VecTextConfig):
    """``config.json`` of ``data2vec2-text``: no token types, no decoder.

    Attributes:
        prenet_depth: see `Data2Vec2AudioConfig`, as for the others.
        use_position_embeddings: a learned vector a position; without, order comes from `use_alibi` alone (fairseq's
            `no_token_positional_embeddings`).
    """

    model_type: ClassVar[str] = "data2vec2-text"
    not_used: ClassVar[tuple[str, ...]] = (
        "type_vocab_size",
        "position_embedding_type",
        "is_decoder",
        "add_cross_attention",
        "use_cache",
        "encoder_hidden_size",
    )

    vocab_size: int = positive(50265)
    max_position_embeddings: int = positive(514)
    use_position_embeddings: bool = True
    layer_norm_eps: float = ranged(1e-5, above=0.0)
    layerdrop: float = probability(0.0)
    prenet_depth: int = ranged(0, low=0)
    prenet_dropout: float = probability(0.0)
    num_extra_tokens: int = ranged(0, low=0)
    use_alibi: bool = False
    learn_alibi_scale: bool = True
    alibi_scale_per_head: bool = True
    alibi_scale_per_layer: bool = False

    def validate(self) -> None:
        """As for data2vec 1; and the prenet against the depth."""
        super().validate()
        _check_prenet(self)
        _refuse(self, self.not_used)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the fields of data2vec 1 that have no meaning here."""
        return {name: value for name, value in super().to_dict().items() if name not in self.not_used}

    @classmethod
    def base(cls) -> Data2Vec2TextConfig:
        """125 M parameters (`base.yaml`)."""
        return cls()

    @classmethod
    def large(cls) -> Data2Vec2TextConfig:
        """355 M parameters (`large.yaml`)."""
        return cls(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)


@dataclass(kw_only=True)
class Data2Vec2VisionConfig(Data2VecVisionConfig):
    """``config.json`` of ``data2vec2-vision``: post-norm blocks, fixed positions, one extra token in front (CLS).

    Attributes:
        prenet_depth: see `Data2Vec2AudioConfig`, as for the others.
        use_alibi: bias attention by Manhattan distance on the grid.
        patch_embed_dim: width of the patches before a linear map to `hidden_size` (the original's `modalities.image.
            embed_dim`, where it is another); None: patches are embedded at `hidden_size`, and there is no such map.
        mask_noise_std: `bool_masked_pos` hides patches behind noise of this standard deviation; 0: behind zeros.
    """

    model_type: ClassVar[str] = "data2vec2-vision"
    not_used: ClassVar[tuple[str, ...]] = (
        "use_mask_token",
        "use_absolute_position_embeddings",
        "use_relative_position_bias",
        "use_shared_relative_position_bias",
        "layer_scale_init_value",
    )

    layer_norm_eps: float = ranged(1e-6, above=0.0)
    drop_path_rate: float = probability(0.0)
    layerdrop: float = probability(0.0)
    prenet_depth: int = ranged(2, low=0)
    prenet_dropout: float = probability(0.0)
    num_extra_tokens: int = ranged(1, low=0)
    use_alibi: bool = False
    learn_alibi_scale: bool = True
    alibi_scale_per_head: bool = True
    alibi_scale_per_layer: bool = False
    patch_embed_dim: int | None = None
    mask_noise_std: float = ranged(0.0, low=0.0)

    def validate(self) -> None:
        """As for data2vec 1; and the prenet against the depth, the width against the fixed positions."""
        super().validate()
        _check_prenet(self)
        _refuse(self, self.not_used)
        inner = self.patch_embed_dim
        self.require(inner is None or inner >= 1, f"patch_embed_dim {inner} must be at least 1, or None")
        self.require(
            self.hidden_size % 4 == 0, f"hidden_size {self.hidden_size} is no multiple of 4, as sin-cos positions need"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the fields of data2vec 1 that have no meaning here."""
        return {name: value for name, value in super().to_dict().items() if name not in self.not_used}

    @classmethod
    def base(cls) -> Data2Vec2VisionConfig:
        """ViT-B/16, 86 M parameters (`base_imagenet.yaml`)."""
        return cls()

    @classmethod
    def large(cls) -> Data2Vec2VisionConfig:
        """ViT-L/16, 303 M parameters (`large_imagenet.yaml`)."""
        return cls(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, prenet_depth=0
        )

    @classmethod
    def huge(cls, patch_size: int = 14) -> Data2Vec2VisionConfig:
        """ViT-H/14, 630 M parameters (`huge_imagenet14.yaml`), or ViT-H/16 (`huge_imagenet.yaml`)."""
        return cls(
            hidden_size=1280,
            num_hidden_layers=32,
            num_attention_heads=16,
            intermediate_size=5120,
            prenet_depth=0,
            patch_size=patch_size,
        )


Data2Vec2Config = Data2Vec2AudioConfig | Data2Vec2TextConfig | Data2Vec2VisionConfig


def _check_prenet(config: Data2Vec2Config) -> None:
    depth = config.num_hidden_layers
    config.require(
        config.prenet_depth <= depth, f"prenet_depth {config.prenet_depth} exceeds num_hidden_layers {depth}"
    )


def _refuse(config: PretrainedConfig, names: tuple[str, ...]) -> None:
    """Fields of data2vec 1 stay at their defaults: anything else would be ignored in silence."""
    for item in fields(config):
        if item.name in names:
            default = item.default if item.default is not MISSING else None
            value = getattr(config, item.name)
            config.require(value == default, f"{item.name}={value!r} has no meaning in data2vec 2: leave it out")
