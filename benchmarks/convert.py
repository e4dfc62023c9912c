"""Time and peak memory of converting a base-size checkpoint: `python benchmarks/convert.py [--modality vision]`.

Writes a data2vec 1 file of the published base model's shapes in the layout of the original code (speech: 93 M weights;
the teacher's average, and with `--optimizer` Adam's two moments), converts it in a fresh process, and holds the numbers
against the targets: under 20 s, and a peak of resident memory (Python, torch and mapped pages of the file included) of
at most 1.5 times the file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SECONDS, TIMES = 20.0, 1.5
CONVERT = r"""
import json, re, sys, time
import torch
torch.set_num_threads(1)
from data2vec.conversion.convert import convert
def peak():  # of this process alone; ru_maxrss would count what its parent had
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read()).group(1)) * 1024
before = peak()
start = time.perf_counter()
convert(sys.argv[1], sys.argv[2], to=sys.argv[3])
seconds, cpu = time.perf_counter() - start, time.process_time()
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak(), "before": before}))
"""


def write_base(path: Path, modality: str, teacher: bool, optimizer: bool) -> None:
    """A checkpoint of the base model's shapes, in the layout of the original code."""
    import torch

    from data2vec.conversion.architecture import CONFIGS, infer
    from data2vec.conversion.building import MODELS
    from data2vec.conversion.checkpoint import Checkpoint
    from data2vec.conversion.report import Report
    from data2vec.conversion.values import Settings
    from data2vec.conversion.writers import original_content

    kind = (modality, 1)
    options: dict[str, dict[str, Any]] = {
        "audio": {},
        "text": {"type_vocab_size": 1},
        "vision": {"use_shared_relative_position_bias": True, "use_mask_token": True},
    }
    model = MODELS[kind](CONFIGS[kind](**options[modality]))
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
    tensors |= {name: torch.zeros_like(t) for name, t in tensors.items() if name == "encoder.token_types.weight"}
    if teacher:
        whole = modality == "vision"
        averaged = {name: t for name, t in tensors.items() if whole or name.startswith("encoder.")}
        tensors |= {f"teacher.{name}": t + 1e-3 for name, t in averaged.items()}
    shapes = {"0": (1536, 768), "2": (768, 1536)} if modality == "text" else {"": (768, 768)}
    for number, shape in shapes.items():
        stem = f"predictor.{number}.".replace("..", ".")
        tensors |= {f"{stem}weight": torch.randn(shape), f"{stem}bias": torch.zeros(shape[0])}
    config, _ = infer(kind, tensors, Settings(), {})
    content = original_content(Checkpoint(kind, config, tensors, {}, Report("", "")))
    if optimizer:
        weights = [t for t in content["model"].values() if isinstance(t, torch.Tensor)]
        moments = {i: {"step": 1, "exp_avg": t.clone(), "exp_avg_sq": t.clone()} for i, t in enumerate(weights)}
        content["last_optimizer_state"] = {"state": moments, "param_groups": []}
    torch.save(content, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where 2 GB are free (default: a temporary folder)")
    parser.add_argument("--optimizer", action="store_true", help="with Adam's moments in the file")
    parser.add_argument("--student", action="store_true", help="without the teacher's average")
    parser.add_argument("--modality", choices=["audio", "text", "vision"], default="audio")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_base(folder / "base.pt", arguments.modality, not arguments.student, arguments.optimizer)
        size = (folder / "base.pt").stat().st_size
        print(f"{arguments.modality}, file: {size / 2**20:.0f} MiB, one thread")
        jobs = [("base.pt", "ours", "data2vec"), ("base.pt", "hf", "hf"), ("ours", "back.pt", "fairseq")]
        for source, out, target in jobs:
            start = time.perf_counter()
            command = [sys.executable, "-c", CONVERT, str(folder / source), str(folder / out), target]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            whole = time.perf_counter() - start
            ratio = found["peak"] / size
            verdict = "ok" if found["seconds"] < SECONDS and ratio <= TIMES else "MISSED"
            times = f"{found['seconds']:.1f} s ({whole:.1f} s with start, {found['cpu']:.1f} s of them CPU)"
            peak, before = found["peak"] / 2**20, found["before"] / 2**20
            memory = f"peak {peak:.0f} MiB = {ratio:.2f} x file ({before:.0f} MiB before the first byte)"
            print(f"{source} -> {target}: {times}, {memory}: {verdict}")


if __name__ == "__main__":
    main()
