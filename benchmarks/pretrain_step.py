"""One pre-training step: seconds, GFLOP/s and the share of this machine's matrix-product peak, in one process.

    python benchmarks/pretrain_step.py                      # both versions, three modalities, one thread, fp32
    python benchmarks/pretrain_step.py v1-audio v2-text --steps 5 --precision bf16
    python benchmarks/pretrain_step.py v2-audio --plain --parts     # beside a plain transcription; where the time goes

A step is forward, teacher, backward, optimizer and EMA on given tensors, at the sizes the original implementations were
timed at: width 768, 4 blocks, audio 4 s x 4, text 128 x 16 (vocabulary 50 265), image 224 x 224 x 8. Times are CPU
seconds of this process; a peak measurement stands before every step, so that a machine whose speed drifts is compared
with itself. data2vec 2 draws 8, 8 and 16 masks a sample. Operations are those the method needs: visible tokens in the
encoder, one teacher and one local pass for all masks, the decoder's last layers at hidden positions only. Memory that
is freed stays in the process, as in every run on a CPU.

The plain transcription is the slow reference of the tests (`tests/objectives/plain_v2.py`): copies for every mask,
library convolutions over all tokens; its steps alternate with ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.objectives.config import Data2Vec2ObjectiveConfig, DecoderConfig, ObjectiveConfig
from data2vec.objectives.masking import BeitBlockMask, BlockMask1d, BlockMask2d, RandomMask, SpanMask
from data2vec.objectives.v1 import Data2VecObjective
from data2vec.objectives.v2 import Data2Vec2Objective
from data2vec.training.allocator import keep_freed_memory
from data2vec.training.optim import Adam

Objective = TypeVar("Objective", ObjectiveConfig, Data2Vec2ObjectiveConfig)
Case = tuple[Data2VecObjective | Data2Vec2Objective, dict[str, Tensor], float]
BLOCKS, WIDTH, SAMPLES = 4, 768, 64_000


def v1_audio() -> Case:
    """Four clips of four seconds."""
    config = Data2VecAudioConfig(num_hidden_layers=BLOCKS, layerdrop=0.0)
    rows, frames = 4, config.frames(SAMPLES)
    task = Data2VecObjective(Data2VecAudioModel(config), top(ObjectiveConfig.audio()))
    mask = masks(SpanMask(0.65, 10), rows, frames)
    forward = blocks(rows, frames) + positions(config, rows * frames)
    head = 2.0 * float(mask.sum()) * WIDTH * WIDTH
    front, first = convolutions(config, rows)
    # forward, gradient of the input and of the weights are three products each; the waveform needs no gradient
    flops = 3 * (front + forward + head) - first + forward
    return task, {"input_values": torch.randn(rows, SAMPLES), "mask": mask}, flops


def v1_text() -> Case:
    """Sixteen rows of 128 tokens."""
    config = Data2VecTextConfig.base().replace(num_hidden_layers=BLOCKS)
    rows, length = 16, 128
    task = Data2VecObjective(Data2VecTextModel(config, add_pooling_layer=False), top(ObjectiveConfig.text()))
    mask = masks(SpanMask(0.35, 4, starts="anywhere"), rows, length)
    head = 2.0 * float(mask.sum()) * WIDTH * 2 * WIDTH * 2
    batch = {"input_ids": torch.randint(4, 50_000, (rows, length)), "mask": mask}
    return task, batch, 3 * (blocks(rows, length) + head) + blocks(rows, length)


def v1_vision() -> Case:
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
    embed = 2.0 * rows * patches * WIDTH * 3 * 16 * 16  # as often again for the weights' gradient, and in the teacher
    head = 2.0 * float(mask.sum()) * WIDTH * WIDTH
    flops = 4 * blocks(rows, patches + 1) + 3 * head + 3 * embed
    return task, {"pixel_values": torch.randn(rows, 3, 224, 224), "mask": mask}, flops


def v2_audio() -> Case:
    """Four clips of four seconds, eight masks each."""
    config = Data2Vec2AudioConfig(num_hidden_layers=BLOCKS, layerdrop=0.0)
    rows, frames, copies = 4, config.frames(SAMPLES), 8
    objective = Data2Vec2ObjectiveConfig.audio()
    mask = masks(BlockMask1d(), rows * copies, frames)
    front, first = convolutions(config, rows)
    student = 3 * (visible(mask, 0) + decoder(objective.decoder, mask) + positions(config, mask.numel()))
    teacher = blocks(rows, frames) + positions(config, rows * frames)
    task = Data2Vec2Objective(Data2Vec2AudioModel(config), top(objective))
    batch = {"input_values": torch.randn(rows, SAMPLES), "mask": mask.view(rows, copies, -1)}
    return task, batch, 3 * front - first + student + teacher


def v2_text() -> Case:
    """Sixteen rows of 128 tokens, eight masks each."""
    config = Data2Vec2TextConfig(num_hidden_layers=BLOCKS)
    rows, length, copies = 16, 128, 8
    objective = Data2Vec2ObjectiveConfig.text()
    mask = masks(RandomMask(0.48), rows * copies, length)
    student = 3 * (visible(mask, 0) + decoder(objective.decoder, mask))
    task = Data2Vec2Objective(Data2Vec2TextModel(config), top(objective))
    batch = {"input_ids": torch.randint(4, 50_000, (rows, length)), "mask": mask.view(rows, copies, -1)}
    return task, batch, student + blocks(rows, length)


def v2_vision() -> Case:
    """Eight images of 224 x 224, sixteen masks each."""
    config = Data2Vec2VisionConfig(num_hidden_layers=BLOCKS)
    rows, patches, copies = 8, 196, 16
    objective = Data2Vec2ObjectiveConfig.vision()
    mask = masks(BlockMask2d(prob=0.8, adjust=0.07, length=3, inverse=True), rows * copies, (14, 14))
    embed = 2.0 * rows * patches * WIDTH * 3 * 16 * 16
    student = 3 * (visible(mask, 1) + decoder(objective.decoder, mask)) + 2 * embed
    task = Data2Vec2Objective(Data2Vec2VisionModel(config), top(objective, BLOCKS - config.prenet_depth))
    batch = {"pixel_values": torch.randn(rows, 3, 224, 224), "mask": mask.view(rows, copies, -1)}
    return task, batch, student + blocks(rows, patches + 1) + embed


CASES = {
    "v1-audio": v1_audio,
    "v1-text": v1_text,
    "v1-vision": v1_vision,
    "v2-audio": v2_audio,
    "v2-text": v2_text,
    "v2-vision": v2_vision,
}


def convolutions(config: Data2VecAudioConfig, rows: int) -> tuple[float, float]:
    """Operations of the feature extractor with its projection, and of its first convolution alone."""
    total, first, length, source = 0.0, 0.0, SAMPLES, 1
    for width, kernel, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True):
        length = (length - kernel) // stride + 1
        total += 2.0 * rows * length * width * source * kernel
        first, source = first or total, width
    return total + 2.0 * rows * length * source * WIDTH, first


def positions(config: Data2VecAudioConfig, tokens: int) -> float:
    """Operations of the positional convolutions."""
    kernel, groups = config.conv_pos_kernel_size, config.num_conv_pos_embedding_groups
    return 2.0 * tokens * WIDTH * (WIDTH // groups) * kernel * config.num_conv_pos_embeddings


def visible(mask: Tensor, extra: int) -> float:
    """Operations of the encoder on the visible tokens of each row and its extra tokens."""
    return sum(blocks(1, int(count) + extra) for count in (~mask).sum(1))


def decoder(config: DecoderConfig, mask: Tensor) -> float:
    """Operations of the decoder: all positions, but hidden ones only in the last layer and the projection."""
    area = config.kernel**config.dimensions
    source, total, hidden = WIDTH, 0.0, float(mask.sum())
    for layer in range(config.layers):
        places = hidden if layer == config.layers - 1 else float(mask.numel())
        total += 2.0 * places * source * config.channels * area / config.groups
        source = config.channels
    if config.projection_layers == 1:
        return total + 2.0 * hidden * source * WIDTH
    inner = int(source * config.projection_ratio)
    return total + 2.0 * hidden * inner * (source + WIDTH)


def blocks(rows: int, tokens: int) -> float:
    """Operations of the blocks' forward pass: 12 D^2 multiply-adds a token, and the attention's products."""
    return BLOCKS * 2.0 * rows * tokens * (12 * WIDTH * WIDTH + 2 * tokens * WIDTH)


def masks(masker: Callable[..., np.ndarray], rows: int, size: int | tuple[int, int]) -> Tensor:
    """(rows, T) masks of a fixed seed."""
    return torch.from_numpy(np.stack([masker(np.random.default_rng(row), size) for row in range(rows)]))


def top(config: Objective, layers: int = 3) -> Objective:
    """The published objective with the K of a four-block network."""
    return replace(config, target=replace(config.target, layers=layers))


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


class Parts(TorchDispatchMode):
    """CPU seconds of each kind of operation, forward and backward."""

    KINDS: Mapping[str, tuple[str, ...]] = {
        "matrix products": ("mm", "addmm", "addmm_"),
        "convolutions": ("convolution", "convolution_backward"),
        "attention": ("bmm", "_scaled_dot_product", "_softmax", "_safe_softmax"),
        "GELU": ("gelu", "gelu_backward"),
        "norms": ("native_layer_norm", "var_mean"),
        "random numbers": ("bernoulli_", "randn", "native_dropout"),
        "Adam and EMA": ("_fused_adamw_", "_foreach_lerp_", "_foreach_copy_"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and time one operation."""
        start = time.process_time()
        out = func(*args, **kwargs or {})
        self.seconds[self.kind(func.overloadpacket.__name__)] += time.process_time() - start
        return out

    def kind(self, name: str) -> str:
        """What an operation counts as: by its whole name, or by how it begins."""
        for kind, names in self.KINDS.items():
            if name in names or (kind in ("attention", "norms") and name.startswith(names)):
                return kind
        return "copies, sums, gathers"


def step(
    task: Any,
    batch: Mapping[str, Tensor],
    optimizer: Adam,
    loss: Callable[..., Tensor],
    update: int,
    dtype: torch.dtype,
) -> list[float]:
    """One step; the times at which its parts began, and its end."""
    marks = [time.process_time()]
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        mean = loss(task, batch)
    marks.append(time.process_time())
    mean.backward()
    marks.append(time.process_time())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    marks.append(time.process_time())
    task.after_step(update)
    return [*marks, time.process_time()]


def ours(task: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean loss of a step as the library computes it."""
    out = task(batch)
    mean: Tensor = out.loss_sum / out.count
    return mean


def plainly(task: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean loss of a step as its plain transcription computes it."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "objectives"))
    from plain_v2 import plain_loss  # type: ignore[import-not-found]

    total, count = plain_loss(task, batch)
    mean: Tensor = total / count
    return mean


def measure(case: Case, steps: int, precision: str, plain: bool, parts: bool) -> None:
    """Time `steps` steps and print their median with the spread; those of the transcription; where the time goes."""
    task, batch, flops = case
    task.train()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    optimizer = Adam([p for p in task.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.01)
    seconds, shares, means, slow = [], [], Counter[str](), []
    for update in range(1, steps + 2):
        top_speed = peak(dtype)
        marks = step(task, batch, optimizer, ours, update, dtype)
        other = step(task, batch, optimizer, plainly, update, dtype) if plain else marks
        if update == 1:
            continue  # warm-up: memory is taken, kernels are chosen
        seconds.append(marks[-1] - marks[0])
        slow.append(other[-1] - other[0])
        shares.append(flops * 1e-9 / seconds[-1] / top_speed)
        for name, start, end in zip(("forward", "backward", "optimizer", "ema"), marks, marks[1:], strict=False):
            means[name] += (end - start) / steps
    middle = statistics.median(seconds)
    print(
        f"{middle:7.3f} s  ({min(seconds):.3f} .. {max(seconds):.3f})  {flops * 1e-9:7.0f} GFLOP  "
        f"{flops * 1e-9 / middle:6.1f} GFLOP/s  {100 * statistics.median(shares):5.1f} % of peak "
        f"({100 * min(shares):.1f} .. {100 * max(shares):.1f})  " + "  ".join(f"{k} {v:.3f}" for k, v in means.items())
    )
    if plain:
        print(
            f"    plain: {statistics.median(slow):.3f} s  ({min(slow):.3f} .. {max(slow):.3f})  "
            f"{statistics.median(slow) / middle:.2f} times ours"
        )
    if parts:
        with Parts() as timed:
            marks = step(task, batch, optimizer, ours, steps + 2, dtype)
        rest = marks[-1] - marks[0] - timed.seconds.total()
        for name, spent in [*timed.seconds.most_common(), ("autograd and Python", rest)]:
            print(f"    {name:22s} {spent:7.3f} s  {100 * spent / (marks[-1] - marks[0]):5.1f} %")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="time the plain transcription too (data2vec 2 only)")
    parser.add_argument("--parts", action="store_true", help="one more step: where its time goes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as every run does
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {capability}, {args.threads} thread, {args.precision}")
    for name in args.cases:
        torch.manual_seed(0)
        print(f"{name:9s}", end="  ", flush=True)
        plain = args.plain and name.startswith("v2")
        measure(CASES[name](), args.steps, args.precision, plain, args.parts)


if __name__ == "__main__":
    main()
