"""`Data2VecTextModel`: token ids -> contextual tokens (RoBERTa's architecture).

Shapes: B batch, L tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import TEXT
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.frontend import TextFrontend
from data2vec.nn.cache import Cache
from data2vec.nn.init import bert_init
from data2vec.nn.masks import expand_head_mask, padding_bias
from data2vec.nn.positions import text_positions
from data2vec.nn.transformer import Transformer, TransformerConfig, TransformerOutput
from data2vec.outputs import TextModelOutput


class TextEncoder(nn.Module):
    """Positions, token types, norm, dropout, post-norm blocks."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__()
        self.pad_id = config.pad_token_id
        self.max_positions = config.max_position_embeddings
        self.absolute = config.position_embedding_type == "absolute"
        self.causal = config.is_decoder
        self.positions = nn.Embedding(
            config.max_position_embeddings, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.token_types = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.blocks = Transformer(transformer_config(config))

    def input(
        self,
        words: Tensor,
        padding_mask: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        past: int = 0,
    ) -> Tensor:
        """Word embeddings (B, L, H) -> the first block's input (B, L, H).

        Positions count valid tokens only: the i-th valid one has ``pad_id + 1 + i``, on whichever side the padding
        stands.
        """
        if self.absolute:
            if position_ids is None:
                shape = (words.shape[0], words.shape[1])
                position_ids = text_positions(padding_mask, shape, self.pad_id, words.device, past)
            words = words + self.positions(position_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=words.device)
        words = words + self.token_types(token_type_ids)
        dropped: Tensor = self.dropout(self.norm(words))
        return dropped

    def forward(self, x: Tensor, bias: Tensor | None = None, **options: Any) -> TransformerOutput:
        """First block's input (B, L, H) and padding bias -> the blocks' outputs."""
        done: TransformerOutput = self.blocks(x, bias, causal=self.causal, **options)
        return done


def transformer_config(config: Data2VecTextConfig) -> TransformerConfig:
    """The blocks that a text configuration asks for."""
    relative = None if config.position_embedding_type == "absolute" else config.position_embedding_type
    return TransformerConfig(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        depth=config.num_hidden_layers,
        hidden=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        context_width=(config.encoder_hidden_size or config.hidden_size) if config.add_cross_attention else None,
        relative=relative,
        max_distance=config.max_position_embeddings,
        implementation=config.attn_implementation or "sdpa",
    )


class Data2VecTextPreTrainedModel(PreTrainedModel):
    """Base of the text classes: configuration, names on disk, initialisation."""

    config_class = Data2VecTextConfig
    names = TEXT
    main_input_name: ClassVar[str] = "input_ids"

    def init_module(self, module: nn.Module) -> None:
        """BERT's initialisation everywhere."""
        bert_init(module, self.config.initializer_range)


class Data2VecTextModel(Data2VecTextPreTrainedModel):
    """data2vec for text, without head (arXiv 2202.03555; numerics of transformers' class of this name)."""

    def __init__(self, config: Data2VecTextConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        if config.add_cross_attention and not config.is_decoder:
            raise UserError("Data2VecTextConfig: add_cross_attention needs is_decoder=True")
        self.frontend = TextFrontend(config)
        self.encoder = TextEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.init_weights()

    def get_input_embeddings(self) -> nn.Embedding:
        """The word table."""
        return self.frontend.words

    def set_input_embeddings(self, table: nn.Embedding) -> None:
        """Replace the word table."""
        self.frontend.words = table

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``input_ids`` (B, L) -> word embeddings; ``attention_mask`` 0, or else `pad_token_id`, is padding."""
        ids, attention_mask = batch["input_ids"], batch.get("attention_mask")
        padding = ids == self.config.pad_token_id if attention_mask is None else attention_mask == 0
        return Tokens(self.frontend(ids), padding)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Word embeddings, hidden where `mask` (B, L) is True -> all blocks' outputs.

        A hidden token becomes the embedding of `mask_token_id`, as if the id had been replaced.
        """
        words = tokens.features
        if mask is not None:
            words = torch.where(mask[..., None], self.mask_embedding().to(words.dtype), words)
        x = self.encoder.input(words, tokens.padding_mask)
        done = self.encoder(x, padding_bias(tokens.padding_mask, x.dtype), blocks=True, ffns=True)
        return LayerOutputs(done.output, done.blocks, done.ffns)

    def mask_embedding(self) -> Tensor:
        """(H,) the word embedding of the mask token."""
        mask_id = self.config.vocab_size - 1 if self.config.mask_token_id is None else self.config.mask_token_id
        return self.frontend.words.weight[mask_id]

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
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the encoder (or decoder).

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L), or (B, past + L) with a cache; 1 = valid.
            token_type_ids: (B, L); zeros when absent.
            position_ids: (B, L); counted past padding when absent.
            head_mask: (heads,) or (layers, heads), multiplied into the attention weights.
            inputs_embeds: (B, L, H) instead of `input_ids`.
            encoder_hidden_states: (B, S, H) for cross-attention.
            encoder_attention_mask: (B, S), 1 = valid.
            past_key_values: cache of earlier tokens, extended in place.
            use_cache: return a cache; the configuration decides for a decoder.
            output_attentions: return the attention weights.
            output_hidden_states: return the embeddings and every block's output.
            return_dict: False returns a tuple.

        Returns:
            `TextModelOutput`.
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        if (input_ids is None) == (inputs_embeds is None):
            raise UserError("give exactly one of input_ids and inputs_embeds")
        if encoder_hidden_states is not None and not config.add_cross_attention:
            raise UserError("encoder_hidden_states needs a config with add_cross_attention=True and is_decoder=True")
        cache = past_key_values
        caches = config.is_decoder and (config.use_cache if use_cache is None else use_cache)
        if cache is None and caches and not (self.training and self.is_gradient_checkpointing):
            cache = Cache.empty(config.num_hidden_layers)  # recomputed blocks would fill it twice
        past = 0 if cache is None else cache.length
        words = inputs_embeds if input_ids is None else self.frontend(input_ids)
        assert words is not None
        padding, key_padding = self._padding(input_ids, attention_mask, words, past)
        self._check_length(words.shape[1] + past, position_ids)
        if position_ids is None:
            position_ids = self._positions(padding, words, cache, from_ids=input_ids is not None)
        x = self.encoder.input(words, padding, position_ids=position_ids, token_type_ids=token_type_ids)
        encoder_padding = None if encoder_attention_mask is None else encoder_attention_mask == 0
        done = self.encoder(
            x,
            padding_bias(key_padding, x.dtype),
            context=encoder_hidden_states,
            context_bias=padding_bias(encoder_padding, x.dtype),
            cache=cache,
            head_mask=expand_head_mask(head_mask, config.num_hidden_layers),
            blocks=hidden,
            attentions=attentions,
        )
        output = TextModelOutput(
            last_hidden_state=done.output,
            pooler_output=None if self.pooler is None else torch.tanh(self.pooler(done.output[:, 0])),
            past_key_values=cache,
            hidden_states=(x, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
            cross_attentions=tuple(done.cross_attentions) if attentions and config.add_cross_attention else None,
        )
        use_dict = config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()

    def _padding(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, words: Tensor, past: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Padding of the new tokens, for positions (B, L), and of all keys, for attention (B, past + L).

        None where unknown. Without attention mask, positions still skip `pad_token_id`, but padding is attended,
        as documented.
        """
        if attention_mask is None:
            return (None if input_ids is None else input_ids == self.config.pad_token_id), None
        length = words.shape[1]
        if attention_mask.shape != (words.shape[0], past + length):
            expected = (words.shape[0], past + length)
            raise UserError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, the input (with its cache) needs {expected}"
            )
        padding = attention_mask == 0
        new = padding[:, past:]
        if input_ids is not None:
            # RoBERTa counts what is no pad token; a valid token may be masked out of attention without moving the
            # others.
            new = input_ids == self.config.pad_token_id
        return new, padding

    def _positions(self, padding: Tensor | None, words: Tensor, cache: Cache | None, *, from_ids: bool) -> Tensor:
        """Position ids (B, L): they count the valid tokens, those in the cache included.

        The reference counts padding in the cache too, and starts anew after it when it is given embeddings.
        """
        shape, pad = (words.shape[0], words.shape[1]), self.config.pad_token_id
        past: int | Tensor = 0 if cache is None else cache.length
        if self.config.is_compatible:
            return text_positions(padding if from_ids else None, shape, pad, words.device, past if from_ids else 0)
        if cache is None:
            return text_positions(padding, shape, pad, words.device)
        past = past if cache.counted is None else cache.counted
        new = shape[1] if padding is None else (~padding).sum(dim=1, keepdim=True)
        cache.counted = torch.zeros(shape[0], 1, dtype=torch.long, device=words.device) + past + new
        return text_positions(padding, shape, pad, words.device, past)

    def _check_length(self, length: int, position_ids: Tensor | None) -> None:
        config = self.config
        limit = config.max_length if self.encoder.absolute else config.max_position_embeddings
        if (position_ids is None or not self.encoder.absolute) and length > limit:
            raise UserError(
                f"the text has {length} tokens; max_position_embeddings {config.max_position_embeddings} allows "
                f"{limit}: truncate it"
            )
