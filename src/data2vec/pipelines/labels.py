"""Scores of classes as labels, the same for sound, text and images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel


def names(model: PreTrainedModel) -> list[str]:
    """The names of a model's classes, by number."""
    found: dict[int, str] = model.config.id2label or {}
    return [found[index] for index in sorted(found)]


def probabilities(logits: Tensor, config: Any, function: str | None = None) -> Tensor:
    """Scores (..., C) as probabilities.

    Args:
        logits: (..., C).
        config: the model's: values stay as they are, independent labels get a sigmoid, classes a softmax.
        function: ``softmax``, ``sigmoid`` or ``none`` instead.
    """
    if function is None:
        kinds = {"regression": "none", "multi_label_classification": "sigmoid"}
        function = kinds.get(str(config.problem_type), "sigmoid" if logits.shape[-1] == 1 else "softmax")
    match function:
        case "softmax":
            return logits.float().softmax(dim=-1)
        case "sigmoid":
            return logits.float().sigmoid()
        case "none":
            return logits.float()
    raise UserError(f"function_to_apply={function!r}: choose 'softmax', 'sigmoid' or 'none'")


def ranked(model: PreTrainedModel, logits: Tensor, top_k: int | None, function: str | None) -> list[Any]:
    """(B, C) -> for each row ``[{"score", "label"}, ...]``, best first, `top_k` of them (all if None)."""
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k={top_k} must be at least 1")
    labels = names(model)
    scores, order = torch.sort(probabilities(logits, model.config, function).cpu(), dim=-1, descending=True)
    return [
        [{"score": s, "label": labels[i]} for s, i in zip(row[:top_k], places[:top_k], strict=True)]
        for row, places in zip(scores.tolist(), order.tolist(), strict=True)
    ]
