"""The teacher: a moving average of the student that sees the whole input."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """Averaged copy of an encoder, always in eval mode and without gradients (paper section 3.2).

    Args:
        student: the encoder to follow.
        embeds: whether the teacher has a front door of its own. Without one it reads the student's local features, and
            the copy is built without the student's ``frontend``.
        copied: dotted prefixes of parameter names that are copied instead of averaged.
    """

    def __init__(self, student: nn.Module, *, embeds: bool, copied: Sequence[str] = ()) -> None:
        super().__init__()
        frontend = None if embeds else student._modules.pop("frontend", None)
        try:
            self.encoder = copy.deepcopy(student)
        finally:
            if frontend is not None:
                _restore_first(student, "frontend", frontend)
        self.embeds = embeds
        self.copied = tuple(copied)
        self.encoder.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode."""
        return super().train(False)

    def embed(self, batch: Mapping[str, Tensor]) -> Any:
        """The averaged front door's local features."""
        return self.encoder.embed(batch)  # type: ignore[operator]

    def contextualize(self, tokens: Any) -> Any:
        """The averaged network's layers on unmasked tokens."""
        return self.encoder.contextualize(tokens)  # type: ignore[operator]

    @torch.no_grad()
    def follow(self, student: nn.Module, decay: float) -> None:
        """``teacher = decay * teacher + (1 - decay) * student``, once an optimizer step.

        Frozen parameters, names under `copied` and buffers are copied; integers are never averaged (P3). A decay of 1
        changes nothing.
        """
        if decay >= 1.0:
            return
        source = dict(student.named_parameters())
        averaged: tuple[list[Tensor], list[Tensor]] = ([], [])
        taken: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, mine in self.encoder.named_parameters():
            theirs = source[name]
            pair = averaged if theirs.requires_grad and not self._is_copied(name) else taken
            pair[0].append(mine)
            pair[1].append(theirs)
        if averaged[0]:
            torch._foreach_lerp_(averaged[0], averaged[1], 1.0 - decay)
        buffers = dict(student.named_buffers())
        for name, buffer in self.encoder.named_buffers():
            taken[0].append(buffer)
            taken[1].append(buffers[name])
        if taken[0]:
            torch._foreach_copy_(taken[0], taken[1])

    def _is_copied(self, name: str) -> bool:
        return any(name == prefix or name.startswith(prefix + ".") for prefix in self.copied)


def _restore_first(module: nn.Module, name: str, child: nn.Module) -> None:
    """Put a child back where it stood, first, so that parameter order does not change."""
    others = dict(module._modules)
    module._modules.clear()
    module._modules[name] = child
    module._modules.update(others)
