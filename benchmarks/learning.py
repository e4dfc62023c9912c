"""Does pre-training teach anything? Linear probe of frozen features on real data, against the same network untrained.

    python benchmarks/learning.py audio --preset tiny --preset v2-tiny --seeds 0 1 2 --data ../shared/data
    python benchmarks/learning.py vision --preset tiny --set optim.lr=1e-3 --set train.updates=500

Pre-trains a preset without labels on the training items of one data set (audio: fsdd, 1,000 spoken digits; vision:
cifar10, the 6,000 images of train_6000.zip; text: agnews, 4,000 news), one thread, then fits the probe of
`data2vec probe` on labelled training items (1,000 / 1,500 / 4,000) and scores it on dev (250 / 400 / 500). CPU minutes
are this process's, pre-training alone with its data loading. One JSON line a run goes to --out; the table at the end
has mean and spread over seeds.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from data2vec.evaluation.frozen import open_frozen, probe_folder, untrained
from data2vec.recipes.config import PretrainConfig
from data2vec.recipes.presets import preset
from data2vec.training.pretrain import run_pretraining

SOURCES = {
    "audio": ("fsdd/train.tsv", "fsdd/metadata.csv"),
    "vision": ("cifar10/train_6000.zip", "cifar10"),
    "text": ("agnews/train.csv", "agnews"),
}
ALWAYS = {"loader.workers": 0, "train.precision": "fp32", "train.save_minutes": 0.0, "train.log_every": 100}
TEXT = {"data.blocks": "document"}


def configure(modality: str, name: str, changes: dict[str, Any], seed: int) -> PretrainConfig:
    """A preset with dotted changes."""
    values = preset(modality, name).to_dict()
    every = {**ALWAYS, **(TEXT if modality == "text" else {}), "train.seed": seed, "loader.seed": seed, **changes}
    for path, value in every.items():
        *parents, leaf = path.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        assert leaf in place, f"{path}: known are {', '.join(place)}"
        place[leaf] = value
    return PretrainConfig.from_dict(values)


def run(modality: str, name: str, changes: dict[str, Any], seed: int, data: Path, keep: Path | None) -> dict[str, Any]:
    """Pre-train once, probe, and say what came out."""
    source, labelled = (data / part for part in SOURCES[modality])
    config = configure(modality, name, changes, seed)
    with tempfile.TemporaryDirectory() as scratch:
        out = (keep or Path(scratch)) / f"{modality}-{name}-{seed}"
        start = time.process_time()
        result = run_pretraining(config, source, out, device="cpu")
        minutes = (time.process_time() - start) / 60
        frozen = open_frozen(out / "model")
        column = "label"
        probes = {
            "trained": probe_folder(frozen, labelled, column=column, seed=seed),
            "untrained": probe_folder(untrained(frozen, seed), labelled, column=column, seed=seed),
        }
    row: dict[str, Any] = {"modality": modality, "preset": name, "seed": seed, "changes": changes}
    row |= {"updates": result.update, "cpu_minutes": round(minutes, 2)}
    for which, probe in probes.items():
        row[which] = round(100 * probe.linear.accuracy, 1)
        row[which + "_cv"] = round(100 * probe.linear.cv_accuracy, 1)
        row[which + "_knn"] = round(100 * probe.neighbours.accuracy, 1)
        row[which + "_features"] = probe.linear.features
    kept = ("loss", "target_var", "pred_var", "local_var", "position_share", "masked")
    row["log"] = {key: round(float(result.log[key]), 4) for key in kept if key in result.log}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds, a line a preset with its changes."""
    lines = [
        "| modality | preset | seeds | updates | CPU-min | untrained dev (CV) | pre-trained dev (CV) | k-NN |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def setting(row: dict[str, Any]) -> tuple[str, ...]:
        return row["modality"], row["preset"], json.dumps(row["changes"], sort_keys=True)

    for key in dict.fromkeys(map(setting, rows)):
        same = [row for row in rows if setting(row) == key]

        def cell(name: str, same: list[dict[str, Any]] = same) -> str:
            values = [row[name] for row in same]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.1f}{spread}"

        lines.append(
            f"| {key[0]} | {key[1]} | {len(same)} | {cell('updates')} | {cell('cpu_minutes')} | "
            f"{cell('untrained')} ({cell('untrained_cv')}) | **{cell('trained')}** ({cell('trained_cv')}) | "
            f"{cell('trained_knn')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", nargs="?", choices=sorted(SOURCES))
    parser.add_argument("--preset", action="append", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="changes")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, help="append a JSON line a run to this file")
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    parser.add_argument("--table", type=Path, nargs="+", help="only print the table of these JSON-lines files")
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for file in args.table for line in file.read_text().splitlines()]))
        return
    torch.set_num_threads(1)
    pairs = (change.split("=", 1) for change in args.changes)
    changes = {field: ast.literal_eval(value) for field, value in pairs}
    rows = []
    for seed in args.seeds:
        for name in args.preset or ["tiny", "v2-tiny"]:
            rows.append(run(args.modality, name, changes, seed, args.data, args.keep))
            line = json.dumps(rows[-1])
            print(line, flush=True)
            if args.out:
                with args.out.open("a") as stream:
                    stream.write(line + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
