"""Fine-tuning from labelled files to ``model/``: data, head, trainer, and the best model's score."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data2vec.data.labelled.example import Example, Read, Splits, divide
from data2vec.data.loader import Loader
from data2vec.data.sampler import BucketSampler
from data2vec.data.skips import SkipLog, Skipped
from data2vec.errors import BadSample, UserError, require
from data2vec.nn.device import choose_device
from data2vec.recipes.finetune import FinetuneConfig
from data2vec.tasks.classify import Answers
from data2vec.tasks.config import AugmentConfig, DecodeConfig
from data2vec.tasks.look import features_plot, look
from data2vec.tasks.names import model_folder, task_class, task_of
from data2vec.tasks.report import write_evaluation
from data2vec.tasks.run import Evaluation, evaluate, usable
from data2vec.tasks.task import LOWER_IS_BETTER, Downstream, Item
from data2vec.training.config import TrainConfig
from data2vec.training.distributed import World, join
from data2vec.training.pretrain import Steps
from data2vec.training.run import RunFolder, check_run, open_run
from data2vec.training.supervised import LabelledCollator, LabelledSamples, SupervisedTask
from data2vec.training.trainer import Result, Trainer


def run_finetuning(
    config: FinetuneConfig, data: Path, model: str | Path, out: Path, *, resume: bool = False, device: str = "auto"
) -> Result:
    """Fine-tune a model on labelled files; every process of a run calls this with the same arguments.

    ``out/model`` is the best model by the held-out examples, ``out/evaluation`` what it says about them.

    Args:
        config: the recipe.
        data: labelled files; see the task's reader in `data2vec.data.labelled`.
        model: folder or hub id of an encoder, or the folder of a pre-training run.
        out: the run folder.
        resume: continue the run in `out` from its newest checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        UserError: before training, for what is wrong with the data, the model or the run folder; and as `Trainer.fit`.
    """
    with join(device) as world:
        if world.first:
            check_run(out, resume)
        torch.manual_seed(config.train.seed)
        cls = task_class(config.task)
        splits = read_splits(cls, data, config)
        source = model_folder(model)
        task: Downstream = cls.begin(source, splits.train, config.data, scratch=config.scratch, **config.network)
        check_soft_labels(task, config.augment)
        train, bad = usable(task, splits.train, train=True, skip_bad=config.data.skip_bad)
        dev, worse = usable(task, splits.dev, skip_bad=config.data.skip_bad)
        run = _open(out, config, data, source, resume, world)
        result = _train(task, train, dev, config, run, world, resume, [*splits.skipped, *bad, *worse])
        if world.first:
            _finish(cls, dev, config, run, result, world.device)
        world.barrier()
    return result


def read_splits(cls: Any, data: Path, config: FinetuneConfig) -> Splits:
    """The labelled examples of both sides, as the recipe reads them."""
    labelled = config.data
    read = _with_labels(cls.read(data, labelled))
    return divide(read, skip_bad=labelled.skip_bad, share=labelled.dev_share, seed=labelled.seed)


def _with_labels(read: Iterable[Read]) -> Iterator[Read]:
    """An example without a label, which `data2vec predict` can use, is bad here."""
    for item in read:
        unlabelled = isinstance(item, Example) and item.target is None
        yield BadSample(item.source, "has no label to learn from or be judged by") if unlabelled else item


def check_soft_labels(task: Downstream, augment: AugmentConfig) -> None:
    """Raise `UserError` where labels are to become distributions over classes and an answer is not one class."""
    answer = getattr(task, "answer", None)
    if augment.soft and isinstance(answer, Answers) and answer.problem != "single_label":
        raise UserError(
            "mixup, cutmix and smoothing are for one class an example, and the problem here is "
            f"{answer.problem}: set augment.mixup=0 augment.cutmix=0 augment.smoothing=0"
        )


def _open(out: Path, config: FinetuneConfig, data: Path, source: str | Path, resume: bool, world: World) -> RunFolder:
    if not world.first:
        return RunFolder(out)
    settings = {"data_path": str(data.resolve()), "model_path": str(source), **config.to_dict()}
    run, changes = open_run(out, settings, resume=resume)
    for change in changes:
        print(f"changed since the run began: {change}", file=sys.stderr)
    return run


def _train(
    task: Downstream,
    train: Sequence[Item],
    dev: Sequence[Item],
    config: FinetuneConfig,
    run: RunFolder,
    world: World,
    resume: bool,
    skipped: Sequence[Skipped],
) -> Result:
    adapt(task, config)
    supervised = SupervisedTask(task, freeze_updates=config.freeze_updates, soft=config.augment.soft)
    if world.first:
        count = sum(p.numel() for p in supervised.parameters() if p.requires_grad)
        size = f"{len(train):,} rows to train on, {len(dev):,} held out, {len(skipped)} left out"
        print(f"{config.task}: {size}; {count:,} parameters learn", file=sys.stderr)
    trainer = Trainer(
        supervised,
        Steps(_loader(task, train, config, run, world, skipped)),
        config.optim,
        judged_by(task, config.train),
        run,
        world=world,
        export=lambda folder: export(task, folder),
        evaluate=lambda _: evaluate(task, dev, config.budget).scores,
    )
    return trainer.fit(resume=resume)


def judged_by(task: Downstream, train: TrainConfig) -> TrainConfig:
    """The loop with the metric that picks the best model.

    Its name says whether more is better (`LOWER_IS_BETTER`); what `train.maximize` says does not count here.
    """
    metric = train.metric or task.metric
    return replace(train, metric=metric, maximize=metric not in LOWER_IS_BETTER)


def _loader(
    task: Downstream,
    train: Sequence[Item],
    config: FinetuneConfig,
    run: RunFolder,
    world: World,
    skipped: Sequence[Skipped],
) -> Loader:
    samples = LabelledSamples(task, train, config.augment, config.loader.seed)
    share = 1.0 if config.data.skip_bad else config.loader.max_bad_share
    skips = SkipLog(len(train) + len(skipped), share, run.path / "skipped.jsonl")
    skips.add(skipped, write=world.first)
    sampler = BucketSampler(
        samples.sizes,
        config.budget,
        seed=config.loader.seed,
        bucket_ratio=config.loader.bucket_ratio,
        drop_last=config.loader.drop_last,
    )
    return Loader(
        samples,
        sampler,
        LabelledCollator(task.fills),
        config.loader,
        rank=world.rank,
        world=world.size,
        accumulate=config.train.accumulate,
        skips=skips,
    )


def adapt(task: Downstream, config: FinetuneConfig) -> None:
    """Freeze what the recipe freezes, and add its adapters. Changes the task's model in place."""
    model: Any = task.model
    if config.lora:
        peft = require("peft", extra="peft")
        settings = peft.LoraConfig(r=config.lora, lora_alpha=2 * config.lora, target_modules=["q_proj", "v_proj"])
        model.base_model.requires_grad_(False)
        peft.inject_adapter_in_model(settings, model.base_model)
    if config.freeze == "encoder" and not config.lora:
        model.base_model.requires_grad_(False)
    elif config.freeze == "frontend":
        (model.freeze_feature_encoder if hasattr(model, "freeze_feature_encoder") else _freeze_frontend(model))()


def _freeze_frontend(model: Any) -> Any:
    return lambda: model.base_model.frontend.requires_grad_(False)


def export(task: Downstream, folder: Path) -> None:
    """Write the model, adapters merged, and its processor where `from_pretrained` finds them."""
    model = task.model
    if any(_is_adapter(module) for module in model.modules()):
        model = merged(model)
    model.save_pretrained(folder)
    task.save_processor(folder)


def _is_adapter(module: nn.Module) -> bool:
    return hasattr(module, "merge") and hasattr(module, "get_base_layer")


def merged(model: Any) -> Any:
    """A copy with low-rank adapters added into the weights that they adapt."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if _is_adapter(module):
            module.merge()
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, module.get_base_layer())
    return model


def _finish(
    cls: Any, dev: Sequence[Item], config: FinetuneConfig, run: RunFolder, result: Result, device: torch.device
) -> None:
    """Judge the best model, as `from_pretrained` reads it, and write down what it says."""
    if not (run.model / "config.json").is_file():  # stopped by a signal before the first evaluation
        return
    best: Downstream = cls.open(run.model, config.data)
    best.model.to(device)
    found = evaluate(best, dev, config.budget)
    write_evaluation(best, found, run.path / "evaluation", _pictures(best, dev, found, config.budget))
    text = ", ".join(f"{name} {value:.4g}" for name, value in found.scores.items())
    print(f"{result.reason} after {result.update} updates; held out: {text}: {run.model}", file=sys.stderr)


def evaluate_model(
    data: Path,
    folder: str | Path,
    config: FinetuneConfig,
    out: Path,
    *,
    decode: DecodeConfig | None = None,
    pictures: int = 0,
    device: str = "auto",
) -> dict[str, float]:
    """Judge a fine-tuned model on the held-out side of labelled files (on all of them where they have no sides).

    Args:
        data: labelled files.
        folder: the model, or the run that made it.
        config: how the data are read.
        out: for scores, predictions and the report.
        decode: of speech recognition.
        pictures: examples that the report shows pictures of; 0 for none, of the features either.
        device: ``auto``, ``cpu``, ``cuda`` ...

    Returns:
        The scores.

    Raises:
        UserError: what is wrong with the data, or the model does another task.
    """
    cls = task_class(config.task)
    options = {"decode": decode} if config.task == "asr" else {}
    if decode is not None and decode != DecodeConfig() and not options:
        raise UserError(f"decode options are for speech recognition, not for {config.task}")
    source = model_folder(folder)
    if (own := task_of(source)) != config.task:
        raise UserError(f"{source} does {own}, not {config.task}")
    task: Downstream = cls.open(source, config.data, **options)
    task.model.to(choose_device(device))
    labelled = config.data
    splits = divide(cls.read(data, labelled), skip_bad=labelled.skip_bad, hold_out=False)
    items, _ = usable(task, splits.dev, skip_bad=labelled.skip_bad)
    unlabelled = next((item.example for item in items if item.example.target is None), None)
    if unlabelled is not None:
        raise UserError(f"{unlabelled.source}: has no label to be judged by; `data2vec predict` needs none")
    found = evaluate(task, items, config.budget)
    write_evaluation(task, found, out, _pictures(task, items, found, config.budget, pictures))
    return found.scores


def _pictures(task: Downstream, items: Sequence[Item], found: Evaluation, budget: int, most: int = 6) -> list[str]:
    """What the report shows: the features of all examples, and the first `most` of them one by one."""
    return [features_plot(task, items, budget), *look(task, items, found.predictions, most)] if most else []


def read_scores(folder: Path) -> dict[str, float]:
    """The scores that an evaluation wrote."""
    scores: dict[str, float] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return scores
