"""Characters for CTC: text to labels, and a model's best symbol per frame back to text with time stamps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken

from data2vec.errors import UserError
from data2vec.processing.encoding import BatchEncoding
from data2vec.processing.processor import collate, read_json, write_json
from data2vec.processing.special import Special, SpecialId, Token, changed, flags
from data2vec.processing.tokens import Ids, Side, Tokenizer, to_list

VOCAB_FILE = "vocab.json"

Offset = dict[str, int | str]


@dataclass
class Wav2Vec2CTCTokenizerOutput:
    """Text with time stamps, counted in frames: times `inputs_to_logits_ratio / sampling_rate` these are seconds.

    Attributes:
        text: the transcription; a list for a batch.
        char_offsets: ``{"char", "start_offset", "end_offset"}`` of each character, or None when not asked for.
        word_offsets: ``{"word", "start_offset", "end_offset"}`` of each word, or None when not asked for.
    """

    text: Any
    char_offsets: Any = None
    word_offsets: Any = None

    def keys(self) -> list[str]:
        """Names of the fields that are not None."""
        return [name for name in ("text", "char_offsets", "word_offsets") if getattr(self, name) is not None]

    def __getitem__(self, key: str | int) -> Any:
        return getattr(self, key if isinstance(key, str) else self.keys()[key])


class Wav2Vec2CTCTokenizer(Tokenizer):
    """A vocabulary of characters, with the padding token as the CTC blank.

    Other than the published tokenizer unless ``compat="transformers"``: `skip_special_tokens` removes blanks after
    repeats are merged, not before (so that ``L <pad> L`` stays ``LL``), and words that were split already are joined by
    the delimiter. Offsets are plain integers, and labels of -100 decode to nothing, always.

    Args:
        vocab_file: path of ``vocab.json``, or the vocabulary itself: token to id, or language to such a vocabulary.
        bos_token: kept for the published format.
        eos_token: kept for the published format.
        unk_token: stands for characters outside the vocabulary.
        pad_token: padding of labels, and the CTC blank.
        word_delimiter_token: what a space becomes.
        replace_word_delimiter_char: what the delimiter becomes when ids are decoded.
        do_lower_case: upper-case text before looking it up, lower-case what is decoded.
        target_lang: which vocabulary of a multilingual file to use.
        model_max_length: longest row that ``truncation=True`` leaves; no limit if None.
        padding_side: ``"right"`` or ``"left"``.
        truncation_side: end that is cut, ``"right"`` or ``"left"``.
        clean_up_tokenization_spaces: remove spaces before punctuation after decoding.
        extra_special_tokens: further special tokens.
        added_tokens_decoder: tokens that are never split, by id, as ``tokenizer_config.json`` holds them.
        compat: ``"transformers"`` for that library's results, defects included.

    Raises:
        UserError: the vocabulary is not a map of tokens to ids, or is multilingual and `target_lang` is not in it.
    """

    classes = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
    vocabulary_files = (VOCAB_FILE,)
    word_delimiter_token, word_delimiter_token_id = Special(), SpecialId()

    def __init__(
        self,
        vocab_file: str | Path | Mapping[str, Any],
        bos_token: Token | None = "<s>",
        eos_token: Token | None = "</s>",
        unk_token: Token | None = "<unk>",
        pad_token: Token | None = "<pad>",
        word_delimiter_token: Token | None = "|",
        replace_word_delimiter_char: str = " ",
        do_lower_case: bool = False,
        target_lang: str | None = None,
        *,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        clean_up_tokenization_spaces: bool = False,
        extra_special_tokens: Sequence[str] = (),
        added_tokens_decoder: Mapping[int, AddedToken] | None = None,
        compat: str | None = None,
    ) -> None:
        special = {"bos_token": bos_token, "eos_token": eos_token, "unk_token": unk_token, "pad_token": pad_token}
        super().__init__(
            {**special, "word_delimiter_token": word_delimiter_token},
            model_max_length=model_max_length,
            padding_side=padding_side,
            truncation_side=truncation_side,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            extra_special_tokens=extra_special_tokens,
            compat=compat,
        )
        self.replace_word_delimiter_char = replace_word_delimiter_char
        self.do_lower_case = do_lower_case
        self.target_lang = target_lang
        self.vocab = dict(vocab_file) if isinstance(vocab_file, Mapping) else read_json(Path(vocab_file))
        self._added = dict(added_tokens_decoder or {})
        self._use(target_lang)
        self._index()
        missing = [token for token in self.all_special_tokens if token not in self.get_added_vocab()]
        self._add(missing, special=True)
        self._keep_long_tokens_whole()

    # Vocabulary

    def _use(self, language: str | None) -> None:
        """Take the vocabulary of one language, or the only one."""
        nested = bool(self.vocab) and all(isinstance(value, Mapping) for value in self.vocab.values())
        if nested and language not in self.vocab:
            raise UserError(
                f"target_lang={language!r} is not in this vocabulary: choose {', '.join(sorted(self.vocab))}"
            )
        if language is not None and not nested:
            raise UserError(f"target_lang={language!r}: this vocabulary has one language only, leave target_lang out")
        encoder = self.vocab[str(language)] if nested else self.vocab
        wrong = [token for token, index in encoder.items() if not isinstance(index, int) or isinstance(index, bool)]
        if wrong or not encoder:
            where = f"the id of {wrong[0]!r} is {encoder[wrong[0]]!r}" if wrong else "it is empty"
            raise UserError(f"vocab_file must map tokens to ids: {where}")
        self.encoder: dict[str, int] = dict(encoder)
        self.decoder = {index: token for token, index in self.encoder.items()}

    def _keep_long_tokens_whole(self) -> None:
        long = [AddedToken(t, lstrip=True, rstrip=True, normalized=False) for t in self.encoder if len(t) > 1]
        self._add(long, special=False)

    def set_target_lang(self, target_lang: str) -> None:
        """Switch a multilingual vocabulary to another language."""
        self._use(target_lang)
        self.target_lang = target_lang
        self._added = {index: token for index, token in self._added.items() if index not in self.decoder}
        self._index()
        self._keep_long_tokens_whole()

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        return dict(self._ids)

    @property
    def vocab_size(self) -> int:
        """Number of ids in the vocabulary of the current language."""
        return len(self.decoder)

    @property
    def _largest_id(self) -> int:
        return max(self._ids.values())

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that are never split, by id."""
        return dict(sorted(self._added.items()))

    def _add(self, tokens: Sequence[Token], special: bool) -> int:
        vocabulary = dict(self._ids)
        before = len(vocabulary)
        for token in tokens:
            if isinstance(token, str):
                token = AddedToken(token, normalized=False, special=special)
            elif special and not token.special:
                token = changed(token, special=True)
            if self.do_lower_case and token.normalized and not token.special:
                token = changed(token, content=token.content.lower())
            if token.special and token.content not in self.all_special_tokens:
                self.extra_special_tokens.append(token.content)
            self._added[vocabulary.setdefault(token.content, len(vocabulary))] = token
        self._index()
        return len(vocabulary) - before

    def _index(self) -> None:
        """Bring what is looked up often in line with `encoder` and `_added`."""
        self._ids = {**self.encoder, **self.get_added_vocab()}
        self._whole = {token.content: token for token in self._added.values()}
        longest_first = sorted(self._whole.values(), key=lambda token: len(token.content), reverse=True)
        self._splitter = re.compile("(" + "|".join(_pattern(token) for token in longest_first) + ")")

    def _id_of(self, token: str) -> int:
        found = self._ids.get(token)
        if found is not None:
            return found
        if self.unk_token is None or self.unk_token == token:
            raise UserError(f"{token!r} is not in the vocabulary, and there is no unk_token to stand for it")
        return self._id_of(self.unk_token)

    def _token_of(self, index: int) -> str:
        if index in self.decoder:  # first, because added tokens of another language may share ids
            return self.decoder[index]
        token: str = self._added[index].content if index in self._added else (self.unk_token or "")
        return token

    # Text to labels

    def tokenize(self, text: str) -> list[str]:
        """Cut text into characters and tokens that are never split; spaces become the word delimiter."""
        pieces = [piece for piece in self._splitter.split(text) if piece] if self._whole else [text]
        for i, piece in enumerate(pieces):
            token = self._whole.get(piece)
            if token is None:
                continue
            if token.rstrip and i + 1 < len(pieces):
                pieces[i + 1] = pieces[i + 1].lstrip()
            if token.lstrip and i:
                pieces[i - 1] = pieces[i - 1].rstrip()
        return [token for piece in pieces for token in ([piece] if piece in self._whole else self._characters(piece))]

    def _characters(self, text: str) -> list[str]:
        delimiter = " " if self.word_delimiter_token is None else self.word_delimiter_token
        return [delimiter if char == " " else char for char in (text.upper() if self.do_lower_case else text)]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool = True,
        return_length: bool = False,
        on_unknown: str = "unk",
        add_special_tokens: bool = True,
    ) -> BatchEncoding:
        """Turn transcriptions into labels.

        Args:
            text: a transcription or a list of them; with `is_split_into_words`, lists of words.
            padding: False, True or ``"longest"``, ``"max_length"``.
            truncation: True cuts rows to `max_length`.
            max_length: longest row; `model_max_length` if None.
            is_split_into_words: the texts are lists of words.
            pad_to_multiple_of: round the padded length up to a multiple.
            padding_side: `padding_side` of the tokenizer if None.
            return_tensors: ``"pt"``, ``"np"`` or None for lists.
            return_attention_mask: whether to return the mask, 1 = label.
            return_length: whether to return each row's length.
            on_unknown: what to do about characters outside the vocabulary: ``"unk"`` or ``"error"``.
            add_special_tokens: without effect; CTC labels have none.

        Returns:
            ``input_ids`` and ``attention_mask``: a list for one text, (rows, labels) lists or tensors for a batch.

        Raises:
            UserError: the text is no text, or holds what the vocabulary lacks and `on_unknown` is ``"error"``.
        """
        if on_unknown not in ("unk", "error"):
            raise UserError(f"on_unknown={on_unknown!r}: choose 'unk' or 'error'")
        single = isinstance(text, str) or (is_split_into_words and bool(text) and isinstance(text[0], str))
        mode = self.strategy(padding, truncation, max_length, pad_to_multiple_of)
        rows = [
            self._cut(
                self._labels(self._join(item, i, is_split_into_words), i, on_unknown), mode.truncation, mode.max_length
            )
            for i, item in enumerate([text] if single else text)
        ]
        batch = self.pad(
            {"input_ids": rows},
            mode.padding,
            mode.max_length,
            pad_to_multiple_of,
            padding_side,
            return_attention_mask,
        )
        if return_length:
            batch["length"] = [len(row) for row in batch["input_ids"]]
        if single and return_tensors is None:
            return BatchEncoding({key: value[0] for key, value in batch.items()})
        return BatchEncoding({key: collate(value, return_tensors, key) for key, value in batch.items()})

    def encode(self, text: str, **options: Any) -> Any:
        """The labels of one transcription."""
        return self(text, **options)["input_ids"]

    def _join(self, item: Any, row: int, split: bool) -> list[str]:
        """Texts that are tokenized by themselves: one, or (`compat`) each word, which runs them together."""
        if split and not isinstance(item, str) and all(isinstance(word, str) for word in item):
            return list(item) if self.compat else [" ".join(item)]
        if split or not isinstance(item, str):
            raise UserError(f"text[{row}] is {type(item).__name__}, expected {'a list of words' if split else 'str'}")
        return [item]

    def _labels(self, texts: Sequence[str], row: int, on_unknown: str) -> Ids:
        tokens = [token for text in texts for token in self.tokenize(text)]
        unknown = sorted({token for token in tokens if token not in self._ids})
        if unknown and on_unknown == "error":
            raise UserError(
                f"text[{row}]: {''.join(unknown)!r} not in the vocabulary; clean the text or extend vocab.json"
            )
        if unknown and not self.compat and not any(t in self._ids for t in tokens if t != self.word_delimiter_token):
            hint = (
                "its letters are of the other case" if self._other_case(unknown) else "none of its characters is known"
            )
            warnings.warn(f"text[{row}] becomes {self.unk_token} only: {hint} (see do_lower_case)", stacklevel=3)
        return self.convert_tokens_to_ids(tokens)

    def _other_case(self, tokens: Sequence[str]) -> bool:
        return any(token.swapcase() in self.encoder for token in tokens)

    def _cut(self, row: Ids, truncation: str, max_length: int | None) -> Ids:
        if truncation in ("do_not_truncate", "only_second") or not max_length or len(row) <= max_length:
            return row
        return row[:max_length] if self.truncation_side == "right" else row[-max_length:]

    # Frames to text

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """Best symbol per frame to text: merge repeats, drop blanks, join.

        Args:
            token_ids: a row of ids, or a batch of rows, as list, array or tensor.
            skip_special_tokens: leave out special tokens.
            options: ``group_tokens=False`` for labels, whose repeats are meant; ``output_char_offsets``,
                ``output_word_offsets`` for time stamps; ``spaces_between_special_tokens``,
                ``clean_up_tokenization_spaces``.

        Returns:
            str, or `Wav2Vec2CTCTokenizerOutput` when offsets are asked for; lists of these for a batch.
        """
        return super().decode(token_ids, skip_special_tokens, **options)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """`decode` of each row: a list of str, or one `Wav2Vec2CTCTokenizerOutput` that holds lists."""
        rows = [self.decode(row, skip_special_tokens, **options) for row in to_list(sequences)]
        if rows and isinstance(rows[0], Wav2Vec2CTCTokenizerOutput):
            names = rows[0].keys()
            return Wav2Vec2CTCTokenizerOutput(**{name: [row[name] for row in rows] for name in names})
        return rows

    def _decode(
        self,
        ids: Ids,
        skip_special_tokens: bool,
        /,
        group_tokens: bool = True,
        output_char_offsets: bool = False,
        output_word_offsets: bool = False,
        spaces_between_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        tokens = [self._token_of(index) for index in ids]
        skipped = {*self.all_special_tokens} - {self.word_delimiter_token} if skip_special_tokens else set()
        if self.compat:
            tokens = [token for token in tokens if token not in skipped]
        chars: list[Offset] = [
            {"char": token, "start_offset": start, "end_offset": end}
            for token, start, end in _runs(tokens, group_tokens)
            if token not in skipped and token != self.pad_token
        ]
        for char in chars:
            if char["char"] == self.word_delimiter_token:
                char["char"] = self.replace_word_delimiter_char
        text = (" " if spaces_between_special_tokens else "").join(str(char["char"]) for char in chars).strip()
        text = text.lower() if self.do_lower_case else text
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        text = _clean_up(text) if clean else text
        if not (output_char_offsets or output_word_offsets):
            return text
        words = [*_words(chars, self.replace_word_delimiter_char)] if output_word_offsets else None
        return Wav2Vec2CTCTokenizerOutput(text, chars if output_char_offsets else None, words)

    # Files

    @classmethod
    def _from_folder(cls, folder: Path, settings: dict[str, Any]) -> Self:
        settings.setdefault("vocab_file", folder / VOCAB_FILE)
        if isinstance(settings["vocab_file"], Path) and not settings["vocab_file"].is_file():
            raise UserError(f"{folder}: a CTC tokenizer needs {VOCAB_FILE}")
        return cls(**settings)

    def _save_vocabulary(self, folder: Path) -> dict[str, Any]:
        write_json(folder / VOCAB_FILE, self.vocab)
        added = {str(index): flags(token) for index, token in self.added_tokens_decoder.items()}
        return {
            "added_tokens_decoder": added,
            "do_lower_case": self.do_lower_case,
            "replace_word_delimiter_char": self.replace_word_delimiter_char,
            "target_lang": self.target_lang,
        }


def _runs(tokens: Sequence[str], group: bool) -> Iterator[tuple[str, int, int]]:
    """Each run of equal tokens (or each token) with its first frame and the one after its last."""
    start = 0
    for token, run in groupby(tokens) if group else ((token, [token]) for token in tokens):
        end = start + len(list(run))
        yield token, start, end
        start = end


def _words(chars: Sequence[Offset], space: str) -> Iterator[Offset]:
    for is_space, group in groupby(chars, key=lambda char: char["char"] == space):
        word = list(group)
        if not is_space:
            text = "".join(str(char["char"]) for char in word)
            yield {"word": text, "start_offset": word[0]["start_offset"], "end_offset": word[-1]["end_offset"]}


def _pattern(token: AddedToken) -> str:
    content = re.escape(token.content)
    return rf"(?<![^ ]){content}(?![^ ])" if token.single_word else content


def _clean_up(text: str) -> str:
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text
