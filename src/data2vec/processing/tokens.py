"""What the two tokenizers share: special tokens, padding, decoding of batches, and the published files."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, overload

import numpy as np
from tokenizers import AddedToken

from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS, resolve
from data2vec.processing.encoding import BatchEncoding
from data2vec.processing.processor import check_compat, collate, is_tensor, new_folder, write_json
from data2vec.processing.special import (
    ADDED_TOKENS,
    SPECIAL_NAMES,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    Special,
    SpecialId,
    Token,
    read_settings,
)

UNLIMITED = int(1e30)
"""What `model_max_length` is in published files when a tokenizer sets no limit."""
_LARGE = int(1e20)

IGNORED = -100
"""Label of a position that losses leave out; decoding leaves it out too."""

PADDINGS = ("longest", "max_length", "do_not_pad")
TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")

Side = Literal["left", "right"]
Ids = list[int]


class Strategy(NamedTuple):
    """How rows are brought to one length."""

    padding: str
    truncation: str
    max_length: int | None


class Tokenizer(ABC):
    """Base of the two tokenizers.

    A subclass says how text becomes ids, how ids become text, and where its vocabulary lies.
    """

    classes: ClassVar[tuple[str, ...]]
    """Values of ``tokenizer_class`` in files that this class reads; the first one is what it writes."""
    vocabulary_files: ClassVar[tuple[str, ...]]

    bos_token, eos_token, unk_token, sep_token = Special(), Special(), Special(), Special()
    pad_token, cls_token, mask_token = Special(), Special(), Special()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = SpecialId(), SpecialId(), SpecialId(), SpecialId()
    pad_token_id, cls_token_id, mask_token_id = SpecialId(), SpecialId(), SpecialId()
    pad_token_type_id = 0
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        special: Mapping[str, Token | None],
        *,
        model_max_length: int | None = None,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        clean_up_tokenization_spaces: bool = False,
        extra_special_tokens: Sequence[str] = (),
        compat: str | None = None,
    ) -> None:
        for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            if side not in ("left", "right"):
                raise UserError(f"{name}={side!r}: choose 'left' or 'right'")
        self._special = {name: str(token) for name, token in special.items() if token is not None}
        self.model_max_length = UNLIMITED if model_max_length is None else int(model_max_length)
        self.padding_side: Side = padding_side
        self.truncation_side: Side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.extra_special_tokens = [str(token) for token in extra_special_tokens]
        self.compat = check_compat(compat)
        self.extra: dict[str, Any] = {}

    # Vocabulary

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens without the added ones."""

    @property
    @abstractmethod
    def _largest_id(self) -> int: ...

    @property
    @abstractmethod
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that are never split, by id."""

    @abstractmethod
    def _add(self, tokens: Sequence[Token], special: bool) -> int:
        """Register tokens that are never split; returns how many are new to the vocabulary."""

    @abstractmethod
    def _id_of(self, token: str) -> int: ...

    @abstractmethod
    def _token_of(self, index: int) -> str: ...

    def __len__(self) -> int:
        return len(self.get_vocab())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, special={self._special})"

    def get_added_vocab(self) -> dict[str, int]:
        """Id of each added token."""
        return {str(token.content): index for index, token in sorted(self.added_tokens_decoder.items())}

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Named special tokens, e.g. ``{"pad_token": "<pad>"}``."""
        return dict(self._special)

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once."""
        return list(dict.fromkeys([*self._special.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> Ids:
        """Ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> Ids: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | Ids:
        """Id of a token, or of each; the unknown token's for what is not in the vocabulary."""
        return self._id_of(tokens) if isinstance(tokens, str) else [self._id_of(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Iterable[int], skip_special_tokens: bool = False) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> str | list[str]:
        """Token of an id, or of each."""
        if isinstance(ids, int):
            return self._token_of(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token_of(int(index)) for index in ids if int(index) not in skipped]

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens that are never split.

        Returns:
            How many are new: resize the model's embeddings to ``len(tokenizer)`` when it is not 0.
        """
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        return self._add([token for token in tokens if str(getattr(token, "content", token))], special_tokens)

    def add_special_tokens(self, tokens: Mapping[str, Any]) -> int:
        """Add and name special tokens, e.g. ``{"pad_token": "[PAD]", "extra_special_tokens": ["<a>", "<b>"]}``."""
        added: list[Token] = []
        for name, value in tokens.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                self.extra_special_tokens = [str(token) for token in value]
                added += value
            elif name in SPECIAL_NAMES:
                self._special[name] = str(value)
                added.append(value)
            else:
                raise UserError(
                    f"{name!r} is no special token: choose {', '.join(SPECIAL_NAMES)} or extra_special_tokens"
                )
        made = [AddedToken(t, special=True, normalized=False) if isinstance(t, str) else t for t in added]
        return self._add(made, True)

    def get_special_tokens_mask(self, token_ids: Sequence[int], already_has_special_tokens: bool = True) -> Ids:
        """1 where a row of ids holds a special token, else 0."""
        if not already_has_special_tokens:
            raise UserError("already_has_special_tokens=False: call the tokenizer with return_special_tokens_mask=True")
        special = set(self.all_special_ids)
        return [int(int(index) in special) for index in token_ids]

    # Length

    def strategy(
        self, padding: bool | str, truncation: bool | str | None, max_length: int | None, multiple: int | None = None
    ) -> Strategy:
        """Read the `padding`, `truncation` and `max_length` arguments of a call, as the published tokenizers do."""
        if truncation is None:
            truncation = max_length is not None and padding is False
        pad = _named(padding, "longest", "do_not_pad")
        cut = _named(truncation, "longest_first", "do_not_truncate")
        if pad not in PADDINGS:
            raise UserError(f"padding={padding!r}: choose True, False or one of {', '.join(PADDINGS)}")
        if cut not in TRUNCATIONS:
            raise UserError(f"truncation={truncation!r}: choose True, False or one of {', '.join(TRUNCATIONS)}")
        if max_length is None and self.model_max_length <= _LARGE and (pad == "max_length" or cut != "do_not_truncate"):
            max_length = self.model_max_length
        if max_length is None:
            pad = "do_not_pad" if pad == "max_length" else pad
            cut = "do_not_truncate"
        if pad != "do_not_pad" and self.pad_token is None:
            raise UserError("padding needs a pad_token and this tokenizer has none: set tokenizer.pad_token")
        cutting = cut != "do_not_truncate" and pad != "do_not_pad"
        if cutting and multiple and max_length is not None and max_length % multiple:
            raise UserError(f"max_length={max_length} is not a multiple of pad_to_multiple_of={multiple}")
        return Strategy(pad, cut, max_length)

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: Side | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Bring tokenized rows to one length.

        Args:
            encoded_inputs: one row, a dict of rows, or a list of rows (as a data loader has them), with ``input_ids``.
            padding: True or ``"longest"``, ``"max_length"``, False.
            max_length: for ``"max_length"``; `model_max_length` if None.
            pad_to_multiple_of: round the length up to a multiple.
            padding_side: ``"left"`` or ``"right"``; `padding_side` of the tokenizer if None.
            return_attention_mask: whether to add the mask (1 = token, 0 = padding); yes if None.
            return_tensors: ``"pt"``, ``"np"`` or None for lists (or for what came in).
        """
        if isinstance(encoded_inputs, Mapping):
            columns = dict(encoded_inputs)
        else:
            columns = {
                key: [row[key] for row in encoded_inputs] for key in (encoded_inputs[0] if encoded_inputs else ())
            }
        if "input_ids" not in columns:
            raise UserError(f"encoded_inputs: pad needs input_ids, found {', '.join(columns) or 'nothing'}")
        device, kind = _origin(columns["input_ids"])
        columns = {key: to_list(value) for key, value in columns.items()}
        ids = columns["input_ids"]
        single = bool(ids) and not isinstance(ids[0], list)
        if single:
            columns = {key: [value] for key, value in columns.items()}
        rows = columns["input_ids"]
        mode = self.strategy(padding, False, max_length)
        if return_attention_mask is not False and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in rows]
        width = max((len(row) for row in rows), default=0) if mode.padding == "longest" else mode.max_length or 0
        if pad_to_multiple_of:
            width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
        if mode.padding != "do_not_pad":
            self._check_ids(rows)
            fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}
            for key in fill.keys() & columns.keys():
                columns[key] = [
                    pad_row(row, width, fill[key], padding_side or self.padding_side) for row in columns[key]
                ]
        if single and not (return_tensors or kind):
            return BatchEncoding({key: value[0] for key, value in columns.items()})
        batch = BatchEncoding({key: collate(value, return_tensors or kind, key) for key, value in columns.items()})
        if single:
            batch = BatchEncoding({key: value[0] for key, value in batch.items()})
        return batch if device is None else batch.to(device)

    def _check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        limit = self._largest_id
        for i, row in enumerate(rows):
            wrong = [index for index in row if index > limit or (index < 0 and index != IGNORED)]
            if wrong:
                raise UserError(f"input_ids[{i}]: {wrong[0]} is outside the vocabulary (0 to {limit})")

    # Text

    @abstractmethod
    def _decode(self, ids: Ids, skip_special_tokens: bool, /, *args: Any, **options: Any) -> Any: ...

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """Turn ids back into text: a str for one row, a list of str for a batch.

        Ids of -100, which pad labels, are left out.

        Args:
            token_ids: one id, a row, or a batch of rows, as list, array or tensor.
            skip_special_tokens: leave special tokens out.
            options: see the tokenizer's class.
        """
        rows = to_list(token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids)
        if isinstance(rows, int):
            rows = [rows]
        if rows and isinstance(rows[0], list):
            return [self._decode(_wanted(row), skip_special_tokens, **options) for row in rows]
        return self._decode(_wanted(rows), skip_special_tokens, **options)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> Any:
        """`decode` of each row; always a list."""
        return [self.decode(row, skip_special_tokens, **options) for row in to_list(sequences)]

    # Files

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, **options: Any) -> Self:
        """Read a tokenizer from a folder or a hub id.

        Args:
            path_or_id: folder or hub id.
            options: override fields of ``tokenizer_config.json``, or go to `data2vec.hub.resolve`.

        Raises:
            UserError: files missing, not JSON, of another kind of tokenizer, or an option that there is not.
        """
        hub = {key: options.pop(key) for key in HUB_ARGUMENTS if key in options}
        known = inspect.signature(cls).parameters
        if unknown := options.keys() - known.keys():
            raise UserError(f"{cls.__name__} has no option {', '.join(sorted(unknown))}")
        folder = resolve(path_or_id, [*cls.vocabulary_files, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS], **hub)
        settings = read_settings(folder, cls.classes)
        extra = {key: settings.pop(key) for key in list(settings) if key not in known}
        tokenizer = cls._from_folder(folder, {**settings, **options})
        tokenizer.extra = extra
        return tokenizer

    @classmethod
    @abstractmethod
    def _from_folder(cls, folder: Path, settings: dict[str, Any]) -> Self: ...

    @abstractmethod
    def _save_vocabulary(self, folder: Path) -> dict[str, Any]:
        """Write the vocabulary; returns what the class adds to ``tokenizer_config.json``."""

    def save_pretrained(self, path: str | Path) -> None:
        """Write the published files into a folder."""
        folder = new_folder(path)
        settings = {**self.extra, **self._save_vocabulary(folder), **self._special}
        settings["tokenizer_class"] = self.classes[0]
        for key in ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces"):
            settings[key] = getattr(self, key)
        for key in ("extra_special_tokens", "compat"):
            settings.pop(key, None)
            if getattr(self, key):
                settings[key] = getattr(self, key)
        write_json(folder / TOKENIZER_CONFIG, settings)
        write_json(
            folder / SPECIAL_TOKENS_MAP, {name: self._special[name] for name in SPECIAL_NAMES if name in self._special}
        )
        added = {token: index for token, index in self.get_added_vocab().items() if index >= self.vocab_size}
        if added:
            write_json(folder / ADDED_TOKENS, added)
        else:
            (folder / ADDED_TOKENS).unlink(missing_ok=True)


def to_list(value: Any) -> Any:
    """Ids as (nested) lists of int, whatever they came as."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [to_list(item) for item in value] if isinstance(value, (list, tuple)) else value


def pad_row(row: Sequence[int], width: int, fill: int | None, side: Side) -> list[Any]:
    """Fill a row up to `width`."""
    more = [fill] * max(0, width - len(row))
    return [*row, *more] if side == "right" else [*more, *row]


def _wanted(row: Sequence[int]) -> Ids:
    return [int(index) for index in row if index != IGNORED]


def _named(choice: bool | str, yes: str, no: str) -> str:
    return choice if isinstance(choice, str) else yes if choice else no


def _origin(ids: Any) -> tuple[Any, str | None]:
    """Device and kind of tensors that came in, so that the like goes out."""
    first = ids if hasattr(ids, "tolist") or not ids else ids[0]
    if is_tensor(first):
        return first.device, "pt"
    return None, "np" if isinstance(first, np.ndarray) else None
