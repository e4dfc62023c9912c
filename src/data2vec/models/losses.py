"""Losses of the heads, in fp32 at least. Shapes: B batch, T frames or tokens, C classes.

A mean over labels is a mean over those that count; where none counts it is 0, not the reference's NaN.
"""

from __future__ import annotations

import logging
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec.configuration import PretrainedConfig
from data2vec.errors import UserError

logger = logging.getLogger("data2vec")

IGNORED = -100
"""The label of what is left out of a loss."""


def cross_entropy(logits: Tensor, labels: Tensor, ignored: int = IGNORED) -> Tensor:
    """Mean cross-entropy.

    Args:
        logits: (N, C) or (B, C, ...).
        labels: (N,) or (B, ...) class numbers.
        ignored: the label that does not count.

    Raises:
        UserError: a label is no class (found on the CPU; a kernel on another device would only abort).
    """
    check_labels(labels, logits.shape[1], ignored)
    total = F.cross_entropy(at_least_float(logits), labels.long(), ignore_index=ignored, reduction="sum")
    return total / (labels != ignored).sum().clamp(min=1)


def at_least_float(x: Tensor) -> Tensor:
    """`x` in fp32; in double precision where it is already."""
    return x if x.dtype == torch.float64 else x.float()


def check_labels(labels: Tensor, classes: int, ignored: int = IGNORED) -> None:
    """Refuse labels outside ``0 ... classes - 1``, when that can be seen without waiting for a device."""
    if labels.device.type != "cpu" or torch.compiler.is_compiling() or labels.numel() == 0:
        return
    wrong = labels[(labels != ignored) & ((labels < 0) | (labels >= classes))]
    if len(wrong):
        raise UserError(f"labels holds {int(wrong[0])}; the classes are 0 to {classes - 1}, and {ignored} is left out")


def classification(logits: Tensor, labels: Tensor, config: PretrainedConfig) -> Tensor:
    """Loss of one answer a sample, by ``config.problem_type``.

    Where that is None: one label is a regression, whole numbers are classes, anything else is multi-label. The
    configuration is not changed: each call decides anew.

    Args:
        logits: (B, C).
        labels: (B,) class numbers or values; (B, C) values or 0/1.
        config: gives `num_labels` and `problem_type`.
    """
    kind = config.problem_type or _problem_type(labels, config.num_labels)
    if kind == "single_label_classification":
        return cross_entropy(logits, labels.flatten())
    if labels.numel() != logits.numel():
        raise UserError(f"labels has shape {tuple(labels.shape)}; {kind} needs {tuple(logits.shape)}")
    wanted = at_least_float(labels.reshape(logits.shape))
    if kind == "regression":
        return F.mse_loss(at_least_float(logits), wanted)
    return F.binary_cross_entropy_with_logits(at_least_float(logits), wanted)


def _problem_type(labels: Tensor, classes: int) -> str:
    if classes == 1:
        return "regression"
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    return "single_label_classification" if whole else "multi_label_classification"


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token given those before it: logits (B, T, C) against labels (B, T), shifted by one."""
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def ctc(
    logits: Tensor,
    labels: Tensor,
    padding_mask: Tensor | None,
    *,
    blank: int,
    reduction: str = "sum",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006), as transformers 5 counts labels.

    Args:
        logits: (B, T, C).
        labels: (B, U); negative ones and the blank are padding.
        padding_mask: (B, T), True = padding, on either side; None = all frames count.
        blank: class of the blank.
        reduction: ``sum`` over the batch, or ``mean`` of each loss over its labels.
        zero_infinity: quietly leave out a clip that has too few frames for its labels. Otherwise it is left out with a
            warning: its loss would be infinite and its gradient NaN.
    """
    lengths = _valid(logits.shape[0], logits.shape[1], padding_mask, logits.device)
    if not zero_infinity:
        _warn_short(labels, lengths, blank)
    return ctc_of_lengths(_valid_first(logits, padding_mask), labels, lengths, blank, reduction, zero_infinity=True)


def ctc_of_lengths(
    logits: Tensor, labels: Tensor, lengths: Tensor, blank: int, reduction: str, *, zero_infinity: bool
) -> Tensor:
    """The same, where row b's first ``lengths[b]`` frames count, and an infinite loss stays so if asked for."""
    if labels.numel() and int(labels.max()) >= logits.shape[-1]:
        raise UserError(f"labels holds {int(labels.max())}, but vocab_size is {logits.shape[-1]}")
    counts = (labels >= 0) & (labels != blank)
    log_probs = at_least_float(logits).log_softmax(dim=-1).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's kernel takes other label layouts and is not deterministic
        loss: Tensor = F.ctc_loss(
            log_probs,
            labels[counts],
            lengths,
            counts.sum(dim=1),
            blank=blank,
            reduction=reduction,
            zero_infinity=zero_infinity,
        )
    return loss


def _valid(batch: int, frames: int, padding_mask: Tensor | None, device: torch.device) -> Tensor:
    if padding_mask is None:
        return torch.full((batch,), frames, dtype=torch.long, device=device)
    return (~padding_mask).sum(dim=1)


def _valid_first(logits: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Each row's valid frames moved to its start, in order."""
    if padding_mask is None:
        return logits
    order = padding_mask.int().argsort(dim=1, stable=True)
    return logits.gather(1, order[..., None].expand_as(logits))


def _warn_short(labels: Tensor, lengths: Tensor, blank: int) -> None:
    """Say which rows cannot be aligned: a label needs a frame, and between two equal ones stands a blank."""
    if torch.compiler.is_compiling():
        return
    for row, (length, own) in enumerate(zip(lengths.tolist(), labels.tolist(), strict=True)):
        spoken = [label for label in own if label >= 0 and label != blank]
        needed = len(spoken) + sum(a == b for a, b in pairwise(spoken))
        if needed > length:
            logger.warning(
                "CTC: row %d has %d frames but its labels need %d; it is left out of the loss "
                "(set ctc_zero_infinity=True to do so quietly)",
                row,
                length,
                needed,
            )
