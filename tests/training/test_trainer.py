"""The loop in one process: against a loop written out by hand, and everything that can happen to a run."""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from toy_run import OPTIM, ToyBatches, ToyTask, global_batch, losses, records, train

from data2vec.errors import UserError
from data2vec.training import stopping
from data2vec.training.config import OptimConfig, TrainConfig
from data2vec.training.precision import LossScale
from data2vec.training.schedules import learning_rate


def by_hand(updates: int) -> tuple[dict[int, float], ToyTask]:
    """What the trainer should do, in torch's own words: mean over all terms, clip, AdamW, EMA."""
    task = ToyTask().train()
    weights = [p for p in task.parameters() if p.requires_grad]
    decayed = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for p in weights]
    optimizer = torch.optim.AdamW(decayed, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
    found = {}
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(OPTIM, update, updates)
        output = task(global_batch(update))
        loss = output.loss_sum / output.count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        task.after_step(update + 1)
        found[update + 1] = loss.item()
    return found, task


def test_equals_a_loop_written_by_hand(tmp_path: Path) -> None:
    task = ToyTask()
    result = train(tmp_path, task=task, optim=OptimConfig(**{**vars(OPTIM), "optimizer": "adamw"}))
    expected, twin = by_hand(12)
    assert (result.reason, result.update, result.exit_code) == ("done", 12, 0)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-6)
    assert task.calls == list(range(1, 13))
    torch.testing.assert_close(task.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_accumulation_changes_nothing(tmp_path: Path, accumulate: int) -> None:
    tasks = ToyTask(), ToyTask()
    train(tmp_path / "one", task=tasks[0])
    train(tmp_path / "many", task=tasks[1], batches=ToyBatches(accumulate=accumulate))
    assert losses(tmp_path / "many") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert tasks[1].calls == list(range(1, 13)), "one EMA step an optimizer step"
    torch.testing.assert_close(tasks[0].state_dict(), tasks[1].state_dict(), rtol=1e-4, atol=1e-6)


def test_log_interval_averages_over_terms(tmp_path: Path) -> None:
    train(tmp_path / "each")
    train(tmp_path / "fourth", log_every=4)
    counts = [float(global_batch(i)["mask"].sum()) for i in range(12)]
    each, fourth = losses(tmp_path / "each"), losses(tmp_path / "fourth")
    for end in (4, 8, 12):
        places = range(end - 4, end)
        expected = sum(each[i + 1] * counts[i] for i in places) / sum(counts[i] for i in places)
        assert fourth[end] == pytest.approx(expected, rel=1e-6)
    assert records(tmp_path / "fourth")[0].keys() >= {
        "target_var",
        "ema_decay",
        "lr",
        "grad_norm",
        "samples_per_second",
        "targets_per_second",
    }


def test_bad_updates_are_skipped_and_counted(tmp_path: Path) -> None:
    task = ToyTask()
    result = train(tmp_path, task=task, batches=ToyBatches(kinds={3: "nan", 4: "empty", 6: "half"}))
    assert result.update == 12
    assert result.log["skipped"] == 2
    assert task.calls == list(range(1, 13))
    assert all(math.isfinite(loss) for loss in losses(tmp_path).values())
    reasons = [record["skipped"] for record in records(tmp_path) if "skipped" in record and "loss" not in record]
    assert reasons == ["the loss is nan", "nothing to predict in the batch"]
    # the run is the one that never saw the two bad batches
    train(tmp_path / "clean", batches=Without({3, 4}, kinds={6: "half"}))
    assert losses(tmp_path) == losses(tmp_path / "clean")


class Without(ToyBatches):
    """Global batches without those at some positions."""

    def __init__(self, positions: set[int], **options: dict[int, str]) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.positions = positions

    def __iter__(self):  # type: ignore[no-untyped-def]
        for index, batch in enumerate(super().__iter__(), start=self.position):
            if index not in self.positions:
                yield batch


def test_too_many_bad_updates_stop_with_the_checkpoint_intact(tmp_path: Path) -> None:
    kinds = dict.fromkeys(range(5, 50), "nan")
    with pytest.raises(UserError, match=r"stopped after update 5: the loss is nan, and 4 updates .* --resume") as error:
        train(tmp_path, batches=ToyBatches(kinds=kinds), save_every=5, max_bad_steps=4)
    assert "\n" not in str(error.value)
    train(tmp_path, save_every=5, resume=True)
    train(tmp_path / "clean", save_every=5)
    assert losses(tmp_path) == losses(tmp_path / "clean")


@pytest.mark.parametrize("log_every", [1, 2])
def test_resume_is_bit_for_bit(tmp_path: Path, log_every: int) -> None:
    """Dropout, optimizer, schedule, cursor and the half-full log window, after a crash between two checkpoints."""
    settings = {"save_every": 3, "log_every": log_every, "updates": 20}
    with pytest.raises(RuntimeError, match="crash"):
        train(tmp_path / "cut", task=ToyTask(dropout=0.3), batches=ToyBatches(crash_at=11), **settings)
    assert max(losses(tmp_path / "cut")) > 9, "the log ran ahead of the checkpoint"
    resumed, whole = ToyTask(dropout=0.3), ToyTask(dropout=0.3)
    torch.rand(100)
    train(tmp_path / "cut", task=resumed, resume=True, **settings)
    train(tmp_path / "whole", task=whole, **settings)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 20 // log_every
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    other = ToyTask(dropout=0.3)
    train(tmp_path / "other", task=other, **{**settings, "seed": 1})
    assert losses(tmp_path / "other") != losses(tmp_path / "whole"), "dropout was on, and seeded"


def test_resume_of_a_finished_run_does_nothing(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / "log.jsonl").read_text()
    assert train(tmp_path, resume=True).reason == "done"
    assert (tmp_path / "log.jsonl").read_text() == before


def test_signals_stop_after_the_update(tmp_path: Path) -> None:
    class Interrupted(ToyTask):
        def after_step(self, update: int) -> Mapping[str, float]:
            if update == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().after_step(update)

    before = signal.getsignal(signal.SIGINT)
    result = train(tmp_path, task=Interrupted(dropout=0.3))
    assert (result.reason, result.update, result.exit_code) == ("sigint", 6, 130)
    assert signal.getsignal(signal.SIGINT) is before
    train(tmp_path, task=ToyTask(dropout=0.3), resume=True)
    train(tmp_path / "whole", task=ToyTask(dropout=0.3))
    assert losses(tmp_path) == losses(tmp_path / "whole")


def test_runs_in_a_thread_without_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(tmp_path,))
    thread.start()
    thread.join()
    assert len(losses(tmp_path)) == 12


@pytest.mark.parametrize(("clock", "source"), [("wall", "perf_counter"), ("cpu", "process_time")])
def test_time_budget_ends_the_run_and_the_schedule(
    tmp_path: Path, clock: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # each look at the clock takes a second
    monkeypatch.setattr(stopping.time, source, lambda: float(next(ticks)))
    optim = OptimConfig(lr=1e-2, warmup=0.1)
    result = train(tmp_path, updates=None, max_minutes=5, clock=clock, save_minutes=0, optim=optim)
    assert result.reason == "time"
    assert result.exit_code == 0
    rates = [record["lr"] for record in records(tmp_path)]
    assert rates[0] < 2e-3
    assert max(rates) > 9.9e-3
    assert rates[-1] < 1e-5
    assert (tmp_path / "checkpoints").is_dir()
    with pytest.raises(UserError, match="warmup = 2"):
        train(tmp_path / "x", updates=None, max_minutes=5)


def test_save_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(stopping.time, "perf_counter", lambda: float(next(ticks)))
    train(tmp_path, save_minutes=15 / 60, keep_last=100)
    saved = sorted(int(path.name.removeprefix("update-")) for path in (tmp_path / "checkpoints").iterdir())
    assert saved[-1] == 12, "a run saves at its end"
    steps = {after - before for before, after in itertools.pairwise(saved[:-1])}
    assert len(saved) >= 3
    assert max(steps) <= min(steps) + 1


def test_evaluate_keeps_the_best_and_loses_patience(tmp_path: Path) -> None:
    task, exported = ToyTask(), []
    scores = iter([0.1, 0.5, 0.5, 0.2, 0.9])

    def evaluate(update: int) -> dict[str, float]:
        assert not task.student.training
        assert not torch.is_grad_enabled()
        return {"accuracy": next(scores), "loss": 1.0}

    def export(folder: Path) -> None:
        exported.append(len(task.calls))
        (folder / "config.json").write_text(str(len(task.calls)))

    hooks = {"evaluate": evaluate, "export": export}
    result = train(tmp_path, task=task, hooks=hooks, eval_every=2, metric="accuracy", patience=2)
    assert (result.reason, result.update, result.best) == ("patience", 8, 0.5)
    assert exported == [2, 4]
    assert (tmp_path / "model" / "config.json").read_text() == "4"
    assert [r["dev_accuracy"] for r in records(tmp_path) if "dev_accuracy" in r] == [0.1, 0.5, 0.5, 0.2]
    with pytest.raises(UserError, match=r"metric = 'wer': the evaluation gives accuracy"):
        train(tmp_path / "x", hooks={"evaluate": lambda _: {"accuracy": 1.0}}, metric="wer")


@pytest.mark.parametrize(
    ("scores", "exported", "best"),
    [
        ([math.nan, 0.2, math.nan, 0.1, 0.5, math.nan], [2, 4, 10], 0.5),
        ([math.nan] * 6, [2], math.nan),
        ([0.2, math.nan, 0.3, 0.1, 0.1, 0.1], [2, 6], 0.3),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_nan_is_never_the_best_of_several(
    tmp_path: Path, scores: list[float], exported: list[int], best: float, sign: int
) -> None:
    task, found = ToyTask(), []

    def evaluate(update: int) -> dict[str, float]:
        return {"pearson": sign * scores[update // 2 - 1]}

    def export(folder: Path) -> None:
        found.append(len(task.calls))
        (folder / "config.json").write_text("{}")

    hooks = {"evaluate": evaluate, "export": export}
    result = train(tmp_path, task=task, hooks=hooks, eval_every=2, maximize=sign > 0)
    assert found == exported
    assert result.best == pytest.approx(sign * best, nan_ok=True)


def test_nan_wears_patience_out_and_survives_a_resume(tmp_path: Path) -> None:
    exported: list[int] = []

    def hooks(scores: dict[int, float]) -> dict[str, object]:
        def export(folder: Path) -> None:
            exported.append(1)
            (folder / "config.json").write_text("{}")

        return {"evaluate": lambda update: {"pearson": scores.get(update, math.nan)}, "export": export}

    stopped = train(tmp_path, hooks=hooks({}), eval_every=2, patience=2)
    assert (stopped.reason, stopped.update, len(exported)) == ("patience", 6, 1)
    again = train(tmp_path, hooks=hooks({10: 0.5}), eval_every=2, patience=4, resume=True)
    assert (again.reason, again.best, len(exported)) == ("done", 0.5, 2)


def test_collapse_warns_or_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks = {"diagnose": lambda log: "target_var is low" if log["target_var"] < 1e3 else None}
    train(tmp_path / "warn", hooks=hooks, log_every=6)
    assert "update 6: target_var is low" in capsys.readouterr().err
    with pytest.raises(UserError, match="stopped at update 6: target_var is low"):
        train(tmp_path / "stop", hooks=hooks, log_every=6, stop_on_collapse=True)
    assert records(tmp_path / "stop")[-1]["warning"] == "target_var is low"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_close(tmp_path: Path, precision: str) -> None:
    train(tmp_path / "fp32")
    train(tmp_path / precision, precision=precision)
    assert losses(tmp_path / precision) == pytest.approx(losses(tmp_path / "fp32"), rel=0.05)
    assert losses(tmp_path / precision) != losses(tmp_path / "fp32")


def test_fp16_overflow_halves_the_scale(tmp_path: Path) -> None:
    result = train(tmp_path, precision="fp16", loss_scale=2.0**20, max_bad_steps=1)
    assert result.update == 12
    assert 0 < result.log["skipped"] == math.log2(2.0**20 / result.log["loss_scale"])


def test_loss_scale_grows_and_gives_up() -> None:
    config = TrainConfig(updates=1, loss_scale_window=3, loss_scale=8.0, min_loss_scale=1.0)
    scale = LossScale(8.0)
    for _ in range(3):
        scale.after(overflow=False, config=config)
    assert scale == LossScale(16.0, 0)
    for _ in range(4):
        scale.after(overflow=True, config=config)
    with pytest.raises(UserError, match="min_loss_scale"):
        scale.after(overflow=True, config=config)


def test_compile_and_checkpointing_reach_the_task(tmp_path: Path) -> None:
    train(tmp_path / "plain", updates=3)
    train(tmp_path / "compiled", updates=3, compile=True, compile_backend="eager")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    with pytest.raises(UserError, match="checkpoint_activations"):
        train(tmp_path / "x", checkpoint_activations=True)
    task = ToyTask()
    seen: list[bool] = []
    task.student.gradient_checkpointing_enable = lambda: seen.append(True)
    train(tmp_path / "y", task=task, updates=1, checkpoint_activations=True)
    assert seen == [True]


def test_no_batches(tmp_path: Path) -> None:
    class Nothing(ToyBatches):
        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(UserError, match="no batch"):
        train(tmp_path, batches=Nothing())


def test_boards(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(tmp_path, updates=2, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))
