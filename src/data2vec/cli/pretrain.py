"""``data2vec pretrain audio|vision|text PATH --preset base --out DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data2vec.cli.arguments import parse
from data2vec.errors import UserError
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import PRESETS, preset
from data2vec.training.run import read_settings

_USAGE = f"""usage: data2vec pretrain {{{",".join(PRESETS)}}} PATH --out DIR [--preset NAME] [--resume] ...

Pre-trains data2vec on the files in PATH; writes the log, checkpoints and DIR/model, ready for from_pretrained.

presets (default: base):
{chr(10).join(f"  {modality:<8}{', '.join(known)}" for modality, known in PRESETS.items())}

`data2vec pretrain audio --help` lists every value of a recipe that can be changed."""


@dataclass
class Arguments:
    """Pre-train data2vec on a folder of files.

    Attributes:
        path: a folder of files, or a manifest.
        out: the run folder: settings, log, checkpoints, and `model/` for from_pretrained.
        preset: the recipe to start from.
        resume: continue the run in `out`, with the values it was started with where none are given.
        device: auto, cpu, cuda, mps.
        config: the recipe's values.
    """

    path: tyro.conf.Positional[Path]
    out: Path
    preset: str
    resume: tyro.conf.FlagCreatePairsOff[bool]
    device: str
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Read the arguments and train; the status is the run's: 0 done, 130 and 143 saved and stopped by a signal."""
    if list(argv[:1]) in ([], ["-h"], ["--help"]):
        print(_USAGE)
        return 0
    arguments = read_arguments(argv[0], argv[1:])

    from data2vec.training.pretrain import run_pretraining  # loads torch, which --help does without

    run = run_pretraining(
        arguments.config, arguments.path, arguments.out, resume=arguments.resume, device=arguments.device
    )
    return run.exit_code


def read_arguments(modality: str, argv: Sequence[str]) -> Arguments:
    """The arguments after ``data2vec pretrain MODALITY``.

    Preset, run folder and resume are read first: they decide the defaults of all other values.

    Raises:
        UserError: for an unknown modality or preset, a value out of range, or nothing to resume.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="base")
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    early = first.parse_known_args(argv)[0]
    config = preset(modality, early.preset)
    if early.resume and early.out is not None:
        config = PretrainConfig.from_dict(read_settings(early.out))
        if config.modality != modality:
            raise UserError(f"{early.out} holds a run of modality {config.modality}, not {modality}")
    default = Arguments(tyro.MISSING, tyro.MISSING, early.preset, resume=False, device="auto", config=config)
    return parse(Arguments, argv, prog=f"data2vec pretrain {modality}", default=default)
