"""Fine-tuning on real data: a small model of ours, pre-trained on that data, against its twin from fresh weights.

    python benchmarks/finetune.py ROW... --data FOLDER --out FOLDER [--seeds 3] [--sides SIDE...] [--pretrain 1.0]
        [--scale 1.0]

FOLDER holds the data sets in the formats that they have (see ROWS for what each row reads). For each row one encoder
is pre-trained (kept in OUT/pretrained and used again), then each seed fine-tunes it and its twin. OUT/results.jsonl
gets one line a run, with its command and score; what it has is not run again, and a run that was cut off goes on.
`--table` prints mean and spread of all lines. `--scale 0.01` shortens every run to try the path.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from data2vec.cli.main import main as data2vec
from data2vec.recipes.finetune import finetune_preset
from data2vec.recipes.presets import preset


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        task: what is learned.
        data: the labelled data set.
        modality: of the encoder.
        unlabelled: what the encoder is pre-trained on, relative to the data: training files alone; several manifests
            become one folder of links.
        metric: the score that counts.
        goal: what is asked of it, in words.
        more: further arguments of the fine-tuning.
        pretrain: further arguments of the pre-training.
    """

    task: str
    data: str
    modality: str
    unlabelled: tuple[str, ...]
    metric: str
    goal: str
    more: str = ""
    pretrain: str = ""


_SPEECH = ("fsdd/train.tsv", "digit_strings/train.tsv")
_PROSE = ("agnews/train.csv", "sst2/train.tsv", "wikitext2")
_PIECES = "--data.vocab-size 12000"  # of 4,000, a word is two, and a bag of them knows .834 of the topics, not .866
_PICTURES = ("cifar10/train_6000.zip",)  # for streets too: there are 62 of those
_SMALLER = "--data.image-size 64"
PRESETS = {"audio": "v2-tiny", "text": "tiny", "vision": "v2-tiny"}
ROWS = {
    "digits": Row("audio-classification", "fsdd", "audio", _SPEECH, "accuracy", ">= 0.97"),
    "strings": Row("asr", "digit_strings", "audio", _SPEECH, "wer", "<= 0.08", "--data.symbols words"),
    "diarization": Row("audio-frames", "diar_mix", "audio", _SPEECH, "der", "30 % below der_single_speaker"),
    "speakers": Row("speaker-verification", "fsdd", "audio", _SPEECH, "eer", "<= 0.12"),
    "agnews": Row("text-classification", "agnews", "text", _PROSE, "accuracy", ">= 0.86", pretrain=_PIECES),
    "sst2": Row("text-classification", "sst2", "text", _PROSE, "accuracy", "+0.03 over scratch", pretrain=_PIECES),
    "names": Row("token-classification", "wikineural_en", "text", _PROSE, "f1", "above scratch", pretrain=_PIECES),
    "questions": Row("question-answering", "xquad_en", "text", _PROSE, "f1", "reported", pretrain=_PIECES),
    "choices": Row("multiple-choice", "commonsense_qa", "text", _PROSE, "accuracy", "reported", pretrain=_PIECES),
    "shakespeare": Row("causal-lm", "tinyshakespeare", "text", _PROSE, "loss", "reported", pretrain=_PIECES),
    "cifar10": Row("image-classification", "cifar10", "vision", _PICTURES, "accuracy", "+0.05 over scratch"),
    "camvid": Row("semantic-segmentation", "camvid", "vision", _PICTURES, "mean_iou", "above scratch", _SMALLER),
}


def gather(row: Row, data: Path, out: Path) -> Path:
    """One place with everything that a row is pre-trained on: the place itself, or links; tables as plain text."""
    places = [data / name for name in row.unlabelled]
    if row.modality == "text":
        out.mkdir(parents=True, exist_ok=True)
        for place in places:
            for file in [place] if place.is_file() else sorted(place.iterdir()):
                if file.name != "README.md":
                    (out / f"{place.stem}-{file.stem}.txt").write_text(_plain(file), encoding="utf-8")
        return out
    if len(places) == 1:
        return places[0]
    out.mkdir(parents=True, exist_ok=True)
    for place in places:
        root, *lines = place.read_text(encoding="utf-8").splitlines()
        for line in lines:
            file = (place.parent / root / line.split("\t")[0]).resolve()
            link = out / f"{place.parent.name}-{file.name}"
            if not link.exists():
                link.symlink_to(file)
    return out


def _plain(file: Path) -> str:
    """The text of a table's first column, or a text as it is."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".tsv":
        return "\n\n".join(line.split("\t")[0] for line in text.splitlines()[1:])
    if file.suffix == ".csv":
        import csv

        return "\n\n".join(fields[0] for fields in list(csv.reader(text.splitlines()))[1:] if fields)
    return text


def call(command: list[str]) -> float:
    """Run a command of ours in this process; seconds of CPU it took."""
    print("$ data2vec", shlex.join(command), file=sys.stderr)
    began = time.process_time()
    if status := data2vec(command):
        raise SystemExit(status)
    return time.process_time() - began


def pretrain(row: Row, options: argparse.Namespace) -> Path:
    """The row's encoder; rows with the same unlabelled data share one."""
    name = "-".join([row.modality, *(Path(place).as_posix().replace("/", "_") for place in row.unlabelled)])
    run = options.out / "pretrained" / name
    if not (run / "model" / "config.json").is_file():
        source = gather(row, options.data, options.out / "unlabelled" / name)
        name = PRESETS[row.modality]
        config = preset(row.modality, name)
        updates = max(2, round((config.train.updates or 1) * options.scale * options.pretrain))
        command = f"pretrain {row.modality} {source} --preset {name} --out {run} --train.updates {updates} "
        command += f"--objective.ema.anneal-updates {updates * 3 // 4} {row.pretrain}"
        call([*command.split(), *options.extra])
    return Path(run / "model")


def finetune(name: str, row: Row, model: Path, seed: int, scratch: bool, options: argparse.Namespace) -> dict[str, Any]:
    """One run; the line that stands for it."""
    out = options.out / "runs" / f"{name}-{'scratch' if scratch else 'pretrained'}-{seed}"
    updates = max(2, round((finetune_preset(row.task, "little").train.updates or 1) * options.scale))
    steps = f"--train.updates {updates} --train.eval-every {max(1, updates // 10)}"
    steps += f" --train.seed {seed} --loader.seed {seed + 1}"
    command = ["finetune", row.task, str(options.data / row.data), "--model", str(model), "--out", str(out)]
    command += [*steps.split(), *row.more.split(), *options.extra, *(["--scratch"] if scratch else [])]
    seconds = call([*command, "--resume"] if (out / "run.json").is_file() else command)
    scores = json.loads((out / "evaluation" / "scores.json").read_text())
    line = {"row": name, "from": "scratch" if scratch else "pretrained", "seed": seed, "cpu_seconds": round(seconds)}
    return line | {"metric": row.metric, "score": scores[row.metric], "scores": scores, "command": shlex.join(command)}


def read(results: Path) -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def table(results: Path) -> str:
    """Mean and spread of every row, pre-trained and from scratch."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in read(results):
        groups[run["row"], run["from"]].append(run["score"])
    lines = ["| row | task | metric | pre-trained | from scratch | goal |", "|---|---|---|---|---|---|"]
    for name, row in ROWS.items():
        if (name, "pretrained") in groups or (name, "scratch") in groups:
            cells = [_spread(groups.get((name, side), [])) for side in ("pretrained", "scratch")]
            lines.append(f"| {name} | {row.task} | {row.metric} | {' | '.join(cells)} | {row.goal} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.4f}" + (f" +- {stdev(values):.4f} (n={len(values)})" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all if none")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=("pretrained", "scratch"), default=("pretrained", "scratch"))
    parser.add_argument("--pretrain", type=float, default=1.0, help="factor of the preset's pre-training updates")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all updates")
    parser.add_argument("--table", action="store_true", help="only print what OUT/results.jsonl holds")
    options, extra = parser.parse_known_args()
    options.extra = extra
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if not options.table:
        done = {(run["row"], run["from"], run["seed"]) for run in read(results)}
        for name in options.rows or ROWS:
            row = ROWS[name]
            model = pretrain(row, options)
            for seed, side in product(range(options.seeds), options.sides):
                if (name, side, seed) not in done:
                    line = finetune(name, row, model, seed, side == "scratch", options)
                    with results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
    if results.is_file():
        print(table(results))


if __name__ == "__main__":
    main()
