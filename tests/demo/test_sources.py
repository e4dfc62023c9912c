"""The demo's data: labelled, split without leaks, the same for the same seed."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec.demo.pictures import write_digits
from data2vec.demo.prose import CHAPTERS, SHORTEST, write_prose
from data2vec.demo.speech import _family

soundfile = pytest.importorskip("soundfile")


def speak(folder: Path, seed: int) -> dict[Path, bytes]:
    """What a new process writes: the synthesizer's state lasts as long as its process."""
    code = f"""
from pathlib import Path
from data2vec.demo.speech import write_speech
write_speech(Path({str(folder)!r}), words=("yes", "no"), voices=12, seed={seed})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.wav")}


def test_words_in_voices(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    files = speak(tmp_path / "a", seed=0)
    assert len(files) == 24
    assert {path.parts[:2] for path in files} == {(split, word) for split in ("train", "dev") for word in ("yes", "no")}
    train, dev = ({_family(path.stem) for path in files if path.parts[0] == split} for split in ("train", "dev"))
    assert train and dev and not train & dev
    for path in files:
        sound, rate = soundfile.read(tmp_path / "a" / path)
        assert 0.1 < len(sound) / rate < 3 and np.abs(sound).max() > 0.01
    assert speak(tmp_path / "again", seed=0) == files
    assert speak(tmp_path / "other", seed=1) != files


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    write_digits(tmp_path, limit=40)
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 40 and sum(path.parts[-3] == "dev" for path in files) == 10
    assert {path.parent.name for path in files} <= set("0123456789")
    pixels = np.asarray(Image.open(files[0]))
    assert pixels.shape == (8, 8) and pixels.max() > 200


def test_prose(tmp_path: Path) -> None:
    write_prose(tmp_path, limit=20)
    tables = {name: list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("train", "dev")}
    corpus = set((tmp_path / "corpus.txt").read_text().splitlines())
    assert {row["label"] for row in tables["train"]} == {row["label"] for row in tables["dev"]} <= set(CHAPTERS)
    assert len(tables["dev"]) * 4 == len(tables["train"])
    dev = {" ".join(row["text"].split()) for row in tables["dev"]}
    assert not dev & corpus
    assert not dev & {" ".join(row["text"].split()) for row in tables["train"]}
    assert all(len(row["text"]) >= SHORTEST for rows in tables.values() for row in rows)
