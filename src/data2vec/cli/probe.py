"""``data2vec probe MODEL LABELLED``: what frozen features know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data2vec.cli.arguments import parse
from data2vec.errors import UserError

if TYPE_CHECKING:
    from data2vec.evaluation.frozen import Probes


@dataclass
class Arguments:
    """Linear and k-nearest-neighbour probe of a model's frozen features on labelled files.

    LABELLED is a folder or zip with a folder a class (within train and dev, if you have a split); a .csv or .jsonl with
    a column of labels; or a folder with train.csv and dev.csv. Without a split a fifth of the items is held out.

    Attributes:
        model: a folder with config.json, such as `model` of a run.
        labelled: the labelled files.
        label: of a table, the column with the labels.
        untrained: also probe the same network before training, which a trained one has to beat.
        batch_size: items a forward pass.
        seed: of the held-out items, the cross-validation and the untrained network.
    """

    model: tyro.conf.Positional[Path]
    labelled: tyro.conf.Positional[Path]
    label: str = "label"
    untrained: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_size: int = 16
    seed: int = 0


def main(argv: Sequence[str]) -> None:
    """Probe, and print a table."""
    arguments = parse(Arguments, argv, prog="data2vec probe")
    if not arguments.labelled.exists():
        raise UserError(f"{arguments.labelled} does not exist: give labelled files")

    from data2vec.evaluation.frozen import open_frozen, probe_folder, untrained  # loads torch: not for --help

    frozen = open_frozen(arguments.model)
    rows = {str(arguments.model): frozen}
    if arguments.untrained:
        rows["untrained"] = untrained(frozen, arguments.seed)
    width = max(map(len, rows))
    for number, (name, each) in enumerate(rows.items()):
        probes = probe_folder(
            each, arguments.labelled, column=arguments.label, batch_size=arguments.batch_size, seed=arguments.seed
        )
        if number == 0:
            print(f"{probes.items[0]} items to train the probe, {probes.items[1]} held out, {probes.classes} classes")
            print(f"{'':<{width}}  {'linear probe':<16}  nearest neighbours")
        print(f"{name:<{width}}  {_score(probes, 'linear'):<16}  {_score(probes, 'neighbours')}")


def _score(probes: Probes, which: str) -> str:
    result = getattr(probes, which)
    return f"{100 * result.accuracy:.1f} +- {100 * result.standard_error:.1f} %"
