"""``data2vec evaluate TASK DATA --model DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from data2vec.cli.arguments import parse, spelled_out
from data2vec.data.manifest import read_text
from data2vec.errors import UserError
from data2vec.recipes.finetune import FINETUNE, FinetuneConfig, finetune_preset
from data2vec.tasks.config import DecodeConfig, LabelledConfig


@dataclass
class Arguments:
    """Judge a fine-tuned model on the held-out side of labelled files (on all of them where they have no sides).

    Attributes:
        data_path: labelled files: a folder or a table.
        model: the fine-tuned model, or the run that made it.
        out: for scores.json, predictions.jsonl and report.html; `evaluation` beside the model if not given.
        json: print the scores as JSON.
        device: auto, cpu, cuda, mps.
        pictures: so many examples are shown in the report: what the model attends to, words in time, maps; 0: none.
        data: how the files are read: as the run that made the model read them, if `model` is a run's.
        decode: of asr: beam search, language model, hot words.
    """

    data_path: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    model: Path
    out: Path | None = None
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    device: str = "auto"
    pictures: int = 6
    data: LabelledConfig = field(default_factory=LabelledConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)


def main(argv: Sequence[str]) -> None:
    """Judge, and print the scores."""
    if list(argv[:1]) in ([], ["-h"], ["--help"]):
        print(
            f"usage: data2vec evaluate TASK DATA --model DIR [--json] [--out DIR] ...\n\ntasks: {', '.join(FINETUNE)}"
        )
        return
    config = finetune_preset(argv[0], "little")
    default = Arguments(tyro.MISSING, tyro.MISSING, data=_as_trained(argv[0], argv[1:]) or config.data)
    arguments = parse(Arguments, spelled_out(argv[1:]), prog=f"data2vec evaluate {argv[0]}", default=default)

    from data2vec.tasks.report import known
    from data2vec.training.finetune import evaluate_model  # loads torch: not for --help

    out = arguments.out or arguments.model / "evaluation"
    config = replace(config, data=arguments.data)
    scores = evaluate_model(
        arguments.data_path,
        arguments.model,
        config,
        out,
        decode=arguments.decode,
        pictures=arguments.pictures,
        device=arguments.device,
    )
    if arguments.json:
        print(json.dumps(known(scores)))
    else:
        width = max(map(len, scores))
        print("\n".join(f"{name:<{width}}  {value:.4f}" for name, value in scores.items()))
        print(f"predictions and a report: {out}")


def _as_trained(task: str, argv: Sequence[str]) -> LabelledConfig | None:
    """How the run that made the model read its data: columns, symbols, sizes."""
    given = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    given.add_argument("--model", type=Path, default=Path())
    run = trained(given.parse_known_args(argv)[0].model)
    return run.data if run is not None and run.task == task else None


def trained(model: Path) -> FinetuneConfig | None:
    """The settings of the run that made a fine-tuned model (or is it), where they lie beside it.

    Raises:
        UserError: they cannot be read.
    """
    known = next((folder / "run.json" for folder in (model, model.parent) if (folder / "run.json").is_file()), None)
    try:
        settings = json.loads(read_text(known)) if known else {}
    except ValueError as error:
        raise UserError(f"{known} is not JSON ({error}): restore it, or copy {model} out of the run") from error
    return FinetuneConfig.from_dict(settings) if "task" in settings else None
