"""``data2vec embed MODEL INPUT... --out features.safetensors``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from data2vec.cli.arguments import given_inputs, parse, tell_left_out


@dataclass
class Arguments:
    """Features of files or texts, one tensor an input, in one safetensors file.

    Attributes:
        model: an encoder: a folder with config.json, a run's folder, or a hub id.
        inputs: files, folders of files, or texts; `-` reads one a line from standard input.
        out: the file to write.
        layer: which block's output, from 0; negative ones count from the last.
        sequence: one vector a frame, token or patch, in place of their mean.
        batch_size: inputs a forward pass.
        skip_bad: leave inputs out that cannot be read, and say so, instead of stopping at the first.
        device: auto, cpu, cuda, mps.
        page: an HTML file for a picture of the features in the plane, files coloured by their folder.
    """

    model: tyro.conf.Positional[str]
    inputs: tyro.conf.Positional[tuple[str, ...]]
    out: Path
    layer: int = -1
    sequence: tyro.conf.FlagCreatePairsOff[bool] = False
    batch_size: int = 8
    skip_bad: tyro.conf.FlagCreatePairsOff[bool] = False
    device: str = "auto"
    page: Path | None = None


def main(argv: Sequence[str]) -> None:
    """Embed, and say how many there were."""
    arguments = parse(Arguments, argv, prog="data2vec embed")

    from data2vec.tasks.embed import embed_inputs  # loads torch: not for --help

    count, skipped = embed_inputs(
        arguments.model,
        given_inputs(arguments.inputs),
        arguments.out,
        layer=arguments.layer,
        sequence=arguments.sequence,
        batch_size=arguments.batch_size,
        device=arguments.device,
        skip_bad=arguments.skip_bad,
    )
    tell_left_out(skipped)
    if arguments.page is not None:
        from data2vec.tasks.look import write_features_page

        write_features_page(arguments.out, arguments.page)
    print(f"{count} inputs: {arguments.out}")
