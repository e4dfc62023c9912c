"""Learning-rate schedules: pure functions of the number of updates done, equal to fairseq's.

The teacher's decay has its schedule with the objective (`data2vec.objectives.config.EmaConfig`).

The step that makes update n (1, 2, ...) runs at the value of ``n - 1``, as in fairseq; so a warm-up from 0 spends its
first update at rate 0.
"""

from __future__ import annotations

import math

from data2vec.training.config import OptimConfig


def _warm(update: int, peak: float, warmup: int, init_scale: float) -> float:
    return peak * init_scale + update * (peak - peak * init_scale) / warmup


def cosine(
    update: int, *, peak: float, total: int, warmup: int, init_scale: float = 0.0, final_scale: float = 0.0
) -> float:
    """Half a cosine from `peak` to ``final_scale * peak`` (`fairseq/optim/lr_scheduler/cosine_lr_scheduler.py`).

    From `total` on it restarts at a tenth of the peak, as the original does (`lr_shrink`); a run ends before.
    """
    if update < warmup:
        return _warm(update, peak, warmup, init_scale)
    cycle, place = divmod(update - warmup, max(1, total - warmup))
    top = peak * 0.1**cycle
    low = top * final_scale
    return low + 0.5 * (top - low) * (1 + math.cos(math.pi * place / max(1, total - warmup)))


def tri_stage(
    update: int,
    *,
    peak: float,
    total: int,
    warmup: int,
    hold: int,
    init_scale: float = 0.01,
    final_scale: float = 0.01,
) -> float:
    """Warm-up, plateau, *exponential* decay to ``final_scale * peak`` (`tri_stage_lr_scheduler.py`).

    The paper calls the decay linear; its code decays exponentially.
    """
    if update < warmup:
        return _warm(update, peak, warmup, init_scale)
    place, length = update - warmup - hold, total - warmup - hold
    if place < 0:
        return peak
    return peak * math.exp(math.log(final_scale) * min(1.0, place / length)) if length > 0 else peak * final_scale


def polynomial(
    update: int,
    *,
    peak: float,
    total: int,
    warmup: int,
    init_scale: float = 0.0,
    final_scale: float = 0.0,
    power: float = 1.0,
) -> float:
    """Polynomial decay, linear with `power` 1 (`polynomial_decay_schedule.py`; GLUE)."""
    if update < warmup:
        return _warm(update, peak, warmup, init_scale)
    left = max(0.0, 1 - (update - warmup) / max(1, total - warmup))
    return peak * (final_scale + (1 - final_scale) * float(left**power))


def constant(update: int, *, peak: float, warmup: int, init_scale: float = 0.0) -> float:
    """`peak` after the warm-up."""
    return _warm(update, peak, warmup, init_scale) if update < warmup else peak


def learning_rate(config: OptimConfig, update: int, total: int) -> float:
    """The rate after `update` updates of a run of `total`."""

    def updates(value: float) -> int:
        return int(value if value >= 1 else value * total)

    warmup = updates(config.warmup)
    start = config.init_scale
    match config.schedule:
        case "cosine":
            return cosine(
                update, peak=config.lr, total=total, warmup=warmup, init_scale=start, final_scale=config.final_scale
            )
        case "tri_stage":
            return tri_stage(
                update,
                peak=config.lr,
                total=total,
                warmup=warmup,
                hold=updates(config.hold),
                init_scale=start,
                final_scale=config.final_scale,
            )
        case "polynomial":
            return polynomial(
                update,
                peak=config.lr,
                total=total,
                warmup=warmup,
                init_scale=start,
                final_scale=config.final_scale,
                power=config.power,
            )
        case "constant":
            return constant(update, peak=config.lr, warmup=warmup, init_scale=start)
