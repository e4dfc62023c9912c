"""``data2vec probe MODEL LABELLED``: what frozen features know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from data2vec.cli.arguments import parse
from data2vec.errors import UserError

if TYPE_CHECKING:
    from data2vec.evaluation.frozen import Probes
    from data2vec.evaluation.probe import ProbeResult


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
        json: print one JSON object instead of a table.
        batch_size: items a forward pass.
        seed: of the held-out items, the cross-validation and the untrained network.
    """

    model: tyro.conf.Positional[Path]
    labelled: tyro.conf.Positional[Path]
    label: str = "label"
    untrained: bool = True
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_size: int = 16
    seed: int = 0


def main(argv: Sequence[str]) -> None:
    """Probe, and print a table."""
    arguments = parse(Arguments, argv, prog="data2vec probe")
    if not arguments.labelled.exists():
        raise UserError(f"{arguments.labelled} does not exist: give labelled files")

    from data2vec.evaluation.frozen import open_frozen, probe_folder, untrained  # loads torch: not for --help

    frozen = open_frozen(arguments.model)
    networks = {str(arguments.model): frozen}
    if arguments.untrained:
        networks["untrained"] = untrained(frozen, arguments.seed)
    options: dict[str, Any] = {"column": arguments.label, "batch_size": arguments.batch_size, "seed": arguments.seed}
    probes = {name: probe_folder(each, arguments.labelled, **options) for name, each in networks.items()}
    print(json.dumps({name: asdict(each) for name, each in probes.items()}) if arguments.json else _table(probes))


def _table(probes: Mapping[str, Probes]) -> str:
    width = max(map(len, probes))
    (train, dev), classes = next((each.items, each.classes) for each in probes.values())
    return "\n".join(
        [
            f"{train} items to train the probe, {dev} held out, {classes} classes",
            f"{'':<{width}}  {'linear probe':<16}  nearest neighbours",
            *(f"{name:<{width}}  {_score(p.linear):<16}  {_score(p.neighbours)}" for name, p in probes.items()),
        ]
    )


def _score(result: ProbeResult) -> str:
    return f"{100 * result.accuracy:.1f} +- {100 * result.standard_error:.1f} %"
