"""The demo: write the data, pre-train and probe, one process a core, and write the report."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec.demo.outcome import Outcome, Point, Score, percent
from data2vec.demo.pictures import write_digits
from data2vec.demo.prose import write_prose
from data2vec.demo.recipes import METHODS, PATIENCE, RECIPES, recipe
from data2vec.demo.report import page
from data2vec.demo.speech import WORDS, write_speech
from data2vec.errors import UserError, require
from data2vec.evaluation.frozen import Frozen, features_of, labelled_items, open_frozen, probe_folder, untrained
from data2vec.evaluation.probe import ProbeResult
from data2vec.training.pretrain import run_pretraining
from data2vec.training.run import RunFolder


@dataclass(frozen=True)
class Job:
    """One network to pre-train and to probe.

    Attributes:
        modality: of `RECIPES`.
        method: of `METHODS`.
        out: folder of the whole demo.
        minutes: of CPU time to train.
        seed: of everything random.
    """

    modality: str
    method: str
    out: Path
    minutes: float
    seed: int

    @property
    def name(self) -> str:
        """As it is told to people."""
        return f"{self.modality} {self.method}"

    @property
    def files(self) -> Path:
        """The labelled files."""
        return self.out / "files" / self.modality

    @property
    def run(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.out / f"{self.modality}-{self.method}")


def run_demo(
    out: Path,
    *,
    modalities: Sequence[str] = tuple(RECIPES),
    methods: Sequence[str] = tuple(METHODS),
    minutes: float = 1.5,
    seed: int = 0,
    small: bool = False,
    tell: Callable[[str], None] = print,
) -> list[Outcome]:
    """Pre-train in every modality with every method, probe against the same networks untrained, write ``report.html``.

    Args:
        out: a new folder.
        modalities: of `RECIPES`.
        methods: of `METHODS`.
        minutes: CPU time of each training, more for text; on two cores two run at a time.
        seed: of data, weights, order and masks.
        small: a handful of files of each kind (for tests).
        tell: hears what happens.

    Raises:
        UserError: `out` is in use.
        ImportError: a package of the extra ``demo`` is missing.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another --out, or remove it")
    began = time.perf_counter()
    require("sklearn", extra="demo")
    for modality in modalities:
        tell(f"writing {modality} to {out / 'files' / modality}")
        _WRITE[modality](out / "files" / modality, small, seed)
    jobs = [Job(each, method, out, minutes * PATIENCE[each], seed) for each in modalities for method in methods]
    outcomes = _run_all(jobs, tell)
    html = page(outcomes, (time.perf_counter() - began) / 60)
    (out / "report.html").write_text(html, encoding="utf-8")
    return outcomes


_WRITE: Mapping[str, Callable[[Path, bool, int], None]] = {
    "speech": lambda folder, small, seed: write_speech(
        folder, words=WORDS[: 4 if small else None], voices=12 if small else None, seed=seed
    ),
    "images": lambda folder, small, seed: write_digits(folder, limit=160 if small else None),
    "text": lambda folder, small, seed: write_prose(folder, limit=20 if small else None, seed=seed),
}


def _run_all(jobs: Sequence[Job], tell: Callable[[str], None]) -> list[Outcome]:
    """The outcomes in the order of the jobs; as many at a time as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with ProcessPoolExecutor(min(cores, len(jobs)), mp_context=spawn) as pool:
        running: dict[Future[Outcome], Job] = {pool.submit(run_job, job): job for job in jobs}
        done: dict[str, Outcome] = {}
        try:
            while len(done) < len(jobs):
                finished, _ = wait(
                    [future for future, job in running.items() if job.name not in done], 1, FIRST_COMPLETED
                )
                for future in finished:
                    name, outcome = running[future].name, future.result()
                    done[name] = outcome
                    tell(f"{name:<12} {percent(outcome.linear.before)} -> {percent(outcome.linear.after)}")
                _show([job for job in jobs if job.name not in done])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [done[job.name] for job in jobs]


def _show(jobs: Sequence[Job]) -> None:
    """A line that is overwritten, where people watch."""
    if sys.stderr.isatty():
        shares = [f"{job.name} {_share(job):.0%}" for job in jobs if job.run.log.exists()]
        print("\r\x1b[K" + "   ".join(shares), end="\r", file=sys.stderr, flush=True)


def _share(job: Job) -> float:
    records = _records(job.run)
    return records[-1]["seconds"] / (60 * job.minutes) if records else 0.0


def run_job(job: Job) -> Outcome:
    """Pre-train one network, and probe it and its untrained twin."""
    torch.set_num_threads(1)  # so that CPU time is training time, and two runs share two cores
    job.run.path.mkdir(parents=True, exist_ok=True)
    corpus = job.files / ("corpus.txt" if job.modality == "text" else "train")
    with (job.run.path / "console.txt").open("w") as console, contextlib.redirect_stderr(console):
        result = run_pretraining(
            recipe(job.modality, job.method, job.minutes, job.seed), corpus, job.run.path, device="cpu"
        )
    if result.reason != "time":
        raise KeyboardInterrupt
    after = open_frozen(job.run.model)
    before = untrained(after, job.seed)
    probes = [probe_folder(frozen, job.files, batch_size=32, seed=job.seed) for frozen in (before, after)]
    return Outcome(
        modality=job.modality,
        method=job.method,
        records=_records(job.run),
        parameters=sum(p.numel() for p in after.model.parameters()),
        classes=probes[1].classes,
        items=probes[1].items,
        linear=_score(probes[0].linear, probes[1].linear),
        neighbours=_score(probes[0].neighbours, probes[1].neighbours),
        before=_picture(before, job, probes[0].linear.features),
        after=_picture(after, job, probes[1].linear.features),
        command=f"data2vec probe {job.run.model} {job.files}",
    )


def _score(before: ProbeResult, after: ProbeResult) -> Score:
    return Score(before.accuracy, after.accuracy, after.standard_error)


def _records(run: RunFolder) -> list[dict[str, float]]:
    lines = run.log.read_text(encoding="utf-8").splitlines(keepends=True)
    records: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in records if "loss" in record]


def _picture(frozen: Frozen, job: Job, name: str) -> list[Point]:
    """Held-out items in two dimensions, by t-SNE of the features that the linear probe chose."""
    manifold = require("sklearn.manifold", extra="demo")
    dev = labelled_items(frozen, job.files, seed=job.seed).dev
    x = features_of(frozen, dev, batch_size=32)[name]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    places = manifold.TSNE(perplexity=min(30, (len(x) - 1) / 3), init="pca", random_state=job.seed).fit_transform(x)
    return [Point(float(a), float(b), example.target) for (a, b), example in zip(places, dev, strict=True)]
