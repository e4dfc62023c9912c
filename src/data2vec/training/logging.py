"""What a run tells: a progress bar or plain lines, ``log.jsonl``, and TensorBoard or W&B if asked. Rank 0 only."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data2vec.errors import UserError, require
from data2vec.training.config import TrainConfig
from data2vec.training.run import RunFolder


def _keep_until(path: Path, update: int) -> None:
    """Drop the records after `update`, and a last line cut short: the resumed run writes them again."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record.get("update", 0) <= update:
            kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    os.replace(partial, path)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON knows no NaN


def _short(value: float) -> str:
    return f"{value:.4g}"


class RunLog:
    """Writes where `active`, else does nothing.

    Args:
        run: the run folder.
        config: asks for TensorBoard and W&B.
        start: update that the run continues from; later records are dropped.
        active: whether this process speaks.

    Raises:
        ImportError: TensorBoard or W&B is asked for and missing.
    """

    def __init__(self, run: RunFolder, config: TrainConfig, start: int, active: bool) -> None:
        self.active, self._path, self._start = active, run.log, start
        self._boards: list[Any] = []
        if not active:
            return
        if run.log.exists():
            _keep_until(run.log, start)
        if config.tensorboard:
            require("tensorboard", extra="tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._boards.append(SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1))
        self._wandb = require("wandb", extra="wandb") if config.wandb else None
        if self._wandb is not None:
            self._wandb.init(project=config.wandb, dir=str(run.path), name=run.path.name, resume="allow")
        self._file = run.log.open("a", buffering=1)
        self._bar = tqdm(total=config.updates, initial=start, unit="update", disable=None, dynamic_ncols=True)
        self._total, self._began = config.updates, time.perf_counter()

    def advance(self) -> None:
        """One update is done."""
        if self.active:
            self._bar.update()

    def note(self, message: str) -> None:
        """A line for the user, above the bar."""
        if self.active:
            tqdm.write(message, file=sys.stderr)

    def event(self, **fields: Any) -> None:
        """A record of something that happened, in ``log.jsonl`` only.

        Raises:
            UserError: the disk is full.
        """
        if self.active:
            try:
                self._file.write(json.dumps({name: _finite(value) for name, value in fields.items()}) + "\n")
            except OSError as error:
                raise UserError(
                    f"{self._path} could not be written ({error.strerror}): free space, then --resume"
                ) from error

    def record(self, update: int, values: Mapping[str, float]) -> None:
        """Numbers of the updates since the last record.

        Raises:
            UserError: the disk is full.
        """
        if not self.active:
            return
        self.event(update=update, **values)
        for board in self._boards:
            for name, value in values.items():
                board.add_scalar(name, value, update)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=update)
        shown = " ".join(f"{name}={_short(value)}" for name, value in values.items())
        if self._bar.disable:
            print(f"update {update}{self._eta(update)} {shown}", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix_str(shown, refresh=False)

    def _eta(self, update: int) -> str:
        if self._total is None or update <= self._start:
            return ""
        seconds = (time.perf_counter() - self._began) / (update - self._start) * (self._total - update)
        return f"/{self._total} eta {tqdm.format_interval(seconds)}"

    def close(self) -> None:
        """Finish the bar and the files."""
        if self.active:
            self._bar.close()
            self._file.close()
            for board in self._boards:
                board.close()
            if self._wandb is not None:
                self._wandb.finish()
