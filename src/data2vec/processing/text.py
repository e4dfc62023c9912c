"""Byte-level BPE with RoBERTa's special tokens, on the `tokenizers` package."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from data2vec.errors import UserError
from data2vec.processing.bpe import load_bpe
from data2vec.processing.encoding import BatchEncoding
from data2vec.processing.processor import collate, read_json
from data2vec.processing.special import Token
from data2vec.processing.tokens import Ids, Side, Strategy, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
VOCAB_FILE = "vocab.json"
MERGES_FILE = "merges.txt"


class RobertaTokenizer(Tokenizer):
    """Text to ids and back: ``<s> A </s>``, for pairs ``<s> A </s></s> B </s>``.

    Other than the published tokenizer unless ``compat="transformers"``: with `is_split_into_words` every word is
    encoded as after a space, and ``<mask>`` takes the space before it (when built from `vocab` and `merges`).

    Args:
        vocab: token to id, or the path of a ``vocab.json``.
        merges: pairs of tokens in order, or the path of a ``merges.txt``.
        errors: kept for the published format; bytes that are no UTF-8 decode to U+FFFD.
        bos_token: first token of a text.
        eos_token: last token of a text.
        sep_token: between and after texts.
        cls_token: first token, the one classifiers read.
        unk_token: kept for the published format; bytes need no unknown token.
        pad_token: fills rows up.
        mask_token: hides a token from a masked language model.
        add_prefix_space: encode the first word as after a space.
        trim_offsets: leave spaces out of offsets.
        tokenizer_object: a `tokenizers.Tokenizer` instead of `vocab` and `merges`.
        model_max_length: longest row that ``truncation=True`` leaves; no limit if None.
        padding_side: ``"right"`` or ``"left"``.
        truncation_side: end that is cut, ``"right"`` or ``"left"``.
        clean_up_tokenization_spaces: kept for the published format; a byte-level BPE restores spaces exactly.
        extra_special_tokens: further special tokens.
        added_tokens_decoder: tokens that are never split, by id, as ``tokenizer_config.json`` holds them.
        compat: ``"transformers"`` for that library's results (5.23), defects included.

    Raises:
        UserError: no vocabulary, or not one of a RoBERTa-like model.
    """

    classes = ("RobertaTokenizer", "RobertaTokenizerFast")
    vocabulary_files = (TOKENIZER_FILE, VOCAB_FILE, MERGES_FILE)

    def __init__(
        self,
        vocab: Mapping[str, int] | str | Path | None = None,
        merges: Sequence[tuple[str, str]] | Sequence[str] | str | Path | None = None,
        errors: str = "replace",
        bos_token: Token = "<s>",
        eos_token: Token = "</s>",
        sep_token: Token = "</s>",
        cls_token: Token = "<s>",
        unk_token: Token = "<unk>",
        pad_token: Token = "<pad>",
        mask_token: Token = "<mask>",
        add_prefix_space: bool = False,
        trim_offsets: bool = True,
        *,
        tokenizer_object: Backend | None = None,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        clean_up_tokenization_spaces: bool = False,
        extra_special_tokens: Sequence[str] = (),
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        compat: str | None = None,
    ) -> None:
        special = {"bos_token": bos_token, "eos_token": eos_token, "unk_token": unk_token, "sep_token": sep_token}
        special |= {"pad_token": pad_token, "cls_token": cls_token, "mask_token": mask_token}
        super().__init__(
            special,
            model_max_length=model_max_length,
            padding_side=padding_side,
            truncation_side=truncation_side,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            extra_special_tokens=extra_special_tokens,
            compat=compat,
        )
        self.errors, self.add_prefix_space, self.trim_offsets = errors, add_prefix_space, trim_offsets
        self._lock = threading.Lock()
        if tokenizer_object is None:
            self._backend = Backend(models.BPE(*_read(vocab, merges)))
        else:
            self._backend = Backend.from_str(tokenizer_object.to_str())
        extra = {name: name for name in self.extra_special_tokens}
        wanted = [token for _, token in sorted((added_tokens_decoder or {}).items())]
        wanted += [
            _never_split(token, name == "mask_token" and not compat) for name, token in {**special, **extra}.items()
        ]
        for token in wanted:
            if token.content not in self.get_added_vocab():
                self._add([token], special=token.special)
        self._backend.decoder = decoders.ByteLevel()
        self._set_prefix_space(add_prefix_space)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def backend_tokenizer(self) -> Backend:
        """The `tokenizers.Tokenizer` that does the work."""
        return self._backend

    @property
    def is_fast(self) -> bool:
        """True: batches know their alignment to the text."""
        return True

    # Vocabulary

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        vocabulary: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        return vocabulary

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def vocab_size(self) -> int:
        """Number of tokens without the added ones."""
        return int(self._backend.get_vocab_size(with_added_tokens=False))

    @property
    def _largest_id(self) -> int:
        return len(self) - 1

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that are never split, by id."""
        added: dict[int, AddedToken] = self._backend.get_added_tokens_decoder()
        return dict(sorted(added.items()))

    def _add(self, tokens: Sequence[Token], special: bool) -> int:
        add = self._backend.add_special_tokens if special else self._backend.add_tokens
        before = len(self)
        add(list(tokens))
        return len(self) - before  # the backend counts tokens that the vocabulary had too

    def _id_of(self, token: str) -> int:
        index = self._backend.token_to_id(token)
        index = index if index is not None else self._backend.token_to_id(self.unk_token or "")
        if index is None:
            raise UserError(f"{token!r} is not in the vocabulary, and there is no unk_token to stand for it")
        return index

    def _token_of(self, index: int) -> str:
        token = self._backend.id_to_token(index) if index >= 0 else None
        if token is None:
            raise UserError(f"id {index} is outside the vocabulary (0 to {len(self) - 1})")
        return token

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text, or a pair, gets."""
        return int(self._backend.num_special_tokens_to_add(pair))

    # Text to ids

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool = False,
        return_attention_mask: bool = True,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        split_special_tokens: bool = False,
    ) -> BatchEncoding:
        """Encode texts, or pairs of texts.

        Args:
            text: a text, a list of texts or of ``(text, pair)``; with `is_split_into_words`, lists of words in place of
                texts.
            text_pair: the second texts, in the form of `text`.
            add_special_tokens: add ``<s>`` and ``</s>``.
            padding: False, True or ``"longest"``, ``"max_length"``.
            truncation: False, True or ``"longest_first"``, ``"only_first"``, ``"only_second"``.
            max_length: longest row, special tokens included; `model_max_length` if None.
            stride: tokens that overflowing rows share with the row before.
            is_split_into_words: texts are lists of words.
            pad_to_multiple_of: round the padded length up to a multiple.
            padding_side: `padding_side` of the tokenizer if None.
            return_tensors: ``"pt"``, ``"np"`` or None for lists.
            return_token_type_ids: whether to return ``token_type_ids`` (all 0).
            return_attention_mask: whether to return the mask, 1 = token.
            return_overflowing_tokens: return what truncation cuts as rows of their own, and
                ``overflow_to_sample_mapping``.
            return_special_tokens_mask: whether to return a mask, 1 = special token.
            return_offsets_mapping: whether to return each token's ``(start, end)`` characters.
            return_length: whether to return each row's length.
            split_special_tokens: treat ``</s>`` in a text as plain characters, for text from strangers.

        Returns:
            ``input_ids``, ``attention_mask`` and what was asked for: lists for one text, lists of lists or tensors
            (rows, tokens) for a batch.

        Raises:
            UserError: what is given is no text, or cannot be truncated as asked.
        """
        batched = isinstance(text, (list, tuple)) and (not is_split_into_words or _nested(text))
        rows = _rows(text, text_pair, batched, is_split_into_words)
        mode = self.strategy(padding, truncation, max_length, pad_to_multiple_of)
        with self._lock:  # the backend holds these settings as state
            self._set_lengths(mode, stride, pad_to_multiple_of, padding_side or self.padding_side)
            self._backend.encode_special_tokens = split_special_tokens
            prefixed = is_split_into_words and not self.add_prefix_space and not self.compat
            self._set_prefix_space(prefixed or self.add_prefix_space)
            try:
                encoded = self._backend.encode_batch(
                    rows, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
                )
            except Exception as error:  # the backend raises bare Exception
                raise UserError(f"text cannot be encoded with max_length={mode.max_length}: {error}") from error
            finally:
                self._set_prefix_space(self.add_prefix_space)
        kept = [[row, *row.overflowing] if return_overflowing_tokens else [row] for row in encoded]
        flat = [row for group in kept for row in group]
        wanted = {
            "input_ids": True,
            "token_type_ids": return_token_type_ids,
            "attention_mask": return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }
        columns = {name: [_READ[name](row) for row in flat] for name, asked in wanted.items() if asked}
        if return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = [i for i, group in enumerate(kept) for _ in group]
        if not batched and return_tensors is None and not return_overflowing_tokens:
            columns = {name: column[0] if isinstance(column[0], list) else column for name, column in columns.items()}
            return BatchEncoding(columns, flat)
        return BatchEncoding({name: collate(value, return_tensors, name) for name, value in columns.items()}, flat)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The ids of one text, or of a pair."""
        return self(text, text_pair, **options)["input_ids"]

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, or of a pair."""
        return self(text, pair, add_special_tokens=add_special_tokens).tokens()

    def _set_lengths(self, mode: Strategy, stride: int, multiple: int | None, side: Side) -> None:
        if mode.truncation == "do_not_truncate":
            self._backend.no_truncation()
        else:
            assert mode.max_length is not None
            try:
                self._backend.enable_truncation(
                    mode.max_length, stride=stride, strategy=mode.truncation, direction=self.truncation_side
                )
            except Exception as error:
                raise UserError(f"max_length={mode.max_length}, stride={stride}: {error}") from error
        if mode.padding == "do_not_pad":
            self._backend.no_padding()
        else:
            self._backend.enable_padding(
                direction=side,
                pad_id=self.pad_token_id or 0,
                pad_type_id=0,
                pad_token=self.pad_token or "",
                length=mode.max_length if mode.padding == "max_length" else None,
                pad_to_multiple_of=multiple,
            )

    def _set_prefix_space(self, add: bool) -> None:
        """Encode a text (each word of one that is split) as after a space, or as it is."""
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add)
        sep, cls = self.sep_token or "</s>", self.cls_token or "<s>"
        ends = (sep, self._id_of(sep)), (cls, self._id_of(cls))
        self._backend.post_processor = processors.RobertaProcessing(*ends, self.trim_offsets, add)

    # Ids to text

    def _decode(self, ids: Ids, skip_special_tokens: bool, /, clean_up_tokenization_spaces: bool | None = None) -> str:
        if any(index < 0 for index in ids):
            raise UserError(f"token_ids: {min(ids)} is no id; only -100, which pads labels, is left out")
        text: str = self._backend.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Text of a list of tokens."""
        text: str = decoders.ByteLevel().decode(list(tokens))
        return text

    # Files

    @classmethod
    def _from_folder(cls, folder: Path, settings: dict[str, Any]) -> Self:
        path = folder / TOKENIZER_FILE
        if path.is_file():
            backend = load_bpe(path)
            if read_json(path).get("model", {}).get("type") not in (None, "BPE"):
                raise UserError(f"{path}: model.type is not BPE, this is no RoBERTa tokenizer")
            return cls(tokenizer_object=backend, **settings)
        return cls(settings.pop("vocab", folder / VOCAB_FILE), settings.pop("merges", folder / MERGES_FILE), **settings)

    def _save_vocabulary(self, folder: Path) -> dict[str, Any]:
        with self._lock:
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.save(str(folder / TOKENIZER_FILE))
        self._backend.model.save(str(folder))
        return {"add_prefix_space": self.add_prefix_space, "errors": self.errors, "trim_offsets": self.trim_offsets}


RobertaTokenizerFast = RobertaTokenizer

_READ: dict[str, Any] = {
    "input_ids": lambda row: row.ids,
    "token_type_ids": lambda row: row.type_ids,
    "attention_mask": lambda row: row.attention_mask,
    "special_tokens_mask": lambda row: row.special_tokens_mask,
    "offset_mapping": lambda row: row.offsets,
    "length": len,
}


def _never_split(token: Token, lstrip: bool) -> AddedToken:
    if isinstance(token, AddedToken):
        return token
    return AddedToken(token, lstrip=lstrip, normalized=False, special=True)


def _nested(text: Sequence[Any]) -> bool:
    return bool(text) and isinstance(text[0], (list, tuple))


def _rows(text: Any, pair: Any, batched: bool, split: bool) -> list[Any]:
    """One item a row, as the backend takes them: a text or a tuple of two."""
    if not batched:
        rows = [(text, pair)] if pair else [text]
    elif pair is None:
        rows = list(text)
    elif not isinstance(pair, (list, tuple)) or len(pair) != len(text):
        raise UserError("text_pair must be a list as long as text")
    else:
        rows = list(zip(text, pair, strict=True))
    for i, row in enumerate(rows):
        if not (
            _is_text(row, split)
            or (isinstance(row, (list, tuple)) and len(row) == 2 and all(_is_text(t, split) for t in row))
        ):
            what = "a list of words, or a pair of them" if split else "str or a pair of str"
            raise UserError(f"text[{i}] is {type(row).__name__}, expected {what}")
    return rows


def _is_text(value: Any, split: bool) -> bool:
    if not split:
        return isinstance(value, str)
    return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)


def _read(vocab: Any, merges: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and its merges, each as given or from its file."""
    if vocab is None or merges is None:
        raise UserError("RobertaTokenizer needs vocab and merges (or tokenizer_object): train one with processing.bpe")
    for name, value in (("vocab", vocab), ("merges", merges)):
        if isinstance(value, (str, Path)) and not Path(value).is_file():
            raise UserError(f"{name}: no file {value}")
    if isinstance(vocab, (str, Path)):
        vocab = read_json(Path(vocab))
    if isinstance(merges, (str, Path)):
        lines = Path(merges).read_text(encoding="utf-8").splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    if not all(len(pair) == 2 for pair in pairs):
        raise UserError("merges: each must hold two tokens")
    return dict(vocab), [(a, b) for a, b in pairs]
