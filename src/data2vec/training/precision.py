"""Which arithmetic a run uses, and the loss scale that fp16 needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from data2vec.errors import UserError
from data2vec.training.config import TrainConfig


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself, so that it is faster than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":  # AVX-512 BF16 or AMX
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype to autocast to, or None for plain fp32."""
    if precision == "auto":
        precision = "bf16" if native_bf16(device) else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@dataclass
class LossScale:
    """fp16's dynamic loss scale: halved at an overflow, doubled after a clean while (fairseq's `DynamicLossScaler`).

    Attributes:
        value: what the loss is multiplied with before the backward pass.
        clean: updates since the last change.
    """

    value: float = 1.0
    clean: int = 0

    def after(self, overflow: bool, config: TrainConfig) -> None:
        """Adapt to the update that was just tried.

        Raises:
            UserError: the scale fell below ``config.min_loss_scale``.
        """
        self.clean = 0 if overflow else self.clean + 1
        if overflow:
            self.value /= 2
        elif self.clean >= config.loss_scale_window:
            self.value, self.clean = self.value * 2, 0
        if self.value < config.min_loss_scale:
            raise UserError(
                f"the fp16 loss scale fell below min_loss_scale = {config.min_loss_scale:g}: gradients overflow at "
                "every update; lower lr, set clip_norm, or use precision bf16 or fp32, then continue with --resume"
            )
