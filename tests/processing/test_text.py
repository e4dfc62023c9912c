"""The RoBERTa tokenizer: its form of rows, its way back to the text, and what it refuses."""

from __future__ import annotations

import copy
import json
import pickle  # noqa: TID251  # data loaders send tokenizers to workers this way
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data2vec import RobertaTokenizer, RobertaTokenizerFast, UserError
from data2vec.processing.bpe import train_bpe

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def tokenizer(bpe_folder: Path) -> RobertaTokenizer:
    return RobertaTokenizer.from_pretrained(bpe_folder)


def test_toy_vocabulary(tmp_path: Path) -> None:
    """The published test's merges; special tokens that a vocabulary lacks come after it."""
    tokens = [
        "l",
        "o",
        "w",
        "e",
        "r",
        "s",
        "t",
        "i",
        "d",
        "n",
        "Ġ",
        "Ġl",
        "Ġn",
        "Ġlo",
        "Ġlow",
        "er",
        "Ġlowest",
        "<unk>",
    ]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ l\nĠl o\nĠlo w\ne r\n")
    tokenizer = RobertaTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("lower newer") == ["l", "o", "w", "er", "Ġ", "n", "e", "w", "er"]
    assert tokenizer("lower newer").input_ids == [18, 0, 1, 2, 15, 10, 9, 3, 2, 15, 19]
    assert tokenizer.special_tokens_map["mask_token"] == "<mask>"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id) == (
        18,
        19,
        20,
        21,
    )


def test_form_of_rows(tokenizer: RobertaTokenizer) -> None:
    a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("The house.", " A letter"))
    assert tokenizer("The house.").input_ids == [0, *a, 2]
    assert tokenizer("The house.", " A letter").input_ids == [0, *a, 2, 2, *b, 2]
    assert set(tokenizer("The house.", " A letter", return_token_type_ids=True).token_type_ids) == {0}
    assert tokenizer.num_special_tokens_to_add(pair=True) == 4
    mask = tokenizer("The house.", " A letter", return_special_tokens_mask=True)
    assert mask.special_tokens_mask == tokenizer.get_special_tokens_mask(mask.input_ids)


@given(ANY_TEXT)
def test_text_comes_back(text: str) -> None:
    tokenizer = _tokenizer()
    batch = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True)
    assert tokenizer.decode(batch.input_ids, skip_special_tokens=True) == text
    for token, (start, end) in enumerate(batch.offset_mapping):
        span = batch.token_to_chars(token)
        assert span is None or span == (start, end)
        assert 0 <= start <= end <= len(text)


_MADE: list[RobertaTokenizer] = []


def _tokenizer() -> RobertaTokenizer:
    """Trained once; its few merges change nothing about the law that is tested."""
    if not _MADE:
        _MADE.append(RobertaTokenizer(tokenizer_object=train_bpe(["the house by the river, the old house"] * 4, 300)))
    return _MADE[0]


def test_alignment(tokenizer: RobertaTokenizer) -> None:
    text = "The old house, 1923"
    batch = tokenizer(text, return_offsets_mapping=True)
    for token, word in enumerate(batch.word_ids()):
        if word is not None:
            start, end = batch.offset_mapping[token]
            assert batch.char_to_token(start) == token == batch.char_to_token(end - 1)
            assert batch.char_to_word(start) == word == batch.token_to_word(token)
            first, last = batch.word_to_tokens(word)
            assert first <= token < last
            assert (
                text[slice(*batch.word_to_chars(word))]
                == text[batch.offset_mapping[first][0] : batch.offset_mapping[last - 1][1]]
            )
    pair = tokenizer(["one"], ["two three"])
    assert pair.sequence_ids(0)[0] is None
    assert pair.token_to_sequence(0, -2) == 1
    assert pair[0].tokens == pair.tokens(0)


def test_split_words_are_encoded_as_after_a_space(tokenizer: RobertaTokenizer, bpe_folder: Path) -> None:
    words = ["The", "house", ",", "1923"]
    batch = tokenizer(words, is_split_into_words=True, return_offsets_mapping=True)
    expected = [tokenizer.encode(" " + word, add_special_tokens=False) for word in words]
    assert batch.input_ids == [0, *(index for ids in expected for index in ids), 2]
    assert batch.word_ids() == [None, *(i for i, ids in enumerate(expected) for _ in ids), None]
    starts = [batch.offset_mapping[batch.word_to_tokens(i).start][0] for i in range(len(words))]
    assert starts == [0, 0, 0, 0], "offsets count within each word, without the space"
    assert tokenizer("The").input_ids != tokenizer(["The"], is_split_into_words=True).input_ids, (
        "and plain text is as before"
    )
    like = RobertaTokenizer.from_pretrained(bpe_folder, compat="transformers")
    plain = [index for word in words for index in tokenizer.encode(word, add_special_tokens=False)]
    assert like(words, is_split_into_words=True).input_ids == [0, *plain, 2]


def test_mask_takes_the_space_before_it(vocab_merges_folder: Path) -> None:
    ours = RobertaTokenizer.from_pretrained(vocab_merges_folder)
    like = RobertaTokenizer.from_pretrained(vocab_merges_folder, compat="transformers")
    ids = ours("A, <mask> house").input_ids
    assert ids == [0, *ours.encode("A,", add_special_tokens=False), ours.mask_token_id, *ours.encode(" house")[1:]]
    assert len(like("A, <mask> house").input_ids) == len(ids) + 1, "a stray space"


def test_overflow_covers_the_text(tokenizer: RobertaTokenizer) -> None:
    texts = ["The old house stood at the end of the lane, where the wind came over the hill.", "Short."]
    batch = tokenizer(texts, max_length=9, truncation=True, stride=2, return_overflowing_tokens=True, padding=True)
    rows = [row for row, i in zip(batch.input_ids, batch.overflow_to_sample_mapping, strict=True) if i == 0]
    assert batch.overflow_to_sample_mapping == [0] * len(rows) + [1]
    body = [[index for index in row if index not in (0, 1, 2)] for row in rows]
    joined = body[0] + [index for row in body[1:] for index in row[2:]]
    assert joined == tokenizer.encode(texts[0], add_special_tokens=False)
    assert all(first[-2:] == second[:2] for first, second in pairwise(body))


def test_special_tokens_of_strangers_can_be_split(tokenizer: RobertaTokenizer) -> None:
    assert tokenizer("a</s>b").input_ids.count(2) == 2
    assert tokenizer("a</s>b", split_special_tokens=True).input_ids.count(2) == 1
    assert tokenizer("a</s>b").input_ids.count(2) == 2, "and that does not last"


def test_added_tokens(bpe_folder: Path, tmp_path: Path) -> None:
    tokenizer = RobertaTokenizer.from_pretrained(bpe_folder)
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<year>", "e"]) == 1, "e is in the vocabulary already"
    assert tokenizer.add_special_tokens({"extra_special_tokens": ["<q>"]}) == 1
    assert len(tokenizer) == size + 2
    assert tokenizer.tokenize("in <year>!")[-2:] == ["<year>", "!"]
    assert tokenizer.decode(tokenizer("x<q>y").input_ids, skip_special_tokens=True) == "xy"
    tokenizer.save_pretrained(tmp_path)
    loaded = RobertaTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded("in <year> <q>") == tokenizer("in <year> <q>")
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    (tmp_path / "tokenizer.json").unlink()
    slow = RobertaTokenizer.from_pretrained(tmp_path)
    assert slow.get_vocab() == tokenizer.get_vocab(), "vocab.json, merges.txt and added_tokens.json say the same"
    assert slow("in <year> <q>").input_ids == tokenizer("in <year> <q>").input_ids


def test_conversions(tokenizer: RobertaTokenizer) -> None:
    tokens = tokenizer.tokenize("The old house")
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert tokenizer.convert_ids_to_tokens(ids) == tokens
    assert tokenizer.convert_tokens_to_string(tokens) == "The old house"
    assert tokenizer.convert_ids_to_tokens([0, *ids, 2], skip_special_tokens=True) == tokens
    assert tokenizer.convert_tokens_to_ids("no such token") == tokenizer.unk_token_id
    assert tokenizer.batch_decode([[0, *ids, 2, -100], ids], skip_special_tokens=True) == ["The old house"] * 2
    assert tokenizer.decode([[0, *ids, 2], ids], skip_special_tokens=True) == ["The old house"] * 2
    assert RobertaTokenizerFast is RobertaTokenizer


def test_threads_do_not_mix_their_settings(tokenizer: RobertaTokenizer) -> None:
    """The backend keeps padding and truncation as state: a server encodes from several threads."""

    def encode(length: int) -> bool:
        batch = tokenizer(["The old house stood"] * 4, padding="max_length", max_length=length, truncation=True)
        return {len(row) for row in batch.input_ids} == {length}

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(encode, [4, 16, 7, 32] * 25))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_travels_to_workers(tokenizer: RobertaTokenizer, duplicate) -> None:
    assert duplicate(tokenizer)("The <mask>") == tokenizer("The <mask>")


def test_pad_keeps_side_and_masks(tokenizer: RobertaTokenizer) -> None:
    rows = [tokenizer(text, return_special_tokens_mask=True) for text in ("The", "The old house")]
    batch = tokenizer.pad(rows, padding_side="left", return_tensors="pt")
    assert batch.input_ids[0, 0] == tokenizer.pad_token_id
    assert batch.attention_mask[0].tolist() == batch.input_ids[0].ne(tokenizer.pad_token_id).long().tolist()
    assert batch.special_tokens_mask[0, 0] == 1
    with pytest.raises(UserError, match="no alignment"):
        batch.word_ids()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": None}, r"text\[0\] is NoneType"),
        ({"text": ["fine", float("nan")]}, r"text\[1\] is float"),
        ({"text": ["a", "b"], "text_pair": ["c"]}, "text_pair"),
        ({"text": "a", "padding": "longer"}, "padding='longer'"),
        ({"text": "a", "truncation": "both"}, "truncation='both'"),
        ({"text": "a b c d e f", "truncation": True, "max_length": 4, "stride": 9}, "stride=9|max_length=4"),
        (
            {"text": "a", "truncation": True, "padding": True, "max_length": 9, "pad_to_multiple_of": 8},
            "pad_to_multiple_of=8",
        ),
        ({"text": ["a", "a b c"], "return_tensors": "pt"}, "padding=True"),
        ({"text": "a", "return_tensors": "tf"}, "return_tensors='tf'"),
    ],
)
def test_bad_calls(tokenizer: RobertaTokenizer, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tokenizer(**arguments)


def test_bad_construction(bpe_folder: Path) -> None:
    with pytest.raises(UserError, match="vocab and merges"):
        RobertaTokenizer()
    with pytest.raises(UserError, match="no option padding_sid"):
        RobertaTokenizer.from_pretrained(bpe_folder, padding_sid="left")
    with pytest.raises(UserError, match="padding_side='up'"):
        RobertaTokenizer.from_pretrained(bpe_folder, padding_side="up")
    with pytest.raises(UserError, match="compat='hf'"):
        RobertaTokenizer.from_pretrained(bpe_folder, compat="hf")
