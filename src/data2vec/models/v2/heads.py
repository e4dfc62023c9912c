"""Heads on the encoders of data2vec 2: those of data2vec 1, on another front door.

A class here names its encoder; what a head computes, its losses and its names on disk are the version 1 class's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from data2vec.models.audio.augment import frame_mask, random_source
from data2vec.models.audio.heads import (
    OWN_RULE,
    Data2VecAudioForAudioFrameClassification,
    Data2VecAudioForCTC,
    Data2VecAudioForSequenceClassification,
    Data2VecAudioForXVector,
    _AudioHeadModel,
)
from data2vec.models.text.heads import (
    Data2VecTextForMultipleChoice,
    Data2VecTextForQuestionAnswering,
    Data2VecTextForSequenceClassification,
    Data2VecTextForTokenClassification,
    _TextHeadModel,
)
from data2vec.models.v2.audio import Data2Vec2AudioModel, Data2Vec2AudioPreTrainedModel
from data2vec.models.v2.config import Data2Vec2AudioConfig
from data2vec.models.v2.text import Data2Vec2TextModel, Data2Vec2TextPreTrainedModel
from data2vec.models.v2.vision import Data2Vec2VisionModel, Data2Vec2VisionPreTrainedModel
from data2vec.models.vision.heads import (
    Data2VecVisionForImageClassification,
    Data2VecVisionForSemanticSegmentation,
    _VisionHeadModel,
)
from data2vec.outputs import AudioModelOutput, TextModelOutput


class _Audio(Data2Vec2AudioPreTrainedModel, _AudioHeadModel):
    """Speech: extra tokens are cut off, SpecAugment hides frames behind noise."""

    encoder = Data2Vec2AudioModel
    adapts = False

    def __init__(self, config: Data2Vec2AudioConfig) -> None:
        config.require(config.mask_feature_prob == 0, "mask_feature_prob: data2vec 2 hides frames, not channels; use 0")
        super().__init__(config)

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """As the base model; what has a rule of its own, by that."""
        if isinstance(module, OWN_RULE):
            module.reset_parameters()
        else:
            super().init_module(module)

    @property
    def extra_tokens(self) -> int:
        """Learned tokens in front of the frames."""
        return int(self.config.num_extra_tokens)

    def encode(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None,
        mask_time_indices: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Tensor, Tensor | None, AudioModelOutput]:
        """As in data2vec 1; while training, spans of frames are hidden."""
        if self.training and mask_time_indices is None:
            mask_time_indices = self._hidden_frames(input_values, attention_mask)
        return super().encode(input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states)

    def _hidden_frames(self, input_values: Tensor, attention_mask: Tensor | None) -> Tensor | None:
        config: Data2Vec2AudioConfig = self.config
        if not config.apply_spec_augment or config.mask_time_prob <= 0:
            return None
        frames = config.frames(input_values.shape[1])
        padding = self.body.frame_padding(attention_mask, frames)
        shape = (config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks)
        source = random_source(compatible=config.is_compatible)
        return frame_mask(len(input_values), frames, padding, shape, source).to(input_values.device)


class Data2Vec2AudioForCTC(_Audio, Data2VecAudioForCTC):
    """Speech recognition: letters a frame; forward as `Data2VecAudioForCTC`."""


class Data2Vec2AudioForSequenceClassification(_Audio, Data2VecAudioForSequenceClassification):
    """One class or value a clip; forward as `Data2VecAudioForSequenceClassification`."""


class Data2Vec2AudioForAudioFrameClassification(_Audio, Data2VecAudioForAudioFrameClassification):
    """One class a frame; forward as `Data2VecAudioForAudioFrameClassification`."""


class Data2Vec2AudioForXVector(_Audio, Data2VecAudioForXVector):
    """One embedding a clip; forward as `Data2VecAudioForXVector`."""


class _Text(Data2Vec2TextPreTrainedModel, _TextHeadModel):
    """Text: extra tokens are cut off."""

    encoder = Data2Vec2TextModel

    def encode(self, input_ids: Tensor | None, attention_mask: Tensor | None, **inputs: Any) -> TextModelOutput:
        """As in data2vec 1."""
        output = super().encode(input_ids, attention_mask, **inputs)
        output.last_hidden_state = output.last_hidden_state[:, self.config.num_extra_tokens :]
        return output


class Data2Vec2TextForSequenceClassification(_Text, Data2VecTextForSequenceClassification):
    """One class or value a text; forward as `Data2VecTextForSequenceClassification`."""


class Data2Vec2TextForTokenClassification(_Text, Data2VecTextForTokenClassification):
    """One class a token; forward as `Data2VecTextForTokenClassification`."""


class Data2Vec2TextForQuestionAnswering(_Text, Data2VecTextForQuestionAnswering):
    """First and last token of an answer; forward as `Data2VecTextForQuestionAnswering`."""


class Data2Vec2TextForMultipleChoice(_Text, Data2VecTextForMultipleChoice):
    """The best of several texts; forward as `Data2VecTextForMultipleChoice`."""


class _Vision(Data2Vec2VisionPreTrainedModel, _VisionHeadModel):
    """Images: extra tokens are cut off."""

    encoder = Data2Vec2VisionModel

    @property
    def extra_tokens(self) -> int:
        """Learned tokens in front of the patches."""
        return int(self.config.num_extra_tokens)


class Data2Vec2VisionForImageClassification(_Vision, Data2VecVisionForImageClassification):
    """One class an image, of the patches' normalised mean; forward as `Data2VecVisionForImageClassification`."""


class Data2Vec2VisionForSemanticSegmentation(_Vision, Data2VecVisionForSemanticSegmentation):
    """One class a pixel; forward as `Data2VecVisionForSemanticSegmentation`."""

    def adopt(self, stored: Collection[str]) -> None:
        """No head of data2vec 2 comes from transformers: `out_indices` names the blocks."""
