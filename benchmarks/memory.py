"""Peak memory of one data2vec 2 step at base size: 8 and 16 masks, with and without activation checkpointing.

    python benchmarks/memory.py                    # audio, text, vision, fp32
    python benchmarks/memory.py text --copies 16

Twelve blocks of width 768, the published objective, one step: forward, teacher, backward, Adam, EMA. Each case runs in
a process of its own, which keeps the memory it frees as every run on a CPU does; what counts is the largest resident
size less that before the model was made. `state` is what a step of any size needs: weights, gradients, moments and
teacher.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.nn.transformer import Transformer
from data2vec.objectives.config import Data2Vec2ObjectiveConfig
from data2vec.objectives.v2 import Data2Vec2Objective
from data2vec.recipes.presets import preset
from data2vec.training.allocator import keep_freed_memory
from data2vec.training.optim import build_optimizer

MODELS: dict[str, Any] = {"audio": Data2Vec2AudioModel, "text": Data2Vec2TextModel, "vision": Data2Vec2VisionModel}
SECONDS, TOKENS, IMAGES = 5, 512, 4
INPUTS = {
    "audio": f"1 clip of {SECONDS} s",
    "text": f"1 row of {TOKENS} tokens",
    "vision": f"{IMAGES} images of 224 x 224",
}


def inputs(modality: str, model: Any) -> tuple[str, Tensor, Any]:
    """Name and tensor of the input, and the size that masks are drawn for."""
    if modality == "audio":
        samples = SECONDS * 16_000
        return "input_values", torch.randn(1, samples), model.frames(samples)
    if modality == "text":
        return "input_ids", torch.randint(5, model.vocab_size, (1, TOKENS)), TOKENS
    return "pixel_values", torch.randn(IMAGES, 3, 224, 224), model.grid


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(modality: str, copies: int, checkpointed: bool) -> None:
    """Run the step and print its row."""
    torch.set_num_threads(1)
    keep_freed_memory()
    before = resident()
    config = preset(modality, "v2-base")
    assert isinstance(config.objective, Data2Vec2ObjectiveConfig) and config.mask is not None
    task = Data2Vec2Objective(MODELS[modality](config.model), config.objective).train()
    for module in task.modules():
        if isinstance(module, Transformer):
            module.gradient_checkpointing = checkpointed
    optimizer = build_optimizer(task, config.optim)
    name, x, size = inputs(modality, config.model)
    drawn = [config.mask(np.random.default_rng(row), size).reshape(-1) for row in range(len(x) * copies)]
    mask = torch.from_numpy(np.stack(drawn)).view(len(x), copies, -1)
    start = time.process_time()
    out = task({name: x, "mask": mask})
    (out.loss_sum / out.count).backward()
    optimizer.step()
    task.after_step(1)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    trained = [p for p in task.parameters() if p.requires_grad]
    state = sum(p.nbytes for p in task.parameters()) + sum(p.nbytes + 2 * p.nbytes for p in trained)
    print(
        f"| {modality}: {INPUTS[modality]} | {copies} | {'yes' if checkpointed else 'no'} | {peak / 2**30:.2f} | "
        f"{state / 2**30:.2f} | {(peak - state) / 2**30:.2f} | {seconds:.1f} |",
        flush=True,
    )


def main() -> None:
    """Parse; one process a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", nargs="*", default=list(MODELS), metavar="MODALITY", help=", ".join(MODELS))
    parser.add_argument("--copies", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--only", choices=["plain", "checkpointed"], help="run one case in this process")
    args = parser.parse_args()
    if args.only:
        measure(args.modalities[0], args.copies[0], args.only == "checkpointed")
        return
    print(
        "| batch | masks | checkpointed | peak GiB | state GiB | the rest GiB | CPU s |\n|---|---|---|---|---|---|---|"
    )
    for modality in args.modalities:
        for copies in args.copies:
            for only in ("plain", "checkpointed"):
                command = [sys.executable, __file__, modality, "--copies", str(copies), "--only", only]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
