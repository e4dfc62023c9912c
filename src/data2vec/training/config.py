"""What a run is told: the optimizer's values and the loop's. No torch here: the command line reads it for `--help`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from data2vec.errors import UserError


def _need(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise UserError(f"{name} = {value!r}: must be {rule}")


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
    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    decay: Literal["matrices", "all"] = "matrices"
    no_weight_decay: tuple[str, ...] = ("cls_token", "positions", "positions.weight", "alibi_scale")
    clip_norm: float = 0.0
    schedule: Literal["cosine", "tri_stage", "polynomial", "constant"] = "cosine"
    warmup: float = 0.03
    hold: float = 0.9
    init_scale: float = 0.0
    final_scale: float = 0.0
    power: float = 1.0
    lr_scale: dict[str, float] = field(default_factory=dict)
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        _need(self.optimizer in ("adam_fairseq", "adamw"), "optimizer", self.optimizer, "adam_fairseq or adamw")
        _need(self.decay in ("matrices", "all"), "decay", self.decay, "matrices or all")
        schedules = ("cosine", "tri_stage", "polynomial", "constant")
        _need(self.schedule in schedules, "schedule", self.schedule, "one of " + ", ".join(schedules))
        _need(0 < self.lr < float("inf"), "lr", self.lr, "a positive number")
        _need(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)"
        )
        _need(0 < self.eps < 1, "eps", self.eps, "in (0, 1)")
        _need(0 <= self.weight_decay * self.lr < 1, "weight_decay", self.weight_decay, ">= 0 and below 1 / lr")
        for name in ("clip_norm", "warmup", "hold", "init_scale", "final_scale"):
            value = getattr(self, name)
            _need(0 <= value < float("inf"), name, value, ">= 0 (0 turns it off)")
        _need(
            self.schedule != "tri_stage" or self.final_scale > 0,
            "final_scale",
            self.final_scale,
            "> 0 for tri_stage, whose decay is exponential",
        )
        _need(self.power > 0, "power", self.power, "> 0")
        _need(all(scale >= 0 for scale in self.lr_scale.values()), "lr_scale", self.lr_scale, "factors >= 0")
        _need(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "in (0, 1]")


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
        maximize: whether a larger `metric` is better.
        patience: evaluations without a better `metric` that stop the run; 0 is off.
        tensorboard: also write TensorBoard events (extra ``tensorboard``).
        wandb: also log to this Weights & Biases project (extra ``wandb``); "" is off.
    """

    updates: int | None = None
    max_minutes: float | None = None
    clock: Literal["wall", "cpu"] = "wall"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    accumulate: int = 1
    compile: bool = False
    compile_backend: str = "inductor"
    checkpoint_activations: bool = False
    find_unused_parameters: bool = True
    seed: int = 0
    log_every: int = 50
    save_every: int = 0
    save_minutes: float = 10.0
    keep_last: int = 3
    max_bad_steps: int = 20
    loss_scale: float = 128.0
    loss_scale_window: int = 2000
    min_loss_scale: float = 1e-4
    stop_on_collapse: bool = False
    eval_every: int = 0
    metric: str = ""
    maximize: bool = True
    patience: int = 0
    tensorboard: bool = False
    wandb: str = ""

    def __post_init__(self) -> None:
        if self.updates is None and self.max_minutes is None:
            raise UserError("updates and max_minutes are both unset: say how long to train")
        _need(self.updates is None or self.updates >= 1, "updates", self.updates, ">= 1")
        _need(self.max_minutes is None or self.max_minutes > 0, "max_minutes", self.max_minutes, "> 0")
        _need(self.clock in ("wall", "cpu"), "clock", self.clock, "wall or cpu")
        precisions = ("auto", "fp32", "bf16", "fp16")
        _need(self.precision in precisions, "precision", self.precision, "one of " + ", ".join(precisions))
        for name in ("accumulate", "log_every", "keep_last", "max_bad_steps", "loss_scale_window"):
            _need(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("save_every", "save_minutes", "eval_every", "patience", "seed"):
            _need(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        _need(self.loss_scale > 0, "loss_scale", self.loss_scale, "> 0")
        _need(
            0 < self.min_loss_scale <= self.loss_scale,
            "min_loss_scale",
            self.min_loss_scale,
            "> 0 and at most loss_scale",
        )
