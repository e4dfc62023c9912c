"""`Data2VecAudioModel`: waveform -> contextual frames. Shapes: B batch, T frames, H hidden size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.adapter import AudioAdapter
from data2vec.models.audio.augment import frame_mask, random_source, span_mask
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.frontend import AudioFrontend
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import AUDIO
from data2vec.nn.activations import activation
from data2vec.nn.init import bert_init, conv_init
from data2vec.nn.masks import padding_bias
from data2vec.nn.positions import PositionalConvStack
from data2vec.nn.transformer import Transformer, TransformerConfig, TransformerOutput
from data2vec.outputs import AudioModelOutput


class AudioEncoder(nn.Module):
    """Positional convolution, norm, dropout, post-norm blocks (fairseq `TransformerEncoder`)."""

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__()
        self.compatible = config.is_compatible
        self.positions = PositionalConvStack(
            config.hidden_size,
            config.conv_pos_kernel_size,
            config.num_conv_pos_embedding_groups,
            config.num_conv_pos_embeddings,
            activation(config.feat_extract_activation),
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.blocks = Transformer(transformer_config(config))

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, **collect: Any
    ) -> tuple[Tensor, TransformerOutput]:
        """(B, T, H), True = padding -> the first block's input (B, T, H) and the blocks' outputs.

        Padded frames are zeroed before the positional convolution and again after each of its layers, so that a clip
        gives the same features alone and in a batch. The reference zeroes them only before: ``compat="transformers"``.
        """
        if padding_mask is not None:
            x = x.masked_fill(padding_mask[..., None], 0.0)
        x = x + self.positions(x, None if self.compatible else padding_mask)
        x = self.dropout(self.norm(x))
        return x, self.blocks(x, padding_bias(padding_mask, x.dtype), **collect)


def transformer_config(config: Data2VecAudioConfig) -> TransformerConfig:
    """The blocks that an audio configuration asks for."""
    return TransformerConfig(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        depth=config.num_hidden_layers,
        hidden=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
        dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        layerdrop=config.layerdrop,
        implementation=config.attn_implementation or "sdpa",
    )


class Data2VecAudioPreTrainedModel(PreTrainedModel):
    """Base of the audio classes: configuration, names on disk, initialisation."""

    config_class = Data2VecAudioConfig
    names = AUDIO
    main_input_name: ClassVar[str] = "input_values"

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """Convolutions Kaiming normal, projection uniform, everything else BERT; the mask embedding U(0, 1)."""
        if isinstance(module, Data2VecAudioModel):
            if module.mask_embedding is not None:
                module.mask_embedding.uniform_()
        elif isinstance(module, nn.Conv1d):
            conv_init(module)
        elif module is self.base_model.get_submodule("frontend.projection"):
            self.base_model.get_submodule("frontend").reset_parameters()  # type: ignore[operator]
        else:
            bert_init(module, self.config.initializer_range)


class Data2VecAudioModel(Data2VecAudioPreTrainedModel):
    """data2vec for speech, without head (arXiv 2202.03555; numerics of transformers' class of this name)."""

    def __init__(self, config: Data2VecAudioConfig) -> None:
        super().__init__(config)
        self.frontend = AudioFrontend(config)
        self.feature_dropout = nn.Dropout(config.feat_proj_dropout)
        masks = config.mask_time_prob > 0 or config.mask_feature_prob > 0
        self.mask_embedding = nn.Parameter(torch.empty(config.hidden_size)) if masks else None
        self.encoder = AudioEncoder(config)
        self.adapter = AudioAdapter(config) if config.add_adapter else None
        self.init_weights()

    def freeze_feature_encoder(self) -> None:
        """Train the convolutions no longer."""
        self.frontend.convs.requires_grad_(False)

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``input_values`` (B, samples) and optional ``attention_mask`` (B, samples), 1 = valid -> frames."""
        waveform, attention_mask = batch["input_values"], batch.get("attention_mask")
        self.frontend.check(waveform, attention_mask)
        features, normed = self.frontend(waveform)
        return Tokens(features, self.frame_padding(attention_mask, features.shape[1]), normed=normed)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Frames, hidden where `mask` (B, T) is True -> all blocks' outputs."""
        x = self.feature_dropout(tokens.features)
        if mask is not None:
            x = torch.where(mask[..., None], self._mask_embedding().to(x.dtype), x)
        _, done = self.encoder(x, tokens.padding_mask, blocks=True, ffns=True)
        return LayerOutputs(done.output, done.blocks, done.ffns)

    def frame_padding(self, attention_mask: Tensor | None, frames: int) -> Tensor | None:
        """Sample mask (B, samples), 1 = valid -> frame padding (B, frames), True = padding; None for None."""
        return None if attention_mask is None else self.frontend.padding(attention_mask, frames)

    def feature_lengths(self, samples: Tensor) -> Tensor:
        """Valid samples -> valid frames before any adapter, elementwise; at least 0."""
        return self.frontend.lengths(samples)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the encoder.

        Args:
            input_values: (B, samples) float, normalised waveform at 16 kHz.
            attention_mask: (B, samples), 1 = valid sample.
            mask_time_indices: (B, T) bool, True = frame replaced by the mask embedding, in evaluation too.
            output_attentions: return the attention weights.
            output_hidden_states: return the first block's input and every block's output.
            return_dict: False returns a tuple.

        Returns:
            `AudioModelOutput`.
        """
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        tokens = self.embed(
            {"input_values": input_values} | ({} if attention_mask is None else {"attention_mask": attention_mask})
        )
        x = self._augment(self.feature_dropout(tokens.features), mask_time_indices, tokens.padding_mask)
        first, done = self.encoder(x, tokens.padding_mask, blocks=hidden, attentions=attentions)
        last, padding_mask = done.output, tokens.padding_mask
        if self.adapter is not None:
            last, padding_mask = self.adapter(last, padding_mask)
        output = AudioModelOutput(
            last_hidden_state=last,
            extract_features=tokens.normed,
            hidden_states=(first, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
            frame_mask=None if padding_mask is None else ~padding_mask,
        )
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()

    def _augment(self, x: Tensor, mask_time_indices: Tensor | None, padding_mask: Tensor | None) -> Tensor:
        """Hide the given frames; or, in training, SpecAugment's spans of frames and of channels."""
        config = self.config
        if mask_time_indices is not None and (config.apply_spec_augment or not config.is_compatible):
            x = torch.where(mask_time_indices.bool()[..., None], self._mask_embedding().to(x.dtype), x)
        if not self.training or not config.apply_spec_augment:
            return x
        source = random_source(compatible=config.is_compatible)
        if mask_time_indices is None and config.mask_time_prob > 0:
            shape = (config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks)
            hidden = frame_mask(x.shape[0], x.shape[1], padding_mask, shape, source).to(x.device)
            x = torch.where(hidden[..., None], self._mask_embedding().to(x.dtype), x)
        if config.mask_feature_prob > 0:
            shape = (config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks)
            silent = torch.from_numpy(span_mask([x.shape[2]] * len(x), x.shape[2], *shape, source)).to(x.device)
            x = x.masked_fill(silent[:, None], 0.0)
        return x

    def _mask_embedding(self) -> Tensor:
        if self.mask_embedding is None:
            raise UserError(
                "mask_time_indices needs a mask embedding: set mask_time_prob or mask_feature_prob above 0 "
                "in the config"
            )
        return self.mask_embedding
