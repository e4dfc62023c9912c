"""Configuration of data2vec for images. Defaults are the documented ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from data2vec.configuration import Activation, PretrainedConfig, positive, probability, ranged


@dataclass(kw_only=True)
class Data2VecVisionConfig(PretrainedConfig):
    """`config.json` of ``data2vec-vision``; names and defaults are the published ones.

    Attributes:
        image_size: side of the square training image, or (height, width), in pixels.
        patch_size: side of a patch, or (height, width), in pixels.
        layer_scale_init_value: 0 leaves layer scale out.
        use_mean_pooling: pool the mean of the patches (and normalise only there) instead of the CLS token of the
            normalised sequence.
        out_indices: blocks (0-based, as in the original code) whose outputs feed the four levels of the segmentation
            head. transformers reads block ``i - 2`` instead, and so does ``compat="transformers"``.
        out_blocks: the blocks that a trained segmentation head was made for, in place of `out_indices`; -1 is the
            first block's input. Found by itself for a head that transformers trained, and written to ``config.json``
            with every segmentation head, next to the `out_indices` by which transformers finds the same blocks.
    """

    model_type: ClassVar[str] = "data2vec-vision"

    hidden_size: int = positive(768)
    num_hidden_layers: int = ranged(12, low=0)
    num_attention_heads: int = positive(12)
    intermediate_size: int = positive(3072)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = probability(0.0)
    attention_probs_dropout_prob: float = probability(0.0)
    initializer_range: float = ranged(0.02, low=0.0)
    layer_norm_eps: float = ranged(1e-12, above=0.0)
    image_size: int | tuple[int, int] = ranged(224, low=1)
    patch_size: int | tuple[int, int] = ranged(16, low=1)
    num_channels: int = positive(3)
    use_mask_token: bool = False
    use_absolute_position_embeddings: bool = False
    use_relative_position_bias: bool = False
    use_shared_relative_position_bias: bool = False
    layer_scale_init_value: float = 0.1
    drop_path_rate: float = probability(0.1)
    use_mean_pooling: bool = True
    out_indices: tuple[int, ...] = ranged((3, 5, 7, 11), low=0)
    out_blocks: tuple[int, ...] | None = ranged(None, low=-1)
    pool_scales: tuple[int, ...] = ranged((1, 2, 3, 6), low=1)
    use_auxiliary_head: bool = True
    auxiliary_loss_weight: float = ranged(0.4, low=0.0)
    auxiliary_channels: int = positive(256)
    auxiliary_num_convs: int = ranged(1, low=0)
    auxiliary_concat_input: bool = False
    semantic_loss_ignore_index: int = 255

    def validate(self) -> None:
        """Check widths against heads and the image against its patches."""
        heads = self.num_attention_heads
        self.require(
            self.hidden_size % heads == 0,
            f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {heads}",
        )
        height, width = self.grid
        self.require(
            height > 0 and width > 0, f"image_size {self.image_size} is smaller than patch_size {self.patch_size}"
        )

    @property
    def feature_blocks(self) -> tuple[int, ...]:
        """Blocks (0-based, -1 = the first block's input) whose outputs the segmentation head reads."""
        if self.is_compatible:
            return self.reference_blocks
        return self.out_indices if self.out_blocks is None else self.out_blocks

    @property
    def reference_blocks(self) -> tuple[int, ...]:
        """The blocks that transformers reads for `out_indices`: hidden state ``i - 1``, in rising order."""
        return tuple(sorted({index - 2 for index in self.out_indices if index >= 1}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """As `PretrainedConfig.from_dict`; an override of `out_indices` names blocks, whatever was stored."""
        if overrides.get("out_indices") is not None and overrides.get("compat", values.get("compat")) is None:
            overrides.setdefault("out_blocks", overrides["out_indices"])
        config = super().from_dict(values, **overrides)
        if config.out_blocks is not None and not config.is_compatible and min(config.out_blocks) >= 0:
            config.out_indices = config.out_blocks
        return config

    def to_dict(self) -> dict[str, Any]:
        """As `PretrainedConfig.to_dict`; a segmentation head's blocks are named in both libraries' ways."""
        values = super().to_dict()
        if "Data2VecVisionForSemanticSegmentation" in (self.architectures or ()) and not self.is_compatible:
            values["out_blocks"] = self.feature_blocks
            values["out_indices"] = tuple(block + 2 for block in self.feature_blocks)
        return values

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of the training image, pixels."""
        return _pair(self.image_size)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """(height, width) of a patch, pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches in the training image."""
        (height, width), (patch_height, patch_width) = self.image_shape, self.patch_shape
        return height // patch_height, width // patch_width


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
