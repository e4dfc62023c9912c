"""Text heads: masked and causal language models, classes of texts, of tokens, of choices, and answers in a text.

What a head computes is a small module over features, for any encoder; the published classes put it on
`Data2VecTextModel`. Shapes: B batch, L tokens, H width, V vocabulary.
"""

# ruff: noqa: D417 -- the base model's forward describes the arguments that all of these share

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.losses import classification, cross_entropy, next_token
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.generation import generate
from data2vec.models.text.model import Data2VecTextModel, Data2VecTextPreTrainedModel
from data2vec.nn.cache import Cache
from data2vec.outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TextModelOutput,
    TokenClassifierOutput,
)

logger = logging.getLogger("data2vec")


class LanguageModelHead(nn.Module):
    """Linear map, exact GELU, norm, and a map to the vocabulary (RoBERTa's).

    `bias` and ``decoder.bias`` are one parameter: published files hold either name.
    """

    def __init__(self, width: int, vocabulary: int, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.decoder = nn.Linear(width, vocabulary)
        self.bias = self.decoder.bias

    def reset_parameters(self) -> None:
        """No bias."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, V)."""
        scores: Tensor = self.decoder(self.norm(F.gelu(self.dense(x))))
        return scores


class TextClassificationHead(nn.Module):
    """Dropout, linear map, tanh, dropout, linear map, of a text's features (RoBERTa's)."""

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width, width)
        self.labels = nn.Linear(width, labels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H) -> (B, labels)."""
        hidden = torch.tanh(self.hidden(self.dropout(x)))
        scores: Tensor = self.labels(self.dropout(hidden))
        return scores


def pool(config: Data2VecTextConfig, x: Tensor, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
    """Tokens (B, L, H) -> texts (B, H), as `classifier_pooling` says; valid tokens alone count in a mean."""
    if config.classifier_pooling == "cls":
        return x[:, 0]
    if attention_mask is None:
        attention_mask = x.new_ones(x.shape[:2]) if input_ids is None else input_ids != config.pad_token_id
    valid = attention_mask.to(x.dtype)[..., None]
    return (x * valid).sum(1) / valid.sum(1).clamp(min=1)


def span_loss(start_logits: Tensor, end_logits: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Mean of the cross-entropies of both ends; ends outside the text do not count.

    Args:
        start_logits: (B, L).
        end_logits: (B, L).
        start: (B,) index of the first token of the answer.
        end: (B,) index of its last token.
    """
    outside = start_logits.shape[1]
    losses = [
        cross_entropy(logits, position.reshape(len(logits)).clamp(0, outside), outside)
        for logits, position in ((start_logits, start), (end_logits, end))
    ]
    return (losses[0] + losses[1]) / 2


def head_dropout(config: Data2VecTextConfig) -> float:
    """`classifier_dropout`, or the encoder's dropout where it is None."""
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


class _TextHeadModel(Data2VecTextPreTrainedModel):
    """A base model with a head: what the six classes share."""

    encoder: Callable[..., PreTrainedModel] = Data2VecTextModel
    pools = False

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        self.add_module(self.names.prefix, type(self).encoder(config, add_pooling_layer=self.pools))

    def encode(self, input_ids: Tensor | None, attention_mask: Tensor | None, **inputs: Any) -> TextModelOutput:
        """The base model's output; `inputs` are its keyword arguments."""
        output: TextModelOutput = self.base_model(input_ids, attention_mask, **inputs, return_dict=True)
        return output

    def finish(self, output: Any, return_dict: bool | None) -> Any:
        """The output, or a tuple of it."""
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()


class _LanguageModel(_TextHeadModel):
    """A model with a `LanguageModelHead`, tied to the word table unless the configuration says otherwise."""

    tied: ClassVar[Mapping[str, str]] = {
        "head.decoder.weight": "data2vec_text.frontend.words.weight",
        "head.decoder.bias": "head.bias",
    }

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        self.head = LanguageModelHead(config.hidden_size, config.vocab_size, config.layer_norm_eps)
        self.init_weights()

    def init_module(self, module: nn.Module) -> None:
        """As the base model; the head's own parameter is its bias."""
        if isinstance(module, LanguageModelHead):
            module.reset_parameters()
        else:
            super().init_module(module)

    def tie_weights(self) -> None:
        """As configured; the two names of the bias stay one parameter in any case."""
        super().tie_weights()
        self.head.bias = self.head.decoder.bias

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.head.decoder

    def set_output_embeddings(self, decoder: nn.Linear) -> None:
        """Replace the map to the vocabulary, its bias included."""
        self.head.decoder = decoder
        self.head.bias = decoder.bias


class Data2VecTextForMaskedLM(_LanguageModel):
    """Guesses masked tokens."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Score the vocabulary at every token.

        Args:
            labels: (B, L) token ids; -100 is left out.
            input_ids: this and the rest as for `Data2VecTextModel`.

        Returns:
            `MaskedLMOutput`.
        """
        base = self.encode(
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.head(base.last_hidden_state)
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten())
        return self.finish(MaskedLMOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


class Data2VecTextForCausalLM(_LanguageModel):
    """Writes on, token by token (with ``is_decoder=True``)."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning(
                "Data2VecTextForCausalLM sees the future too: set is_decoder=True in the config to write text"
            )

    generate = generate

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Score the next token after every token.

        Args:
            labels: (B, L) token ids, usually `input_ids` itself: they are shifted here. -100 is left out.
            logits_to_keep: score only this many of the last positions, or those of an index tensor; 0 is all.
            input_ids: this and the rest as for `Data2VecTextModel`.

        Returns:
            `CausalLMOutputWithCrossAttentions`.
        """
        base = self.encode(
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(base.last_hidden_state[:, kept])
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else next_token(logits, labels),
            logits=logits,
            past_key_values=base.past_key_values,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
            cross_attentions=base.cross_attentions,
        )
        return self.finish(output, return_dict)


class Data2VecTextForSequenceClassification(_TextHeadModel):
    """One class or value a text."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        self.head = TextClassificationHead(config.hidden_size, config.num_labels, head_dropout(config))
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify texts.

        Args:
            labels: see `data2vec.models.losses.classification`.
            input_ids: this and the rest as for `Data2VecTextModel`.

        Returns:
            `SequenceClassifierOutput`.
        """
        base = self.encode(
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.head(pool(self.config, base.last_hidden_state, input_ids, attention_mask))
        loss = None if labels is None else classification(logits, labels, self.config)
        return self.finish(SequenceClassifierOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


class Data2VecTextForTokenClassification(_TextHeadModel):
    """One class a token."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(head_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Classify tokens.

        Args:
            labels: (B, L) class numbers; -100 is left out.
            input_ids: this and the rest as for `Data2VecTextModel`.

        Returns:
            `TokenClassifierOutput`.
        """
        base = self.encode(
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.classifier(self.dropout(base.last_hidden_state))
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten())
        return self.finish(TokenClassifierOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


class Data2VecTextForMultipleChoice(_TextHeadModel):
    """The best of several texts, by one score each. Shape: C choices."""

    pools = True

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Choose.

        Args:
            input_ids: (B, C, L); the other inputs have the choices as second axis too.
            token_type_ids: stands second here, as published.
            attention_mask: and the rest as for `Data2VecTextModel`.
            labels: (B,) number of the right choice.

        Returns:
            `MultipleChoiceModelOutput`.
        """
        given = input_ids if input_ids is not None else inputs_embeds
        if given is None or given.dim() != (3 if input_ids is not None else 4):
            raise UserError("multiple choice needs input_ids (batch, choices, tokens), or inputs_embeds with a width")
        base = self.encode(
            _flat(input_ids),
            _flat(attention_mask),
            token_type_ids=_flat(token_type_ids),
            position_ids=_flat(position_ids),
            head_mask=head_mask,
            inputs_embeds=_flat(inputs_embeds),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.classifier(self.dropout(base.pooler_output)).view(given.shape[:2])
        loss = None if labels is None else cross_entropy(logits, labels.flatten())
        return self.finish(MultipleChoiceModelOutput(loss, logits, base.hidden_states, base.attentions), return_dict)


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.flatten(0, 1)


class Data2VecTextForQuestionAnswering(_TextHeadModel):
    """First and last token of an answer within a text."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__(config)
        config.require(
            config.num_labels == 2, f"question answering scores two ends: num_labels {config.num_labels} is not 2"
        )
        self.span = nn.Linear(config.hidden_size, 2)
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Score both ends at every token.

        Args:
            start_positions: (B,) index of the answer's first token; outside the text it does not count.
            end_positions: (B,) index of its last token.
            input_ids: this and the rest as for `Data2VecTextModel`.

        Returns:
            `QuestionAnsweringModelOutput`.
        """
        base = self.encode(
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        start_logits, end_logits = self.span(base.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(loss, start_logits, end_logits, base.hidden_states, base.attentions)
        return self.finish(output, return_dict)
