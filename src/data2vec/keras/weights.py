"""A model's variables by their names on disk: published tensors, read and written; TensorFlow's old files, read.

On disk everything lies as PyTorch lays it out: a linear map (out, in), a convolution (out, in, height, width). The only
arithmetic between a file and a variable is a transposition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from data2vec.errors import UserError, require
from data2vec.hub import resolve
from data2vec.keras.backend import EXTRA, keras
from data2vec.modeling import LoadReport
from data2vec.models.names import NameTable
from data2vec.weights import SAFETENSORS, WEIGHT_PATTERNS, read_weights

TF_H5 = "tf_model.h5"
COUNTER = "num_batches_tracked"

_KERNEL = {"kernel": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias"}
_LEAVES = {  # Keras' own layers: their variables and what PyTorch calls them
    keras.layers.Dense: _KERNEL,
    keras.layers.Conv2D: _KERNEL,
    keras.layers.Conv2DTranspose: _KERNEL,
    keras.layers.LayerNormalization: _NORM,
}


@dataclass(frozen=True)
class Slot:
    """A variable and its place on disk."""

    variable: Any
    is_kernel: bool = False

    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the tensor on disk."""
        shape = tuple(self.variable.shape)
        return tuple(shape[axis] for axis in _stored_axes(len(shape))) if self.is_kernel else shape

    def to_stored(self, values: Any) -> Any:
        """An array in the variable's layout (its value, its gradient) as it lies on disk."""
        return np.ascontiguousarray(values.transpose(_stored_axes(values.ndim))) if self.is_kernel else values

    def read(self) -> Tensor:
        """The variable as it is stored."""
        return torch.from_numpy(np.array(self.to_stored(keras.ops.convert_to_numpy(self.variable))))

    def assign(self, stored: Tensor) -> None:
        """Fill the variable with a stored tensor."""
        values = (stored.float() if stored.is_floating_point() else stored).numpy()
        self.variable.assign(values.transpose(np.argsort(_stored_axes(values.ndim))) if self.is_kernel else values)


def _stored_axes(rank: int) -> tuple[int, ...]:
    """Axes of a Keras kernel in stored order: (in, out) -> (out, in), (high, wide, a, b) -> (b, a, high, wide)."""
    return (1, 0) if rank == 2 else (3, 2, 0, 1)


def slots(model: Any) -> dict[str, Slot]:
    """Every weight of `model` under our name, found by walking its attributes."""
    found = dict(_walk(model, ""))
    assert {id(slot.variable) for slot in found.values()} == {id(weight) for weight in model.weights}
    return found


def _walk(owner: Any, prefix: str) -> Iterator[tuple[str, Slot]]:
    for kind, names in _LEAVES.items():
        if isinstance(owner, kind):
            for attribute, name in names.items():
                if getattr(owner, attribute, None) is not None:
                    yield prefix + name, Slot(getattr(owner, attribute), attribute == "kernel")
            return
    for name, value in vars(owner).items():
        if name.startswith("_"):
            continue
        if isinstance(value, keras.Variable):
            yield prefix + name, Slot(value)
        elif isinstance(value, keras.layers.Layer):
            yield from _walk(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                if isinstance(item, keras.layers.Layer):
                    yield from _walk(item, f"{prefix}{name}.{index}.")


# ---- reading


def find_weights(source: str | Path, **hub: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their published names, whichever framework wrote it.

    Raises:
        UserError: no weights there, or a damaged file.
    """
    try:
        folder = resolve(source, WEIGHT_PATTERNS, **hub)
    except UserError as error:
        try:
            old = resolve(source, TF_H5, **hub)
        except UserError:
            raise error from None
        return read_h5(old)
    weights = read_weights(folder)
    return from_tf_names(weights) if _is_tf(folder / SAFETENSORS) else weights


def _is_tf(file: Path) -> bool:
    if not file.is_file():
        return False
    with safe_open(file, framework="pt") as handle:
        return (handle.metadata() or {}).get("format") == "tf"


def read_h5(file: Path) -> dict[str, Tensor]:
    """The tensors of an old ``tf_model.h5`` under their published names."""
    h5py = require("h5py", extra=EXTRA)
    weights: dict[str, Tensor] = {}

    def collect(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            weights[path.split("/", 2)[2]] = torch.from_numpy(np.asarray(item))  # after group and model name

    try:
        with h5py.File(file, "r") as handle:
            handle.visititems(collect)
    except OSError as error:
        raise UserError(f"{file} is cut short or no HDF5 file: {error}") from error
    return from_tf_names(weights)


_TF_LEAVES = {**_KERNEL, **_NORM, "moving_mean": "running_mean", "moving_variance": "running_var"}


def from_tf_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TensorFlow's names and layouts, as transformers 4 wrote them, to the published ones.

    ``data2vec_vision/encoder/layer_._0/intermediate/dense/kernel:0`` (in, out) becomes
    ``data2vec_vision.encoder.layer.0.intermediate.dense.weight`` (out, in).
    """
    published: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        path, _, leaf = name.removesuffix(":0").rpartition("/")
        path = re.sub(r"layer_\._(\d+)", r"layer.\1", path).replace("/", ".")
        if leaf == "kernel":
            tensor = tensor.permute(_stored_axes(tensor.dim())).contiguous()
        published[f"{path}.{_TF_LEAVES.get(leaf, leaf)}"] = tensor
    return published


def load(model: Any, stored: Mapping[str, Tensor], source: str, *, ignore_mismatched_sizes: bool = False) -> LoadReport:
    """Fill `model` from published tensors.

    A part of the model that the checkpoint lacks altogether (the classifier, for a base checkpoint) stays as it was
    initialised, and a part of the checkpoint that the model lacks is left out; the report names both. Anything else
    that is missing or left over is an error.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape.
    """
    names: NameTable = model.names
    weights = _match(model, stored)
    wanted = slots(model)
    report = LoadReport()
    for name, slot in wanted.items():
        tensor = weights.get(name)
        if tensor is None:
            report.missing.append(name)
        elif tuple(tensor.shape) != slot.stored_shape():
            report.mismatched.append((names.published(name), tuple(tensor.shape), slot.stored_shape()))
        else:
            slot.assign(tensor)
    report.missing = [name for name in report.missing if not name.endswith(COUNTER)]
    report.unexpected = sorted(set(weights) - set(wanted))
    _refuse_damage(model, report, set(weights), set(wanted), source)
    if report.mismatched and not ignore_mismatched_sizes:
        name, found, expected = report.mismatched[0]
        raise UserError(
            f"{source}: {name} has shape {found}, this configuration needs {expected}; pass "
            f"ignore_mismatched_sizes=True to initialise such tensors anew ({len(report.mismatched)} in all)"
        )
    report.missing = [names.published(name) for name in report.missing]
    report.unexpected = [names.published(name) for name in report.unexpected]
    return report


def _match(model: Any, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors under our names, with the base prefix added or taken off as this class needs it."""
    names: NameTable = model.names
    prefix = names.prefix + "."
    weights = {name: tensor for key, tensor in stored.items() if (name := names.ours(key)) is not None}
    is_head, stored_head = hasattr(model, names.prefix), any(name.startswith(prefix) for name in weights)
    if is_head and not stored_head:
        return {prefix + name: tensor for name, tensor in weights.items()}
    if not is_head and stored_head:
        return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _refuse_damage(model: Any, report: LoadReport, stored: set[str], wanted: set[str], source: str) -> None:
    """Only whole parts outside the encoder may be missing or left over."""
    names: NameTable = model.names

    def part(name: str) -> str:
        bare = name.removeprefix(names.prefix + ".")
        is_base = bare != name or not hasattr(model, names.prefix)
        if is_base and bare.split(".")[0] in ("frontend", "encoder", "norm", "mask_embedding"):
            return "encoder"
        return bare.split(".")[0]

    for kind, lost, other in (("lacks", report.missing, stored), ("holds", report.unexpected, wanted)):
        present = {part(name) for name in other} | {"encoder"}
        damaged = [name for name in lost if part(name) in present]
        if damaged:
            raise UserError(
                f"{source} {kind} {names.published(damaged[0])!r} ({len(damaged)} such tensors), and the configuration "
                f"says otherwise: is config.json the one of these weights, and is the file whole?"
            )


def save(model: Any) -> dict[str, Tensor]:
    """Every weight of `model` by its published name, as PyTorch lays it out."""
    return {model.names.published(name): slot.read() for name, slot in slots(model).items()}
