"""Where a model runs."""

from __future__ import annotations

import torch

from data2vec.errors import UserError


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto`` is this process's GPU if there is one, else MPS, else the CPU; any other name is torch's.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name, local_rank) if name == "cuda" else torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device = {name!r}: not usable here ({reason}); take auto or cpu") from error
    return device
