"""``data2vec finetune TASK DATA --model M --out DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from data2vec.cli.arguments import parse, spelled_out
from data2vec.errors import UserError
from data2vec.recipes.finetune import FINETUNE, FinetuneConfig, finetune_preset
from data2vec.training.run import read_settings

_USAGE = f"""usage: data2vec finetune TASK DATA --model MODEL --out DIR [--preset NAME] [--resume] ...

Puts a head on a pre-trained encoder and trains both on labelled files; DIR/model is the best model by the held-out
examples, DIR/evaluation what it says about them. MODEL is a folder with config.json, a run's folder, or a hub id.

tasks and presets (default: little):
{chr(10).join(f"  {task:<24}{', '.join(known)}" for task, known in FINETUNE.items())}

`data2vec finetune asr --help` lists every value of a recipe that can be changed."""


@dataclass
class Arguments:
    """Fine-tune a model on labelled files.

    Attributes:
        data_path: labelled files: a folder or a table; with a side to train on and one held out, or without.
        model: a folder with config.json (such as `model` of a run), a run's folder, or a hub id.
        out: the run folder: settings, log, checkpoints, `model/` and `evaluation/`.
        preset: the recipe to start from.
        resume: continue the run in `out`, with the values it was started with where none are given.
        device: auto, cpu, cuda, mps.
        set: further fields of the model's config.json, as name=value, one or more at a time.
        config: the recipe's values.
    """

    data_path: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATA")]]
    model: str
    out: Path
    preset: str
    resume: tyro.conf.FlagCreatePairsOff[bool]
    device: str
    set: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
    config: Annotated[FinetuneConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Read the arguments and train; the status is the run's: 0 done, 130 and 143 saved and stopped by a signal."""
    if list(argv[:1]) in ([], ["-h"], ["--help"]):
        print(_USAGE)
        return 0
    arguments = read_arguments(argv[0], argv[1:])

    from data2vec.training.finetune import run_finetuning  # loads torch, which --help does without

    run = run_finetuning(
        arguments.config,
        arguments.data_path,
        arguments.model,
        arguments.out,
        resume=arguments.resume,
        device=arguments.device,
    )
    return run.exit_code


def read_arguments(task: str, argv: Sequence[str]) -> Arguments:
    """The arguments after ``data2vec finetune TASK``; preset, run folder and resume decide the other defaults.

    Raises:
        UserError: for an unknown task or preset, a value out of range, or nothing to resume.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="little")
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    early = first.parse_known_args(argv)[0]
    config = finetune_preset(task, early.preset)
    if early.resume and early.out is not None:
        config = FinetuneConfig.from_dict(read_settings(early.out))
        if config.task != task:
            raise UserError(f"{early.out} holds a run of {config.task}, not {task}")
    given = Arguments(
        tyro.MISSING, tyro.MISSING, tyro.MISSING, early.preset, resume=False, device="auto", set=(), config=config
    )
    arguments = parse(Arguments, spelled_out(argv), prog=f"data2vec finetune {task}", default=given)
    if arguments.config.task != task:
        raise UserError(f"--task {arguments.config.task}: the task is {task}; leave --task out")
    network = {**arguments.config.network, **dict(_field(given) for fields in arguments.set for given in fields)}
    return replace(arguments, config=replace(arguments.config, network=network))


def _field(given: str) -> tuple[str, Any]:
    """``name=value``, the value as JSON where it is."""
    name, equals, value = given.partition("=")
    if not equals:
        raise UserError(f"--set {given}: write name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
