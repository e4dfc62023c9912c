"""`Data2Vec2TextModel`: token ids -> contextual tokens. Shapes: B batch, L tokens, H hidden size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import TEXT_HEADS, NameTable
from data2vec.models.text.frontend import TextFrontend
from data2vec.models.v2.config import Data2Vec2TextConfig
from data2vec.models.v2.encoder import ContextEncoder, Visible, alibi_scales, hide
from data2vec.nn.init import bert_init
from data2vec.nn.masks import expand_head_mask
from data2vec.nn.positions import text_positions
from data2vec.nn.transformer import TransformerConfig
from data2vec.outputs import TextModelOutput


class Data2Vec2TextFrontend(TextFrontend):
    """Words, learned positions, norm, dropout: in data2vec 2 all of it comes before masking (`TextLocalEncoder`)."""

    def __init__(self, config: Data2Vec2TextConfig) -> None:
        super().__init__(config)
        self.config = config
        self.positions = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id)
            if config.use_position_embeddings
            else None
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def place(self, words: Tensor, padding_mask: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
        """Word embeddings (B, L, H) -> local features (B, L, H). Positions count valid tokens only.

        Args:
            words: (B, L, H).
            padding_mask: (B, L) bool, True = padding.
            position_ids: (B, L) rows of the position table instead.
        """
        if position_ids is None:
            if words.shape[1] > self.config.max_length:
                raise UserError(
                    f"the text has {words.shape[1]} tokens; max_position_embeddings "
                    f"{self.config.max_position_embeddings} allows {self.config.max_length}: truncate it"
                )
            shape = (words.shape[0], words.shape[1])
            position_ids = text_positions(padding_mask, shape, self.config.pad_token_id, words.device)
        if self.positions is not None:
            words = words + self.positions(position_ids)
        placed: Tensor = self.dropout(self.norm(words))
        return placed


def transformer_config(config: Data2Vec2TextConfig) -> TransformerConfig:
    """The blocks that a text configuration asks for."""
    return TransformerConfig(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        depth=config.num_hidden_layers,
        hidden=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        layerdrop=config.layerdrop,
        implementation=config.attn_implementation or "sdpa",
    )


class Data2Vec2TextPreTrainedModel(PreTrainedModel):
    """Base of the text classes: configuration, names on disk (ours; heads as in data2vec 1), initialisation."""

    config_class = Data2Vec2TextConfig
    names = NameTable(prefix="data2vec2_text", rows=TEXT_HEADS)
    main_input_name: ClassVar[str] = "input_ids"

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """BERT's initialisation everywhere."""
        if isinstance(module, ContextEncoder):
            module.reset_parameters()
        else:
            bert_init(module, self.config.initializer_range)


class Data2Vec2TextModel(Data2Vec2TextPreTrainedModel):
    """data2vec 2 for text, without head and decoder (arXiv 2212.07525; fairseq `TextEncoder`)."""

    def __init__(self, config: Data2Vec2TextConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.frontend = Data2Vec2TextFrontend(config)
        self.encoder = ContextEncoder(
            transformer_config(config),
            prenet=config.prenet_depth,
            dropout=config.prenet_dropout,
            norm=config.prenet_depth > 0,
            extra_tokens=config.num_extra_tokens,
            alibi_scales=alibi_scales(config),
            learn_alibi=config.learn_alibi_scale,
        )
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        """The word table."""
        return self.frontend.words

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        """Replace the word table."""
        self.frontend.words = table

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``input_ids`` (B, L) -> local features; ``attention_mask`` 0, or else `pad_token_id`, is padding."""
        return self._embed(batch["input_ids"], None, batch.get("attention_mask"), None)

    def _embed(
        self,
        input_ids: Tensor | None,
        words: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
    ) -> Tokens:
        padding = None
        if attention_mask is not None:
            padding = attention_mask == 0
        elif input_ids is not None:
            padding = input_ids == self.config.pad_token_id
        if input_ids is not None:
            words = self.frontend(input_ids)
        assert words is not None
        if padding is not None and padding.shape != words.shape[:2]:
            shape = tuple(words.shape[:2])
            raise UserError(f"attention_mask has shape {tuple(padding.shape)}, the text {shape}")
        return Tokens(self.frontend.place(words, padding, position_ids), padding)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Local features, zero where `mask` (B, L) is True -> the shared blocks' outputs."""
        return self.encoder.layers(Tokens(hide(tokens.features, mask, 0.0), tokens.padding_mask))

    def contextualize_visible(self, tokens: Tokens, visible: Visible) -> LayerOutputs:
        """The visible tokens of every mask -> the last block's output."""
        return self.encoder.visible(tokens, visible)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the encoder on all tokens.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L), 1 = valid; without it, `pad_token_id` is padding.
            token_type_ids: taken for the sake of tokenizers that make them; the model has no token types.
            position_ids: (B, L); counted past padding when absent.
            head_mask: (heads,) or (layers, heads), multiplied into the attention weights.
            inputs_embeds: (B, L, H) word embeddings instead of `input_ids`.
            output_attentions: return the attention weights.
            output_hidden_states: return the first block's input and every block's output.
            return_dict: False returns a tuple.

        Returns:
            `TextModelOutput`, of all blocks.
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if (input_ids is None) == (inputs_embeds is None):
            raise UserError("give exactly one of input_ids and inputs_embeds")
        tokens = self._embed(input_ids, inputs_embeds, attention_mask, position_ids)
        heads = expand_head_mask(head_mask, config.num_hidden_layers)
        first, done = self.encoder(tokens, head_mask=heads, blocks=hidden, attentions=attentions)
        output = TextModelOutput(
            last_hidden_state=done.output,
            pooler_output=None if self.pooler is None else torch.tanh(self.pooler(done.output[:, 0])),
            hidden_states=(first, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
        )
        use_dict = config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()
