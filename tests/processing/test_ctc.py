"""The CTC tokenizer: golden cases, the laws of its decoding, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle  # noqa: TID251  # data loaders send tokenizers to workers this way
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data2vec import UserError, Wav2Vec2CTCTokenizer

WORDS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ", max_size=30)


@pytest.fixture(scope="module")
def tokenizer(ctc_vocab: dict[str, int]) -> Wav2Vec2CTCTokenizer:
    return Wav2Vec2CTCTokenizer(ctc_vocab)


def test_golden_transcriptions(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    """From the published tests: repeats merge, blanks part them, ids outside the vocabulary are unknown."""
    rows = [[11, 5, 15, 0, 15, 8, 98], [24, 22, 5, 4, 24, 22, 5, 77]]
    assert tokenizer.batch_decode(rows) == ["HELLO<unk>", "BYE BYE<unk>"]
    assert tokenizer.decode(rows[0]) == "HELLO<unk>"
    stretched = [[11, 5, 5, 5, 5, 5, 15, 15, 15, 0, 15, 8, 98], [24, 22, 5, 0, 0, 0, 4, 24, 22, 5, 77]]
    assert tokenizer.batch_decode(stretched) == ["HELLO<unk>", "BYE BYE<unk>"]


def test_golden_encoding(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    assert tokenizer("HELLO BYE") == {"input_ids": [11, 5, 15, 15, 8, 4, 24, 22, 5], "attention_mask": [1] * 9}
    assert tokenizer.tokenize("A <unk> B|C") == ["A", "<unk>", "B", "|", "C"]
    assert (tokenizer.pad_token_id, tokenizer.word_delimiter_token_id, len(tokenizer)) == (0, 4, 32)


def test_offsets_are_frames_and_plain_integers(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    frames = [0, 11, 11, 0, 10, 4, 4, 0, 24, 24, 22, 5]  # .HH.I||.BBYE
    output = tokenizer.decode(frames, output_char_offsets=True, output_word_offsets=True)
    assert output.text == output["text"] == output[0] == "HI BYE"
    assert output.word_offsets == [
        {"word": "HI", "start_offset": 1, "end_offset": 5},
        {"word": "BYE", "start_offset": 8, "end_offset": 12},
    ]
    assert output.char_offsets[2] == {"char": " ", "start_offset": 5, "end_offset": 7}
    assert json.loads(json.dumps(output.char_offsets)) == output.char_offsets
    assert tokenizer.decode(frames, output_word_offsets=True).char_offsets is None
    batch = tokenizer.batch_decode([frames, frames[:4]], output_word_offsets=True)
    assert batch.text == ["HI BYE", "H"]
    assert [len(words) for words in batch.word_offsets] == [2, 1]


def plain_decode(ids: list[int], tokens: list[str]) -> str:
    """CTC decoding written out: merge runs, drop the blank, a bar is a space."""
    merged = [tokens[index] for index, _ in groupby(ids) if index != 0]
    return "".join(" " if token == "|" else token for token in merged).strip()


@given(st.lists(st.integers(0, 31), max_size=40))
def test_decoding_equals_the_plain_reference(ids: list[int]) -> None:
    vocabulary = {
        token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ"])
    }
    tokenizer = Wav2Vec2CTCTokenizer(vocabulary)
    assert tokenizer.decode(ids) == plain_decode(ids, list(vocabulary))
    output = tokenizer.decode(ids, output_char_offsets=True, output_word_offsets=True)
    assert output.text == plain_decode(ids, list(vocabulary))
    for char in output.char_offsets:
        run = set(ids[char["start_offset"] : char["end_offset"]])
        assert len(run) == 1, "a character covers a run of one symbol"
    assert [word["word"] for word in output.word_offsets] == output.text.split()


@given(WORDS)
def test_labels_come_back_as_their_text(text: str) -> None:
    tokenizer = Wav2Vec2CTCTokenizer({t: i for i, t in enumerate(["<pad>", "<unk>", *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ"])})
    labels = tokenizer(text).input_ids
    assert tokenizer.decode(labels, group_tokens=False) == text.strip()
    assert tokenizer.decode([*labels, -100, -100], group_tokens=False) == text.strip(), "padding of labels is left out"


def test_skipping_special_tokens_keeps_double_letters(
    tokenizer: Wav2Vec2CTCTokenizer, ctc_vocab: dict[str, int]
) -> None:
    frames = [11, 5, 15, 0, 15, 8, 2]
    assert tokenizer.decode(frames, skip_special_tokens=True) == "HELLO"
    assert Wav2Vec2CTCTokenizer(ctc_vocab, compat="transformers").decode(frames, skip_special_tokens=True) == "HELO"


def test_split_words_are_joined_by_the_delimiter(tokenizer: Wav2Vec2CTCTokenizer, ctc_vocab: dict[str, int]) -> None:
    assert tokenizer(["HI", "YOU"], is_split_into_words=True) == tokenizer("HI YOU")
    assert tokenizer([["HI", "YOU"], ["A"]], is_split_into_words=True) == tokenizer(["HI YOU", "A"])
    like = Wav2Vec2CTCTokenizer(ctc_vocab, compat="transformers")
    assert like(["HI", "YOU"], is_split_into_words=True) == tokenizer("HIYOU")


def test_lower_case(ctc_vocab: dict[str, int]) -> None:
    tokenizer = Wav2Vec2CTCTokenizer(ctc_vocab, do_lower_case=True)
    assert tokenizer("Hello").input_ids == [11, 5, 15, 15, 8]
    assert tokenizer.decode([11, 5, 15, 0, 15, 8]) == "hello"


def test_text_of_the_other_case_is_noticed(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    with pytest.warns(UserWarning, match="other case.*do_lower_case"):
        assert tokenizer("hello").input_ids == [3] * 5
    with pytest.raises(UserError, match=r"text\[1\]: 'é' not in the vocabulary"):
        tokenizer(["FINE", "CAFé"], on_unknown="error")


def test_padding_truncation_and_tensors(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    batch = tokenizer(["HELLO", "A"], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == [[11, 5, 15, 15, 8], [7, 0, 0, 0, 0]]
    assert batch.attention_mask.sum(1).tolist() == [5, 1]
    assert tokenizer(["HELLO", "A"], truncation=True, max_length=2).input_ids == [[11, 5], [7]]
    assert tokenizer(["HELLO"], padding=True, pad_to_multiple_of=8, return_tensors="np")["input_ids"].shape == (1, 8)
    left = tokenizer(["HELLO", "A"], padding="max_length", max_length=6, padding_side="left")
    assert left.input_ids[1] == [0, 0, 0, 0, 0, 7]
    with pytest.raises(UserError, match="padding=True"):
        tokenizer(["HELLO", "A"], return_tensors="pt")


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_pad_collates_labels_of_any_kind(tokenizer: Wav2Vec2CTCTokenizer, kind: type) -> None:
    rows = [{"input_ids": kind([11, 5])}, {"input_ids": kind([7])}]
    batch = tokenizer.pad(rows, return_tensors="pt")
    assert batch.input_ids.tolist() == [[11, 5], [7, 0]]
    assert batch.attention_mask.tolist() == [[1, 1], [1, 0]]


def test_labels_outside_the_vocabulary_are_refused(tokenizer: Wav2Vec2CTCTokenizer) -> None:
    with pytest.raises(UserError, match=r"input_ids\[1\]: 32 is outside the vocabulary \(0 to 31\)"):
        tokenizer.pad([{"input_ids": [5, -100]}, {"input_ids": [32]}])


def test_phonemes_and_long_tokens() -> None:
    """From the published tests: tokens of several characters stay whole."""
    sentence = "ʈʰ æ æ̃ ˧ kʰ"
    vocabulary = {token: i for i, token in enumerate([*sentence.split(), "[PAD]"])}
    tokenizer = Wav2Vec2CTCTokenizer(vocabulary, pad_token="[PAD]")
    ids = tokenizer(sentence).input_ids
    assert tokenizer.decode(ids, spaces_between_special_tokens=True) == sentence
    assert all(index in vocabulary.values() for index in ids)


def test_nested_vocabulary(ctc_vocab: dict[str, int], tmp_path: Path) -> None:
    specials = {"<pad>": 0, "<unk>": 1, "|": 2}
    nested = {"eng": {**specials, "a": 3, "b": 4}, "spa": {**specials, "a": 4, "c": 3, "ll": 5}}
    tokenizer = Wav2Vec2CTCTokenizer(nested, target_lang="eng")
    assert tokenizer("ab").input_ids == [3, 4]
    tokenizer.set_target_lang("spa")
    assert tokenizer("alla").input_ids == [4, 5, 4]
    assert tokenizer.decode([3, 5]) == "cll"
    tokenizer.save_pretrained(tmp_path)
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)("alla").input_ids == [4, 5, 4]
    assert Wav2Vec2CTCTokenizer.from_pretrained(tmp_path, target_lang="eng")("ab").input_ids == [3, 4]
    with pytest.raises(UserError, match=r"target_lang='ita'.*eng, spa"):
        tokenizer.set_target_lang("ita")
    with pytest.raises(UserError, match="target_lang=None"):
        Wav2Vec2CTCTokenizer(nested)
    with pytest.raises(UserError, match=r"target_lang='eng'.*one language"):
        Wav2Vec2CTCTokenizer(ctc_vocab, target_lang="eng")


def test_added_tokens(ctc_vocab: dict[str, int], tmp_path: Path) -> None:
    tokenizer = Wav2Vec2CTCTokenizer(ctc_vocab)
    assert tokenizer.add_tokens(["<laugh>", "A"]) == 1
    assert tokenizer.add_special_tokens({"extra_special_tokens": ["<cough>"]}) == 1
    assert tokenizer("A<laugh>B <cough>").input_ids == [7, 32, 24, 4, 33]
    assert tokenizer.decode([7, 32, 33], skip_special_tokens=True) == "A<laugh>"
    tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "added_tokens.json").read_text()) == {"<laugh>": 32, "<cough>": 33}
    loaded = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded("A<laugh>B <cough>") == tokenizer("A<laugh>B <cough>")
    assert loaded.all_special_tokens == tokenizer.all_special_tokens


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_travels_to_workers(tokenizer: Wav2Vec2CTCTokenizer, duplicate) -> None:
    assert duplicate(tokenizer)("HI <unk>") == tokenizer("HI <unk>")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [({"a": "0"}, "id of 'a' is '0'"), ({}, "empty"), ({"a": True}, "id of 'a' is True")],
)
def test_bad_vocabularies(vocabulary: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"vocab_file must map tokens to ids.*{message}"):
        Wav2Vec2CTCTokenizer(vocabulary)


@pytest.mark.parametrize("text", [None, 3, ["HI", None], [["HI"]]])
def test_bad_texts(tokenizer: Wav2Vec2CTCTokenizer, text: object) -> None:
    with pytest.raises((UserError, TypeError), match=r"text\[|not iterable"):
        tokenizer(text)
