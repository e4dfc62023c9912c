"""Samples that cannot be used: counted once each, named in ``skipped.jsonl``, and never too many of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data2vec.errors import BadSample, UserError


class Skipped(NamedTuple):
    """One sample left out: the file (or ``archive.zip!member``, or ``file:row``) and why."""

    source: str
    reason: str

    @classmethod
    def of(cls, error: BadSample) -> Skipped:
        """From the exception that reading it raised."""
        return cls(error.source, error.reason)


class SkipLog:
    """What a run has skipped so far.

    Every process of a run may append to the same file: lines are short and written at once. `entries` also holds what
    the file already named, so that a resumed run goes on counting.

    Args:
        total: how many samples there are, good and bad.
        max_share: largest share of them that may be bad.
        path: the ``skipped.jsonl`` to append to; None keeps the log in memory.
    """

    def __init__(self, total: int, max_share: float = 0.01, path: Path | None = None) -> None:
        self.total = total
        self.max_share = max_share
        self.path = path
        self.entries: dict[str, str] = dict(read_skipped(path)) if path and path.exists() else {}

    def add(self, skipped: Iterable[Skipped], *, write: bool = True) -> None:
        """Count and write what is new.

        Args:
            skipped: may repeat what is known.
            write: False where another process writes the same entries (the scan that every rank makes).

        Raises:
            UserError: more than `max_share` of all samples, or every one of them, cannot be used.
        """
        new = {source: reason for source, reason in skipped if source not in self.entries}
        if not new:
            return
        self.entries.update(new)
        if write and self.path is not None:
            lines = "".join(json.dumps({"path": s, "reason": r}, ensure_ascii=False) + "\n" for s, r in new.items())
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(lines)
        self.check()

    def check(self) -> None:
        """Raise `UserError` where too much is bad."""
        bad = len(self.entries)
        if not bad or (bad <= self.max_share * self.total and bad < self.total):
            return
        source, reason = next(iter(self.entries.items()))
        where = f" (all in {self.path})" if self.path else ""
        if bad >= self.total:
            raise UserError(f"none of the {self.total} samples can be used, e.g. {source}: {reason}{where}")
        raise UserError(
            f"{bad} of {self.total} samples cannot be used, more than data.max_bad_share={self.max_share:g} allows, "
            f"e.g. {source}: {reason}{where}; remove them, or raise the limit"
        )


def read_skipped(path: Path) -> list[Skipped]:
    """The entries of a ``skipped.jsonl``, each source once; a line cut short by a crash is passed over."""
    entries: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            entries.setdefault(row["path"], row["reason"])
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return [Skipped(source, reason) for source, reason in entries.items()]
