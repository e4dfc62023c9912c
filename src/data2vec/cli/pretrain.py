"""``data2vec pretrain audio|vision|text PATH --preset base --out DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from data2vec.cli.arguments import parse
from data2vec.data.config import TextDataConfig, VisionDataConfig
from data2vec.errors import UserError
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import PRESETS, preset
from data2vec.training.run import read_settings

if TYPE_CHECKING:
    from data2vec.conversion.checkpoint import Checkpoint

_USAGE = f"""usage: data2vec pretrain {{{",".join(PRESETS)}}} PATH --out DIR [--preset NAME] [--method v1|v2]
       [--init CHECKPOINT] [--resume] ...

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
        method: v2 takes the preset of that name for data2vec 2, as `v2-NAME` does.
        init: a checkpoint of any layout, or a run: its architecture and weights, teacher and prediction head too where
            it has them.
        resume: continue the run in `out`, with the values it was started with where none are given.
        device: auto, cpu, cuda, mps.
        config: the recipe's values.
    """

    path: tyro.conf.Positional[Path]
    out: Path
    preset: str
    method: Literal["v1", "v2"] | None
    init: str | None
    resume: tyro.conf.FlagCreatePairsOff[bool]
    device: str
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")]


def main(argv: Sequence[str]) -> int:
    """Read the arguments and train; the status is the run's: 0 done, 130 and 143 saved and stopped by a signal."""
    if list(argv[:1]) in ([], ["-h"], ["--help"]):
        print(_USAGE)
        return 0
    arguments = read_arguments(argv[0], argv[1:])
    init = None if arguments.resume else arguments.init
    data = arguments.config.data
    if init is not None and isinstance(data, TextDataConfig) and data.tokenizer is None:
        raise UserError(
            f"no tokenizer.json beside the weights of {init}, and the tokens of a new one would not be the model's: "
            "give its own with --data.tokenizer"
        )

    from data2vec.training.pretrain import run_pretraining  # loads torch, which --help does without

    run = run_pretraining(
        arguments.config,
        arguments.path,
        arguments.out,
        resume=arguments.resume,
        device=arguments.device,
        init=None if init is None else lambda task: restore(_load(init), task),
    )
    return run.exit_code


def read_arguments(modality: str, argv: Sequence[str]) -> Arguments:
    """The arguments after ``data2vec pretrain MODALITY``.

    Preset, method, checkpoint, run folder and resume are read first: they decide the defaults of all other values.

    Raises:
        UserError: for an unknown modality or preset, a value out of range, or nothing to resume.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="base")
    first.add_argument("--method")
    first.add_argument("--init")
    first.add_argument("--out", type=Path)
    first.add_argument("--resume", action="store_true")
    early = first.parse_known_args(argv)[0]
    config = preset(modality, preset_name(early.preset, early.method))
    if early.resume and early.out is not None:
        config = PretrainConfig.from_dict(read_settings(early.out))
        if config.modality != modality:
            raise UserError(f"{early.out} holds a run of modality {config.modality}, not {modality}")
    elif early.init is not None:
        config = continued(config, _load(early.init), Path(early.init))
    default = Arguments(
        tyro.MISSING, tyro.MISSING, early.preset, method=None, init=None, resume=False, device="auto", config=config
    )
    return parse(Arguments, argv, prog=f"data2vec pretrain {modality}", default=default)


def preset_name(name: str, method: str | None) -> str:
    """The preset that ``--preset`` and ``--method`` mean together.

    Raises:
        UserError: they contradict each other.
    """
    version = "v2" if name.startswith("v2-") else "v1"
    if method == "v1" and version == "v2":
        raise UserError(f"--method v1 contradicts --preset {name}: leave one out")
    return f"v2-{name}" if method == "v2" and version == "v1" else name


def _load(source: str) -> Checkpoint:
    """The checkpoint of ``--init``; of a run's folder, its model."""
    from data2vec.conversion.loading import load_checkpoint  # loads torch: only when asked for

    model = Path(source) / "model"
    return load_checkpoint(model if (model / "config.json").is_file() else source)


def continued(config: PretrainConfig, checkpoint: Checkpoint, source: Path) -> PretrainConfig:
    """`config` for the architecture of a checkpoint: its network, and what follows from that.

    Raises:
        UserError: the checkpoint is of another modality or version than the preset.
    """
    found, wanted = checkpoint.kind, (config.modality, config.version)
    if found[0] != wanted[0]:
        raise UserError(f"{source} is a model for {found[0]}: use `data2vec pretrain {found[0]}`")
    if found[1] != wanted[1]:
        raise UserError(f"{source} is data2vec {found[1]}, the preset is data2vec {wanted[1]}: --method v{found[1]}")
    model: Any = checkpoint.config
    if found == ("audio", 1) and not model.mask_time_prob:
        model = model.replace(mask_time_prob=0.05)  # else it has no mask embedding, which pre-training needs
    changes: dict[str, Any] = {"model": model}
    if isinstance(model, Data2VecVisionConfig) and isinstance(config.data, VisionDataConfig):
        if found[1] == 1:
            changes["model"] = model.replace(use_mask_token=True)
        changes["data"] = replace(config.data, image_size=model.image_shape[0])
    if isinstance(model, Data2VecTextConfig) and isinstance(config.data, TextDataConfig):
        folder = Path(checkpoint.report.source).parent  # of a hub id too
        changes["data"] = replace(
            config.data,
            block_size=min(config.data.block_size, model.max_length),
            tokenizer=str(folder) if (folder / "tokenizer.json").is_file() else config.data.tokenizer,
        )
    depth = model.num_hidden_layers - (model.prenet_depth if found[1] == 2 else 0)
    target = replace(config.objective.target, layers=min(config.objective.target.layers, depth))
    changes["objective"] = replace(config.objective, target=target)
    return replace(config, **changes)


def restore(checkpoint: Checkpoint, task: Any) -> str:
    """Put a checkpoint's weights into an objective; returns one line that says which, and what is new."""
    missing = checkpoint.restore(task)
    parts = ("teacher", "head" if checkpoint.kind[1] == 1 else "decoder")
    found = ", ".join(["student", *(part for part in parts if part not in missing)])
    new = [f"{part} (the student's)" if part == "teacher" else part for part in missing]
    return f"init       {found} from {checkpoint.report.source}" + (f"; not in it: {', '.join(new)}" if new else "")
