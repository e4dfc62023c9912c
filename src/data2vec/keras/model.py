"""`TFData2VecVisionModel` and its heads: the documented TensorFlow classes, numerically the PyTorch ones.

Shapes: B batch, P patches, H hidden size, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from data2vec.keras.backend import keras, tf
from data2vec.keras.base import TFData2VecVisionPreTrainedModel
from data2vec.keras.checks import InputError
from data2vec.keras.layers import Grid, VisionEncoder, VisionFrontend, dense, layer_norm
from data2vec.keras.losses import classification
from data2vec.keras.outputs import gather
from data2vec.keras.segmentation import AuxiliaryDecoder, Pyramid, SegmentationDecoder, segmentation_loss
from data2vec.models.vision.config import Data2VecVisionConfig

ops = keras.ops


@keras.saving.register_keras_serializable("data2vec")
class TFData2VecVisionModel(TFData2VecVisionPreTrainedModel):
    """data2vec for images on TensorFlow, without head (arXiv 2202.03555)."""

    own_options = ("add_pooling_layer",)

    def __init__(self, config: Data2VecVisionConfig, add_pooling_layer: bool = False, name: str | None = None) -> None:
        super().__init__(config, name=name)
        self.frontend = VisionFrontend(config)
        self.mask_embedding = None
        if config.use_mask_token:
            shape = (1, 1, config.hidden_size)
            self.mask_embedding = self.add_weight(shape=shape, initializer="zeros", name="mask_embedding")
        self.encoder = VisionEncoder(config)
        self.pools = add_pooling_layer
        mean = config.use_mean_pooling
        self.norm = None if mean else layer_norm(config)
        self.pooler = layer_norm(config) if mean and add_pooling_layer else None
        self.built = True

    def call(
        self,
        pixel_values: Any,
        bool_masked_pos: Any = None,
        head_mask: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Any:
        """Run the encoder.

        Args:
            pixel_values: (B, channels, height, width), normalised.
            bool_masked_pos: (B, P), true = patch replaced by the mask embedding.
            head_mask: (heads,) or (layers, heads), multiplied into the attention weights.
            output_attentions: return the attention weights.
            output_hidden_states: return the embeddings and every block's output.
            return_dict: False returns a tuple.
            training: dropout and stochastic depth.
            interpolate_pos_encoding: allow another image size than the configuration's, with absolute positions.

        Returns:
            last_hidden_state, pooler_output, hidden_states, attentions (see `TFModelOutput`).
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        pixels = checked_pixels(pixel_values, config)
        grid = self._grid(pixels, interpolate_pos_encoding)
        patches = self._hide(self.frontend(ops.cast(pixels, self.compute_dtype)), bool_masked_pos)
        heads = _expand_head_mask(head_mask, config)
        states, weights = self.encoder(patches, grid=grid, head_mask=heads, training=training)
        last = states[-1] if self.norm is None else self.norm(states[-1])
        outputs = gather(
            last_hidden_state=last,
            pooler_output=self._pool(last) if self.pools else None,
            hidden_states=states if hidden else None,
            attentions=weights if attentions else None,
        )
        return self.finish(outputs, return_dict)

    def _grid(self, pixels: Any, interpolate: bool) -> Grid:
        (height, width), (high, wide) = pixels.shape[2:], self.config.patch_shape
        grid = height // high, width // wide
        if 0 in grid:
            raise InputError(f"pixel_values of {height}x{width} is smaller than a patch, {self.config.patch_shape}")
        if grid != self.config.grid and self.encoder.positions is not None and not interpolate:
            raise InputError(
                f"pixel_values is {height}x{width}, the model was made for {self.config.image_shape}: "
                "pass interpolate_pos_encoding=True or resize"
            )
        return grid

    def _hide(self, patches: Any, mask: Any) -> Any:
        if mask is None:
            return patches
        if self.mask_embedding is None:
            raise InputError("bool_masked_pos needs a mask embedding: set use_mask_token=True in the config")
        mask, count = ops.convert_to_tensor(mask), patches.shape[1]
        if len(mask.shape) < 2 or math.prod(size or 1 for size in mask.shape[1:]) != count:
            raise InputError(f"bool_masked_pos has shape {tuple(mask.shape)}; it must be (batch, {count})")
        token = ops.cast(ops.convert_to_tensor(self.mask_embedding), patches.dtype)
        return ops.where(ops.reshape(ops.cast(mask, "bool"), (-1, count, 1)), token, patches)

    def _pool(self, x: Any) -> Any:
        """Norm of the patches' mean, or the (normalised) CLS token."""
        return x[:, 0] if self.pooler is None else self.pooler(ops.mean(x[:, 1:], axis=1))

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "add_pooling_layer": self.pools}


def checked_pixels(pixel_values: Any, config: Data2VecVisionConfig) -> Any:
    """`pixel_values` as a tensor (B, channels, height, width) of known height and width.

    Unknown ones (in a graph) are taken to be the configuration's, and checked when it runs.
    """
    pixels = ops.convert_to_tensor(pixel_values)
    channels = config.num_channels
    if len(pixels.shape) != 4 or pixels.shape[1] not in (channels, None):
        hint = "; it looks channels-last: transpose it with (0, 3, 1, 2)" if pixels.shape[-1] == channels else ""
        shape = tuple(pixels.shape)
        raise InputError(f"pixel_values must be (batch, {channels}, height, width), not of shape {shape}{hint}")
    known = (seen or own for seen, own in zip(pixels.shape[2:], config.image_shape, strict=True))
    return tf.ensure_shape(pixels, (None, channels, *known))


def _expand_head_mask(head_mask: Any, config: Data2VecVisionConfig) -> Any:
    """(heads,) or (layers, heads) -> (layers, heads)."""
    if head_mask is None:
        return None
    head_mask = ops.convert_to_tensor(head_mask)
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if tuple(head_mask.shape) not in {(heads,), (layers, heads)}:
        raise InputError(f"head_mask must be ({heads},) or ({layers}, {heads}), not {tuple(head_mask.shape)}")
    return ops.broadcast_to(head_mask, (layers, heads))


@keras.saving.register_keras_serializable("data2vec")
class TFData2VecVisionForImageClassification(TFData2VecVisionPreTrainedModel):
    """One class an image: a linear map of the patches' normalised mean, or of the CLS token."""

    def __init__(self, config: Data2VecVisionConfig, name: str | None = None) -> None:
        super().__init__(config, name=name)
        self.data2vec_vision = TFData2VecVisionModel(config, add_pooling_layer=True)
        labels = config.num_labels
        self.classifier = dense(config.hidden_size, labels, config.initializer_range) if labels > 0 else None
        self.built = True

    def call(
        self,
        pixel_values: Any,
        head_mask: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Any = None,
        training: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Any:
        """Classify images.

        Args:
            pixel_values: (B, channels, height, width).
            head_mask: this and the rest as for `TFData2VecVisionModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.
            labels: see `data2vec.keras.losses.classification`.
            training: dropout and stochastic depth.
            interpolate_pos_encoding: allow another image size than the configuration's.

        Returns:
            loss (B,), one a sample; logits (B, C); hidden_states, attentions.
        """
        base = self.data2vec_vision(
            pixel_values,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        logits = base["pooler_output"] if self.classifier is None else self.classifier(base["pooler_output"])
        loss = None if labels is None else classification(logits, labels, self.config)
        outputs = gather(
            loss=loss,
            logits=logits,
            hidden_states=base.get("hidden_states"),
            attentions=base.get("attentions"),
        )
        return self.finish(outputs, return_dict)


@keras.saving.register_keras_serializable("data2vec")
class TFData2VecVisionForSemanticSegmentation(TFData2VecVisionPreTrainedModel):
    """One class a pixel, at any image size."""

    def __init__(self, config: Data2VecVisionConfig, name: str | None = None) -> None:
        super().__init__(config, name=name)
        depth, wanted, blocks = config.num_hidden_layers, config.out_indices, config.feature_blocks
        config.require(len(blocks) == 4, f"segmentation reads four blocks; out_indices {wanted} names {len(blocks)}")
        config.require(
            all(block < depth for block in blocks),
            f"out_indices {wanted} names a block that is not there: the model has {depth}",
        )
        self.data2vec_vision = TFData2VecVisionModel(config)
        self.pyramid = Pyramid(config.hidden_size, config.initializer_range)
        self.decoder = SegmentationDecoder(config)
        self.auxiliary = AuxiliaryDecoder(config) if config.use_auxiliary_head else None
        self.built = True

    @classmethod
    def adopt(cls, config: Data2VecVisionConfig, stored: Collection[str]) -> None:
        """A trained head that does not say which blocks it reads is transformers': it reads its hidden states."""
        trained = any(name.startswith("decoder.") for name in stored)
        if trained and config.out_blocks is None and not config.is_compatible:
            config.out_blocks = config.reference_blocks

    def call(
        self,
        pixel_values: Any,
        head_mask: Any = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Any:
        """Classify pixels.

        Args:
            pixel_values: (B, channels, height, width). A size that is no multiple of the patch is filled up with zeros
                at the right and below; the scores cover the filled-up image.
            head_mask: this and the rest as for `TFData2VecVisionModel`.
            labels: (B, height, width) classes; `semantic_loss_ignore_index` is left out. Any size: scores are resized
                to it.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.
            training: dropout, stochastic depth, batch statistics.
            interpolate_pos_encoding: allow another image size than the configuration's, with absolute positions.

        Returns:
            loss (1,); logits (B, C, 4 * rows, 4 * columns); hidden_states, attentions.
        """
        config = self.config
        if labels is not None and config.num_labels < 2:
            raise InputError(f"segmentation needs two classes or more; num_labels is {config.num_labels}")
        asked = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        pixels = checked_pixels(pixel_values, config)
        size, patch = tuple(pixels.shape[2:]), config.patch_shape
        filled = tuple(-(-pixel // side) * side for pixel, side in zip(size, patch, strict=True))
        pixels = ops.pad(pixels, [[0, 0], [0, 0], [0, filled[0] - size[0]], [0, filled[1] - size[1]]])
        base = self.data2vec_vision(
            pixels,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=True,
            return_dict=True,
            training=training,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        maps = self.pyramid(self._maps(base["hidden_states"], filled), training=training)
        logits = self.decoder(maps, training=training)
        loss = None if labels is None else self._loss(logits, maps[2], labels, size, filled, training)
        outputs = gather(
            loss=loss,
            logits=ops.transpose(logits, (0, 3, 1, 2)),
            hidden_states=base["hidden_states"] if asked else None,
            attentions=base.get("attentions"),
        )
        return self.finish(outputs, return_dict)

    def _maps(self, states: Any, filled: tuple[int, ...]) -> list[Any]:
        """The chosen blocks' patches as (B, rows, columns, H); hidden state 0 is what the first block reads."""
        grid = [pixel // side for pixel, side in zip(filled, self.config.patch_shape, strict=True)]
        chosen = [states[block + 1][:, 1:] for block in self.config.feature_blocks]
        return [ops.reshape(state, (-1, *grid, state.shape[2])) for state in chosen]

    def _loss(
        self, logits: Any, middle: Any, labels: Any, size: tuple[int, ...], filled: tuple[int, ...], training: bool
    ) -> Any:
        """Loss of both decoders. Labels of another size than the image's stand for the whole filled-up image."""
        config = self.config
        labels = ops.convert_to_tensor(labels)
        if len(labels.shape) != 3:
            raise InputError(f"labels has shape {tuple(labels.shape)}; segmentation needs (batch, height, width)")
        known = tuple(seen or own for seen, own in zip(labels.shape[1:], size, strict=True))
        labels = tf.ensure_shape(labels, (None, *known))
        covered = (filled[0], filled[1]) if known == size else (known[0], known[1])
        loss = segmentation_loss(logits, labels, covered, config.semantic_loss_ignore_index)
        if self.auxiliary is not None:
            second = self.auxiliary(middle, training=training)
            second = segmentation_loss(second, labels, covered, config.semantic_loss_ignore_index)
            loss = loss + config.auxiliary_loss_weight * second
        return ops.reshape(loss, (1,))
