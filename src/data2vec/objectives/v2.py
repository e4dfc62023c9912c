"""data2vec 2 (arXiv 2212.07525): students see the visible tokens of M masks, one teacher sees the whole input.

    task = Data2Vec2Objective(Data2Vec2AudioModel(config), Data2Vec2ObjectiveConfig.audio())
    for update, batch in enumerate(batches, start=1):        # batch: input_values (B, samples), mask (B, M, T) bool
        out = task(batch)
        (out.loss_sum / out.count).backward()
        optimizer.step(); optimizer.zero_grad()
        task.after_step(update)

Local features and targets are computed once an item, not once a mask; the encoder runs on visible tokens only.

Shapes: B batch, M masks an item, R = B * M rows, T tokens, K visible tokens, N hidden tokens of a row, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.models.encoder import LayerOutputs, Tokens
from data2vec.models.v2.encoder import ContextEncoder, VisibleEncoder
from data2vec.nn.decoder import Decoder
from data2vec.objectives.collapse import position_share, position_sums, variance, variance_sums
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, EmaConfig
from data2vec.objectives.losses import regression_loss, resolve_scale
from data2vec.objectives.split import Split, check_mask, split
from data2vec.objectives.targets import average_layers
from data2vec.objectives.task import Batch, TaskOutput
from data2vec.objectives.teacher import Teacher

CLS_ROWS = 256  # rows of a micro-batch (16 images, 16 masks) at which the released weight of the CLS loss was chosen


class Data2Vec2Objective(nn.Module):
    """Student, teacher and decoder; a `Task` for the trainer.

    Args:
        encoder: any encoder (`data2vec.models.v2.encoder.VisibleEncoder`) that is an ``nn.Module``.
        config: targets, EMA, decoder, loss.
        width: D; read from ``encoder.config.hidden_size`` when None.

    Raises:
        UserError: more layers are averaged than are shared, or `ema.scope` is ``blocks`` and the encoder does not say
            which of its blocks are shared.
    """

    def __init__(self, encoder: VisibleEncoder, config: Data2Vec2ObjectiveConfig, width: int | None = None) -> None:
        super().__init__()
        assert isinstance(encoder, nn.Module)
        width = int(encoder.config.hidden_size) if width is None else width  # type: ignore[union-attr, arg-type]
        context = getattr(encoder, "encoder", None)
        if isinstance(context, ContextEncoder) and config.target.layers > context.shared:
            raise UserError(
                f"target.layers is {config.target.layers}, but num_hidden_layers less prenet_depth is {context.shared}"
            )
        self.config = config
        self.scale = resolve_scale(config.loss_scale, width)
        self.student = encoder
        self.decoder = Decoder(width, **asdict(config.decoder))
        self.teacher = Teacher(encoder, embeds=config.ema.scope == "all", copied=copied_names(encoder, config.ema))

    def forward(self, batch: Batch) -> TaskOutput:
        """One forward pass.

        Args:
            batch: the encoder's inputs, and ``mask`` (B, M, T) bool, True = hidden from the student and predicted.
                ``visible`` and ``hidden``, from `data2vec.objectives.split.mask_indices`, spare a wait for the device.
                ``noise`` (B, M, T, D) may give what the decoder reads at hidden tokens; otherwise it is drawn.

        Returns:
            The loss summed over the hidden tokens of all rows, their number, and the sums for the log.
        """
        tokens = self.student.embed(batch)
        parts = self._split(batch, tokens)
        targets = self.targets(batch, tokens)
        student = self.student.contextualize_visible(tokens, parts.visible)
        pred = self.predict(student.output[:, student.prefix :], parts, batch.get("noise"), tokens.grid)
        target = targets.flatten(0, 1).index_select(0, parts.rows_of_hidden(len(targets)))
        losses = regression_loss(pred, target, beta=self.config.loss_beta, scale=self.scale)
        loss = (losses * parts.counts.flatten()).sum()
        sums = self._sums(tokens, targets, pred, parts)
        if self.config.cls_weight > 0:
            term, sums["cls"] = self._cls_loss(student, targets, parts)
            loss = loss + term
        return TaskOutput(loss, parts.counts.sum().float(), sums)

    def _split(self, batch: Batch, tokens: Tokens) -> Split:
        mask = batch["mask"].bool()
        check_mask(mask, *tokens.features.shape[:2])
        if self.config.count_padding:
            return split(mask, tokens.padding_mask, count_padding=True)
        if "visible" not in batch:
            return split(mask, tokens.padding_mask)
        # A batch without attention mask has no padding; the device is not asked.
        padding = tokens.padding_mask if "attention_mask" in batch else None
        return split(mask, padding, indices=(batch["visible"], batch["hidden"]))

    @torch.no_grad()
    def targets(self, batch: Batch, tokens: Tokens) -> Tensor:
        """The teacher's targets for every token, (B, T, D) fp32, from the student's local features or its own."""
        if self.teacher.embeds:
            tokens = self.teacher.embed(batch)
        seen: LayerOutputs = self.teacher.contextualize(tokens.detached())
        layers = seen.blocks if self.config.target.source == "block" else seen.ffns
        return average_layers([x[:, seen.prefix :] for x in layers], self.config.target, tokens.padding_mask)

    def predict(
        self, seen: Tensor, parts: Split, noise: Tensor | None = None, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Visible tokens' outputs (R, K, D) -> predictions (R * N, D) at ``parts.hidden``.

        `noise` (B, M, T, D) may stand in for what is drawn at hidden tokens; `grid` is that of the tokens.
        """
        x = self._decoder_input(self.decoder.dropout(seen), parts, noise)
        padding = parts.padding
        if padding is not None:
            padding = padding.repeat_interleave(len(x) // len(padding), 0)
        rows = len(x)
        predicted: Tensor = self.decoder(
            x, parts.rows_of_hidden(rows), given=parts.rows_of_visible(rows), grid=grid, padding_mask=padding
        )
        return predicted

    def _decoder_input(self, seen: Tensor, parts: Split, noise: Tensor | None) -> Tensor:
        """(R, T, D): the encoder's output at visible tokens, noise at hidden ones, zero at padding."""
        (rows, tokens), width = parts.visible.seen.shape, seen.shape[-1]
        nowhere = rows * tokens  # a row more takes what empty slots hold
        where = parts.rows_of_hidden(rows)
        if noise is None:
            drawn = torch.randn(len(where), width, device=seen.device) * self.config.noise_std
        else:
            drawn = noise.flatten(0, 2).index_select(0, where)
        x = seen.new_zeros(rows * tokens + 1, width)
        x.index_copy_(0, where.masked_fill(~parts.counts.flatten(), nowhere), drawn.to(x.dtype))
        where = parts.rows_of_visible(rows)
        if parts.empty is not None:
            where = where.masked_fill(parts.empty.flatten(), nowhere)
        return x.index_copy(0, where, seen.flatten(0, 1))[:-1].view(rows, tokens, width)

    def _cls_loss(self, student: LayerOutputs, targets: Tensor, parts: Split) -> tuple[Tensor, Tensor]:
        """The first extra token of each row against the mean target of its item (algorithms 2.7).

        A row weighs as much as it has hidden tokens, so that dividing by their number over all micro-batches and ranks
        leaves the mean over all rows.

        Returns:
            what to add to the loss sum, and for the log the rows' sum and number.
        """
        if student.prefix < 1:
            raise UserError("cls_weight > 0 needs an extra token: set num_extra_tokens to 1 in the model's config")
        pred = student.output[:, 0]
        target = _mean_target(targets, parts.padding).repeat_interleave(len(pred) // len(targets), 0)
        losses = regression_loss(pred, target, beta=self.config.loss_beta, scale=self.scale)
        hidden = parts.masked.sum(-1).flatten().float()
        if self.config.cls_rows == "sum":
            term = losses.sum() * hidden.sum()
        else:
            term = CLS_ROWS * (losses * hidden).sum()
        return self.config.cls_weight * term, torch.stack([losses.detach().sum(), hidden.new_tensor(len(hidden))])

    @torch.no_grad()
    def _sums(self, tokens: Tokens, targets: Tensor, pred: Tensor, parts: Split) -> dict[str, Tensor]:
        """Statistics for the log; the targets' are weighted by how often a token is hidden, not copied."""
        times = parts.masked.sum(1)
        valid = torch.ones_like(times, dtype=torch.bool) if parts.padding is None else ~parts.padding
        return {
            "target": weighted_sums(targets, times),
            "pred": weighted_sums(pred.view(*parts.hidden.shape, -1), parts.counts),
            "local": variance_sums(tokens.features, tokens.padding_mask),
            "position": position_sums(targets, tokens.padding_mask),
            "masked": torch.stack([times.sum(), valid.sum() * parts.masked.shape[1]]).double(),
        }

    def after_step(self, update: int) -> dict[str, float]:
        """The teacher follows the student, once an optimizer step (P2); returns the decay used."""
        decay = self.config.ema.decay(update)
        self.teacher.follow(self.student, decay)
        return {"ema_decay": decay}

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Variances, position share and masked share for the log, as data2vec 1; and the mean CLS loss of a row."""
        numbers = {
            "target_var": variance(sums["target"]),
            "pred_var": variance(sums["pred"]),
            "local_var": variance(sums["local"]),
            "position_share": position_share(sums["position"]),
            "masked": float(sums["masked"][0] / sums["masked"][1].clamp(min=1)),
        }
        if "cls" in sums:
            numbers["cls_loss"] = float(sums["cls"][0] / sums["cls"][1].clamp(min=1))
        return numbers


def copied_names(encoder: nn.Module, config: EmaConfig) -> tuple[str, ...]:
    """Names that the teacher copies. With scope ``blocks`` these are all but the shared blocks (v2 text).

    Raises:
        UserError: the scope is ``blocks`` and the encoder has no `ContextEncoder` called ``encoder``.
    """
    if config.scope != "blocks":
        return config.copied
    context = getattr(encoder, "encoder", None)
    if not isinstance(context, ContextEncoder):
        raise UserError('ema.scope "blocks" needs an encoder that has a ContextEncoder: use "encoder" or "all"')
    shared = tuple(f"encoder.blocks.{index}." for index in range(context.prenet, len(context.blocks)))
    others = (name for name, _ in encoder.named_parameters() if not name.startswith((*shared, "frontend.")))
    return (*config.copied, *others)


def weighted_sums(z: Tensor, weight: Tensor) -> Tensor:
    """`variance_sums` of the tokens of `z` (R, N, D), each counted `weight` (R, N) times: (3, D) fp64."""
    z, weight = z.float(), weight.float()
    total = torch.bmm(weight[:, None], z).double().sum((0, 1))
    squares = torch.bmm(weight[:, None], z.square()).double().sum((0, 1))
    return torch.stack([weight.double().sum().expand_as(total), total, squares])


def _mean_target(targets: Tensor, padding: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, D), over the tokens that are no padding."""
    if padding is None:
        return targets.mean(dim=1)
    valid = (~padding)[..., None].to(targets.dtype)
    return (targets * valid).sum(1) / valid.sum(1).clamp(min=1)
