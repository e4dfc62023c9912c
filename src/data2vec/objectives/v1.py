"""data2vec 1 (arXiv 2202.03555): a student sees a masked input and predicts the teacher's top layers.

    task = Data2VecObjective(Data2VecAudioModel(config), ObjectiveConfig.audio())
    for update, batch in enumerate(batches, start=1):        # batch: input_values (B, samples), mask (B, T) bool
        out = task(batch)
        (out.loss_sum / out.count).backward()
        optimizer.step(); optimizer.zero_grad()
        task.after_step(update)

Shapes: B batch, T tokens, N masked tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from data2vec.models.encoder import Encoder, LayerOutputs, Tokens
from data2vec.objectives.collapse import position_share, position_sums, variance, variance_sums
from data2vec.objectives.config import ObjectiveConfig
from data2vec.objectives.losses import regression_loss, resolve_scale
from data2vec.objectives.targets import average_layers
from data2vec.objectives.task import Batch, TaskOutput
from data2vec.objectives.teacher import Teacher


class Data2VecObjective(nn.Module):
    """Student, teacher and prediction head; a `Task` for the trainer.

    Args:
        encoder: any encoder (`data2vec.models.encoder.Encoder`) that is an ``nn.Module``.
        config: targets, EMA, loss.
        width: D; read from ``encoder.config.hidden_size`` when None.
    """

    def __init__(self, encoder: Encoder, config: ObjectiveConfig, width: int | None = None) -> None:
        super().__init__()
        assert isinstance(encoder, nn.Module)
        width = int(encoder.config.hidden_size) if width is None else width  # type: ignore[union-attr, arg-type]
        self.config = config
        self.scale = resolve_scale(config.loss_scale, width)
        self.student = encoder
        self.head = prediction_head(width, config.head)
        self.teacher = Teacher(encoder, embeds=config.ema.scope == "all", copied=config.ema.copied)

    def forward(self, batch: Batch) -> TaskOutput:
        """One forward pass.

        Args:
            batch: the encoder's inputs, and ``mask`` (B, T) bool, True = hidden from the student and predicted. A text
                batch may carry ``corrupted_ids`` (B, L): what the student reads instead of ``input_ids`` (BERT's
                80/10/10), and a teacher batch that differs may carry ``teacher_input_ids`` (B, L) (the released text
                pipeline, P1).

        Returns:
            The loss summed over the N masked tokens, N, and the sums for the log.
        """
        mask = batch["mask"]
        tokens = self.student.embed(batch)
        targets = self.targets(batch, tokens)
        student = self.student.contextualize(*self._student_input(batch, tokens))
        hidden = masked_positions(mask)
        pred = self.head(select(student.output[:, student.prefix :], hidden))
        target = select(targets, hidden)
        loss = regression_loss(pred, target, beta=self.config.loss_beta, scale=self.scale)
        sums = {
            "target": variance_sums(target),
            "pred": variance_sums(pred),
            "local": variance_sums(tokens.features, tokens.padding_mask),
            "position": position_sums(targets, tokens.padding_mask),
            "masked": torch.stack([mask.sum(), mask.new_tensor(mask.numel(), dtype=torch.long)]).double(),
        }
        return TaskOutput(loss.sum(), torch.full((), len(target), device=loss.device), sums)

    @torch.no_grad()
    def targets(self, batch: Batch, tokens: Tokens) -> Tensor:
        """The teacher's targets for every token, (B, T, D) fp32, from the student's local features or its own."""
        if "teacher_input_ids" in batch:
            tokens = self.student.embed({"input_ids": batch["teacher_input_ids"]})
        elif self.teacher.embeds:
            tokens = self.teacher.embed(batch)
        seen: LayerOutputs = self.teacher.contextualize(tokens.detached())
        layers = seen.blocks if self.config.target.source == "block" else seen.ffns
        return average_layers([x[:, seen.prefix :] for x in layers], self.config.target, tokens.padding_mask)

    def _student_input(self, batch: Batch, tokens: Tokens) -> tuple[Tokens, Tensor | None]:
        if "corrupted_ids" in batch:
            return self.student.embed({**batch, "input_ids": batch["corrupted_ids"]}), batch["mask"]
        return tokens, batch["mask"]

    def after_step(self, update: int) -> dict[str, float]:
        """The teacher follows the student, once an optimizer step (P2); returns the decay used."""
        decay = self.config.ema.decay(update)
        self.teacher.follow(self.student, decay)
        return {"ema_decay": decay}

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Variances, position share and masked share for the log (algorithms 1.5; `data2vec.objectives.collapse`)."""
        return {
            "target_var": variance(sums["target"]),
            "pred_var": variance(sums["pred"]),
            "local_var": variance(sums["local"]),
            "position_share": position_share(sums["position"]),
            "masked": float(sums["masked"][0] / sums["masked"][1].clamp(min=1)),
        }


def prediction_head(width: int, kind: str) -> nn.Module:
    """``linear``: D -> D; ``mlp``: D -> 2 D -> D with GELU (fairseq `build_regression_head`, head_layers 2)."""
    if kind == "linear":
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def masked_positions(mask: Tensor) -> Tensor:
    """(B, T) bool -> (N,) flat positions, row-major."""
    return mask.flatten().nonzero().squeeze(1)


def select(x: Tensor, positions: Tensor) -> Tensor:
    """Rows `positions` (N,) of (B, T, D) flattened to (B * T, D) -> (N, D)."""
    return x.flatten(0, 1).index_select(0, positions)
