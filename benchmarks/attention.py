"""Attention kernels beside one another: time and peak memory in the two tables of the documentation.

    python benchmarks/attention.py                                  # vision, base size, eager against sdpa
    python benchmarks/attention.py vision segmentation audio text --implementations eager sdpa flash flex
    python benchmarks/attention.py vision --size tiny --modes inference --batches 1 4 --repeats 3

Training takes batches of 2 (images of 1048 x 640, 10 s of audio, 512 tokens), inference of 1, 4, 16 and 32 (images of
224 x 224). Weights are random. With a GPU numbers are in float16, as the documentation's, and from CUDA's own memory
statistics; else in float32, and memory is the growth of the process's peak RSS from before the model is built.

Every cell is a fresh process. Those of a row live side by side and take turns, so that a machine whose speed drifts is
compared with itself: times are medians of the turns, speed-ups medians of the ratios to the first implementation in the
same turn, and CI is 1.96 standard errors, in percent of the median. A kernel that cannot do it says why in its cell.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CASES = ("vision", "segmentation", "audio", "text")
TRAINING_IMAGE, INFERENCE_IMAGE = (1048, 640), (224, 224)
TITLES = {"eager": "Eager", "sdpa": "SDPA", "flash": "Flash", "flex": "Flex"}
CUDA_STEPS = 5  # in a turn, after one that is not timed: the memory of the turn before was handed back


@dataclass(frozen=True)
class Cell:
    """One process: a model, a kernel, a batch."""

    case: str
    mode: str
    implementation: str
    batch: int
    size: str
    device: str
    dtype: str | None
    clock: str
    seconds: float
    attention_dropout: bool

    @property
    def image(self) -> tuple[int, int]:
        """Height and width."""
        return TRAINING_IMAGE if self.mode == "training" else INFERENCE_IMAGE

    @property
    def shape(self) -> str:
        """What one input is."""
        lengths = {"audio": f"{self.seconds:g} s", "text": "512 tokens"}
        return lengths.get(self.case, str(self.image))


@dataclass(frozen=True)
class Measured:
    """What came of a cell: seconds a step in each turn and the peak in bytes, or an error."""

    times: list[float]
    peak: int
    cuda: bool
    error: str | None = None

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.times)

    @property
    def interval(self) -> str:
        """95 % of the mean, in percent of the median; of one turn there is none."""
        if len(self.times) < 2:
            return "–"
        return f"±{196 * statistics.stdev(self.times) / math.sqrt(len(self.times)) / self.median:.1f}%"


# ---- one process


def build(cell: Cell) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """A model of random weights and its batch."""
    import torch

    import data2vec

    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"attn_implementation": cell.implementation}
    if cell.size == "tiny":
        options |= {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    if cell.case == "text":
        if not cell.attention_dropout:
            options["attention_probs_dropout_prob"] = 0.0
        text = data2vec.Data2VecTextForMaskedLM(data2vec.Data2VecTextConfig.base().replace(**options))
        return text, {"input_ids": torch.randint(4, 50_000, (cell.batch, 512), generator=generator)}
    if cell.case == "audio":
        # what differs from step to step stays out: dropped layers, and masks drawn on the host
        options |= {"layerdrop": 0.0, "apply_spec_augment": False}
        if cell.size == "tiny":
            options["conv_dim"] = (32,) * 7
        if not cell.attention_dropout:
            options["attention_dropout"] = 0.0
        audio = data2vec.Data2VecAudioForCTC(data2vec.Data2VecAudioConfig(**options))
        return audio, {"input_values": torch.randn(cell.batch, int(16_000 * cell.seconds), generator=generator)}
    options |= {"use_relative_position_bias": True, "layer_norm_eps": 1e-6, "num_labels": 1000}
    kind: type[torch.nn.Module] = data2vec.Data2VecVisionForImageClassification
    if cell.case == "segmentation":
        kind, options["num_labels"] = data2vec.Data2VecVisionForSemanticSegmentation, 150
        if cell.size == "tiny":
            options["out_indices"] = (0, 1, 2, 3)
    pixels = torch.randn(cell.batch, 3, *cell.image, generator=generator)
    return kind(data2vec.Data2VecVisionConfig(**options)), {"pixel_values": pixels}


def stepper(cell: Cell, device: str) -> Callable[[], None]:
    """One step of the cell on its device."""
    import torch

    dtype = getattr(torch, cell.dtype or ("float16" if device == "cuda" else "float32"))
    model, batch = build(cell)
    model = model.to(device, dtype).train(cell.mode == "training")
    batch = {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in batch.items()}

    def step() -> None:
        model.zero_grad()
        with torch.set_grad_enabled(cell.mode == "training"):
            logits = model(**batch).logits
            if cell.mode == "training":
                logits.sum().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def turn(step: Callable[[], None], device: str, clock: Callable[[], float]) -> float:
    """Seconds a step."""
    import torch

    steps = 1
    if device == "cuda":
        steps = CUDA_STEPS
        step()
    start = clock()
    for _ in range(steps):
        step()
    seconds = (clock() - start) / steps
    if device == "cuda":
        torch.cuda.empty_cache()
    return seconds


def work(cell: Cell) -> None:
    """The process of a cell: one line of JSON when it is ready, and one after every line that it reads."""
    import torch

    import data2vec  # noqa: F401  (its import is no growth of the model)

    device = cell.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    before = rss()
    clock = time.process_time if cell.clock == "cpu" and device == "cpu" else time.perf_counter

    def say(**content: Any) -> None:
        print(json.dumps({"cuda": device == "cuda", **content}), flush=True)

    try:
        step = stepper(cell, device)
        step()
        say()
        for _ in sys.stdin:
            seconds = turn(step, device, clock)
            peak = torch.cuda.max_memory_allocated() if device == "cuda" else rss() - before
            say(seconds=seconds, peak=peak)
    except Exception as error:  # whatever it is, it is this cell's result
        say(error=f"{type(error).__name__}: {error}")


def rss() -> int:
    """Peak resident bytes. At exec Linux carries over the parent's peak, which is small: it never imports torch."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- one row


def measure(cells: list[Cell], repeats: int) -> list[Measured]:
    """All cells of a row, in turns."""
    command = [sys.executable, __file__, "--worker"]
    workers = []
    answers: list[list[dict[str, Any]]] = []
    try:
        for cell in cells:  # one after the other: each has the machine to itself while it warms up
            arguments = [*command, json.dumps(asdict(cell))]
            workers.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            answers.append([read(workers[-1])])
        for _ in range(repeats):
            for worker, answer in zip(workers, answers, strict=True):
                if "error" not in answer[-1]:
                    assert worker.stdin is not None
                    worker.stdin.write("\n")
                    worker.stdin.flush()
                    answer.append(read(worker))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return [summary(answer) for answer in answers]


def read(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    return json.loads(line) if line else {"error": f"the process ended with {worker.wait()} (out of memory?)"}


def summary(answer: list[dict[str, Any]]) -> Measured:
    last = answer[-1]
    times = [item["seconds"] for item in answer[1:] if "seconds" in item]
    return Measured(times, last.get("peak", 0), last.get("cuda", False), last.get("error"))


# ---- the tables


def first_words(error: str) -> str:
    """Of an error, after what the column says already."""
    return error.split("cannot run here: ")[-1].split(", or take")[0].splitlines()[0][:80].replace("|", "/")


def ratios(base: Measured, other: Measured) -> tuple[float, float] | None:
    """Time and memory of `base` over those of `other`; None where one failed."""
    if base.error or other.error:
        return None
    time_ratio = statistics.median(b / o for b, o in zip(base.times, other.times, strict=True))
    return time_ratio, base.peak / other.peak if other.peak else math.nan


def training_row(cells: list[Cell], row: list[Measured], repeats: int) -> dict[str, str]:
    """Column to value, in the documentation's order."""
    base, cell = row[0], cells[0]
    steps = repeats * (CUDA_STEPS if base.cuda else 1)
    unit = "input" if cell.case in ("audio", "text") else "image_size"
    out = {"num_training_steps": str(steps), "batch_size": str(cell.batch), unit: cell.shape, "is_cuda": str(base.cuda)}
    names = [cell.implementation for cell in cells]
    for place, (name, result) in enumerate(zip(names, row, strict=True)):
        seconds = first_words(result.error) if result.error else f"{result.median:.3f} {result.interval}"
        out[f"Time per batch ({name} - s)"] = seconds
        if place:
            ratio = ratios(base, result)
            out["Speedup (%)" if place == 1 else f"{TITLES[name]} speedup (%)"] = percent(ratio and ratio[0])
    for place, (name, result) in enumerate(zip(names, row, strict=True)):
        out[f"{TITLES[name]} peak mem (MB)"] = "–" if result.error else f"{result.peak / 1e6:.3f}"
        if place:
            ratio = ratios(base, result)
            out["Mem saving (%)" if place == 1 else f"{TITLES[name]} mem saving (%)"] = percent(ratio and ratio[1])
    return out


def inference_row(cells: list[Cell], row: list[Measured], repeats: int) -> dict[str, str]:
    """Column to value, in the documentation's order."""
    names = {"audio": f"Audio batch size ({cells[0].shape})", "text": f"Text batch size ({cells[0].shape})"}
    out = {names.get(cells[0].case, "Image batch size"): str(cells[0].batch)}
    for cell, result in zip(cells, row, strict=True):
        title = TITLES[cell.implementation]
        out[f"{title} (s/iter)"] = first_words(result.error) if result.error else f"{result.median:.3f}"
        out[f"{title} CI, %"] = "–" if result.error else result.interval
        out[f"{title} memory (MB)"] = "–" if result.error else f"{result.peak / 1e6:.3f}"
        if cell is not cells[0]:
            ratio = ratios(row[0], result)
            out[f"{title} speedup"] = "–" if ratio is None else f"{ratio[0]:.3f}"
            out[f"{title} memory saved (%)"] = percent(ratio and ratio[1])
    return out


def percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{100 * (ratio - 1):.3f}"


def table(case: str, mode: str, options: argparse.Namespace) -> None:
    """Print one table, a row as soon as it is there."""
    row_of = training_row if mode == "training" else inference_row
    print(f"\n#### {case}, {options.size}: {mode}\n", flush=True)
    for number, batch in enumerate([options.training_batch] if mode == "training" else options.batches):
        cells = [
            Cell(
                case,
                mode,
                implementation,
                batch,
                options.size,
                options.device,
                options.dtype,
                options.clock,
                options.seconds,
                not options.no_attention_dropout,
            )
            for implementation in options.implementations
        ]
        row = row_of(cells, measure(cells, options.repeats), options.repeats)
        if number == 0:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(row.values()) + " |", flush=True)


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(Cell(**json.loads(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=["vision"], help=f"{', '.join(CASES)} (vision)")
    parser.add_argument("--implementations", nargs="+", choices=TITLES, default=["eager", "sdpa"], help="first = base")
    parser.add_argument("--modes", nargs="+", choices=("training", "inference"), default=["training", "inference"])
    parser.add_argument("--size", choices=("tiny", "base"), default="base")
    parser.add_argument("--batches", nargs="+", type=positive, default=[1, 4, 16, 32], help="of inference")
    parser.add_argument("--training-batch", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=10, help="turns of every cell")
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio in a clip")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="default: float16 with CUDA")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: process seconds, for a loaded machine without GPU",
    )
    parser.add_argument("--no-attention-dropout", action="store_true", help="audio and text: lets flash and flex train")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if options.clock == "cpu" and options.device == "cuda":
        parser.error("--clock cpu does not see what a GPU does")
    for case in options.cases:
        for mode in options.modes:
            table(case, mode, options)


if __name__ == "__main__":
    main()
