"""``data2vec predict MODEL INPUT...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from data2vec.cli.arguments import given_inputs, parse, tell_left_out
from data2vec.cli.evaluate import trained
from data2vec.errors import UserError
from data2vec.tasks.config import DecodeConfig, LabelledConfig


@dataclass
class Arguments:
    """What a fine-tuned model says about files or texts.

    Attributes:
        model: a fine-tuned model, or the run that made it.
        inputs: files, folders of files, or texts (a tab parts a pair); `-` reads one a line from standard input.
        jsonl: print one JSON object a line, with all that is known.
        files: a folder for subtitles (asr), RTTM (audio-frames), label maps and overlays (semantic-segmentation).
        page: an HTML file for pictures: what the model attends to, words in time, maps of classes.
        batch: seconds of sound, tokens, or images at once; 0 is a usual number.
        skip_bad: leave inputs out that cannot be read, and say so, instead of stopping at the first.
        device: auto, cpu, cuda, mps.
        max_seconds: longer recordings are taken in windows of so many seconds.
        decode: of asr: beam search, language model, hot words.
    """

    model: tyro.conf.Positional[str]
    inputs: tyro.conf.Positional[tuple[str, ...]]
    jsonl: tyro.conf.FlagCreatePairsOff[bool] = False
    files: Path | None = None
    page: Path | None = None
    batch: float = 0.0
    skip_bad: tyro.conf.FlagCreatePairsOff[bool] = False
    device: str = "auto"
    max_seconds: float = 30.0
    decode: DecodeConfig = field(default_factory=DecodeConfig)


def main(argv: Sequence[str]) -> None:
    """Predict, and print a line an input."""
    arguments = parse(Arguments, argv, prog="data2vec predict")

    from data2vec.tasks.predict import predict_inputs, short, write_files  # loads torch: not for --help

    if arguments.batch < 0:
        raise UserError(f"--batch {arguments.batch:g}: must not be negative; 0 is a usual number")
    run = trained(Path(arguments.model))
    data = replace(
        run.data if run else LabelledConfig(), max_seconds=arguments.max_seconds, skip_bad=arguments.skip_bad
    )
    found, skipped = predict_inputs(
        arguments.model,
        given_inputs(arguments.inputs),
        batch=arguments.batch,
        data=data,
        decode=arguments.decode,
        page=arguments.page,
        device=arguments.device,
    )
    tell_left_out(skipped)
    for prediction in found:
        if arguments.jsonl:
            print(json.dumps({k: v for k, v in prediction.items() if k != "map"}, ensure_ascii=False))
        else:
            print(f"{prediction['source']}\t{short(prediction)}")
    if arguments.files:
        for path in write_files(found, arguments.files):
            print(path, file=sys.stderr)
