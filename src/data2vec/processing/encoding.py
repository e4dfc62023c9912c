"""What a tokenizer returns: ids by name, and the way back from tokens to words and characters of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import Encoding

from data2vec.errors import UserError
from data2vec.processing.processor import BatchFeature


class CharSpan(NamedTuple):
    """Characters ``text[start:end]``."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens ``start`` to ``end``, the last one not included."""

    start: int
    end: int


class BatchEncoding(BatchFeature):
    """Tokenized text: a dict of lists or tensors, plus the alignment of every row (`encodings`, byte-level BPE only).

    The methods below take ``(row, index)``, or ``(index)`` alone for the first row.
    """

    def __init__(self, data: Mapping[str, Any], encodings: Sequence[Encoding] | None = None) -> None:
        super().__init__(data)
        self.encodings = encodings

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self._rows()[key]

    def _rows(self) -> Sequence[Encoding]:
        if self.encodings is None:
            raise UserError(
                "this batch has no alignment to its text: it was padded afterwards, or is not byte-level BPE"
            )
        return self.encodings

    def _at(self, row: int, index: int | None) -> tuple[Encoding, int]:
        if index is None:
            row, index = 0, row
        return self._rows()[row], index

    @property
    def is_fast(self) -> bool:
        """Whether the alignment methods work."""
        return self.encodings is not None

    def tokens(self, row: int = 0) -> list[str]:
        """The tokens of a row, special ones included."""
        return list(self._rows()[row].tokens)

    def word_ids(self, row: int = 0) -> list[int | None]:
        """For each token the word it belongs to; None for special tokens."""
        return list(self._rows()[row].word_ids)

    def sequence_ids(self, row: int = 0) -> list[int | None]:
        """For each token 0 or 1, the text of the pair it comes from; None for special tokens."""
        return list(self._rows()[row].sequence_ids)

    def token_to_sequence(self, row: int, token: int | None = None) -> int | None:
        """Which text of the pair a token comes from."""
        encoding, index = self._at(row, token)
        sequence: int | None = encoding.token_to_sequence(index if index >= 0 else len(encoding) + index)
        return sequence

    def token_to_word(self, row: int, token: int | None = None) -> int | None:
        """The word that a token belongs to."""
        encoding, index = self._at(row, token)
        word: int | None = encoding.token_to_word(index if index >= 0 else len(encoding) + index)
        return word

    def token_to_chars(self, row: int, token: int | None = None) -> CharSpan | None:
        """The characters that a token stands for; None for special tokens."""
        encoding, index = self._at(row, token)
        span = encoding.token_to_chars(index if index >= 0 else len(encoding) + index)
        return None if span is None else CharSpan(*span)

    def char_to_token(self, row: int, char: int | None = None, sequence_index: int = 0) -> int | None:
        """The token that holds a character; None for a space that no token keeps."""
        encoding, index = self._at(row, char)
        token: int | None = encoding.char_to_token(index, sequence_index)
        return token

    def char_to_word(self, row: int, char: int | None = None, sequence_index: int = 0) -> int | None:
        """The word that holds a character."""
        encoding, index = self._at(row, char)
        word: int | None = encoding.char_to_word(index, sequence_index)
        return word

    def word_to_tokens(self, row: int, word: int | None = None, sequence_index: int = 0) -> TokenSpan | None:
        """The tokens of a word; None when truncation took them."""
        encoding, index = self._at(row, word)
        span = encoding.word_to_tokens(index, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(self, row: int, word: int | None = None, sequence_index: int = 0) -> CharSpan | None:
        """The characters of a word; None when truncation took them."""
        encoding, index = self._at(row, word)
        span = encoding.word_to_chars(index, sequence_index)
        return None if span is None else CharSpan(*span)
