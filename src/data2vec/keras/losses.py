"""Losses of the TF heads, in fp32; `models/losses.py` says the same for PyTorch. Shapes: B batch, C classes."""

from __future__ import annotations

import math
from typing import Any

from data2vec.configuration import PretrainedConfig
from data2vec.keras.backend import keras
from data2vec.keras.checks import InputError, require_true

ops = keras.ops


def cross_entropy(logits: Any, labels: Any, ignored: int | None = None) -> tuple[Any, Any]:
    """Cross-entropy of each label.

    Args:
        logits: (..., C).
        labels: (...) class numbers.
        ignored: the label that does not count.

    Returns:
        Losses (...), 0 where a label does not count, and which labels count, (...) bool.

    Raises:
        UserError: a label is no class (in a graph: ``InvalidArgumentError``).
    """
    classes = logits.shape[-1]
    labels = ops.cast(labels, "int32")
    counts = ops.ones_like(labels, dtype="bool") if ignored is None else labels != ignored
    wrong = ops.logical_and(counts, ops.logical_or(labels < 0, labels >= classes))
    worst = ops.where(wrong, labels, 0)
    allowed = f"0 ... {classes - 1}" if ignored is None else f"0 ... {classes - 1}, or {ignored} to be left out"
    message = f"labels must be within {allowed}; the lowest and highest are"
    require_true(ops.logical_not(wrong), message, ops.min(worst), ops.max(worst))
    safe = ops.where(ops.logical_or(wrong, ops.logical_not(counts)), 0, labels)
    losses = ops.sparse_categorical_crossentropy(safe, ops.cast(logits, "float32"), from_logits=True)
    return ops.where(counts, losses, 0.0), counts


def mean_cross_entropy(logits: Any, labels: Any, ignored: int) -> Any:
    """Mean over the labels that count, a scalar; 0 where none does."""
    losses, counts = cross_entropy(logits, labels, ignored)
    return ops.sum(losses) / ops.maximum(ops.sum(ops.cast(counts, "float32")), 1.0)


def classification(logits: Any, labels: Any, config: PretrainedConfig) -> Any:
    """Loss of each sample, (B,), by ``config.problem_type``; its mean is the PyTorch loss.

    Where that is None: one label is a regression, whole numbers are classes, anything else is multi-label.

    Args:
        logits: (B, C).
        labels: (B,) class numbers or values; (B, C) values or 0/1.
        config: gives `num_labels` and `problem_type`.
    """
    labels = ops.convert_to_tensor(labels)
    kind = config.problem_type or _problem_type(labels, config.num_labels)
    if kind == "single_label_classification":
        if len(labels.shape) > 2 or (len(labels.shape) == 2 and labels.shape[1] != 1):
            raise InputError(f"labels has shape {tuple(labels.shape)}; one class number a sample is needed, (batch,)")
        return cross_entropy(logits, ops.reshape(labels, (-1,)))[0]
    if None in labels.shape[1:] or math.prod(labels.shape[1:]) != logits.shape[1]:
        raise InputError(f"labels has shape {tuple(labels.shape)}; {kind} needs (batch, {logits.shape[1]})")
    wanted = ops.cast(ops.reshape(labels, (-1, logits.shape[1])), "float32")
    logits = ops.cast(logits, "float32")
    if kind == "regression":
        return ops.mean(ops.square(logits - wanted), axis=-1)
    return ops.mean(ops.binary_crossentropy(wanted, logits, from_logits=True), axis=-1)


def _problem_type(labels: Any, classes: int) -> str:
    if classes == 1:
        return "regression"
    whole = keras.backend.standardize_dtype(labels.dtype).startswith(("int", "uint"))
    return "single_label_classification" if whole else "multi_label_classification"
