"""Reasons to stop that come from outside: signals and the clock."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from data2vec.training.config import TrainConfig


class Signals:
    """While entered, the first SIGINT or SIGTERM is remembered instead of obeyed; the next one acts at once."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        except ValueError:  # not the main thread: whoever runs us there handles signals
            pass
        return self

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.seen = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._restore()


class Clock:
    """Time spent on a run, resumes included, and what is left of its budget.

    Args:
        config: `max_minutes`, `clock` and `save_minutes`.
        seconds: spent before, by the budget's clock.
    """

    def __init__(self, config: TrainConfig, seconds: float) -> None:
        self._config, self._now = config, time.process_time if config.clock == "cpu" else time.perf_counter
        self._zero = self._now() - seconds
        self.saved()

    def seconds(self) -> float:
        """Spent so far."""
        return self._now() - self._zero

    def used(self) -> float:
        """Share of the budget that is used up; 0 where there is none."""
        minutes = self._config.max_minutes
        return self.seconds() / (60 * minutes) if minutes else 0.0

    def save_due(self) -> bool:
        """Whether the last checkpoint is `save_minutes` old."""
        minutes = self._config.save_minutes
        return bool(minutes) and time.perf_counter() - self._saved > 60 * minutes

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._saved = time.perf_counter()
