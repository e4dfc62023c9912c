"""What a run is told: the optimizer's values and the loop's. No torch here: the command line reads it for `--help`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from data2vec.configuration import check_fields, check_order, positive, ranged
from data2vec.errors import UserError


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning-rate schedule and parameter groups.

    The defaults are those of v1 audio base (fairseq `base_librispeech.yaml`) except the schedule, which is cosine.

    Attributes:
        optimizer: ``adam_fairseq`` adds eps to sqrt(v) *without* bias correction, as every released model was trained;
            ``adamw`` is torch's. Both decouple the weight decay.
        lr: peak learning rate.
        betas: decay of the first and second moment.
        eps: Adam's epsilon.
        weight_decay: decoupled: p is multiplied by 1 - lr * weight_decay at each step.
        decay: ``matrices`` leaves 1-d parameters, biases and `no_weight_decay` alone; ``all`` is what the released
            audio, text and v2 runs did (algorithms.md 1.8 and P4).
        no_weight_decay: ends of dotted parameter names that ``matrices`` also leaves alone.
        clip_norm: largest global gradient norm; 0 does not clip.
        schedule: how the rate goes after the warm-up: see `data2vec.training.schedules`.
        warmup: linear warm-up; a whole number of updates if >= 1, a share of the run if below.
        hold: tri-stage only: how long the peak is kept, updates or share as `warmup`; the rest of the run decays.
        init_scale: rate at update 0, as a share of `lr`.
        final_scale: rate at the end, as a share of `lr`.
        power: polynomial only: its exponent.
        lr_scale: dotted part of parameter names -> factor of the rate, e.g. ``{"decoder": 2.0}``.
        layer_decay: factor of the rate for each block further from the head (fine-tuning); 1 is off.
    """

    optimizer: Literal["adam_fairseq", "adamw"] = "adam_fairseq"
    lr: float = ranged(5e-4, above=0, below=math.inf)
    betas: tuple[float, float] = ranged((0.9, 0.98), low=0, below=1)
    eps: float = ranged(1e-6, above=0, below=1)
    weight_decay: float = ranged(0.01, low=0)
    decay: Literal["matrices", "all"] = "matrices"
    no_weight_decay: tuple[str, ...] = ("cls_token", "positions", "positions.weight", "alibi_scale")
    clip_norm: float = ranged(0.0, low=0, below=math.inf)
    schedule: Literal["cosine", "tri_stage", "polynomial", "constant"] = "cosine"
    warmup: float = ranged(0.03, low=0, below=math.inf)
    hold: float = ranged(0.9, low=0, below=math.inf)
    init_scale: float = ranged(0.0, low=0, below=math.inf)
    final_scale: float = ranged(0.0, low=0, below=math.inf)
    power: float = ranged(1.0, above=0)
    lr_scale: dict[str, float] = field(default_factory=dict)
    layer_decay: float = ranged(1.0, high=1, above=0)

    def __post_init__(self) -> None:
        check_fields(self, "optim")
        if self.weight_decay * self.lr >= 1:
            raise UserError(f"optim.weight_decay={self.weight_decay} times optim.lr={self.lr} must be below 1")
        if self.schedule == "tri_stage" and self.final_scale == 0:
            raise UserError("optim.final_scale=0: tri_stage decays exponentially and needs a rate above 0 to end at")
        if min(self.lr_scale.values(), default=0) < 0:
            raise UserError(f"optim.lr_scale={self.lr_scale}: factors must be at least 0")


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, in which precision, what is logged and saved, when it gives up.

    Attributes:
        updates: optimizer steps of the whole run. None with `max_minutes` lets the time decide, and then the schedule
            follows the share of the time that is used up, and `warmup` and `hold` have to be shares (such a run cannot
            be repeated bit for bit).
        max_minutes: stop after so many minutes in the loop, evaluations and the time before a resume included; None is
            no limit.
        clock: what `max_minutes` counts: ``wall`` time, or the ``cpu`` time of this process (all its threads).
        precision: ``auto`` is bf16 where the hardware has it natively, else fp32. Parameters and optimizer stay fp32.
        accumulate: micro-batches that each rank splits its share of a global batch into; changes memory, not numbers.
        compile: run the task's forward through torch.compile.
        compile_backend: torch.compile's backend.
        checkpoint_activations: recompute activations in the backward pass (less memory, a third more time).
        find_unused_parameters: DDP's; needed where a step may leave a parameter out (layerdrop, an unused mask vector).
        seed: of parameter-free randomness in the loop (dropout, layerdrop); rank r uses its own stream.
        log_every: updates between two log records.
        save_every: updates between two checkpoints; 0 is off.
        save_minutes: minutes between two checkpoints; 0 is off. A run always saves at its end.
        keep_last: how many checkpoints are kept.
        max_bad_steps: skipped updates in a row (loss or gradient not finite, nothing to predict) that stop the run.
        loss_scale: fp16: the first loss scale.
        loss_scale_window: fp16: updates without overflow after which the scale doubles.
        min_loss_scale: fp16: a scale below this stops the run.
        stop_on_collapse: stop, instead of warn, when the diagnosis names a collapse.
        eval_every: updates between two evaluations; 0 evaluates at the end only, if there is something to evaluate.
        metric: the evaluation's number that picks the best model; "" takes the first.
        maximize: whether a larger `metric` is better; fine-tuning knows it by the name.
        patience: evaluations without a better `metric` that stop the run; 0 is off.
        tensorboard: also write TensorBoard events (extra ``tensorboard``).
        wandb: also log to this Weights & Biases project (extra ``wandb``); "" is off.
    """

    updates: int | None = ranged(None, low=1)
    max_minutes: float | None = ranged(None, above=0)
    clock: Literal["wall", "cpu"] = "wall"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accumulate: int = positive(1)
    compile: bool = False
    compile_backend: str = "inductor"
    checkpoint_activations: bool = False
    find_unused_parameters: bool = True
    seed: int = ranged(0, low=0)
    log_every: int = positive(50)
    save_every: int = ranged(0, low=0)
    save_minutes: float = ranged(10.0, low=0)
    keep_last: int = positive(3)
    max_bad_steps: int = positive(20)
    loss_scale: float = ranged(128.0, above=0)
    loss_scale_window: int = positive(2000)
    min_loss_scale: float = ranged(1e-4, above=0)
    stop_on_collapse: bool = False
    eval_every: int = ranged(0, low=0)
    metric: str = ""
    maximize: bool = True
    patience: int = ranged(0, low=0)
    tensorboard: bool = False
    wandb: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "train")
        check_order(self, "train", "min_loss_scale", "loss_scale")
        if self.updates is None and self.max_minutes is None:
            raise UserError("updates and max_minutes are both unset: say how long to train")
