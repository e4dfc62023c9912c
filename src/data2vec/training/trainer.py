"""The loop: batches in, optimizer steps, a log and checkpoints out. One for pre-training and fine-tuning."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.objectives.task import Batch, BatchStream, Task
from data2vec.training.allocator import keep_freed_memory
from data2vec.training.checkpoint import Checkpoints
from data2vec.training.config import OptimConfig, TrainConfig
from data2vec.training.distributed import World, data_parallel
from data2vec.training.logging import RunLog
from data2vec.training.optim import build_optimizer, set_learning_rate
from data2vec.training.precision import LossScale, autocast_dtype
from data2vec.training.run import RunFolder
from data2vec.training.schedules import learning_rate
from data2vec.training.stopping import Clock, Signals

_TICKS = 1_000_000  # places in the schedule of a run whose length is a time

Reason = Literal["done", "time", "patience", "sigint", "sigterm"]


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        reason: all updates done; `max_minutes` used up; no better metric for `patience` evaluations; or a signal.
        update: optimizer steps done.
        log: the last record.
        best: the best evaluation metric, if there was one; NaN if it never was a number.
    """

    reason: Reason
    update: int
    log: dict[str, float]
    best: float | None

    @property
    def exit_code(self) -> int:
        """0; 130 after SIGINT and 143 after SIGTERM, as shells count, so that a scheduler knows to call again."""
        return {"sigint": 130, "sigterm": 143}.get(self.reason, 0)


@dataclass
class Progress:
    """Counters that a checkpoint carries.

    Attributes:
        update: optimizer steps done.
        seconds: of training so far, by the budget's clock.
        skipped: updates without a step so far, and in a row.
        window: updates in the statistics since the last record.
        best: best evaluation metric so far.
        stale: evaluations since then.
    """

    update: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_row: int = 0
    window: int = 0
    best: float | None = None
    stale: int = 0


class Trainer:
    """Trains a task.

    Args:
        task: loss and after-step of the method; moved to the world's device.
        batches: this rank's micro-batches, one list an update.
        optim: optimizer and schedule.
        config: the loop.
        run: the run folder, opened by `data2vec.training.run.open_run`.
        world: this process among those of the run.
        export: fills a folder with the model for `from_pretrained`; called on rank 0 with each checkpoint or, where
            there is an `evaluate`, each time its metric is the best so far.
        evaluate: called on every rank with the number of updates done, the task in eval mode and without gradients;
            rank 0's numbers count.
        diagnose: reads a log record and names a collapse, or returns None.

    Raises:
        UserError: nothing to train, the task cannot checkpoint activations, or a timed run has a warm-up in updates.
    """

    def __init__(
        self,
        task: Task,
        batches: BatchStream,
        optim: OptimConfig,
        config: TrainConfig,
        run: RunFolder,
        *,
        world: World | None = None,
        export: Callable[[Path], None] | None = None,
        evaluate: Callable[[int], Mapping[str, float]] | None = None,
        diagnose: Callable[[Mapping[str, float]], str | None] | None = None,
    ) -> None:
        assert isinstance(task, nn.Module)
        self.world = world or World(torch.device("cpu"))
        self.task, self.module, self.batches = task, task.to(self.world.device), batches
        self.optim, self.config, self.run = optim, config, run
        self.export, self.evaluate, self.diagnose = export, evaluate, diagnose
        if config.updates is None and (optim.warmup >= 1 or optim.hold >= 1):
            raise UserError(f"warmup = {optim.warmup:g}, hold = {optim.hold:g}: shares below 1 if `updates` is unset")
        if config.checkpoint_activations:
            _checkpoint_activations(self.module)
        self.optimizer = build_optimizer(self.module, optim)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if config.compile:
            self.module.compile(backend=config.compile_backend)
        self.model = data_parallel(task, self.world, config.find_unused_parameters)
        self.dtype = autocast_dtype(config.precision, self.world.device)
        self.scale = LossScale(config.loss_scale if self.dtype is torch.float16 else 1.0)
        self.progress = Progress()
        self._window: dict[str, Tensor] = {}
        self._values: dict[str, float] = {}
        self._log_record: dict[str, float] = {}
        self._lr = 0.0

    def fit(self, resume: bool = False) -> Result:
        """Train to the end, or to the first reason to stop before it; save; export.

        SIGTERM and SIGINT finish the update at hand, save and return; a second one interrupts at once.

        Args:
            resume: continue from the newest whole checkpoint; from the start if none was written yet.

        Raises:
            UserError: nothing to read, the disk is full, too many bad updates, collapse: one line, and the last good
                checkpoint is intact.
        """
        if self.world.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(self.config.seed * 1_000_003 + self.world.rank)
        random.seed(self.config.seed * 1_000_003 + self.world.rank)
        np.random.seed((self.config.seed * 1_000_003 + self.world.rank) % 2**32)
        notes: list[str] = []
        self.checkpoints = Checkpoints(self.run.checkpoints, self.config.keep_last, self.world, notes.append)
        if resume:
            self._restore(notes)
        self.log = RunLog(self.run, self.config, self.progress.update, self.world.first)
        self.checkpoints.note = self.log.note
        for line in notes:
            self.log.note(line)
        try:
            with Signals() as self.signals:
                reason = self._loop()
        finally:
            self.log.close()
        return Result(reason, self.progress.update, self._log_record, self.progress.best)

    def _loop(self) -> Reason:
        config, progress = self.config, self.progress
        self.module.train()
        self.clock = Clock(config, progress.seconds)
        self._recorded = time.perf_counter()
        stream = self._stream()
        while not self._finished():
            stop, save_due = self._update(next(stream))
            stepped = progress.skipped_in_row == 0
            reason: Reason | None = "done" if self._finished() else stop
            if reason or (stepped and progress.update % config.log_every == 0):
                self._record()
            at_end = reason in ("done", "time")
            if self.evaluate and (at_end or (stepped and _every(config.eval_every, progress.update))):
                patience = self._evaluate()
                reason = reason or patience
            if reason or save_due or (stepped and _every(config.save_every, progress.update)):
                self._save()
            if reason:
                return reason
        return "done"

    def _finished(self) -> bool:
        return self.config.updates is not None and self.progress.update >= self.config.updates

    # One update

    def _update(self, micro_batches: Sequence[Batch]) -> tuple[Reason | None, bool]:
        """Try one optimizer step. Returns a reason to stop that all ranks share, and whether a checkpoint is due."""
        assert micro_batches, "each rank needs at least one micro-batch an update"
        self._lr = self._rate()
        set_learning_rate(self.optimizer, self._lr)
        sums: dict[str, Tensor] = {"control": self._control()}
        for index, batch in enumerate(micro_batches):
            for name, value in self._backward(batch, last=index == len(micro_batches) - 1).items():
                sums[name] = sums[name] + value if name in sums else value
        sums = self.world.all_reduce(sums)
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros((), device=self.world.device)
        # The one wait for the device in an update: whether to step has to be known before the step.
        watched = torch.cat([sums.pop("control"), torch.stack([sums["loss"], sums["count"], norm.to(sums["loss"])])])
        sigint, sigterm, time_up, save_due, loss, count, raw_norm = watched.tolist()
        # Each gradient is the mean over ranks (DDP) of the scaled sum's; it becomes that of the mean over all terms.
        factor = self.world.size / (count * self.scale.value) if count else 0.0
        if self._good(loss, count, raw_norm):
            self._step(grads, raw_norm * factor, factor)
            sums["grad_norm"] = norm * factor
            for name, value in sums.items():
                self._window[name] = self._window[name] + value if name in self._window else value
            self.progress.window += 1
        self.optimizer.zero_grad()
        self.progress.seconds = self.clock.seconds()
        return "sigint" if sigint else "sigterm" if sigterm else "time" if time_up else None, bool(save_due)

    def _backward(self, batch: Batch, last: bool) -> dict[str, Tensor]:
        """Forward and backward of one micro-batch; ranks exchange gradients after the last one only."""
        rows = next(iter(batch.values())).shape[0]
        local = {name: value.to(self.world.device, non_blocking=True) for name, value in batch.items()}
        hold: AbstractContextManager[Any] = nullcontext()
        if not last and isinstance(self.model, nn.parallel.DistributedDataParallel):
            hold = self.model.no_sync()
        with hold:
            with torch.autocast(self.world.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                output = self.model(local)
            if output.loss_sum.requires_grad:
                (output.loss_sum * self.scale.value).backward()
        own = {"loss": output.loss_sum.detach(), "count": output.count, "samples": torch.tensor(float(rows))}
        return own | {f"sums.{name}": value.detach() for name, value in output.sums.items()}

    def _good(self, loss: float, count: float, norm: float) -> bool:
        """Whether the update may be made. A bad one is counted; too many in a row end the run."""
        reason = None
        if not count:
            reason = "nothing to predict in the batch"
        elif not math.isfinite(loss):
            reason = f"the loss is {loss}"
        elif not math.isfinite(norm):
            reason = f"the gradient norm is {norm}"
        fp16 = self.dtype is torch.float16 and bool(count) and math.isfinite(loss)
        if fp16:
            self.scale.after(overflow=reason is not None, config=self.config)
        if reason is None:
            self.progress.skipped_in_row = 0
            return True
        self.progress.skipped += 1
        self.progress.skipped_in_row += 1
        self.log.event(update=self.progress.update, skipped=reason)
        if self.progress.skipped_in_row >= self.config.max_bad_steps and not fp16:  # the scale has its own limit
            raise UserError(
                f"stopped after update {self.progress.update}: {reason}, and {self.progress.skipped_in_row} updates in "
                f"a row could not be made (max_bad_steps); the checkpoints in {self.run.checkpoints} are intact: lower "
                "lr, set clip_norm, or look at the data, then continue with --resume"
            )
        return False

    def _step(self, grads: list[Tensor], norm: float, factor: float) -> None:
        clip = self.optim.clip_norm
        factor *= min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        torch._foreach_mul_(grads, factor)
        self.optimizer.step()
        self.progress.update += 1
        self._values = dict(self.task.after_step(self.progress.update))
        self.log.advance()

    def _stream(self) -> Generator[Sequence[Batch], None, None]:
        empty = 0  # a resumed epoch may have nothing left: only the second in a row is a mistake
        while empty < 2:
            empty += 1
            for micro_batches in self.batches:
                empty = 0
                yield micro_batches
        raise UserError("the data gave no batch: add files, or lower the batch size")

    def _rate(self) -> float:
        if self.config.updates is not None:
            return learning_rate(self.optim, self.progress.update, self.config.updates)
        place = int(self.world.broadcast(self.clock.used()) * _TICKS)
        return learning_rate(self.optim, min(place, _TICKS - 1), _TICKS)

    def _control(self) -> Tensor:
        """Wishes of this rank, added over ranks: SIGINT, SIGTERM; of rank 0, whose clock counts: time is up, save."""
        wishes = [self.signals.seen == signal.SIGINT, self.signals.seen == signal.SIGTERM]
        wishes += [self.clock.used() >= 1, self.clock.save_due()] if self.world.first else [False, False]
        return torch.tensor(wishes, dtype=torch.float32)

    # What is told and kept

    def _record(self) -> None:
        if not self.progress.window:
            return
        window, updates = {name: value.cpu() for name, value in self._window.items()}, self.progress.window
        sums = {name.removeprefix("sums."): value for name, value in window.items() if name.startswith("sums.")}
        seconds = time.perf_counter() - self._recorded
        self._log_record = {
            "loss": float(window["loss"] / window["count"]),
            **self.task.summarize(sums),
            **self._values,
            "lr": self._lr,
            "grad_norm": float(window["grad_norm"] / updates),
            "samples_per_second": float(window["samples"]) / seconds,
            "targets_per_second": float(window["count"]) / seconds,
            "seconds": self.progress.seconds,
        }
        if self.progress.skipped:
            self._log_record["skipped"] = self.progress.skipped
        if self.dtype is torch.float16:
            self._log_record["loss_scale"] = self.scale.value
        self.log.record(self.progress.update, self._log_record)
        self._window, self.progress.window, self._recorded = {}, 0, time.perf_counter()
        if self.diagnose and (trouble := self.diagnose(self._log_record)):
            self.log.event(update=self.progress.update, warning=trouble)
            if self.config.stop_on_collapse:
                raise UserError(f"stopped at update {self.progress.update}: {trouble} (stop_on_collapse is set)")
            self.log.note(f"update {self.progress.update}: {trouble}")

    def _evaluate(self) -> Reason | None:
        """Evaluate, export the best model, and see whether patience is at its end."""
        assert self.evaluate is not None
        self.module.eval()
        with torch.no_grad():
            numbers = dict(self.evaluate(self.progress.update))
        self.module.train()
        name = self.config.metric or next(iter(numbers), "")
        if name not in numbers:
            raise UserError(f"metric = {name!r}: the evaluation gives {', '.join(numbers) or 'nothing'}")
        self.log.record(self.progress.update, {f"dev_{key}": value for key, value in numbers.items()})
        value, best = self.world.broadcast(numbers[name]), self.progress.best
        if _better(value, best, self.config.maximize):
            self.progress.best, self.progress.stale = value, 0
            self._export()
        else:
            self.progress.stale += 1
        return "patience" if self.config.patience and self.progress.stale >= self.config.patience else None

    def _export(self) -> None:
        if self.export and self.world.first:
            self.run.export(self.export)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint but the window's, by name; the very ones, so that loading fills them in place."""
        tensors: dict[str, Tensor] = {f"task.{name}": value for name, value in self.module.state_dict().items()}
        assert all(isinstance(value, Tensor) for value in tensors.values()), "a task's state is tensors only"
        for name, p in self.module.named_parameters():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def _save(self) -> None:
        state = {
            "progress": asdict(self.progress),
            "scale": asdict(self.scale),
            "batches": self.batches.state_dict(),
            "values": self._values,
        }
        window = {f"window.{name}": value for name, value in self._window.items()}
        self.checkpoints.save(self.progress.update, self._tensors() | window, state)
        if self.evaluate is None:
            self._export()
        self.clock.saved()

    def _restore(self, notes: list[str]) -> None:
        state = self.checkpoints.load(self._tensors(), extra="window.")
        if state is None:
            notes.append(f"{self.run.path} has no checkpoint yet: starting from the beginning")
            return
        self.progress, self.scale = Progress(**state["progress"]), LossScale(**state["scale"])
        self.batches.load_state_dict(state["batches"])
        self._values = state["values"]
        device = self.world.device
        self._window = {name.removeprefix("window."): value.to(device) for name, value in state["tensors"].items()}


def _better(value: float, best: float | None, maximize: bool) -> bool:
    """Anything is better than nothing, and any number than NaN; a NaN is better than neither."""
    if best is None or math.isnan(value) or math.isnan(best):
        return best is None or (math.isnan(best) and not math.isnan(value))
    return value > best if maximize else value < best


def _every(period: int, update: int) -> bool:
    return period > 0 and update % period == 0


def _checkpoint_activations(module: nn.Module) -> None:
    enable = "gradient_checkpointing_enable"
    able: list[Any] = [part for part in module.modules() if hasattr(part, enable)]
    if not able:
        raise UserError("checkpoint_activations: no part of this task can do that; turn it off")
    for part in able:
        part.gradient_checkpointing_enable()
