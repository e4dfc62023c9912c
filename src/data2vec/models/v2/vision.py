"""`Data2Vec2VisionModel`: pixels -> contextual patches. Shapes: B batch, P patches, E extra tokens, H hidden size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import VISION_HEADS, NameTable
from data2vec.models.v2.config import Data2Vec2VisionConfig
from data2vec.models.v2.encoder import ContextEncoder, Visible, alibi_scales, hide
from data2vec.models.vision.frontend import VisionFrontend
from data2vec.nn.init import bert_init, conv_bias_init
from data2vec.nn.masks import expand_head_mask
from data2vec.nn.transformer import TransformerConfig
from data2vec.outputs import VisionModelOutput


def transformer_config(config: Data2Vec2VisionConfig) -> TransformerConfig:
    """The blocks that a vision configuration asks for."""
    return TransformerConfig(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        depth=config.num_hidden_layers,
        hidden=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        drop_path=config.drop_path_rate,
        layerdrop=config.layerdrop,
        implementation=config.attn_implementation or "sdpa",
    )


class Data2Vec2VisionPreTrainedModel(PreTrainedModel):
    """Base of the vision classes: configuration, names on disk (ours; heads as in data2vec 1), initialisation."""

    config_class = Data2Vec2VisionConfig
    names = NameTable(prefix="data2vec2_vision", rows=VISION_HEADS)
    main_input_name: ClassVar[str] = "pixel_values"

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """Patches Xavier uniform as one linear map (MAE), extra tokens N(0, 1), everything else BERT."""
        if isinstance(module, ContextEncoder):
            module.reset_parameters(nn.init.normal_)
        elif isinstance(module, nn.Conv2d) and module is self.base_model.get_submodule("frontend.projection"):
            nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
            conv_bias_init(module)
        else:
            bert_init(module, self.config.initializer_range)


class Data2Vec2VisionModel(Data2Vec2VisionPreTrainedModel):
    """data2vec 2 for images, without head and decoder (arXiv 2212.07525; fairseq `ImageEncoder`)."""

    def __init__(self, config: Data2Vec2VisionConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.frontend = VisionFrontend(config, config.patch_embed_dim)
        self.encoder = ContextEncoder(
            transformer_config(config),
            prenet=config.prenet_depth,
            dropout=config.prenet_dropout,
            extra_tokens=config.num_extra_tokens,
            alibi_scales=alibi_scales(config),
            learn_alibi=config.learn_alibi_scale,
            grid=config.grid,
        )
        self.pools = add_pooling_layer
        norms = add_pooling_layer and config.use_mean_pooling
        self.pooler = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norms else None
        self.init_weights()

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``pixel_values`` (B, C, height, width) -> patches."""
        pixels, patch = batch["pixel_values"], self.frontend.patch
        if pixels.dim() != 4 or pixels.shape[1] != self.config.num_channels:
            channels, shape = self.config.num_channels, tuple(pixels.shape)
            raise UserError(f"pixel_values must be (batch, {channels}, height, width), not of shape {shape}")
        if pixels.shape[2] < patch[0] or pixels.shape[3] < patch[1]:
            raise UserError(f"pixel_values of {pixels.shape[2]}x{pixels.shape[3]} is smaller than a patch, {patch}")
        features, grid = self.frontend(pixels)
        return Tokens(features, grid=grid)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Patches, behind noise where `mask` (B, P) is True -> the shared blocks' outputs, extra tokens first."""
        hidden = hide(tokens.features, mask, self.config.mask_noise_std)
        return self.encoder.layers(Tokens(hidden, grid=tokens.grid))

    def contextualize_visible(self, tokens: Tokens, visible: Visible) -> LayerOutputs:
        """The visible patches of every mask -> the last block's output, extra tokens first."""
        return self.encoder.visible(tokens, visible)

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        *,
        head_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        interpolate_pos_encoding: bool = False,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the encoder on all patches.

        Args:
            pixel_values: (B, C, height, width) float, normalised.
            bool_masked_pos: (B, P), True = patch hidden behind noise (or zeros, see `mask_noise_std`).
            head_mask: (heads,) or (layers, heads), multiplied into the attention weights.
            output_attentions: return the attention weights.
            output_hidden_states: return the first block's input and every block's output.
            interpolate_pos_encoding: allow another image size than the configuration's.
            return_dict: False returns a tuple.

        Returns:
            `VisionModelOutput`, of all blocks; (B, E + P, H) each.
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        tokens = self.embed({"pixel_values": pixel_values})
        if tokens.grid != config.grid and not interpolate_pos_encoding:
            size = f"{pixel_values.shape[2]}x{pixel_values.shape[3]}"
            raise UserError(
                f"pixel_values is {size}, the model was made for {config.image_shape}: pass "
                "interpolate_pos_encoding=True or resize"
            )
        mask = None if bool_masked_pos is None else bool_masked_pos.flatten(1)
        seen = Tokens(hide(tokens.features, mask, config.mask_noise_std), grid=tokens.grid)
        heads = expand_head_mask(head_mask, config.num_hidden_layers)
        first, done = self.encoder(seen, head_mask=heads, blocks=hidden, attentions=attentions)
        output = VisionModelOutput(
            last_hidden_state=done.output,
            pooler_output=self._pool(done.output) if self.pools else None,
            hidden_states=(first, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
        )
        use_dict = config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()

    def _pool(self, x: Tensor) -> Tensor:
        """Norm of the patches' mean (`mae_image_classification.py`), or the first token."""
        if self.pooler is None:
            return x[:, 0]
        pooled: Tensor = self.pooler(x[:, self.encoder.extra :].mean(dim=1))
        return pooled
