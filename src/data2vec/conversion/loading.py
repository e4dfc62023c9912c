"""`load_checkpoint`: whatever is published, read safely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from data2vec.conversion.architecture import CONFIGS, Kind, infer
from data2vec.conversion.building import MODELS
from data2vec.conversion.checkpoint import PRETRAINING, Checkpoint
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.layouts import recognize
from data2vec.conversion.originals import settings_of, take_apart, translate
from data2vec.conversion.report import Report
from data2vec.conversion.tensor_files import Source, read_json, read_safetensors, read_source
from data2vec.conversion.values import Settings
from data2vec.hub import resolve
from data2vec.weights import PRETRAINING_FILE, WEIGHT_PATTERNS

REPORT_FILE = "conversion.json"
_MARKS = {  # a published name that only one modality has
    "feature_projection.projection.weight": "audio",
    "embeddings.word_embeddings.weight": "text",
    "embeddings.patch_embeddings.projection.weight": "vision",
}


def load_checkpoint(
    path: str | Path, *, head: str | None = None, weights: str = "student", **overrides: Any
) -> Checkpoint:
    """Read a checkpoint of any published layout; nothing in it is run.

    Args:
        path: a file of fairseq, of the BEiT fork or of transformers, a folder that transformers or this library wrote,
            or a hub id.
        head: which classification head, where a fairseq file has several.
        weights: ``student``, or ``teacher``: the averaged weights in place of the student's, where the file has them.
        overrides: configuration fields that no tensor shows, e.g. ``num_attention_heads=12``.

    Returns:
        The checkpoint; ``.model()`` builds the model, ``.restore(objective)`` continues pre-training, ``.report`` says
        what became of every tensor. Its tensors are views of the file: do not overwrite that while they are in use.

    Raises:
        CheckpointError: damaged, malicious, of no known layout, or incomplete.
    """
    source = read_source(_on_disk(path))
    checkpoint = _from_published(source, overrides) or _from_original(source, head, overrides)
    checkpoint.report.ignored = dict(source.records)
    if weights == "teacher":
        _use_teacher(checkpoint)
    elif weights != "student":
        raise CheckpointError(f"weights={weights!r}: choose 'student' or 'teacher'")
    checkpoint.check()
    return checkpoint


def _on_disk(path: str | Path) -> Path:
    if Path(path).exists() or Path(path).suffix or str(path).count("/") != 1:
        return Path(path)
    return resolve(path, [*WEIGHT_PATTERNS, "*.json", "merges.txt", PRETRAINING_FILE])


def _from_original(source: Source, head: str | None, overrides: Mapping[str, Any]) -> Checkpoint:
    try:
        parts = take_apart(source.content)
        layout = recognize(parts.model)
        if layout is None:
            some = ", ".join(ascii(str(name)) for name in list(parts.model)[:4])[:300]
            raise CheckpointError(f"of no layout that is known; its first names are {some or 'none'}")
        report = Report(str(source.path), layout.name)
        tensors = translate(layout, parts, report, head)
        kind = (layout.modality, layout.version)
        config, report.settings = infer(kind, tensors, settings_of(parts), overrides, layout.fields)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from error
    return Checkpoint(kind, config, tensors, parts.settings, report, source.content)


def _from_published(source: Source, overrides: Mapping[str, Any]) -> Checkpoint | None:
    """The layout of transformers 4.x and 5.x, and ours, which is the same and keeps the teacher."""
    if not isinstance(source.content, Mapping):
        return None
    stored = {str(name): tensor for name, tensor in source.content.items() if isinstance(tensor, Tensor)}
    kind = _published_kind(source, stored)
    if kind is None:
        return None
    name = "data2vec" + ("2" if kind[1] == 2 else "") + f"-{kind[0]}"
    report = Report(str(source.path), f"transformers {name}" if kind[1] == 1 else name)
    tensors = _published_tensors(kind, stored, report)
    if kind[0] == "audio" and not any(name.startswith("encoder.positions.") for name in tensors):
        raise CheckpointError(f"{source.path}: no positional convolution of data2vec's; is this wav2vec 2.0 or HuBERT?")
    settings: Any = {}
    if (extra := source.path.parent / PRETRAINING_FILE).is_file():
        kept = read_safetensors(extra)
        tensors |= {name: tensor for name, tensor in kept.items() if name.startswith(PRETRAINING)}
        report.used |= {name: name for name in kept}
        report.layout = name
    if (account := source.path.parent / REPORT_FILE).is_file():
        settings = read_json(account).get("stored")
    if source.config is None:
        config, report.settings = infer(kind, tensors, Settings(), overrides)
    else:
        config = CONFIGS[kind].from_dict(source.config, **overrides)
    return Checkpoint(kind, config, tensors, settings if isinstance(settings, dict) else {}, report, source.content)


def _published_kind(source: Source, stored: Mapping[str, Tensor]) -> Kind | None:
    """From the configuration beside the weights for data2vec 2, whose names are ours alone; else from the names."""
    model_type = str((source.config or {}).get("model_type"))
    for kind, config in CONFIGS.items():
        if model_type == config.model_type and any("frontend." in name for name in stored):
            return kind
    modality = next((m for mark, m in _MARKS.items() if any(name.endswith(mark) for name in stored)), None)
    return None if modality is None else (modality, 1)


def _published_tensors(kind: Kind, stored: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
    """The base model under our names, heads under the newest published ones."""
    table = MODELS[kind].names
    prefix = f"{table.prefix}."
    has_head = any(name.startswith(prefix) for name in stored)
    tensors = {}
    for name, tensor in stored.items():
        ours = table.ours(name)
        if ours is None:
            report.dropped[name] = "recomputed when the model is built"
            continue
        if has_head and not name.startswith(prefix):
            ours = table.published(ours)
        report.used[name] = ours.removeprefix(prefix)
        tensors[report.used[name]] = tensor
    return tensors


def _use_teacher(checkpoint: Checkpoint) -> None:
    teacher = checkpoint.teacher
    if not teacher:
        raise CheckpointError(f"{checkpoint.report.source}: weights='teacher', but the file has no EMA teacher")
    for name in teacher.keys() & checkpoint.base.keys():
        checkpoint.tensors[name] = teacher[name].to(checkpoint.tensors[name].dtype)
    checkpoint.tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith(PRETRAINING)}
    checkpoint.report.made["(teacher)"] = "the averaged weights replace the student's"
