"""Text: where documents end, what rows hold, what is kept between runs."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec.data import text
from data2vec.data.config import TextDataConfig
from data2vec.data.text import Documents, TextData, rows
from data2vec.errors import UserError
from data2vec.processing.bpe import save_bpe

CONFIG = TextDataConfig(block_size=16, vocab_size=300, batch_tokens=256)
POEM = "First line,\r\nsecond line.\r\n\r\n\r\nAnother stanza\r\nof two lines.\r\n"


def documents(source: Path, **options: str) -> list[str]:
    return list(Documents(source, replace(CONFIG, **options)))  # type: ignore[arg-type]


def test_where_documents_end(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_bytes(POEM.encode())
    lines = ["First line,", "second line.", "Another stanza", "of two lines."]
    whole = "First line,\nsecond line.\n\n\nAnother stanza\nof two lines."
    assert documents(tmp_path / "poem.txt") == lines
    assert documents(tmp_path) == [whole]
    assert documents(tmp_path, documents="line") == lines
    assert documents(tmp_path / "poem.txt", documents="file") == [whole]
    assert documents(tmp_path, documents="paragraph") == ["First line,\nsecond line.", "Another stanza\nof two lines."]
    assert Documents(tmp_path, replace(CONFIG, lowercase=True)).__iter__().__next__().startswith("first")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("poem.txt", POEM)
    assert documents(tmp_path / "z.zip") == [whole]


def test_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",3\n"line\nbreak",4\n')
    assert documents(tmp_path / "a.csv") == ["one, two", "line\nbreak"]
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n{"body": "y"}\n')
    assert documents(tmp_path / "a.jsonl", column="body") == ["x", "y"]
    with pytest.raises(UserError, match=r"data\.column='text'"):
        documents(tmp_path / "a.jsonl")


def test_files_that_are_no_text_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good words " * 40)
    (tmp_path / "b.txt").write_bytes("schön".encode("latin-1"))
    (tmp_path / "c.txt").write_text("  \n\n")
    data = TextData.open(tmp_path, CONFIG, tmp_path / "run")
    assert {Path(entry.source).name for entry in data.skipped} == {"b.txt", "c.txt"}
    assert data.total == 3
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match="no text to train on"):
        TextData.open(tmp_path, CONFIG, tmp_path / "run")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "ünder", "zeta"]
    lines = [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(60)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "corpus.txt"


def test_rows_put_together_are_the_documents(corpus: Path, tmp_path: Path) -> None:
    stream = TextData.open(corpus, CONFIG, tmp_path / "run")
    expected = []
    for line in documents(corpus):
        expected += [*stream.tokenizer.encode(line, add_special_tokens=False).ids, 2]
    sizes = stream.sizes(0)
    assert set(sizes.tolist()) == {16}
    got = [stream.load(i, 0)["input_ids"] for i in range(len(sizes))]
    assert all(row[0] == 0 and row.dtype == np.int64 for row in got)
    flat = np.concatenate([row[1:] for row in got])
    assert flat.tolist() == expected[: len(flat)]
    assert len(expected) - len(flat) < 15
    complete = TextData.open(corpus, replace(CONFIG, blocks="complete"), tmp_path / "run")
    parts = [complete.load(i, 0)["input_ids"] for i in range(len(complete.starts))]
    assert np.concatenate([row[1:] for row in parts]).tolist() == expected
    assert all((row[:-1] != 2).all() for row in parts)
    assert [len(row) for row in parts] == complete.sizes(0).tolist()
    first = TextData.open(corpus, replace(CONFIG, blocks="document"), tmp_path / "run")
    assert len(first.starts) == 60
    for index, line in enumerate(documents(corpus)):
        ids = first.tokenizer.encode(line).ids[:16]
        assert first.load(index, 0)["input_ids"].tolist() == ids


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(4, 30), st.sampled_from(["stream", "complete"])
)
def test_rows_cover_the_tokens_in_order(lengths: list[int], block: int, blocks: str) -> None:
    ends = np.cumsum(lengths)
    config = TextDataConfig(block_size=block, blocks=blocks, batch_tokens=1000)  # type: ignore[arg-type]
    starts, stops = rows(ends, config)
    assert (stops - starts).max() <= block - 1
    assert (stops > starts).all()
    assert starts[0] == 0
    np.testing.assert_array_equal(starts[1:], stops[:-1])
    if blocks == "stream":
        assert ends[-1] - stops[-1] < block - 1
        assert len(starts) == 1 or (stops - starts == block - 1).all()
    else:
        assert set(ends.tolist()) <= set(stops.tolist())


def test_tokens_are_kept_until_something_changes(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    tokenize = text.tokenize
    monkeypatch.setattr(text, "tokenize", lambda *args: calls.append(1) or tokenize(*args))
    first = TextData.open(corpus, CONFIG, tmp_path / "run")
    again = TextData.open(corpus, replace(CONFIG, block_size=8, blocks="document"), tmp_path / "run")
    assert len(calls) == 1
    assert first.tokenizer.to_str() == again.tokenizer.to_str()
    TextData.open(corpus, replace(CONFIG, vocab_size=280), tmp_path / "run")
    assert len(calls) == 2
    corpus.write_text("new words " * 50)
    TextData.open(corpus, CONFIG, tmp_path / "run")
    assert len(calls) == 3
    save_bpe(first.tokenizer, tmp_path / "bpe")
    given_one = TextData.open(corpus, replace(CONFIG, tokenizer=str(tmp_path / "bpe")), tmp_path / "run")
    assert len(calls) == 4
    assert given_one.tokenizer.get_vocab() == first.tokenizer.get_vocab()


def test_an_interrupted_tokenization_starts_again(corpus: Path, tmp_path: Path) -> None:
    whole = np.array(TextData.open(corpus, CONFIG, tmp_path / "run").tokens)
    folder = next((tmp_path / "run").iterdir())
    (folder / "done.json").unlink()
    (folder / "tokens.bin").write_bytes(b"cut")
    again = TextData.open(corpus, CONFIG, tmp_path / "run")
    np.testing.assert_array_equal(whole, np.asarray(again.tokens))
    assert not [file for file in folder.iterdir() if file.name.split(".")[-1].isdigit()]


def test_real_text(data_dir: Path, tmp_path: Path) -> None:
    config = TextDataConfig(block_size=64, blocks="document", vocab_size=500, batch_tokens=2048)
    news = TextData.open(data_dir / "agnews/dev.csv", config, tmp_path)
    assert len(news.starts) == 500
    shakespeare = TextData.open(data_dir / "tinyshakespeare", replace(config, blocks="stream"), tmp_path)
    assert len(shakespeare.starts) > 3000
    assert "ROMEO" in shakespeare.tokenizer.decode(np.asarray(shakespeare.tokens).tolist())
