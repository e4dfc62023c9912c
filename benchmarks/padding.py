"""How much of a pre-training batch is padding: one epoch of the default loader, nothing is trained.

    python benchmarks/padding.py text news/train.csv --preset v2-tiny --set data.blocks=document
    python benchmarks/padding.py audio digits/train --preset v2-tiny --set data.concatenate=null

Of a data set: the share of tokens that are padding (teacher, decoder), and of the student's slots that hold no token
(data2vec 2). Rows are grouped by length, so either is what is left of it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from data2vec.data.config import AudioDataConfig
from data2vec.data.sources import open_loader, open_samples
from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.objectives.split import mask_indices
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import preset
from data2vec.training.pretrain import mask_collator


def changed(config: PretrainConfig, settings: list[str]) -> PretrainConfig:
    """`config` with ``part.field=value`` (JSON, or else a string) set."""
    values = config.to_dict()
    for setting in settings:
        (part, name), text = setting.split("=")[0].split("."), setting.split("=")[1]
        try:
            values[part][name] = json.loads(text)
        except json.JSONDecodeError:
            values[part][name] = text
    return PretrainConfig.from_dict(values)


def count(config: PretrainConfig, source: Path, epochs: int) -> Counter[str]:
    """Tokens, padding, slots and empty slots of `epochs` epochs."""
    seen: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        samples = open_samples(source, config.data, Path(folder), config.loader.seed)
        loader = open_loader(samples, config.data, config.loader, mask_collator(config, samples))
        for epoch in range(epochs):
            for step in loader.one_epoch(epoch):
                for batch in step.batches:
                    add(seen, batch, config)
    return seen


def add(seen: Counter[str], batch: dict[str, torch.Tensor], config: PretrainConfig) -> None:
    """Count one batch."""
    mask, padding = batch["mask"], padded(batch, config)
    rows, tokens = mask.shape[0], mask.shape[-1]
    seen["batches"] += 1
    seen["rows"] += rows
    seen["tokens"] += rows * tokens
    seen["padding"] += 0 if padding is None else int(padding.sum())
    if mask.dim() == 3:
        visible = mask_indices(mask, padding)[0]
        seen["slots"] += visible.numel()
        seen["empty"] += int((visible < 0).sum())


def padded(batch: dict[str, torch.Tensor], config: PretrainConfig) -> torch.Tensor | None:
    """(B, T) bool, True = padding; None: there is none."""
    valid = batch.get("attention_mask")
    if valid is None:
        return None
    if isinstance(config.data, AudioDataConfig):
        assert isinstance(config.model, Data2VecAudioConfig)
        frames = torch.tensor([config.model.frames(int(length)) for length in valid.sum(1)])
        return torch.arange(batch["mask"].shape[-1])[None] >= frames[:, None]
    return valid == 0


def main() -> None:
    """Parse and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", choices=["audio", "text"])
    parser.add_argument("source", type=Path)
    parser.add_argument("--preset", default="v2-tiny")
    parser.add_argument("--set", action="append", default=[], metavar="PART.FIELD=VALUE", dest="settings")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    settings = ["loader.workers=0", *args.settings]
    seen: Any = count(changed(preset(args.modality, args.preset), settings), args.source, args.epochs)
    empty = f", empty slots of the student {100 * seen['empty'] / seen['slots']:.2f} %" if seen["slots"] else ""
    print(
        f"{args.source.name} {args.preset} {' '.join(args.settings)}: {seen['batches']} batches, {seen['rows']} rows, "
        f"{seen['tokens']} tokens, padding {100 * seen['padding'] / seen['tokens']:.2f} %{empty}"
    )


if __name__ == "__main__":
    main()
