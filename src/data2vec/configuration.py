"""Model configurations: a dataclass that is also a published ``config.json``.

A configuration is data. Every field is typed and checked when it is built; a wrong value is one `UserError` that names
the field. Keys of a ``config.json`` that we do not know are kept in ``extra`` and written back. No torch is imported
here.
"""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin

from data2vec.errors import UserError

CONFIG_FILE = "config.json"
Activation = str | Callable[..., Any]


def ranged(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a range: ``low <= value <= high``, ``above < value < below``; for items of a tuple too."""
    return field(default=default, metadata={"low": low, "high": high, "above": above, "below": below})


def positive(default: int) -> Any:
    """An integer field of at least 1."""
    return ranged(default, low=1)


def probability(default: float) -> Any:
    """A field within [0, 1]."""
    return ranged(default, low=0.0, high=1.0)


def check_fields(owner: Any, label: str | None = None) -> None:
    """Check every field of a dataclass against its annotation and its range.

    Lists become tuples, integers become floats.

    Args:
        owner: a dataclass instance; frozen ones are set through ``object.__setattr__``.
        label: what the error calls it; its class name if None.

    Raises:
        UserError: naming the field, the value and what is allowed.
    """
    label = label or type(owner).__name__
    hints = _type_hints(type(owner))
    for item in fields(owner):
        value = _fit(getattr(owner, item.name), hints[item.name], f"{label}.{item.name}")
        _check_range(value, item.metadata, f"{label}.{item.name}")
        object.__setattr__(owner, item.name, value)


def check_order(owner: Any, label: str, smaller: str, larger: str) -> None:
    """UserError unless field `smaller` is at most field `larger`; None fits everything."""
    low, high = getattr(owner, smaller), getattr(owner, larger)
    if low is not None and high is not None and low > high:
        raise UserError(f"{label}.{larger}={high} must be at least {label}.{smaller}={low}")


_hints: dict[type, dict[str, Any]] = {}


def _type_hints(kind: type) -> dict[str, Any]:
    if kind not in _hints:
        _hints[kind] = typing.get_type_hints(kind)
    return _hints[kind]


def _fit(value: Any, hint: Any, name: str) -> Any:
    """`value` as `hint` wants it, or UserError."""
    fitted = _fit_or_none(value, hint)
    if (fitted is None and value is not None) or (value is None and not _allows_none(hint)):
        raise UserError(f"{name} must be {_spell(hint)}, not {value!r}")
    return fitted


def _allows_none(hint: Any) -> bool:
    return hint in (Any, None, NoneType) or (get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint))


def _fit_or_none(value: Any, hint: Any) -> Any:
    """`value` converted to the plain type `hint`, None when it does not fit."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return next((fit for arg in args if (fit := _fit_or_none(value, arg)) is not None), None)
    if origin is Literal:
        return value if value in args else None
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return None
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        items = [_fit_or_none(item, kind) for item, kind in zip(value, kinds, strict=False)]
        return None if len(kinds) != len(value) or None in items else tuple(items)
    if hint is float:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    if hint is Any:
        return value
    plain = origin or hint
    if plain is typing.Callable or plain is Callable:
        return value if callable(value) else None
    return value if isinstance(plain, type) and isinstance(value, plain) else None


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if not get_args(hint) else str(hint).replace("typing.", "")


def _check_range(value: Any, limits: Mapping[str, Any], name: str) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            continue
        low, high, above = limits.get("low"), limits.get("high"), limits.get("above")
        if item != item or (low is not None and item < low) or (high is not None and item > high):
            span = f"within [{'-inf' if low is None else low}, {'inf' if high is None else high}]"
            raise UserError(f"{name} must be {span}, not {item!r}")
        if above is not None and item <= above:
            raise UserError(f"{name} must be above {above}, not {item!r}")
        if (below := limits.get("below")) is not None and item >= below:
            raise UserError(f"{name} must be below {below}, not {item!r}")


@dataclass(kw_only=True)
class PretrainedConfig:
    """What every model configuration has. Subclasses add the fields of their modality.

    Attributes:
        num_labels: classes of a head; setting it renames the labels to ``LABEL_0 ...``.
        id2label: class index -> name. Given, it decides `num_labels`.
        label2id: class name -> index; derived from `id2label` when absent.
        problem_type: how a classification head reads its labels; None decides from the first labels it sees.
        dtype: the weights' type as stored, e.g. ``"float32"``.
        attn_implementation: ``eager``, ``sdpa``, ``flash`` or ``flex``; None picks ``sdpa``. Not written to disk.
        compat: ``"transformers"`` reproduces the reference's numerics, its defects included (docs/differences.md).
        pruned_heads: layer index -> removed heads.
        extra: keys of a ``config.json`` that this library does not know, written back as they were.
    """

    model_type: ClassVar[str] = ""

    architectures: list[str] | None = None
    num_labels: int = ranged(2, low=0)
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None
    dtype: str | None = None
    return_dict: bool = True
    output_hidden_states: bool = False
    output_attentions: bool = False
    tie_word_embeddings: bool = True
    attn_implementation: Literal["eager", "sdpa", "flash", "flex"] | None = None
    compat: Literal["transformers"] | None = None
    pruned_heads: dict[int, list[int]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.id2label is not None:
            self.id2label = {int(index): str(name) for index, name in self.id2label.items()}
            object.__setattr__(self, "num_labels", len(self.id2label))
        self.pruned_heads = {int(layer): sorted(heads) for layer, heads in self.pruned_heads.items()}
        check_fields(self)
        if self.id2label is None:
            self.num_labels = self.num_labels
        elif self.label2id is None:
            self.label2id = {name: index for index, name in self.id2label.items()}
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "num_labels" and isinstance(value, int) and len(self.__dict__.get("id2label") or {}) != value:
            object.__setattr__(self, "id2label", {i: f"LABEL_{i}" for i in range(value)})
            object.__setattr__(self, "label2id", {f"LABEL_{i}": i for i in range(value)})

    def validate(self) -> None:
        """Check what involves several fields. Subclasses override; raise `UserError` naming the fields."""

    def require(self, condition: bool, message: str) -> None:
        """Raise `UserError` with the class name in front unless `condition` holds."""
        if not condition:
            raise UserError(f"{type(self).__name__}: {message}")

    @property
    def is_compatible(self) -> bool:
        """Whether the reference's numerics are asked for."""
        return self.compat == "transformers"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """Build from a dict as read from ``config.json``; unknown keys go to `extra`.

        Raises:
            UserError: for the config of another model, or a value that does not fit its field.
        """
        found = values.get("model_type")
        if found and cls.model_type and found != cls.model_type:
            raise UserError(f"config model_type is {found!r}, {cls.__name__} needs {cls.model_type!r}")
        known = {item.name for item in fields(cls)} - {"extra"}
        given = dict(values)
        if "torch_dtype" in given:
            given.setdefault("dtype", given.pop("torch_dtype"))
        skip = {"model_type", "transformers_version"}
        mine = {key: value for key, value in given.items() if key in known and key not in skip}
        if "id2label" in mine:
            mine.pop("num_labels", None)
        extra = {key: value for key, value in given.items() if key not in known and key not in skip}
        unknown = set(overrides) - known
        if unknown:
            raise UserError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        if "num_labels" in overrides and "id2label" not in overrides:
            mine.pop("id2label", None)
            mine.pop("label2id", None)
        return cls(**{**mine, **overrides}, extra=extra)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> Self:
        """Read ``config.json`` from a folder, a file or a hub id.

        Keyword arguments override fields or say where to look on the hub.
        """
        from data2vec.hub import HUB_ARGUMENTS, resolve

        hub = {key: overrides.pop(key) for key in list(overrides) if key in HUB_ARGUMENTS}
        path = Path(source)
        file = path if path.is_file() else resolve(source, CONFIG_FILE, **hub)
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is not a readable config.json: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{file} does not hold a JSON object")
        return cls.from_dict(values, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, ready for ``config.json``.

        Fields at a default that the published format lacks are left out.
        """
        values: dict[str, Any] = {"model_type": self.model_type}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("extra", "attn_implementation") or (value is None and item.default is None):
                continue
            if item.name in ("compat", "pruned_heads", "num_labels") and (not value or item.name == "num_labels"):
                continue
            if callable(value):
                value = getattr(value, "__name__", type(value).__name__)
            values[item.name] = copy.deepcopy(value)
        if values.get("id2label") == {i: f"LABEL_{i}" for i in range(2)}:
            del values["id2label"], values["label2id"]
        return {**copy.deepcopy(self.extra), **values}

    def to_json_string(self) -> str:
        """`to_dict` as sorted, indented JSON."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into `folder`, created when missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(self.to_json_string(), encoding="utf-8")

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self).from_dict({**self.to_dict(), "attn_implementation": self.attn_implementation}, **changes)
