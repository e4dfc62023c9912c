"""``data2vec demo``: pre-train on embedded data in all three modalities, and report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from data2vec.cli.arguments import parse
from data2vec.errors import UserError


@dataclass
class Arguments:
    """Pre-train small models on speech, images and text that come with this installation, and show what they learned.

    Nothing is downloaded. Two cores need about seven minutes.

    Attributes:
        out: a new folder for the files, the runs and report.html; runs/demo, or the next free number after it.
        only: the modalities wanted.
        methods: data2vec 1, data2vec 2, or both, at equal CPU time.
        minutes: CPU time of each training, more for text.
        seed: of data, weights, order and masks.
        fast: seconds instead of minutes: shows that everything works, and learns nothing.
    """

    out: Path | None = None
    only: tuple[Literal["speech", "images", "text"], ...] = ("speech", "images", "text")
    methods: tuple[Literal["v1", "v2"], ...] = ("v1", "v2")
    minutes: float = 1.5
    seed: int = 0
    fast: tyro.conf.FlagCreatePairsOff[bool] = False


def main(argv: Sequence[str]) -> None:
    """Run the demo; print the table and where the report lies."""
    arguments = parse(Arguments, argv, prog="data2vec demo")
    if arguments.minutes <= 0 or arguments.seed < 0 or not arguments.only or not arguments.methods:
        raise UserError("give --minutes above 0, a --seed of at least 0, and at least one of --only and --methods")

    from data2vec.demo.outcome import table
    from data2vec.demo.run import run_demo  # loads torch: not for --help

    out = arguments.out or _free(Path("runs/demo"))
    outcomes = run_demo(
        out,
        modalities=arguments.only,
        methods=arguments.methods,
        minutes=0.01 if arguments.fast else arguments.minutes,
        seed=arguments.seed,
        small=arguments.fast,
    )
    print(f"\n{table(outcomes)}\n\nreport: {(out / 'report.html').resolve()}")


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
