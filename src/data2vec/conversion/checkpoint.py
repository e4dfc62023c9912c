"""One checkpoint of any layout, in our terms: configuration, tensors, teacher and heads, and an account of it all."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data2vec.configuration import PretrainedConfig
from data2vec.conversion.architecture import CONFIGS, infer
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.originals import recognize, settings_of, take_apart, translate
from data2vec.conversion.report import Report
from data2vec.conversion.tensor_files import Source, read_json, read_safetensors, read_source, write_safetensors
from data2vec.conversion.values import Settings
from data2vec.modeling import PreTrainedModel
from data2vec.models.names import AUDIO, TEXT, VISION, NameTable

PRETRAINING_FILE = "pretraining.safetensors"
REPORT_FILE = "conversion.json"
TABLES: dict[str, NameTable] = {"audio": AUDIO, "text": TEXT, "vision": VISION}
_BASE = ("frontend.", "encoder.", "mask_embedding", "norm.", "pooler.")
PRETRAINING = ("teacher.", "predictor.")
_MARKS = {  # a published name that only one modality has
    "feature_projection.projection.weight": "audio",
    "embeddings.word_embeddings.weight": "text",
    "embeddings.patch_embeddings.projection.weight": "vision",
}
_HEADS = {  # a head's tensor -> the rest of the class's name
    ("audio", "lm_head.weight"): "ForCTC",
    ("text", "lm_head.dense.weight"): "ForMaskedLM",
    ("text", "classifier.dense.weight"): "ForSequenceClassification",
    ("vision", "classifier.weight"): "ForImageClassification",
}


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        modality: ``audio``, ``text`` or ``vision``.
        config: the model's.
        tensors: under our names: the base model's, a task head's (``lm_head...``, ``classifier...``), the pre-training
            head's (``predictor...``) and the EMA teacher's (``teacher.<base name>``). Views of the mapped file.
        settings: what the original stored about the run, as plain values.
        report: the account.
        content: the raw content of the file, for what processors need (a dictionary).
    """

    modality: str
    config: PretrainedConfig
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    report: Report
    content: Any = field(default=None, repr=False)

    @property
    def base(self) -> dict[str, Tensor]:
        """Tensors of the model without head."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(_BASE)}

    @property
    def head(self) -> dict[str, Tensor]:
        """Tensors of a task's head."""
        return {name: t for name, t in self.tensors.items() if not name.startswith((*_BASE, *PRETRAINING))}

    @property
    def predictor(self) -> dict[str, Tensor]:
        """Tensors of the pre-training head, named from the head on: ``weight``, or ``0.weight`` ... ``2.bias``."""
        found = _below(self.tensors, "predictor.")
        return _below(found, "0.") if found.keys() == {"0.weight", "0.bias"} else found  # fairseq text, head_layers 1

    @property
    def teacher(self) -> dict[str, Tensor]:
        """Tensors of the EMA teacher under the base model's names."""
        return _below(self.tensors, "teacher.")

    @property
    def model_class(self) -> str:
        """Name of the class that takes all tensors but those of pre-training."""
        kind = next(
            (rest for (m, mark), rest in _HEADS.items() if m == self.modality and mark in self.tensors), "Model"
        )
        if self.head and kind == "Model":
            stored = self.config.architectures or []
            if not stored:
                raise CheckpointError(f"a head that no class has: {sorted(self.head)[0]}")
            return stored[0]
        return f"Data2Vec{self.modality.capitalize()}{kind}"

    def published(self) -> dict[str, Tensor]:
        """Base model and task head under the names that transformers 5.x uses."""
        table = TABLES[self.modality]
        prefix = f"{table.prefix}." if self.head else ""
        base = {table.published(prefix + name): tensor for name, tensor in self.base.items()}
        return base | {table.published(name): tensor for name, tensor in self.head.items()}

    def model(self) -> PreTrainedModel:
        """Build the model, in eval mode, on the tensors of the file.

        Raises:
            CheckpointError: tensors are missing, left over or of other shapes than the configuration's.
        """
        kind = "model" if self.model_class.endswith("Model") else "heads"
        module = importlib.import_module(f"data2vec.models.{self.modality}.{kind}")
        prefix = "" if kind == "model" else f"{TABLES[self.modality].prefix}."
        weights = {prefix + name: tensor for name, tensor in self.base.items()} | self.head
        model = _empty(getattr(module, self.model_class), self.config, weights)
        _fill(model, weights, self.model_class)
        model.tie_weights()
        return model.eval()

    def restore(self, objective: nn.Module) -> list[str]:
        """Continue pre-training: copy student, and where the file has them teacher and head, into an objective.

        Args:
            objective: a `Data2VecObjective` (submodules ``student``, ``teacher.encoder``, ``head``).

        Returns:
            What the file does not have and the objective therefore starts anew: ``teacher`` (a copy of the student),
            ``head``.

        Raises:
            CheckpointError: other shapes than the objective's.
        """
        missing = []
        student = objective.get_submodule("student")
        _copy(student, self.base, "student")
        encoder = objective.get_submodule("teacher.encoder")
        if not self.teacher:
            missing.append("teacher")
        _copy(encoder, self.base | self.teacher, "teacher")
        if self.predictor:
            _copy(objective.get_submodule("head"), self.predictor, "head")
        else:
            missing.append("head")
        return missing


def load_checkpoint(
    path: str | Path, *, head: str | None = None, weights: str = "student", **overrides: Any
) -> Checkpoint:
    """Read a checkpoint of any published layout; nothing in it is run.

    Args:
        path: a file of fairseq, of the BEiT fork or of transformers, or a folder that transformers or this library
            wrote.
        head: which classification head, where a fairseq file has several.
        weights: ``student``, or ``teacher``: the averaged weights in place of the student's, where the file has them.
        overrides: configuration fields that no tensor shows, e.g. ``num_attention_heads=12``.

    Raises:
        CheckpointError: damaged, malicious, of no known layout, or incomplete.
    """
    source = read_source(path)
    checkpoint = _from_published(source, overrides) or _from_original(source, head, overrides)
    checkpoint.report.ignored = dict(source.records)
    if weights == "teacher":
        _use_teacher(checkpoint)
    elif weights != "student":
        raise CheckpointError(f"weights={weights!r}: choose 'student' or 'teacher'")
    _require_complete(checkpoint)
    return checkpoint


def _from_original(source: Source, head: str | None, overrides: Mapping[str, Any]) -> Checkpoint:
    try:
        parts = take_apart(source.content)
        layout = recognize(parts.model)
        if layout is None:
            some = ", ".join(map(str, list(parts.model)[:4]))
            raise CheckpointError(f"of no layout that is known; its first names are {some or 'none'}")
        report = Report(str(source.path), layout.name)
        tensors = translate(layout, parts, report, head)
        config, report.settings = infer(layout.modality, tensors, settings_of(parts), overrides)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error
    return Checkpoint(layout.modality, config, tensors, parts.settings, report, source.content)


def _from_published(source: Source, overrides: Mapping[str, Any]) -> Checkpoint | None:
    """A folder or file in the layout of transformers 4.x and 5.x, and ours, which is the same and keeps the teacher."""
    if not isinstance(source.content, Mapping):
        return None
    stored = {str(name): t for name, t in source.content.items() if isinstance(t, Tensor)}
    modality = next((m for mark, m in _MARKS.items() if any(name.endswith(mark) for name in stored)), None)
    if modality is None:
        return None
    table = TABLES[modality]
    report = Report(str(source.path), f"transformers data2vec-{modality}")
    tensors = {}
    for name, tensor in stored.items():
        ours = table.ours(name)
        if ours is None:
            report.dropped[name] = "recomputed when the model is built"
        else:
            report.used[name] = ours.removeprefix(f"{table.prefix}.")
            tensors[report.used[name]] = tensor
    if modality == "audio" and not any(name.startswith("encoder.positions.") for name in tensors):
        raise CheckpointError(f"{source.path}: no positional convolution of data2vec's; is this wav2vec 2.0 or HuBERT?")
    settings: dict[str, Any] = {}
    if (extra := source.path.parent / PRETRAINING_FILE).is_file():
        kept = read_safetensors(extra)
        tensors |= kept
        report.used |= {name: name for name in kept}
        report.layout = f"data2vec-{modality}"
    if (account := source.path.parent / REPORT_FILE).is_file():
        found = read_json(account).get("stored")
        settings = found if isinstance(found, dict) else {}
    if source.config is None:
        config, report.settings = infer(modality, tensors, Settings(), overrides)
    else:
        config = CONFIGS[modality].from_dict(source.config, **overrides)
    return Checkpoint(modality, config, tensors, settings, report, source.content)


def _use_teacher(checkpoint: Checkpoint) -> None:
    teacher = checkpoint.teacher
    if not teacher:
        raise CheckpointError(f"{checkpoint.report.source}: weights='teacher', but the file has no EMA teacher")
    for name in teacher.keys() & checkpoint.base.keys():
        checkpoint.tensors[name] = teacher[name].to(checkpoint.tensors[name].dtype)
    checkpoint.tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(PRETRAINING)}
    checkpoint.report.made["(teacher)"] = "the averaged weights replace the student's"


def _require_complete(checkpoint: Checkpoint) -> None:
    """Hold the base model's tensors against an empty model of the configuration."""
    module = importlib.import_module(f"data2vec.models.{checkpoint.modality}.model")
    kind = getattr(module, f"Data2Vec{checkpoint.modality.capitalize()}Model")
    wanted = {n: tuple(p.shape) for n, p in _empty(kind, checkpoint.config, checkpoint.base).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint.base.items()}
    _compare(wanted, found, checkpoint.report.source)


def _empty(kind: Any, config: PretrainedConfig, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model on the meta device, with a pooler only where there are weights for one."""
    pools = any("pooler." in name for name in weights)
    options = (
        {} if kind.__name__.startswith("Data2VecAudio") or "For" in kind.__name__ else {"add_pooling_layer": pools}
    )
    try:
        with torch.device("meta"):
            model: PreTrainedModel = kind(config, **options)
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"the shapes of its tensors make no {kind.__name__} ({error})") from error
    return model


def _fill(model: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    tied = set(getattr(model, "tied", {}))
    wanted = {n: tuple(p.shape) for n, p in model.state_dict().items() if n in weights or n not in tied}
    _compare(wanted, {name: tuple(tensor.shape) for name, tensor in weights.items()}, what)
    model.load_state_dict(weights, strict=False, assign=True)


def _copy(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Copy what `module` has a place for; all of its own must be there."""
    own = module.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    _compare(wanted, {name: tuple(tensor.shape) for name, tensor in weights.items() if name in own}, what)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _compare(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], what: str) -> None:
    if missing := sorted(wanted.keys() - found.keys()):
        raise CheckpointError(f"{what}: {len(missing)} tensors are missing, first {missing[0]}")
    if extra := sorted(found.keys() - wanted.keys()):
        raise CheckpointError(f"{what}: {len(extra)} tensors have no place in the model, first {extra[0]}")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(f"{what}: {name} has shape {found[name]}, its configuration needs {shape}")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, pretraining: bool = True) -> None:
    """Write ``config.json``, ``model.safetensors``, the report, and with `pretraining` teacher and pre-training head.

    The first two are what transformers 5.x reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint.published()
    checkpoint.config.architectures = [checkpoint.model_class]
    checkpoint.config.dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    checkpoint.config.save_pretrained(folder)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name.startswith(PRETRAINING)}
    (folder / PRETRAINING_FILE).unlink(missing_ok=True)
    if kept and pretraining:
        write_safetensors(folder / PRETRAINING_FILE, kept)
    elif kept:
        checkpoint.report.dropped["(teacher, prediction head)"] = (
            "transformers has no place for them (--to data2vec keeps them)"
        )
    account = {"report": checkpoint.report.to_dict(), "stored": checkpoint.settings}
    text = json.dumps(account, indent=1, ensure_ascii=False, allow_nan=True)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
