"""Special and added tokens, and the files that ``tokenizer_config.json`` and its predecessors keep them in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from data2vec.errors import UserError
from data2vec.processing.processor import read_json

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Token = str | AddedToken


class Special:
    """A named special token of a tokenizer, e.g. ``tokenizer.pad_token``: a str or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, tokenizer: Any, owner: type) -> str | None:
        return None if tokenizer is None else tokenizer._special.get(self.name)

    def __set__(self, tokenizer: Any, value: Token | None) -> None:
        tokenizer._special.pop(self.name, None)
        if value is not None:
            tokenizer._special[self.name] = str(value)


class SpecialId:
    """The id of a named special token, e.g. ``tokenizer.pad_token_id``: an int or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    def __get__(self, tokenizer: Any, owner: type) -> int | None:
        token = None if tokenizer is None else tokenizer._special.get(self.name)
        return None if token is None else tokenizer.convert_tokens_to_ids(token)


def flags(token: AddedToken) -> dict[str, Any]:
    """What files say about an added token: its content, how it matches, whether it is special."""
    state: dict[str, Any] = token.__getstate__()
    return state


def changed(token: AddedToken, **changes: Any) -> AddedToken:
    """The token with other flags."""
    return AddedToken(**{**flags(token), **changes})


def read_settings(folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    """``tokenizer_config.json``, completed by the files that older versions wrote beside it."""
    path = folder / TOKENIZER_CONFIG
    settings = read_json(path) if path.is_file() else {}
    kind = settings.pop("tokenizer_class", None) or classes[0]
    if kind not in classes:
        raise UserError(f"{path}: tokenizer_class is {kind!r}, this reads {classes[0]} only")
    if "additional_special_tokens" in settings:
        settings.setdefault("extra_special_tokens", settings.pop("additional_special_tokens") or [])
    if "added_tokens_decoder" in settings:
        added = {int(index): AddedToken(**token) for index, token in settings["added_tokens_decoder"].items()}
    else:
        if (folder / SPECIAL_TOKENS_MAP).is_file():
            named = read_json(folder / SPECIAL_TOKENS_MAP)
            settings.setdefault("extra_special_tokens", named.pop("additional_special_tokens", []))
            settings.update(named)
        special = {str(parse_token(settings[name])) for name in SPECIAL_NAMES if settings.get(name)}
        legacy = read_json(folder / ADDED_TOKENS) if (folder / ADDED_TOKENS).is_file() else {}
        added = {
            index: AddedToken(token, normalized=token not in special, special=token in special)
            for token, index in legacy.items()
        }
    for name, value in settings.items():
        if name.endswith("_token") and isinstance(value, (str, dict)):  # not the switch add_bos_token
            settings[name] = parse_token(value)
    settings["extra_special_tokens"] = [str(parse_token(token)) for token in settings.get("extra_special_tokens") or ()]
    return {**settings, "added_tokens_decoder": added}


def parse_token(value: Any) -> str | AddedToken | None:
    """A token as files hold it: a string, or an object with its flags."""
    if isinstance(value, dict):
        return AddedToken(**{**{key: item for key, item in value.items() if key != "__type"}, "special": True})
    return None if value is None else str(value)
