"""Collapse happens with the settings under which the original code collapsed, and the run says so while it happens.

The settings are those of the original's worst run, made small: a positional convolution whose reach (95 frames) covers
the crop, crops of one length, a fast teacher, a high rate. Variances stay healthy and the loss falls towards zero.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data2vec.cli.main import main

soundfile = pytest.importorskip("soundfile")
SMALL = """--model.hidden-size 32 --model.num-hidden-layers 2 --model.num-attention-heads 2 --model.intermediate-size 64
    --model.conv-dim 16 16 16 16 16 16 16 --objective.target.layers 2 --data.batch-samples 128000"""
DECODER = "--objective.decoder.channels 64 --objective.decoder.layers 2"
BAD = """--model.num-conv-pos-embeddings 5 --model.conv-pos-kernel-size 19 --data.min-crop 8000 --data.max-samples 8000
    --data.concatenate 8000 --objective.ema.start 0.99 --objective.ema.end 0.999"""
QUICK = "--loader.workers 0 --train.precision fp32 --train.log-every 10 --device cpu"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of tones of random pitch, loudness and length: there is something else to learn than positions."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for number in range(40):
        parts = []
        for length in rng.integers(800, 3200, 24):
            wave = np.sign(np.sin(2 * np.pi * rng.uniform(100, 1500) * np.arange(length) / 16_000))
            parts.append(rng.uniform(0.2, 1) * np.hanning(length) * wave)
        sound = np.concatenate(parts)
        soundfile.write(folder / f"{number}.wav", 0.9 * sound + 0.03 * rng.standard_normal(len(sound)), 16_000)
    return folder


def pretrain(tones: Path, out: Path, *more: str) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
    """Exit code, records and warnings."""
    status = main(["pretrain", "audio", str(tones), "--out", str(out), *f"{SMALL} {QUICK}".split(), *more])
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return status, [e for e in entries if "loss" in e], [e for e in entries if "warning" in e]


def test_positional_collapse_is_reported_while_it_happens(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ["--optim.lr", "2e-3", "--optim.schedule", "constant", "--optim.warmup", "20", "--train.updates", "100"]
    status, records, warnings = pretrain(
        tones, tmp_path / "run", "--preset", "v2-tiny", *f"{BAD} {DECODER}".split(), *fast
    )
    last = records[-1]
    assert status == 0
    assert last["position_share"] > 0.9
    assert last["target_var"] > 0.1 and last["pred_var"] > 0.01  # what the published monitors look at is healthy
    assert last["loss"] < records[0]["loss"] / 3
    assert "position_share" in warnings[0]["warning"] and warnings[0]["update"] < 100
    assert "depend on the position only" in capsys.readouterr().err


def test_collapse_of_the_local_encoder_is_reported_and_stops_the_run_if_asked_to(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ["--objective.collapse.max-position-share", "0", "--train.stop-on-collapse", "--train.updates", "300"]
    fast = ["--optim.lr", "4e-3", "--optim.schedule", "constant", "--optim.warmup", "20"]
    status, records, warnings = pretrain(
        tones, tmp_path / "run", "--preset", "v2-tiny", *f"{BAD} {DECODER}".split(), *fast, *stop
    )
    last = records[-1]
    assert status == 2
    assert last["local_var"] < 0.05 * records[0]["local_var"]
    assert last["target_var"] > 0.1 and last["pred_var"] > 0.01 and last["position_share"] > 0.9
    assert warnings[-1]["warning"].startswith("local_var")
    said = capsys.readouterr().err.splitlines()[-1]
    assert "local_var" in said and "stop_on_collapse" in said


def test_a_healthy_run_is_not_accused(tones: Path, tmp_path: Path) -> None:
    long = ["--data.min-crop", "16000", "--data.max-samples", "24000", "--data.concatenate", "24000"]
    status, records, warnings = pretrain(tones, tmp_path / "run", "--preset", "tiny", *long, "--train.updates", "40")
    assert status == 0
    assert not warnings
    assert records[-1]["position_share"] < 0.5
