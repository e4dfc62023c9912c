"""Features of files and texts: one vector an input, or one a frame, token or patch; into one safetensors file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data2vec.data.skips import Skipped
from data2vec.errors import BadSample, UserError
from data2vec.evaluation.frozen import Frozen, Item, open_frozen
from data2vec.models.encoder import Encoder
from data2vec.nn.device import choose_device
from data2vec.tasks.inputs import expand
from data2vec.tasks.names import model_folder


def embed(frozen: Frozen, items: Sequence[Item], *, layer: int = -1, sequence: bool = False) -> list[Tensor]:
    """Outputs of a block for each item, without padding and special tokens.

    Args:
        frozen: a model with what prepares its input.
        items: texts or files, one batch.
        layer: which block, from 0; negative ones count from the last.
        sequence: all of them; otherwise their mean.

    Returns:
        For each item (T, D), or (D,), fp32 on the CPU.

    Raises:
        UserError: there is no such block, or an item cannot be read.
    """
    return _embed(frozen, [frozen.read(item) for item in items], layer, sequence)


def _embed(frozen: Frozen, rows: Sequence[Any], layer: int, sequence: bool) -> list[Tensor]:
    """`embed`, of what `Frozen.read` made of the items."""
    batch = {name: value.to(frozen.model.device) for name, value in frozen.prepare(rows).items()}
    found = states(frozen.model, batch, layer)
    return [state if sequence else state.mean(dim=0) for state in found]


@torch.no_grad()
def states(model: nn.Module, batch: Mapping[str, Tensor], layer: int = -1) -> list[Tensor]:
    """(T, D) outputs of a block for each row of a batch, fp32 on the CPU; see `embed`."""
    assert isinstance(model, Encoder)
    tokens = model.embed(batch)
    layers = model.contextualize(tokens)
    if not -len(layers.blocks) <= layer < len(layers.blocks):
        raise UserError(f"layer={layer}: the model has {len(layers.blocks)} blocks")
    found = layers.blocks[layer][:, layers.prefix :].float().cpu()
    padding = None if tokens.padding_mask is None else tokens.padding_mask.cpu()
    return [state if padding is None else state[~padding[place]] for place, state in enumerate(found)]


def embed_inputs(
    model: str | Path,
    inputs: Sequence[str],
    out: Path,
    *,
    layer: int = -1,
    sequence: bool = False,
    batch_size: int = 8,
    device: str = "auto",
    skip_bad: bool = False,
) -> tuple[int, list[Skipped]]:
    """Write the features of files (folders are searched) or texts.

    The file holds one tensor an input under its path or text; of a text file, its lines are not parted. What was
    asked for stands in the file's metadata.

    Args:
        model: an encoder's folder or hub id, or the folder of a run.
        inputs: files, folders, or texts.
        out: the safetensors file.
        layer: see `embed`.
        sequence: see `embed`.
        batch_size: inputs at once.
        device: ``auto``, ``cpu``, ``cuda`` ...
        skip_bad: leave inputs out that cannot be read.

    Returns:
        How many inputs there are in the file, and what was left out.

    Raises:
        UserError: an input that cannot be read while `skip_bad` is off, none that can, or a name that comes twice.
    """
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size}: must be at least 1")
    source = model_folder(model)
    frozen = open_frozen(source)
    frozen.model.to(choose_device(device))
    names, bad = expand(inputs, frozenset[str]() if frozen.text else frozen.suffixes, skip_bad=skip_bad)
    _require_distinct(names)
    rows = _read(frozen, names, bad if skip_bad else None)
    features: dict[str, Tensor] = {}
    while part := dict(islice(rows, batch_size)):
        features |= zip(part, _embed(frozen, list(part.values()), layer, sequence), strict=True)
    if not features:
        raise bad[0]
    what = {"model": str(source), "layer": str(layer), "pooling": "none" if sequence else "mean"}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in features.items()}, out, {"data2vec": json.dumps(what)})
    return len(features), [Skipped.of(error) for error in bad]


def _require_distinct(names: Sequence[str]) -> None:
    twice, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{twice!r} is given twice: features are filed under their input's name")


def _read(frozen: Frozen, names: Sequence[str], bad: list[BadSample] | None) -> Iterator[tuple[str, Any]]:
    """Names with what is read; why others cannot be read comes into `bad`, or stops it where that is None."""
    for name in names:
        try:
            row = frozen.read(name if frozen.text else Path(name))
        except BadSample as error:
            if bad is None:
                raise
            bad.append(error)
        else:
            yield name, row
