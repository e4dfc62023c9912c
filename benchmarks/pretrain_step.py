"""One pre-training step: seconds, GFLOP/s and the share of this machine's matrix-product peak, in one process.

    python benchmarks/pretrain_step.py                      # the three modalities, one thread, fp32
    python benchmarks/pretrain_step.py audio --steps 5 --precision bf16

A step is forward, teacher, backward, optimizer and EMA on given tensors, at the sizes the original implementations were
timed at: width 768, 4 blocks, audio 4 s x 4, text 128 x 16 (vocabulary 50 265), image 224 x 224 x 8. Times are CPU
seconds of this process; a peak measurement stands before every step, so that a machine whose speed drifts is compared
with itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.objectives.config import ObjectiveConfig, TargetConfig
from data2vec.objectives.masking import BeitBlockMask, SpanMask
from data2vec.objectives.v1 import Data2VecObjective
from data2vec.training.optim import Adam

Case = tuple[Data2VecObjective, dict[str, Tensor], float]
BLOCKS, WIDTH, TOP_K = 4, 768, 3


def audio() -> Case:
    """Four clips of four seconds."""
    config = Data2VecAudioConfig(num_hidden_layers=BLOCKS, layerdrop=0.0)
    samples, rows = 64_000, 4
    frames = config.frames(samples)
    task = Data2VecObjective(Data2VecAudioModel(config), top(ObjectiveConfig.audio()))
    mask = masks(SpanMask(0.65, 10), rows, frames)
    conv, length, source = 0.0, samples, 1
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        conv += 2.0 * rows * length * width * source * kernel
        source = width
    tokens = rows * frames
    project = 2.0 * tokens * source * WIDTH
    kernel, groups = config.conv_pos_kernel_size, config.num_conv_pos_embedding_groups
    positions = 2.0 * tokens * WIDTH * (WIDTH // groups) * kernel * config.num_conv_pos_embeddings
    head = 2.0 * float(mask.sum()) * WIDTH * WIDTH
    first = 2.0 * rows * ((samples - 10) // 5 + 1) * config.conv_dim[0] * 10  # the waveform needs no gradient
    # student: forward, gradient of the input, gradient of the weights; teacher: forward of what follows the front door
    student = 3 * (conv + project + blocks(rows, frames) + positions + head) - first
    return task, {"input_values": torch.randn(rows, samples), "mask": mask}, student + blocks(rows, frames) + positions


def text() -> Case:
    """Sixteen rows of 128 tokens."""
    config = Data2VecTextConfig.base().replace(num_hidden_layers=BLOCKS)
    rows, length = 16, 128
    task = Data2VecObjective(Data2VecTextModel(config, add_pooling_layer=False), top(ObjectiveConfig.text()))
    mask = masks(SpanMask(0.35, 4, starts="anywhere"), rows, length)
    head = 2.0 * float(mask.sum()) * WIDTH * 2 * WIDTH * 2
    batch = {"input_ids": torch.randint(4, 50_000, (rows, length)), "mask": mask}
    return task, batch, 3 * (blocks(rows, length) + head) + blocks(rows, length)


def vision() -> Case:
    """Eight images of 224 x 224."""
    config = Data2VecVisionConfig(
        num_hidden_layers=BLOCKS,
        use_mask_token=True,
        use_mean_pooling=False,
        use_shared_relative_position_bias=True,
        layer_scale_init_value=1e-4,
        drop_path_rate=0.25,
        attention_probs_dropout_prob=0.05,
        layer_norm_eps=1e-6,
    )
    rows, patches = 8, 196
    task = Data2VecObjective(Data2VecVisionModel(config), top(ObjectiveConfig.vision()))
    mask = masks(BeitBlockMask(), rows, (14, 14))
    embed = 2.0 * rows * patches * WIDTH * 3 * 16 * 16
    head = 2.0 * float(mask.sum()) * WIDTH * WIDTH
    student = 3 * (blocks(rows, patches + 1) + head) + 2 * embed  # pixels need no gradient
    teacher = blocks(rows, patches + 1) + embed
    return task, {"pixel_values": torch.randn(rows, 3, 224, 224), "mask": mask}, student + teacher


def blocks(rows: int, tokens: int) -> float:
    """Operations of the blocks' forward pass: 12 D^2 multiply-adds a token, and the attention's products."""
    return BLOCKS * 2.0 * rows * tokens * (12 * WIDTH * WIDTH + 2 * tokens * WIDTH)


def masks(masker: Callable[..., np.ndarray], rows: int, size: int | tuple[int, int]) -> Tensor:
    """(rows, T) masks of a fixed seed."""
    return torch.from_numpy(np.stack([masker(np.random.default_rng(row), size) for row in range(rows)]))


def top(config: ObjectiveConfig) -> ObjectiveConfig:
    """The published objective with the K of a four-block network."""
    target: TargetConfig = replace(config.target, layers=TOP_K)
    return replace(config, target=target)


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of square matrix products, the best of a few sizes."""
    best = 0.0
    for side in (768, 1024, 1536):
        a, b = torch.randn(side, side, dtype=dtype), torch.randn(side, side, dtype=dtype)
        torch.mm(a, b)
        for _ in range(3):
            start = time.process_time()
            torch.mm(a, b)
            best = max(best, 2e-9 * side**3 / (time.process_time() - start))
    return best


def measure(case: Case, steps: int, precision: str) -> None:
    """Time `steps` steps and print their median with the spread."""
    task, batch, flops = case
    task.train()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer = Adam([p for p in task.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.01)
    seconds, shares, parts = [], [], {"forward": 0.0, "backward": 0.0, "optimizer": 0.0, "ema": 0.0}
    for step in range(steps + 1):
        top_speed = peak(dtype)
        marks = [time.process_time()]
        with torch.autocast("cpu", dtype) if precision == "bf16" else nullcontext():
            out = task(batch)
        marks.append(time.process_time())
        (out.loss_sum / out.count).backward()
        marks.append(time.process_time())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(time.process_time())
        task.after_step(step + 1)
        marks.append(time.process_time())
        if step == 0:
            continue  # warm-up: memory is taken, kernels are chosen
        seconds.append(marks[-1] - marks[0])
        shares.append(flops * 1e-9 / seconds[-1] / top_speed)
        for name, start, end in zip(parts, marks, marks[1:], strict=False):
            parts[name] += (end - start) / steps
    middle = statistics.median(seconds)
    print(
        f"{middle:7.3f} s  ({min(seconds):.3f} .. {max(seconds):.3f})  {flops * 1e-9:7.0f} GFLOP  "
        f"{flops * 1e-9 / middle:6.1f} GFLOP/s  {100 * statistics.median(shares):5.1f} % of peak "
        f"({100 * min(shares):.1f} .. {100 * max(shares):.1f})  " + "  ".join(f"{k} {v:.3f}" for k, v in parts.items())
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", nargs="*", default=["audio", "text", "vision"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {capability}, {args.threads} thread, {args.precision}")
    for name in args.modalities:
        torch.manual_seed(0)
        print(f"v1 {name:6s}", end="  ", flush=True)
        measure({"audio": audio, "text": text, "vision": vision}[name](), args.steps, args.precision)


if __name__ == "__main__":
    main()
