"""Files of the original implementations: which layout is it, and what under which of our names is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.report import Report
from data2vec.conversion.tables import BEIT, FAIRSEQ_AUDIO, FAIRSEQ_TEXT, TEXT_HEAD, Table, split_qkv
from data2vec.conversion.values import Settings, plain

_NOT_WEIGHTS = {
    "optimizer": "optimizer state: training starts with a new one",
    "last_optimizer_state": "optimizer state: training starts with a new one",
    "optimizer_history": "log of the original run",
    "lr_scheduler": "schedule state: training starts with a new one",
    "scaler": "loss scale of the original run",
    "epoch": "position in the original run",
    "extra_state": "position in the original run",
    "task_state": "task of the original run; a dictionary in it is read",
    "criterion": "loss of the original run",
    "args": "settings: read for what no shape shows",
    "cfg": "settings: read for what no shape shows",
}
CTC_MODEL = "w2v_encoder.w2v_model."
MULTI_MODEL = "model."
_TEXT_HEADS = "classification_heads."


@dataclass(frozen=True)
class Original:
    """An original layout.

    Attributes:
        name: what reports call it.
        modality: ``audio``, ``text`` or ``vision``.
        version: of data2vec.
        table: names.
        ema: key of the nested dict with the teacher ("" where it stands beside the model).
        ema_prefix: what the teacher's names lack in front.
        fields: configuration fields that the names tell.
    """

    name: str
    modality: str
    version: int
    table: Table
    ema: str
    ema_prefix: str
    fields: Mapping[str, Any] = field(default_factory=dict)


AUDIO = Original("fairseq data2vec audio", "audio", 1, FAIRSEQ_AUDIO, "_ema", "encoder.")
TEXT = Original("fairseq data2vec text", "text", 1, FAIRSEQ_TEXT, "encoder._ema", "encoder.sentence_encoder.")
VISION = Original("data2vec vision (BEiT fork)", "vision", 1, BEIT, "", "")


@dataclass(frozen=True)
class Parts:
    """The parts of a training checkpoint, still under the original's names.

    Attributes:
        model: weights, with the nested teacher where the layout nests it.
        teacher: weights of a teacher that stands beside the model.
        settings: plain settings.
        rest: everything else at the top.
    """

    model: Mapping[str, Any]
    teacher: Mapping[str, Any]
    settings: dict[str, Any]
    rest: Mapping[str, Any]


def take_apart(content: Any) -> Parts:
    """Split what a file holds: a fairseq or BEiT training state, a DeepSpeed file, or a bare state dict.

    Raises:
        CheckpointError: no dict of tensors anywhere.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"holds a {type(content).__name__}, expected a dict with weights")
    model: Any = content
    for key in ("model", "module", "state_dict"):
        if isinstance(content.get(key), Mapping) and content[key]:
            model = content[key]
            break
    teacher = content.get("model_ema")
    settings = {}
    for key in ("cfg", "args"):
        if model is not content and content.get(key) is not None:
            read = plain(content[key])
            settings[key] = read if isinstance(read, dict) else {}
    rest = {} if model is content else {key: value for key, value in content.items() if value is not model}
    return Parts(_unwrap(model), _unwrap(teacher) if isinstance(teacher, Mapping) else {}, settings, rest)


def _unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take off the ``module.`` that DistributedDataParallel and timm's ModelEmaV2 put in front."""
    if state and all(isinstance(name, str) and name.startswith("module.") for name in state):
        return {name.removeprefix("module."): value for name, value in state.items()}
    return state


def translate(layout: Original, parts: Parts, report: Report, head: str | None = None) -> dict[str, Tensor]:
    """Every tensor under our name; the teacher's in front of which stands ``teacher.``.

    Args:
        layout: as `recognize` found it.
        parts: as `take_apart` found them.
        report: gets one line for every tensor.
        head: which of several classification heads to take.

    Raises:
        CheckpointError: two tensors claim one name.
    """
    model = dict(parts.model)
    student = {str(name): value for name, value in model.items() if not isinstance(value, Mapping)}
    nested = next((v for k, v in model.items() if k == layout.ema or str(k).endswith("." + layout.ema)), None)
    teacher = dict(nested) if isinstance(nested, Mapping) and layout.ema else dict(parts.teacher)
    found = _translate(layout, student, report, "", _choose_head(student, head))
    words = found.get("frontend.words.weight")
    if layout is TEXT and words is not None and words.dim() == 2:
        found["encoder.token_types.weight"] = words.new_zeros(1, words.shape[1])
        report.made["encoder.token_types.weight"] = "zeros: the original has no token types"
    prefix = _blocks_prefix(layout, teacher) or layout.ema_prefix
    found |= _translate(layout, {prefix + str(name): t for name, t in teacher.items()}, report, "teacher.", None)
    for name, value in parts.rest.items():
        if name != "model_ema" and _holds_something(value):
            report.dropped[f"({name})"] = _NOT_WEIGHTS.get(str(name), f"no weights ({type(value).__name__})")
    return found


def _translate(
    layout: Original, state: Mapping[str, Any], report: Report, owner: str, head: str | None
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        label = f"{owner}{name}"
        upgraded = layout.table.upgrade(bare_name(name))
        ours = layout.table.ours(upgraded.replace(f"{_TEXT_HEADS}{head}.", f"{_TEXT_HEADS}{TEXT_HEAD}."))
        if not isinstance(tensor, Tensor):
            report.dropped[label] = f"no tensor ({type(tensor).__name__})"
        elif why := layout.table.why_dropped(upgraded):
            report.dropped[label] = why
        elif ours is None:
            other = upgraded.startswith(_TEXT_HEADS)
            report.dropped[label] = "another head was chosen" if other else "unknown name: not part of data2vec"
        elif layout is VISION and ours.startswith("predictor.") and tensor.shape[:1] != (_width(state),):
            report.dropped[label] = (
                f"a head of {tensor.shape[0] if tensor.dim() else 0} classes (BEiT's visual tokens), not data2vec's"
            )
        else:
            if ours == "encoder.alibi_scale" and tensor.dim() in (
                4,
                5,
            ):  # ours has no axis of length 1 after the layers
                tensor = tensor.reshape(tensor.shape[0], *tensor.shape[-3:])
            parts = split_qkv(ours, tensor) if layout.table.fused else {ours: tensor}
            if clash := sorted(set(parts) & {key.removeprefix(owner) for key in found}):
                raise CheckpointError(f"two tensors claim {clash[0]}, one is {name[:200]!r}")
            found |= {owner + key: value for key, value in parts.items()}
            report.used[label] = owner + ours
    return found


def bare_name(name: str) -> str:
    """Without what fine-tuned speech models, and fine-tuned models of data2vec 2, have in front."""
    return name.removeprefix(CTC_MODEL).removeprefix(MULTI_MODEL)


def _blocks_prefix(layout: Original, teacher: Mapping[str, Any]) -> str:
    """With `ema_encoder_only` the teacher's names begin with the number of a shared block."""
    return "blocks." if layout.version == 2 and any(str(name).split(".")[0].isdigit() for name in teacher) else ""


def _holds_something(value: Any) -> bool:
    return value is not None and not (isinstance(value, Mapping | list | tuple) and not value)


def _width(state: Mapping[str, Any]) -> int:
    token = state.get("cls_token")
    return token.shape[-1] if isinstance(token, Tensor) and token.dim() else 0


def _choose_head(state: Mapping[str, Any], wanted: str | None) -> str | None:
    heads = sorted({name.split(".")[1] for name in state if name.startswith(_TEXT_HEADS)})
    if wanted is not None and wanted not in heads:
        raise CheckpointError(f"no classification head {wanted!r}; the file has {', '.join(heads) or 'none'}")
    if len(heads) > 1 and wanted is None:
        raise CheckpointError(f"several classification heads, {', '.join(heads)}: choose one (--head NAME)")
    return wanted or (heads[0] if heads else None)


def settings_of(parts: Parts) -> Settings:
    """The places where the originals keep a model's settings, most specific first.

    A fine-tuned speech model keeps those of its pre-trained part in ``w2v_args``.
    """
    tops = (
        "cfg.model",
        "cfg.model.w2v_args.model",
        "cfg.model.w2v_args",
        "cfg.model.pretrained_model_args.model",
        "args.w2v_args.model",
        "args.w2v_args",
        "args",
    )
    return Settings(parts.settings, tops)
