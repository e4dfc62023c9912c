"""`Data2Vec2AudioModel`: waveform -> contextual frames. Shapes: B batch, T frames, H hidden size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.frontend import AudioFrontend
from data2vec.models.audio.model import transformer_config
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import AUDIO_HEADS, NameTable
from data2vec.models.v2.config import Data2Vec2AudioConfig
from data2vec.models.v2.encoder import ContextEncoder, Visible, alibi_scales, hide
from data2vec.nn.activations import activation
from data2vec.nn.init import bert_init, conv_init
from data2vec.nn.positions import PositionalConvStack
from data2vec.outputs import AudioModelOutput


class Data2Vec2AudioPreTrainedModel(PreTrainedModel):
    """Base of the audio classes: configuration, names on disk (ours; heads as in data2vec 1), initialisation."""

    config_class = Data2Vec2AudioConfig
    names = NameTable(prefix="data2vec2_audio", rows=AUDIO_HEADS)
    main_input_name: ClassVar[str] = "input_values"

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """Feature convolutions Kaiming normal, positional ones and the projection uniform, everything else BERT."""
        base = self.base_model
        assert isinstance(base, Data2Vec2AudioModel)
        if isinstance(module, ContextEncoder):
            module.reset_parameters()
        elif isinstance(module, nn.Conv1d):
            features = any(module is layer.conv for layer in base.frontend.convs)
            conv_init(module) if features else module.reset_parameters()
        elif module is base.frontend.projection:
            base.frontend.reset_parameters()
        else:
            bert_init(module, self.config.initializer_range)


class Data2Vec2AudioModel(Data2Vec2AudioPreTrainedModel):
    """data2vec 2 for speech, without head and decoder (arXiv 2212.07525; fairseq `AudioEncoder`)."""

    def __init__(self, config: Data2Vec2AudioConfig) -> None:
        super().__init__(config)
        self.frontend = AudioFrontend(config)
        self.feature_dropout = nn.Dropout(config.feat_proj_dropout)
        self.encoder = ContextEncoder(
            transformer_config(config),
            prenet=config.prenet_depth,
            dropout=config.prenet_dropout,
            extra_tokens=config.num_extra_tokens,
            alibi_scales=alibi_scales(config),
            learn_alibi=config.learn_alibi_scale,
            convolution=PositionalConvStack(
                config.hidden_size,
                config.conv_pos_kernel_size,
                config.num_conv_pos_embedding_groups,
                config.num_conv_pos_embeddings,
                activation(config.feat_extract_activation),
            ),
            convolution_norm=config.conv_pos_pre_norm,
            zero_padding=config.zero_padded_frames,
        )
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
        """Frames, behind noise where `mask` (B, T) is True -> the shared blocks' outputs."""
        return self.encoder.layers(self._hidden(tokens, mask))

    def contextualize_visible(self, tokens: Tokens, visible: Visible) -> LayerOutputs:
        """The visible frames of every mask -> the last block's output."""
        return self.encoder.visible(self._hidden(tokens, None), visible)

    def _hidden(self, tokens: Tokens, mask: Tensor | None, noise: Tensor | None = None) -> Tokens:
        x = hide(self.feature_dropout(tokens.features), mask, self.config.mask_noise_std, noise)
        return Tokens(x, tokens.padding_mask)

    def frame_padding(self, attention_mask: Tensor | None, frames: int) -> Tensor | None:
        """Sample mask (B, samples), 1 = valid -> frame padding (B, frames), True = padding; None for None."""
        return None if attention_mask is None else self.frontend.padding(attention_mask, frames)

    def feature_lengths(self, samples: Tensor) -> Tensor:
        """Valid samples -> valid frames, elementwise; at least 0."""
        return self.frontend.lengths(samples)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        *,
        mask_noise: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the encoder on all frames.

        Args:
            input_values: (B, samples) float, normalised waveform at 16 kHz.
            attention_mask: (B, samples), 1 = valid sample.
            mask_time_indices: (B, T) bool, True = frame hidden behind noise (or zeros, see `mask_noise_std`), in
                evaluation too.
            mask_noise: (B, T, H) in the place of drawn noise.
            output_attentions: return the attention weights.
            output_hidden_states: return the first block's input and every block's output.
            return_dict: False returns a tuple.

        Returns:
            `AudioModelOutput`, of all blocks (prenet included). Extra tokens, where a configuration has them, come
            first in `last_hidden_state`.
        """
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        given = {} if attention_mask is None else {"attention_mask": attention_mask}
        tokens = self.embed({"input_values": input_values, **given})
        seen = self._hidden(tokens, mask_time_indices, mask_noise)
        first, done = self.encoder(seen, blocks=hidden, attentions=attentions)
        output = AudioModelOutput(
            last_hidden_state=done.output,
            extract_features=tokens.normed,
            hidden_states=(first, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
            frame_mask=None if tokens.padding_mask is None else ~tokens.padding_mask,
        )
        use_dict = self.config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()
