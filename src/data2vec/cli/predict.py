"""``data2vec predict MODEL INPUT...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from data2vec.cli.arguments import parse


@dataclass
class Arguments:
    """What a fine-tuned model says about files or texts.

    Attributes:
        model: a fine-tuned model, or the run that made it.
        inputs: files, folders of files, or texts; `-` reads one a line from standard input.
        jsonl: print one JSON object a line, with all that is known.
        batch: seconds of sound, tokens, or images at once.
    """

    model: tyro.conf.Positional[Path]
    inputs: tyro.conf.Positional[tuple[str, ...]]
    jsonl: tyro.conf.FlagCreatePairsOff[bool] = False
    batch: float = field(default=0.0)


def main(argv: Sequence[str]) -> None:
    """Predict, and print a line an input."""
    arguments = parse(Arguments, argv, prog="data2vec predict")

    from data2vec.tasks.predict import predict_inputs, short  # loads torch: not for --help

    inputs = [line.rstrip("\n") for line in sys.stdin] if arguments.inputs == ("-",) else list(arguments.inputs)
    for prediction in predict_inputs(arguments.model, inputs, batch=arguments.batch):
        if arguments.jsonl:
            said = {name: value for name, value in prediction.items() if name != "map"}
            print(json.dumps(said, ensure_ascii=False))
        else:
            print(f"{prediction['source']}\t{short(prediction)}")
