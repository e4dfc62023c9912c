"""Small vocabularies, tokenizers and sounds that the processor tests share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data2vec.processing.bpe import save_bpe, train_bpe

LETTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"  # the order of the published English vocabularies

PROSE = """The old house stood at the end of the lane, where the wind came over the hill and the river ran below it.
Nobody had lived there for years; still, on clear evenings, people said that they saw a light in the upper window.
"It isn't anything," my father used to say, "only the sun on the glass." But he never walked home that way himself.
One day in 1923 a letter arrived, with 2 stamps and no name: it asked whether we'd sell, and at what price (in £)."""


@pytest.fixture(scope="session")
def ctc_vocab() -> dict[str, int]:
    return {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *LETTERS])}


@pytest.fixture(scope="session")
def bpe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa-like tokenizer in the five published files."""
    folder = tmp_path_factory.mktemp("bpe")
    save_bpe(train_bpe(PROSE.splitlines() * 2, vocab_size=420), folder)
    return folder


@pytest.fixture(scope="session")
def vocab_merges_folder(bpe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same vocabulary as ``vocab.json`` and ``merges.txt`` alone."""
    folder = tmp_path_factory.mktemp("vocab-merges")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text((bpe_folder / name).read_text(encoding="utf-8"), encoding="utf-8")
    return folder


@pytest.fixture
def ctc_folder(ctc_vocab: dict[str, int], tmp_path: Path) -> Path:
    folder = tmp_path / "ctc"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(ctc_vocab))
    return folder


@pytest.fixture
def stereo_file(tmp_path: Path) -> Path:
    """Half a second of two tones, one a channel, at 8 kHz."""
    time = np.arange(4000) / 8000
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([np.sin(2 * np.pi * 220 * time), np.sin(2 * np.pi * 330 * time)], 1) * 0.3, 8000)
    return path
