"""Image heads: one class an image, one class a pixel. Shapes: B batch, P patches, H width."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.losses import classification
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel, Data2VecVisionPreTrainedModel
from data2vec.models.vision.segmentation import AuxiliaryDecoder, Pyramid, SegmentationDecoder, segmentation_loss
from data2vec.outputs import ImageClassifierOutput, SemanticSegmenterOutput, VisionModelOutput

logger = logging.getLogger("data2vec")


class _VisionHeadModel(Data2VecVisionPreTrainedModel):
    """A base model with a head."""

    encoder: Callable[..., PreTrainedModel] = Data2VecVisionModel
    pools = False

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__(config)
        self.add_module(self.names.prefix, type(self).encoder(config, add_pooling_layer=self.pools))

    @property
    def extra_tokens(self) -> int:
        """Tokens in front of the patches: the CLS."""
        return 1

    def finish(self, output: Any, return_dict: bool | None) -> Any:
        """The output, or a tuple of it."""
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()


class Data2VecVisionForImageClassification(_VisionHeadModel):
    """One class an image: a linear map of the patches' normalised mean, or of the CLS token."""

    pools = True

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__(config)
        labels = config.num_labels
        self.classifier = nn.Linear(config.hidden_size, labels) if labels > 0 else nn.Identity()
        self.init_weights()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool = False,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify images.

        Args:
            pixel_values: (B, C, height, width) float.
            labels: see `data2vec.models.losses.classification`.
            head_mask: this and the rest as for `Data2VecVisionModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            interpolate_pos_encoding: allow another image size than the configuration's.
            return_dict: False returns a tuple.

        Returns:
            `ImageClassifierOutput`.
        """
        base: VisionModelOutput = self.base_model(
            pixel_values,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
        )
        logits = self.classifier(base.pooler_output)
        loss = None if labels is None else classification(logits, labels, self.config)
        return self.finish(ImageClassifierOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


class Data2VecVisionForSemanticSegmentation(_VisionHeadModel):
    """One class a pixel, at any image size."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__(config)
        wanted = config.out_indices
        depth = config.num_hidden_layers
        config.require(len(wanted) == 4, f"segmentation reads four blocks; out_indices {wanted} names {len(wanted)}")
        config.require(
            all(block < depth for block in config.feature_blocks),
            f"out_indices {wanted} names a block that is not there: the model has {depth}",
        )
        self.pyramid = Pyramid(config.hidden_size)
        self.decoder = SegmentationDecoder(config.hidden_size, config.num_labels, config.pool_scales)
        self.auxiliary = AuxiliaryDecoder(config) if config.use_auxiliary_head else None
        self.init_weights()

    def adopt(self, stored: Collection[str]) -> None:
        """A trained head that does not say which blocks it reads is transformers': it reads its hidden states."""
        config: Data2VecVisionConfig = self.config
        trained = any(name.startswith("decoder.") for name in stored)
        if trained and config.out_blocks is None and not config.is_compatible:
            config.out_blocks = config.reference_blocks
            logger.info("This segmentation head was trained on the outputs of blocks %s", config.out_blocks)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool = False,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify pixels.

        Args:
            pixel_values: (B, C, height, width) float. A size that is no multiple of the patch is filled up with zeros
                at the right and below; the scores cover the filled-up image.
            labels: (B, height, width) classes; `semantic_loss_ignore_index` is left out. Any size: scores are resized
                to it.
            head_mask: this and the rest as for `Data2VecVisionModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            interpolate_pos_encoding: allow another image size than the configuration's, with absolute positions.
            return_dict: False returns a tuple.

        Returns:
            `SemanticSegmenterOutput`.
        """
        config: Data2VecVisionConfig = self.config
        if labels is not None and config.num_labels < 2:
            raise UserError(f"segmentation needs two classes or more; num_labels is {config.num_labels}")
        asked = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        size = tuple(pixel_values.shape[2:])
        patch = config.patch_shape
        pixel_values = F.pad(pixel_values, (0, -size[1] % patch[1], 0, -size[0] % patch[0]))
        base: VisionModelOutput = self.base_model(
            pixel_values,
            head_mask=head_mask,
            output_attentions=output_attentions,
            output_hidden_states=True,
            interpolate_pos_encoding=interpolate_pos_encoding,
            return_dict=True,
        )
        grid = (pixel_values.shape[2] // patch[0], pixel_values.shape[3] // patch[1])
        maps = self.pyramid(self._maps(base, grid))
        logits = self.decoder(maps)
        loss = None if labels is None else self._loss(logits, maps, labels, size, grid)
        output = SemanticSegmenterOutput(loss, logits, base.hidden_states if asked else None, base.attentions)
        return self.finish(output, return_dict)

    def _maps(self, base: VisionModelOutput, grid: tuple[int, int]) -> list[Tensor]:
        """The chosen blocks' patches as (B, H, rows, columns); hidden state 0 is what the first block reads."""
        assert base.hidden_states is not None
        states = [base.hidden_states[block + 1] for block in self.config.feature_blocks]
        return [state[:, self.extra_tokens :].transpose(1, 2).unflatten(2, grid) for state in states]

    def _loss(
        self, logits: Tensor, maps: list[Tensor], labels: Tensor, size: tuple[int, ...], grid: tuple[int, int]
    ) -> Tensor:
        """Loss of both decoders. Labels of another size than the image's stand for the whole filled-up image."""
        config: Data2VecVisionConfig = self.config
        patch, ignored = config.patch_shape, config.semantic_loss_ignore_index
        matches = tuple(labels.shape[1:]) == size
        covered = (grid[0] * patch[0], grid[1] * patch[1]) if matches else (labels.shape[1], labels.shape[2])
        loss = segmentation_loss(logits, labels, covered, ignored)
        if self.auxiliary is not None:
            second = segmentation_loss(self.auxiliary(maps[2]), labels, covered, ignored)
            loss = loss + config.auxiliary_loss_weight * second
        return loss
