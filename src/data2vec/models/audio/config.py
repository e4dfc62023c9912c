"""Configuration of data2vec for speech. Defaults are the base model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from data2vec.configuration import Activation, PretrainedConfig, positive, probability, ranged


@dataclass(kw_only=True)
class Data2VecAudioConfig(PretrainedConfig):
    """`config.json` of ``data2vec-audio``; names and defaults are the published ones.

    Attributes:
        num_conv_pos_embeddings: number of layers of the positional convolution.
        conv_pos_kernel_size: kernel of each of them, in frames.
        mask_time_prob: share of frames that SpecAugment starts spans for while training a head (with
            `mask_time_length`, in frames).
        apply_spec_augment: False switches SpecAugment off; an explicit `mask_time_indices` still applies.
        pad_token_id: also the CTC blank.
    """

    model_type: ClassVar[str] = "data2vec-audio"

    vocab_size: int = positive(32)
    hidden_size: int = positive(768)
    num_hidden_layers: int = ranged(12, low=0)
    num_attention_heads: int = positive(12)
    intermediate_size: int = positive(3072)
    hidden_act: Activation = "gelu"
    hidden_dropout: float = probability(0.1)
    activation_dropout: float = probability(0.1)
    attention_dropout: float = probability(0.1)
    feat_proj_dropout: float = probability(0.0)
    final_dropout: float = probability(0.1)
    layerdrop: float = probability(0.1)
    initializer_range: float = ranged(0.02, low=0.0)
    layer_norm_eps: float = ranged(1e-5, above=0.0)
    feat_extract_activation: Activation = "gelu"
    conv_dim: tuple[int, ...] = ranged((512,) * 7, low=1)
    conv_stride: tuple[int, ...] = ranged((5, 2, 2, 2, 2, 2, 2), low=1)
    conv_kernel: tuple[int, ...] = ranged((10, 3, 3, 3, 3, 2, 2), low=1)
    conv_bias: bool = False
    num_conv_pos_embedding_groups: int = positive(16)
    conv_pos_kernel_size: int = positive(19)
    num_conv_pos_embeddings: int = ranged(5, low=0)
    apply_spec_augment: bool = True
    mask_time_prob: float = probability(0.05)
    mask_time_length: int = positive(10)
    mask_time_min_masks: int = ranged(2, low=0)
    mask_feature_prob: float = probability(0.0)
    mask_feature_length: int = positive(10)
    mask_feature_min_masks: int = ranged(0, low=0)
    ctc_loss_reduction: Literal["sum", "mean"] = "sum"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = positive(256)
    tdnn_dim: tuple[int, ...] = ranged((512, 512, 512, 512, 1500), low=1)
    tdnn_kernel: tuple[int, ...] = ranged((5, 3, 3, 1, 1), low=1)
    tdnn_dilation: tuple[int, ...] = ranged((1, 2, 3, 1, 1), low=1)
    xvector_output_dim: int = positive(512)
    add_adapter: bool = False
    adapter_kernel_size: int = positive(3)
    adapter_stride: int = positive(2)
    num_adapter_layers: int = positive(3)
    output_hidden_size: int | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2

    def validate(self) -> None:
        """Check the convolution lists against each other and the widths against heads and groups."""
        lengths = {len(self.conv_dim), len(self.conv_stride), len(self.conv_kernel)}
        self.require(
            lengths == {len(self.conv_dim)} and len(self.conv_dim) > 0,
            f"conv_dim, conv_stride and conv_kernel need the same length, not "
            f"{len(self.conv_dim)}, {len(self.conv_stride)} and {len(self.conv_kernel)}",
        )
        tdnn = (len(self.tdnn_dim), len(self.tdnn_kernel), len(self.tdnn_dilation))
        self.require(len(set(tdnn)) == 1, f"tdnn_dim, tdnn_kernel and tdnn_dilation need the same length, not {tdnn}")
        heads, groups = self.num_attention_heads, self.num_conv_pos_embedding_groups
        self.require(
            self.hidden_size % heads == 0,
            f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {heads}",
        )
        self.require(
            self.num_conv_pos_embeddings == 0 or self.hidden_size % groups == 0,
            f"hidden_size {self.hidden_size} is no multiple of num_conv_pos_embedding_groups {groups}",
        )
        if self.output_hidden_size is None:
            self.output_hidden_size = self.hidden_size

    @property
    def num_feat_extract_layers(self) -> int:
        """Convolutions in the feature extractor."""
        return len(self.conv_dim)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples per frame (320 for the published models)."""
        ratio = 1
        for stride in self.conv_stride:
            ratio *= stride
        return ratio

    @property
    def receptive_field(self) -> int:
        """Samples that one frame reads (400 for the published models)."""
        field, step = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        return field

    def frames(self, samples: int) -> int:
        """Frames that `samples` samples give; 0 when the clip is shorter than the receptive field (400 samples)."""
        length = samples
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            length = (length - kernel) // stride + 1
        return max(length, 0)
