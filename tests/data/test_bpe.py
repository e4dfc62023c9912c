"""A tokenizer trained here, saved, is read by the published classes and by us, with the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data2vec.errors import UserError
from data2vec.processing.bpe import load_bpe, save_bpe, special_ids, train_bpe

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Ünïcode, too: 北京 and 🙂.", "the the the quick quick"] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, 300)


def test_special_ids_stand_where_roberta_has_them(tokenizer: Tokenizer) -> None:
    last = tokenizer.get_vocab_size() - 1
    assert special_ids(tokenizer) == {"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": last}
    assert tokenizer.get_vocab_size() == 300
    assert sorted(tokenizer.get_vocab().values()) == list(range(300))
    assert tokenizer.encode("the fox").ids[0] == 0
    assert tokenizer.encode("the fox").ids[-1] == 2
    pair = tokenizer.encode("a", "b").ids
    assert [pair[0], *pair[2:4], pair[-1]] == [0, 2, 2, 2]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_bytes_make_every_text_reversible(text: str) -> None:
    tokenizer = train_bpe(TEXTS[:3], 261)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if "<" not in text:  # a special token's name in the text is a special token
        assert 3 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_saved_files_load_in_the_published_classes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_bpe(tokenizer, tmp_path)
    published = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    automatic = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS[:3], " leading space", "a <mask> here", ""]:
        assert published(text)["input_ids"] == tokenizer.encode(text).ids
        assert automatic(text)["input_ids"] == tokenizer.encode(text).ids
    assert published.mask_token_id == 299
    assert published.pad_token_id == 1


def test_both_layouts_load_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_bpe(tokenizer, tmp_path)
    whole = load_bpe(tmp_path)
    assert load_bpe(tmp_path / "tokenizer.json").to_str() == whole.to_str()
    (tmp_path / "tokenizer.json").unlink()
    parts = load_bpe(tmp_path)
    for text in [*TEXTS[:3], "a <mask> here"]:
        assert whole.encode(text).ids == parts.encode(text).ids == tokenizer.encode(text).ids


def test_training_is_repeatable() -> None:
    assert train_bpe(TEXTS, 300).to_str() == train_bpe(iter(TEXTS), 300).to_str()


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        load_bpe(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="lacks <s>"):
        load_bpe(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="not a tokenizer"):
        load_bpe(tmp_path)
    with pytest.raises(UserError, match="261"):
        train_bpe(TEXTS, 100)
