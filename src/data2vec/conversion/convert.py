"""`convert`: a checkpoint of any layout to a folder of ours, of transformers, or to a file of the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data2vec.conversion.checkpoint import PRETRAINING, Checkpoint
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.loading import load_checkpoint
from data2vec.conversion.processors import vocabulary_of, write_dictionary, write_processors
from data2vec.conversion.report import Report
from data2vec.conversion.writers import save_checkpoint, write_original

Target = Literal["data2vec", "hf", "fairseq"]


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: Target = "data2vec",
    check: bool = False,
    head: str | None = None,
    weights: str = "student",
    dictionary: str | Path | None = None,
    bpe: str | Path | None = None,
    **overrides: Any,
) -> Report:
    """Convert a checkpoint; nothing in it is run.

    Args:
        source: as `load_checkpoint` takes it.
        out: a folder; with ``to="fairseq"`` also a ``.pt`` (speech, text) or ``.pth`` (images) file.
        to: ``data2vec`` keeps teacher and pre-training head beside the weights, ``hf`` writes only what transformers
            5.x reads, ``fairseq`` the original's file (images: the BEiT fork's).
        check: read the result back, compare every tensor bit for bit and build the model.
        head: which classification head, where a fairseq file has several.
        weights: ``student`` or ``teacher``, the averaged ones.
        dictionary: fairseq's ``dict.ltr.txt`` or ``dict.txt``, if it does not lie beside the source.
        bpe: folder with GPT-2's ``encoder.json`` and ``vocab.bpe``.
        overrides: configuration fields that no tensor shows, e.g. ``num_attention_heads=12``.

    Returns:
        What happened to every tensor.

    Raises:
        CheckpointError: the source cannot be read, or the target has no place for something.
    """
    if to not in ("data2vec", "hf", "fairseq"):
        raise CheckpointError(f"to={to!r}: choose 'data2vec', 'hf' or 'fairseq'")
    checkpoint = load_checkpoint(source, head=head, weights=weights, **overrides)
    target = Path(out)
    if to == "hf" and checkpoint.kind[1] == 2:
        raise CheckpointError(f"{source}: transformers has no data2vec 2; write --to data2vec or --to fairseq")
    if to == "fairseq":
        target = _original_file(target, checkpoint)
        write_original(checkpoint, target)
        vocabulary = vocabulary_of(Path(checkpoint.report.source).parent)
        if vocabulary is not None and "lm_head.weight" in checkpoint.tensors and checkpoint.modality == "audio":
            write_dictionary(vocabulary, target.parent / "dict.ltr.txt")
            checkpoint.report.files["dict.ltr.txt"] = "vocab.json"
    else:
        if target.is_file():
            raise CheckpointError(f"{target} is a file; --to {to} writes a folder")
        target.mkdir(parents=True, exist_ok=True)
        write_processors(checkpoint, target, *(None if path is None else Path(path) for path in (dictionary, bpe)))
        save_checkpoint(checkpoint, target, pretraining=to == "data2vec")
    if check:
        _check(checkpoint, target, to)
    return checkpoint.report


def _original_file(target: Path, checkpoint: Checkpoint) -> Path:
    suffix = ".pth" if checkpoint.kind == ("vision", 1) else ".pt"
    return target if target.suffix in (".pt", ".pth") else target / f"checkpoint{suffix}"


def _check(checkpoint: Checkpoint, target: Path, to: Target) -> None:
    """Hold what was written against what was read."""
    again = load_checkpoint(target, num_attention_heads=_heads(checkpoint))
    made = checkpoint.report.made if to == "fairseq" else {}
    added = "encoder.positions.weight"  # into which a token type is folded
    folded = {f"{owner}{added}" for owner in ("", "teacher.")} & made.keys()
    folded |= {name.replace("positions", "token_types") for name in folded}
    for name, tensor in checkpoint.tensors.items():
        left_out = name in checkpoint.report.dropped or (to == "hf" and name.startswith(PRETRAINING))
        if left_out or name in folded or (to == "fairseq" and name == "teacher.encoder.token_types.weight"):
            continue
        other = again.tensors.get(name)
        if other is None or not same_bits(tensor, other):
            raise CheckpointError(f"{target}: {name} is not what was read; this is a bug, please report it")
    again.model()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal type, shape and bytes (NaN too)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(*flat)


def _heads(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config.num_attention_heads)  # type: ignore[attr-defined]
