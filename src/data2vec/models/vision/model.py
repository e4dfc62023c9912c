"""`Data2VecVisionModel`: pixels -> contextual patches (BEiT's architecture).

Shapes: B batch, P patches, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.names import VISION
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.frontend import VisionFrontend
from data2vec.nn.init import bert_init
from data2vec.nn.masks import expand_head_mask
from data2vec.nn.positions import RelativePositionBias
from data2vec.nn.transformer import Bias, Block, Transformer, TransformerConfig, TransformerOutput
from data2vec.outputs import VisionModelOutput

Grid = tuple[int, int]


class VisionEncoder(nn.Module):
    """CLS token, optional absolute positions, relative position bias, pre-norm blocks."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        self.grid = config.grid
        heads, depth = config.num_attention_heads, config.num_hidden_layers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        patches = self.grid[0] * self.grid[1]
        side = math.isqrt(patches)  # transformers takes any grid for a square one
        self.position_grid = (side, side) if config.is_compatible and side * side == patches else self.grid
        absolute = config.use_absolute_position_embeddings
        self.positions = nn.Parameter(torch.zeros(1, patches + 1, config.hidden_size)) if absolute else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        table = partial(RelativePositionBias, self.grid, heads, compatible=config.is_compatible)
        self.shared_bias = table() if config.use_shared_relative_position_bias else None
        own = range(depth) if config.use_relative_position_bias else ()
        self.biases = nn.ModuleList(table() for _ in own)
        self.blocks = Transformer(transformer_config(config))

    def input(self, patches: Tensor, grid: Grid) -> Tensor:
        """Patches (B, P, H) on `grid` -> the first block's input (B, P + 1, H)."""
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1).to(patches.dtype), patches], dim=1)
        if self.positions is not None:
            x = x + self.resized_positions(grid)
        dropped: Tensor = self.dropout(x)
        return dropped

    def resized_positions(self, grid: Grid) -> Tensor:
        """The absolute positions (1, P + 1, H), interpolated (bicubic) to `grid`."""
        assert self.positions is not None
        if grid == self.position_grid:
            return self.positions
        table = self.positions[:, 1:].view(1, *self.position_grid, -1).permute(0, 3, 1, 2)
        table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return torch.cat([self.positions[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def bias(self, grid: Grid) -> Bias:
        """What is added to the attention scores on `grid`: (1, heads, P + 1, P + 1).

        One for all blocks, or a list with one a block (where both kinds of table are on, their sum).
        """
        shared = None if self.shared_bias is None else self.shared_bias(grid)
        if not self.biases:
            return shared
        return [table(grid) if shared is None else table(grid) + shared for table in self.biases]

    def forward(self, patches: Tensor, grid: Grid, **options: Any) -> tuple[Tensor, TransformerOutput]:
        """Patches (B, P, H) -> the first block's input (B, P + 1, H) and the blocks' outputs."""
        x = self.input(patches, grid)
        return x, self.blocks(x, self.bias(grid), **options)


def transformer_config(config: Data2VecVisionConfig) -> TransformerConfig:
    """The blocks that a vision configuration asks for."""
    return TransformerConfig(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        depth=config.num_hidden_layers,
        hidden=config.intermediate_size,
        activation=config.hidden_act,
        pre_norm=True,
        eps=config.layer_norm_eps,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        drop_path=config.drop_path_rate,
        layer_scale=config.layer_scale_init_value if config.layer_scale_init_value > 0 else None,
        key_bias=False,
        implementation=config.attn_implementation or "sdpa",
    )


class Data2VecVisionPreTrainedModel(PreTrainedModel):
    """Base of the vision classes: configuration, names on disk, initialisation."""

    config_class = Data2VecVisionConfig
    names = VISION
    main_input_name: ClassVar[str] = "pixel_values"

    @torch.no_grad()
    def init_module(self, module: nn.Module) -> None:
        """Linear maps N(0, std); tokens, positions and bias tables 0; layer scale at its configured value."""
        bert_init(module, self.config.initializer_range)
        for name, tensor in module._parameters.items():
            if tensor is None:
                continue
            if name in ("cls_token", "mask_embedding", "positions", "table"):
                tensor.zero_()
            elif name in ("scale1", "scale2"):
                tensor.fill_(self.config.layer_scale_init_value)


class Data2VecVisionModel(Data2VecVisionPreTrainedModel):
    """data2vec for images, without head (arXiv 2202.03555; numerics of transformers' class of this name)."""

    def __init__(self, config: Data2VecVisionConfig, add_pooling_layer: bool = False) -> None:
        super().__init__(config)
        self.frontend = VisionFrontend(config)
        self.mask_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.use_mask_token else None
        self.encoder = VisionEncoder(config)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm = None if config.use_mean_pooling else norm
        self.pools = add_pooling_layer
        self.pooler = norm if add_pooling_layer and config.use_mean_pooling else None
        self.init_weights()

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        """``pixel_values`` (B, C, height, width) -> patches."""
        pixels = batch["pixel_values"]
        if pixels.dim() != 4 or pixels.shape[1] != self.config.num_channels:
            shape = tuple(pixels.shape)
            raise UserError(
                f"pixel_values must be (batch, {self.config.num_channels}, height, width), not of shape {shape}"
            )
        if pixels.shape[2] < self.frontend.patch[0] or pixels.shape[3] < self.frontend.patch[1]:
            raise UserError(
                f"pixel_values of {pixels.shape[2]}x{pixels.shape[3]} is smaller than a patch, {self.frontend.patch}"
            )
        features, grid = self.frontend(pixels)
        return Tokens(features, grid=grid)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        """Patches, hidden where `mask` (B, P) is True -> all blocks' outputs, CLS first.

        `output` has passed the final norm.
        """
        assert tokens.grid is not None
        _, done = self.encoder(self._hide(tokens.features, mask), tokens.grid, blocks=True, ffns=True)
        return LayerOutputs(self._normed(done.output), done.blocks, done.ffns, prefix=1)

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
        """Run the encoder.

        Args:
            pixel_values: (B, C, height, width) float, normalised.
            bool_masked_pos: (B, P), True = patch replaced by the mask embedding.
            head_mask: (heads,) or (layers, heads), multiplied into the attention weights.
            output_attentions: return the attention weights.
            output_hidden_states: return the embeddings and every block's output.
            interpolate_pos_encoding: allow another image size than the configuration's.
            return_dict: False returns a tuple.

        Returns:
            `VisionModelOutput`.
        """
        config = self.config
        attentions = config.output_attentions if output_attentions is None else output_attentions
        hidden = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        tokens = self.embed({"pixel_values": pixel_values})
        assert tokens.grid is not None
        if tokens.grid != config.grid and not interpolate_pos_encoding and self.encoder.positions is not None:
            raise UserError(
                f"pixel_values is {pixel_values.shape[2]}x{pixel_values.shape[3]}, the model was made for "
                f"{config.image_shape}: pass interpolate_pos_encoding=True or resize"
            )
        mask = None if bool_masked_pos is None else bool_masked_pos.flatten(1).bool()
        x, done = self.encoder(
            self._hide(tokens.features, mask),
            tokens.grid,
            head_mask=expand_head_mask(head_mask, config.num_hidden_layers),
            blocks=hidden,
            attentions=attentions,
        )
        last = self._normed(done.output)
        output = VisionModelOutput(
            last_hidden_state=last,
            pooler_output=self._pool(last) if self.pools else None,
            hidden_states=(x, *done.blocks) if hidden else None,
            attentions=tuple(done.attentions) if attentions else None,
        )
        use_dict = config.return_dict if return_dict is None else return_dict
        return output if use_dict else output.to_tuple()

    def _hide(self, patches: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return patches
        if self.mask_embedding is None:
            raise UserError("bool_masked_pos needs a mask embedding: set use_mask_token=True in the config")
        return torch.where(mask[..., None], self.mask_embedding.to(patches.dtype), patches)

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)

    def _pool(self, x: Tensor) -> Tensor:
        """Norm of the patches' mean, or the (normalised) CLS token."""
        return x[:, 0] if self.pooler is None else self.pooler(x[:, 1:].mean(dim=1))


@torch.no_grad()
def beit_init(model: Data2VecVisionModel) -> Data2VecVisionModel:
    """Initialise as BEiT does for pre-training (BEiT fork, `modeling_cyclical.py`, ``fix_init_weight``).

    The tokens are drawn too, and the output layers of block i (1, 2, ...) are divided by ``sqrt(2 i)``: a residual
    stream that grows with depth starts with the same size everywhere.
    """
    std = model.config.initializer_range
    tokens = [model.encoder.cls_token, model.mask_embedding, model.encoder.positions]
    for token in tokens:
        if token is not None:
            nn.init.trunc_normal_(token, std=std, a=-std, b=std)
    for depth, block in enumerate(model.encoder.blocks, start=1):
        assert isinstance(block, Block)
        for layer in (block.attention.out_proj, block.mlp.fc2):
            layer.weight.div_((2.0 * depth) ** 0.5)
    return model
