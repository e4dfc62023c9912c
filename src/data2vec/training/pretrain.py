"""Pre-training from files to ``model/``: checks, data, network, objective, trainer."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data2vec.data.collate import Collator
from data2vec.data.config import AudioDataConfig, VisionDataConfig
from data2vec.data.loader import Loader
from data2vec.data.sources import Data, open_loader, open_samples
from data2vec.data.text import TextData
from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel, beit_init
from data2vec.objectives.collapse import findings
from data2vec.objectives.config import CollapseConfig, Data2Vec2ObjectiveConfig, ObjectiveConfig
from data2vec.objectives.masking import TextMask
from data2vec.objectives.v1 import Data2VecObjective
from data2vec.objectives.v2 import Data2Vec2Objective
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.bpe import save_bpe, special_ids
from data2vec.processing.vision import BeitImageProcessor
from data2vec.recipes.config import PretrainConfig
from data2vec.training.distributed import World, join
from data2vec.training.run import RunFolder, check_run, open_run
from data2vec.training.trainer import Result, Trainer
from data2vec.weights import write_pretraining

Objective = Data2VecObjective | Data2Vec2Objective
Init = Callable[[Objective], str]


def run_pretraining(
    config: PretrainConfig,
    source: Path,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    init: Init | None = None,
) -> Result:
    """Pre-train on the files of `source`; every process of a run calls this with the same arguments.

    Args:
        config: the recipe. A text model takes its vocabulary from the tokenizer of the data.
        source: a folder of files, or a manifest.
        out: the run folder; ``out/model`` is for `from_pretrained`.
        resume: continue the run in `out` from its newest checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` ...
        init: puts the weights of a checkpoint into the fresh objective, and says in one line which. A run that is
            resumed has its own.

    Raises:
        UserError: before training, for a missing path, an empty folder, a run folder in use; and as `Trainer.fit`.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist: give a folder of files, or a manifest")
    with join(device) as world:
        if world.first:
            check_run(out, resume)
            samples = open_samples(source, config.data, out, config.loader.seed)
        world.barrier()  # the first has trained the tokenizer and written what the others read
        if not world.first:
            samples = open_samples(source, config.data, out, config.loader.seed)
        config = fit_vocabulary(config, samples, grown=resume or init is not None)
        loader = open_loader(
            samples,
            config.data,
            config.loader,
            mask_collator(config, samples),
            skipped=out / "skipped.jsonl",
            rank=world.rank,
            world=world.size,
            accumulate=config.train.accumulate,
        )
        run = _open(out, config, source, resume, world)
        return _train(config, run, loader, samples, world, None if resume else init, resume=resume)


def _open(out: Path, config: PretrainConfig, source: Path, resume: bool, world: World) -> RunFolder:
    if not world.first:
        return RunFolder(out)
    run, changes = open_run(out, {"source": str(source.resolve()), **config.to_dict()}, resume=resume)
    print(config.summary(), file=sys.stderr)
    for change in changes:
        print(f"changed since the run began: {change}", file=sys.stderr)
    return run


def _train(
    config: PretrainConfig,
    run: RunFolder,
    loader: Loader,
    samples: Data,
    world: World,
    init: Init | None,
    *,
    resume: bool,
) -> Result:
    torch.manual_seed(config.train.seed)
    task = build_objective(config)
    if init is not None:
        restored = init(task)
        if world.first:
            print(restored, file=sys.stderr)
    trainer = Trainer(
        task,
        Steps(loader),
        config.optim,
        config.train,
        run,
        world=world,
        export=lambda folder: export(config, task, samples, folder),
        diagnose=_diagnosis(config.objective.collapse, run, lambda: trainer.progress.update),
    )
    result = trainer.fit(resume=resume)
    if world.first:
        _report(result, run, loader)
    return result


def _report(result: Result, run: RunFolder, loader: Loader) -> None:
    loss = f", loss {result.log['loss']:.4g}" if "loss" in result.log else ""
    print(f"{result.reason} after {result.update} updates{loss}: {run.model}", file=sys.stderr)
    if loader.skips is not None and loader.skips.entries:
        print(f"{len(loader.skips.entries)} files could not be used: {loader.skips.path}", file=sys.stderr)


class Steps:
    """A loader as the trainer's `BatchStream`: the micro-batches of one update after the other."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """This rank's micro-batches, without end."""
        return (step.batches for step in self.loader)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and place in it, after the update handed out last."""
        return dict(self.loader.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.loader.load_state_dict(state)


def fit_vocabulary(config: PretrainConfig, samples: Data, *, grown: bool = False) -> PretrainConfig:
    """`config` with the size and the special ids of the data's tokenizer, if the model reads text.

    Args:
        config: the recipe.
        samples: the data.
        grown: the model has a word table already: it keeps rows that no token of the tokenizer has.

    Raises:
        UserError: `grown`, and the tokenizer has more tokens than the table has rows.
    """
    if not isinstance(samples, TextData):
        return config
    ids = special_ids(samples.tokenizer)
    changes = {f"{name}_token_id": ids[name] for name in ("pad", "bos", "eos", "mask")}
    size = samples.tokenizer.get_vocab_size()
    if grown and isinstance(config.model, Data2VecTextConfig):
        if size > config.model.vocab_size:
            raise UserError(
                f"data.tokenizer: {size} tokens, but the model to continue from has a word table of "
                f"{config.model.vocab_size} rows: use the tokenizer it was trained with"
            )
        size = config.model.vocab_size
    model = config.model.replace(vocab_size=size, **changes)
    return replace(config, model=model)


def build_objective(config: PretrainConfig) -> Objective:
    """The objective of a recipe, with a network of fresh weights."""
    match config.model, config.objective:
        case Data2Vec2AudioConfig() as model, Data2Vec2ObjectiveConfig() as objective:
            return Data2Vec2Objective(Data2Vec2AudioModel(model), objective)
        case Data2Vec2VisionConfig() as model, Data2Vec2ObjectiveConfig() as objective:
            return Data2Vec2Objective(Data2Vec2VisionModel(model), objective)
        case Data2Vec2TextConfig() as model, Data2Vec2ObjectiveConfig() as objective:
            return Data2Vec2Objective(Data2Vec2TextModel(model), objective)
        case Data2VecAudioConfig() as model, ObjectiveConfig() as objective:
            return Data2VecObjective(Data2VecAudioModel(model), objective)
        case Data2VecVisionConfig() as model, ObjectiveConfig() as objective:
            return Data2VecObjective(beit_init(Data2VecVisionModel(model)), objective)
        case Data2VecTextConfig() as model, ObjectiveConfig() as objective:
            # With its pooler, untrained: transformers expects its tensors in a saved model.
            return Data2VecObjective(Data2VecTextModel(model), objective)
    raise AssertionError("a recipe's model and objective are of one version")


def mask_collator(config: PretrainConfig, samples: Data) -> Collator:
    """Batches with the recipe's mask, drawn for each row by (seed, epoch, sample)."""
    copies = config.copies if config.version == 2 else None
    collator = Collator(seed=config.loader.seed, masker=config.mask, copies=copies)
    match config.model:
        case Data2VecAudioConfig() as model:
            return replace(collator, token_count=model.frames)
        case Data2VecVisionConfig() as model:
            return replace(collator, grid=model.grid)
        case Data2VecTextConfig() as model:
            if not (isinstance(config.mask, TextMask) and config.mask.random_prob) or not isinstance(samples, TextData):
                return collator
            ids = special_ids(samples.tokenizer)
            first = 1 + max(place for name, place in ids.items() if name != "mask")
            last = ids["mask"] if ids["mask"] > first else model.vocab_size
            return replace(collator, random_ids=(first, last))


def export(config: PretrainConfig, task: Objective, samples: Data, folder: Path) -> None:
    """Write the student and what prepares its input, where `from_pretrained` finds them; teacher and head beside."""
    student = task.student
    assert isinstance(student, PreTrainedModel)
    student.save_pretrained(folder)
    predictor = task.head if isinstance(task, Data2VecObjective) else task.decoder
    write_pretraining(folder, task.teacher.encoder.state_dict(), predictor.state_dict())
    match config.data:
        case AudioDataConfig() as data:
            Wav2Vec2FeatureExtractor(
                sampling_rate=data.sampling_rate, do_normalize=data.normalize, return_attention_mask=True
            ).save_pretrained(folder)
        case VisionDataConfig() as data:
            BeitImageProcessor(
                size=data.image_size, crop_size=data.image_size, image_mean=data.mean, image_std=data.std
            ).save_pretrained(folder)
        case _:
            assert isinstance(samples, TextData) and isinstance(config.model, Data2VecTextConfig)
            save_bpe(samples.tokenizer, folder, max_length=config.model.max_length)


def _diagnosis(
    limits: CollapseConfig, run: RunFolder, update: Callable[[], int]
) -> Callable[[Mapping[str, float]], str | None]:
    """The trainer's `diagnose`: what has collapsed, measured against the run's first record."""
    began: float | None = None

    def diagnose(record: Mapping[str, float]) -> str | None:
        nonlocal began
        if began is None:
            began = _first_local_var(run.log)
        return "; ".join(findings(limits, record, update(), began)) or None

    return diagnose


def _first_local_var(log: Path) -> float:
    """Variance of the local features when the run began; nan if it was not logged."""
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            value = json.loads(line).get("local_var")
            if value is not None:
                return float(value)
    return math.nan
