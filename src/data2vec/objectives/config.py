"""What a recipe says about the objective. No torch here.

Defaults of each field are those that serve all modalities; `audio()`, `text()` and `vision()` give the published
values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data2vec.configuration import check_fields, ranged
from data2vec.errors import UserError

LayerNorm = Literal["none", "layer", "instance", "batch", "group"]
FinalNorm = Literal["none", "layer", "instance"]


@dataclass(frozen=True)
class TargetConfig:
    """What the student regresses: the mean of the teacher's top layers (paper section 3.3).

    Attributes:
        layers: K, how many top layers are averaged.
        source: ``ffn``, the second feed-forward linear's output (speech, text, all of v2), or ``block``, the block's
            end (images, v1).
        layer_norm: norm of each layer before the mean, without parameters, in fp32.
        final_norm: norm of the mean.
        norm_over_padding: let padded tokens count in instance, batch and group norm, as the released code does (P8).
    """

    layers: int = ranged(8, low=1)
    source: Literal["ffn", "block"] = "ffn"
    layer_norm: LayerNorm = "instance"
    final_norm: FinalNorm = "none"
    norm_over_padding: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class EmaConfig:
    """The teacher's moving average (paper section 3.2).

    Attributes:
        start: decay tau at the first update.
        end: decay from `anneal_updates` on; 1 freezes the teacher.
        anneal_updates: updates over which tau rises linearly.
        scope: ``all`` averages the whole network, and the teacher embeds the input itself; ``encoder`` averages what
            follows the front door, and the teacher reads the student's local features; ``blocks`` averages the shared
            blocks only (v2 text).
        copied: dotted name prefixes that the teacher copies from the student instead of averaging.
    """

    start: float = ranged(0.999, low=0.0, high=1.0)
    end: float = ranged(0.9999, low=0.0, high=1.0)
    anneal_updates: int = ranged(30_000, low=0)
    scope: Literal["all", "encoder", "blocks"] = "encoder"
    copied: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def decay(self, update: int) -> float:
        """Tau at `update`: ``end - (end - start) * (1 - update / anneal_updates)``, then `end`."""
        if update >= self.anneal_updates:
            return self.end
        return self.end - (self.end - self.start) * (1 - update / self.anneal_updates)


@dataclass(frozen=True)
class CollapseConfig:
    """When a run counts as collapsed (arXiv 2202.03555, section 6; fairseq `data2vec_audio.py`).

    0 switches a check off.

    Attributes:
        min_target_var: least variance of the targets.
        min_pred_var: least variance of the predictions.
        max_position_share: largest share of the targets' variance that the position alone explains.
        min_local_var: least variance of the local features, as a share of what it was when the run began.
        after_update: updates before `min_target_var` and `min_pred_var` are checked: healthy predictions start near 0.
    """

    min_target_var: float = ranged(0.1, low=0.0)
    min_pred_var: float = ranged(0.01, low=0.0)
    max_position_share: float = ranged(0.9, low=0.0, high=1.0)
    min_local_var: float = ranged(0.05, low=0.0)
    after_update: int = ranged(5000, low=0)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ObjectiveConfig:
    """data2vec 1: mask, student, teacher, targets, loss (fairseq `data2vec_audio.py`, `data2vec_text.py`).

    Attributes:
        target: what is regressed.
        ema: how the teacher follows.
        loss_beta: smooth L1's beta; 0 is the squared error.
        loss_scale: factor of the loss summed over dimensions: a number, ``rsqrt`` (1 / sqrt(D)) or ``mean`` (1 / D).
        head: ``linear`` (D -> D) or ``mlp`` (D -> 2 D -> D with GELU).
        collapse: when to call the run collapsed.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    loss_beta: float = ranged(0.0, low=0.0)
    loss_scale: float | Literal["rsqrt", "mean"] = "rsqrt"
    head: Literal["linear", "mlp"] = "linear"
    collapse: CollapseConfig = field(default_factory=CollapseConfig)

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def audio(cls) -> ObjectiveConfig:
        """Published values for speech (`base_librispeech.yaml`): squared error, instance norm, K 8."""
        return cls(ema=EmaConfig(copied=("encoder.positions",)))

    @classmethod
    def text(cls) -> ObjectiveConfig:
        """Published values for text (`text_pretraining/base.yaml`): smooth L1 beta 4, layer norm, K 10, MLP head."""
        return cls(
            target=TargetConfig(layers=10, layer_norm="layer"),
            ema=EmaConfig(anneal_updates=300_000, copied=("encoder.positions", "encoder.token_types", "encoder.norm")),
            loss_beta=4.0,
            loss_scale=1.0,
            head="mlp",
        )

    @classmethod
    def vision(cls) -> ObjectiveConfig:
        """Published values for images (README of the BEiT fork): blocks' ends, layer norms, beta 2, K 6."""
        return cls(
            target=TargetConfig(layers=6, source="block", layer_norm="layer", final_norm="layer"),
            ema=EmaConfig(start=0.9998, end=0.9998, anneal_updates=0, scope="all"),
            loss_beta=2.0,
            loss_scale="mean",
            collapse=CollapseConfig(max_position_share=0.0),
        )


@dataclass(frozen=True)
class DecoderConfig:
    """The convolutional decoder of data2vec 2 (arXiv 2212.07525; `data2vec.nn.decoder.Decoder`).

    Attributes:
        channels: of the convolutions.
        kernel: side of each kernel, in tokens.
        layers: number of convolutions.
        groups: of each convolution.
        dimensions: 1 for sequences, 2 for grids.
        residual: add a layer's input to its output where their widths agree.
        projection_layers: linear layers after the convolutions.
        projection_ratio: their inner width, as a multiple of `channels`.
        dropout: on the encoder's output.
    """

    channels: int = ranged(384, low=1)
    kernel: int = ranged(7, low=1)
    layers: int = ranged(4, low=1)
    groups: int = ranged(16, low=1)
    dimensions: Literal[1, 2] = 1
    residual: bool = True
    projection_layers: int = ranged(1, low=1)
    projection_ratio: float = ranged(2.0, above=0.0)
    dropout: float = ranged(0.1, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.channels % self.groups:
            raise UserError(f"DecoderConfig.channels {self.channels} is no multiple of groups {self.groups}")


@dataclass(frozen=True)
class Data2Vec2ObjectiveConfig:
    """data2vec 2 (arXiv 2212.07525): several masks a sample, a student that sees visible tokens only, a decoder.

    Attributes:
        target: what is regressed; `layers` counts shared blocks, those after the prenet.
        ema: how the teacher follows.
        decoder: from visible tokens to predictions.
        loss_beta: smooth L1's beta; 0 is the squared error.
        loss_scale: factor of the loss summed over dimensions: a number, ``rsqrt`` (1 / sqrt(D)) or ``mean`` (1 / D).
        noise_std: standard deviation of what stands for hidden tokens in the decoder's input.
        cls_weight: weight c of the loss of the first extra token against the mean target; 0: no such loss.
        cls_rows: ``mean``: c times 256 times the rows' mean, the released weight at its 256 rows whatever the batch;
            ``sum``: c times the sum over the rows of a micro-batch, as released (algorithms P6).
        count_padding: treat padding as tokens in encoder, decoder and loss, as the released code does (P8).
        collapse: when to call the run collapsed.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(end=0.99999, anneal_updates=75_000))
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss_beta: float = ranged(0.0, low=0.0)
    loss_scale: float | Literal["rsqrt", "mean"] = "rsqrt"
    noise_std: float = ranged(0.01, low=0.0)
    cls_weight: float = ranged(0.0, low=0.0)
    cls_rows: Literal["mean", "sum"] = "mean"
    count_padding: bool = False
    collapse: CollapseConfig = field(default_factory=CollapseConfig)

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def audio(cls, size: Literal["base", "large"] = "base") -> Data2Vec2ObjectiveConfig:
        """Published values for speech (`v2/base_audio_only_task.yaml`, `v2/large_audio_only_task.yaml`)."""
        if size == "large":
            return cls(
                target=TargetConfig(layers=16),
                ema=EmaConfig(start=0.9997, end=1.0, anneal_updates=300_000),
                decoder=DecoderConfig(channels=768),
            )
        return cls()

    @classmethod
    def vision(cls, size: Literal["base", "large", "huge", "huge14"] = "base") -> Data2Vec2ObjectiveConfig:
        """Published values for images (`v2/{base,large,huge,huge14}_images_only_task.yaml`).

        huge has patches of 16 x 16 pixels, huge14 of 14 x 14.
        """
        layers = {"base": 10, "large": 18}.get(size, 24)
        end, anneal = {
            "base": (0.99999, 100_000),
            "large": (0.99999, 150_000),
            "huge": (0.99995, 150_000),
            "huge14": (1.0, 300_000),
        }[size]
        channels = 768 if size == "base" else 1024
        kernel, depth = (3, 6) if size == "base" else (5, 3)
        return cls(
            target=TargetConfig(layers=layers, final_norm="layer"),
            ema=EmaConfig(start=0.9998, end=end, anneal_updates=anneal, scope="all"),
            decoder=DecoderConfig(channels=channels, kernel=kernel, layers=depth, dimensions=2, dropout=0.0),
            cls_weight=0.01,
            collapse=CollapseConfig(min_target_var=0.0, min_pred_var=0.0, max_position_share=0.0),
        )

    @classmethod
    def text(cls, size: Literal["base", "large"] = "base") -> Data2Vec2ObjectiveConfig:
        """Published values for text (`v2/base_text_only_task.yaml`, `v2/large_text_only_task.yaml`)."""
        target = TargetConfig(layers=12)
        if size == "large":
            target = TargetConfig(layers=24, layer_norm="layer", final_norm="instance")
        return cls(
            target=target,
            ema=EmaConfig(start=0.9999, end=0.99999, anneal_updates=100_000, scope="blocks"),
            decoder=DecoderConfig(channels=768, kernel=9, layers=5, groups=1, residual=False, projection_layers=2),
            loss_scale=1.0,
        )
