"""Features of files and texts: one vector an input, or one a frame, token or patch; into one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.evaluation.frozen import Frozen, Item, open_frozen
from data2vec.models.encoder import Encoder
from data2vec.nn.device import choose_device
from data2vec.tasks.inputs import expand_files
from data2vec.tasks.names import model_folder


@torch.no_grad()
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
        UserError: there is no such block.
    """
    batch = {name: value.to(frozen.model.device) for name, value in frozen.prepare(items).items()}
    rows = states(frozen.model, batch, layer)
    return [row if sequence else row.mean(dim=0) for row in rows]


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
) -> int:
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

    Returns:
        How many inputs there were.

    Raises:
        UserError: an input that cannot be read, or a name that comes twice.
    """
    source = model_folder(model)
    frozen = open_frozen(source)
    frozen.model.to(choose_device(device))
    names = [
        name for given in inputs for name in (expand_files(given, frozen.suffixes) if not frozen.text else [given])
    ]
    if not names:
        raise UserError("give files or texts")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise UserError(f"{twice!r} is given twice: features are filed under their input's name")
    items: list[Item] = [name if frozen.text else Path(name) for name in names]
    features: dict[str, Tensor] = {}
    for start in range(0, len(items), batch_size):
        part = embed(frozen, items[start : start + batch_size], layer=layer, sequence=sequence)
        features |= dict(zip(names[start : start + batch_size], part, strict=True))
    what = {"model": str(source), "layer": str(layer), "pooling": "none" if sequence else "mean"}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in features.items()}, out, {"data2vec": json.dumps(what)})
    return len(names)
