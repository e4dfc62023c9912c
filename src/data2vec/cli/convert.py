"""``data2vec convert SOURCE OUT [--to hf|fairseq|data2vec] [--check]``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from data2vec.cli.arguments import parse


@dataclass
class Arguments:
    """Convert a checkpoint between the layouts of fairseq, the BEiT fork, transformers and this library.

    The layout of SOURCE is recognised by its tensors. Nothing in a checkpoint is ever run: a malicious file is refused.

    Attributes:
        source: a .pt, .pth, .bin or .safetensors file, or a folder with config.json and weights.
        out: a folder; with --to fairseq also a .pt or .pth file.
        to: data2vec keeps teacher and prediction head for further pre-training, hf writes what transformers reads,
            fairseq the original's file.
        check: read the result back and compare it bit for bit.
        full: print a line for every tensor.
        weights: take the student's weights or the teacher's average.
        dictionary: fairseq's dict.ltr.txt or dict.txt, if it does not lie beside SOURCE.
        bpe: folder with GPT-2's encoder.json and vocab.bpe, if they do not lie beside SOURCE.
        head: which classification head, if the file has several.
        heads: attention heads, if neither the file nor the usual width of 64 tells.
    """

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    to: Literal["data2vec", "hf", "fairseq"] = "data2vec"
    check: tyro.conf.FlagCreatePairsOff[bool] = False
    full: tyro.conf.FlagCreatePairsOff[bool] = False
    weights: Literal["student", "teacher"] = "student"
    dictionary: Path | None = None
    bpe: Path | None = None
    head: str | None = None
    heads: int | None = None


def main(argv: Sequence[str]) -> None:
    """Convert, and print what became of every tensor."""
    arguments = parse(Arguments, argv, prog="data2vec convert")

    from data2vec.conversion.convert import convert  # loads torch: not for --help

    report = convert(
        arguments.source,
        arguments.out,
        to=arguments.to,
        check=arguments.check,
        head=arguments.head,
        weights=arguments.weights,
        dictionary=arguments.dictionary,
        bpe=arguments.bpe,
        **({} if arguments.heads is None else {"num_attention_heads": arguments.heads}),
    )
    print(report.table(full=arguments.full))
    if arguments.check:
        print("checked: every tensor is bit for bit what was read")
