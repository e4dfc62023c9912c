"""Speech heads: letters (CTC), one class a clip, one class a frame, speaker embeddings.

What a head computes is a small module over features and padding, for any encoder; the published classes put it on
`Data2VecAudioModel`. Shapes: B batch, T frames, H width.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.adapter import reference_lengths
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel, Data2VecAudioPreTrainedModel
from data2vec.models.audio.xvector import KaimingLinear, MarginSoftmax, XVectorHead
from data2vec.models.losses import IGNORED, at_least_float, classification, cross_entropy, ctc, ctc_of_lengths
from data2vec.outputs import (
    AudioModelOutput,
    CausalLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    XVectorOutput,
)


class LayerMix(nn.Module):
    """Softmax-weighted sum of all hidden states (SUPERB, arXiv 2105.01051)."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.empty(states))

    def reset_parameters(self) -> None:
        """All states alike."""
        nn.init.constant_(self.weights, 1 / len(self.weights))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """(B, T, H) each -> (B, T, H)."""
        return torch.einsum("s,sbth->bth", self.weights.softmax(dim=0), torch.stack(tuple(states)))


OWN_RULE = LayerMix | MarginSoftmax | KaimingLinear
"""What is initialised by its own ``reset_parameters``."""


class CTCHead(nn.Module):
    """Dropout and a linear map to letters."""

    def __init__(self, width: int, letters: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.letters = nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, letters)."""
        scores: Tensor = self.letters(self.dropout(x))
        return scores


class PooledHead(nn.Module):
    """Linear map, mean over valid frames, linear map."""

    def __init__(self, width: int, hidden: int, labels: int) -> None:
        super().__init__()
        self.projector = nn.Linear(width, hidden)
        self.classifier = nn.Linear(hidden, labels)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """(B, T, H) and padding (B, T) -> (B, labels)."""
        x = self.projector(x)
        if padding_mask is None:
            pooled = x.mean(dim=1)
        else:
            count = (~padding_mask).sum(dim=1, keepdim=True).clamp(min=1)
            pooled = x.masked_fill(padding_mask[..., None], 0.0).sum(dim=1) / count
        scores: Tensor = self.classifier(pooled)
        return scores


class FrameHead(nn.Module):
    """A linear map of each frame."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, labels)."""
        scores: Tensor = self.classifier(x)
        return scores


def frame_classification(
    logits: Tensor, labels: Tensor, padding_mask: Tensor | None = None, *, multi_label: bool = False
) -> Tensor:
    """Mean loss over frames.

    Args:
        logits: (B, T, C).
        labels: (B, T) class numbers, -100 is left out; or (B, T, C), of which the largest counts as the frame's class
            (a reference label has one 1 a frame).
        padding_mask: (B, T), True = left out.
        multi_label: read (B, T, C) as C yes-or-no answers (speakers who talk at once).
    """
    batch, frames, classes = logits.shape
    if labels.shape not in ((batch, frames), (batch, frames, classes)):
        raise UserError(
            f"labels has shape {tuple(labels.shape)}; one class a frame is {(batch, frames)}, "
            f"scores are {(batch, frames, classes)}"
        )
    if multi_label and labels.dim() == 3:
        losses = F.binary_cross_entropy_with_logits(at_least_float(logits), labels.float(), reduction="none").mean(
            dim=-1
        )
        counts = torch.ones_like(losses) if padding_mask is None else (~padding_mask).float()
        return (losses * counts).sum() / counts.sum().clamp(min=1)
    labels = labels.argmax(dim=-1) if labels.dim() == 3 else labels
    if padding_mask is not None:
        labels = labels.masked_fill(padding_mask, IGNORED)
    return cross_entropy(logits.flatten(0, 1), labels.flatten())


class _AudioHeadModel(Data2VecAudioPreTrainedModel):
    """A base model with a head: what the four classes share."""

    encoder: type[PreTrainedModel] = Data2VecAudioModel
    adapts = True
    mixes = False

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        if config.add_adapter and not self.adapts:
            raise UserError(f"{type(self).__name__} has no use for an adapter: set add_adapter=False")
        self.add_module(self.names.prefix, self.encoder(config))
        mixes = self.mixes and config.use_weighted_layer_sum
        self.mix = LayerMix(config.num_hidden_layers + 1) if mixes else None

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """As the base model; what has a rule of its own, by that."""
        if isinstance(module, OWN_RULE):
            module.reset_parameters()
        else:
            super().init_module(module)

    @property
    def body(self) -> Any:
        """The base model, of either version."""
        return self.base_model

    @property
    def extra_tokens(self) -> int:
        """Tokens in front of the frames, which the heads do not read."""
        return 0

    @property
    def feature_width(self) -> int:
        """Width of what `features` returns."""
        config: Data2VecAudioConfig = self.config
        adapted = config.add_adapter and self.mix is None
        return config.output_hidden_size if adapted and config.output_hidden_size else config.hidden_size

    def freeze_feature_encoder(self) -> None:
        """Train the convolutions no longer."""
        self.body.freeze_feature_encoder()

    def freeze_feature_extractor(self) -> None:
        """Older name of `freeze_feature_encoder`."""
        warnings.warn("freeze_feature_extractor is now freeze_feature_encoder", FutureWarning, stacklevel=2)
        self.freeze_feature_encoder()

    def encode(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None,
        mask_time_indices: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Tensor, Tensor | None, AudioModelOutput]:
        """Run the base model.

        Returns:
            features (B, T, feature_width), their padding (B, T), and the base model's output with the hidden states
            that were asked for.
        """
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output: AudioModelOutput = self.body(
            input_values,
            attention_mask,
            mask_time_indices,
            output_attentions=output_attentions,
            output_hidden_states=asked or self.mix is not None,
            return_dict=True,
        )
        extra = self.extra_tokens
        features = output.last_hidden_state[:, extra:]
        padding = None if output.frame_mask is None else ~output.frame_mask
        if self.mix is not None:
            assert output.hidden_states is not None
            features = self.mix(output.hidden_states)[:, extra:]
            padding = self.body.frame_padding(attention_mask, features.shape[1])
        if not asked:
            output.hidden_states = None
        return features, padding, output

    def reference_lengths(self, input_values: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Valid frames of each row as the reference counts them (B,)."""
        mask = torch.ones_like(input_values) if attention_mask is None else attention_mask
        lengths = self.body.frontend.raw_lengths(mask.long().sum(dim=1))
        return reference_lengths(lengths, self.config) if self.config.add_adapter else lengths

    def finish(self, output: Any, return_dict: bool | None) -> Any:
        """The output, or a tuple of it."""
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()


class Data2VecAudioForCTC(_AudioHeadModel):
    """Speech recognition: letters a frame, trained by CTC (arXiv 2006.11477)."""

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        self.head = CTCHead(self.feature_width, config.vocab_size, config.final_dropout)
        self.init_weights()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Score letters.

        Args:
            input_values: (B, samples) float.
            attention_mask: (B, samples), 1 = valid.
            labels: (B, U) letters; -100 and `pad_token_id`, the blank, are left out.
            mask_time_indices: see `Data2VecAudioModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.

        Returns:
            `CausalLMOutput`.
        """
        x, padding, base = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.head(x)
        loss = None if labels is None else self._loss(logits, labels, padding, input_values, attention_mask)
        output = CausalLMOutput(loss, logits, base.hidden_states, base.attentions, base.frame_mask)
        return self.finish(output, return_dict)

    def _loss(
        self, logits: Tensor, labels: Tensor, padding: Tensor | None, waveform: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        config = self.config
        blank = config.pad_token_id or 0
        reduction, zero = config.ctc_loss_reduction, config.ctc_zero_infinity
        if config.is_compatible:
            lengths = self.reference_lengths(waveform, attention_mask)
            return ctc_of_lengths(logits.float(), labels, lengths, blank, reduction, zero_infinity=zero)
        return ctc(logits, labels, padding, blank=blank, reduction=reduction, zero_infinity=zero)


class Data2VecAudioForSequenceClassification(_AudioHeadModel):
    """One class (or value) a clip, e.g. keyword spotting."""

    adapts, mixes = False, True

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        self.head = PooledHead(self.feature_width, config.classifier_proj_size, config.num_labels)
        self.init_weights()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify clips.

        Args:
            input_values: (B, samples) float.
            attention_mask: (B, samples), 1 = valid.
            labels: see `data2vec.models.losses.classification`; the reference knows class numbers only.
            mask_time_indices: see `Data2VecAudioModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.

        Returns:
            `SequenceClassifierOutput`.
        """
        x, padding, base = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.head(x, padding)
        loss = None
        if labels is not None:
            always_classes = self.config.is_compatible
            loss = (
                cross_entropy(logits, labels.flatten())
                if always_classes
                else classification(logits, labels, self.config)
            )
        return self.finish(SequenceClassifierOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


class Data2VecAudioForAudioFrameClassification(_AudioHeadModel):
    """One class a frame (50 a second), e.g. who speaks when."""

    adapts, mixes = False, True

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        self.head = FrameHead(self.feature_width, config.num_labels)
        self.init_weights()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify frames.

        Args:
            input_values: (B, samples) float.
            attention_mask: (B, samples), 1 = valid.
            labels: see `frame_classification`; ``problem_type="multi_label_classification"`` lets speakers overlap.
                Padded frames do not count (in the reference they do).
            mask_time_indices: see `Data2VecAudioModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.

        Returns:
            `TokenClassifierOutput`.
        """
        x, padding, base = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        logits = self.head(x)
        loss = None
        if labels is not None:
            multi_label = self.config.problem_type == "multi_label_classification"
            counted = None if self.config.is_compatible else padding
            loss = frame_classification(logits, labels, counted, multi_label=multi_label)
        output = TokenClassifierOutput(loss, logits, base.hidden_states, base.attentions, base.frame_mask)
        return self.finish(output, return_dict)


class Data2VecAudioForXVector(_AudioHeadModel):
    """One embedding a clip, to verify speakers by cosine."""

    mixes = True

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        self.head = XVectorHead(config, self.feature_width)
        self.init_weights()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Embed speakers.

        Args:
            input_values: (B, samples) float.
            attention_mask: (B, samples), 1 = valid.
            labels: (B,) speaker numbers, for the margin softmax.
            mask_time_indices: see `Data2VecAudioModel`.
            output_attentions: return the attention weights.
            output_hidden_states: return all layers.
            return_dict: False returns a tuple.

        Returns:
            `XVectorOutput`.
        """
        x, padding, base = self.encode(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        if self.config.is_compatible:
            lengths = None if attention_mask is None else self.reference_lengths(input_values, attention_mask)
            embeddings, logits = self.head.reference(x, lengths)
        else:
            embeddings, logits = self.head(x, padding)
        loss = None if labels is None else self.head.objective(logits, labels)
        output = XVectorOutput(loss, logits, embeddings, base.hidden_states, base.attentions)
        return self.finish(output, return_dict)
