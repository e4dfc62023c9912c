"""A byte-level BPE in the published form: trained on one's own text, or loaded from a model folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data2vec.errors import UserError

SPECIAL_TOKENS = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3, as in RoBERTa; ``<mask>`` is the last id."""


def train_bpe(texts: Iterable[str], vocab_size: int = 32_768) -> Tokenizer:
    """Train a byte-level BPE (GPT-2's pre-tokenization) with RoBERTa's special tokens.

    Args:
        texts: documents; read once.
        vocab_size: with the 256 bytes and the 5 special tokens. Little text may give a smaller vocabulary.

    Raises:
        UserError: `vocab_size` is below 261.
    """
    if vocab_size < 261:
        raise UserError(f"vocab_size={vocab_size} must be at least 261: 256 bytes and 5 special tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=list(_FIRST),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"]
    vocab["<mask>"] = len(vocab)
    merges = [(a, b) for a, b in (m.split(" ") if isinstance(m, str) else m for m in model["merges"])]
    return build_bpe(vocab, merges)


def build_bpe(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The published pipeline round a vocabulary: byte-level BPE that adds ``<s> ... </s>`` and pairs ``</s></s>``."""
    missing = [token for token in SPECIAL_TOKENS.values() if token not in vocab]
    if missing:
        raise UserError(f"the vocabulary lacks {', '.join(missing)}: not the byte-level BPE of a RoBERTa-like model")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), trim_offsets=True, add_prefix_space=False
    )
    specials = [AddedToken(token, special=True, normalized=token != "<mask>") for token in _FIRST]
    tokenizer.add_special_tokens([*specials, AddedToken("<mask>", special=True, lstrip=True, normalized=False)])
    return tokenizer


def load_bpe(source: str | Path) -> Tokenizer:
    """Load a tokenizer: a ``tokenizer.json``, or a folder with one or with ``vocab.json`` and ``merges.txt``.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(source)
    file = path if path.is_file() else path / "tokenizer.json"
    try:
        if file.is_file():
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return tokenizer
        vocab = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
        lines = (path / "merges.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no tokenizer.json, nor vocab.json with merges.txt") from error
    except Exception as error:  # the tokenizers package raises bare Exception
        raise UserError(f"{path}: not a tokenizer that can be read ({error})") from error
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if not all(len(merge) == 2 for merge in merges):
        raise UserError(f"{path / 'merges.txt'}: each line must hold two tokens")
    return build_bpe(vocab, [(a, b) for a, b in merges])


def save_bpe(tokenizer: Tokenizer, folder: str | Path, max_length: int = 512) -> None:
    """Write the five files from which RoBERTa's tokenizer classes load, beside a model.

    Args:
        tokenizer: as `train_bpe`, `build_bpe` or `load_bpe` return it.
        folder: made where missing.
        max_length: tokens a text may have, special tokens included (``model_max_length``).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    _write_json(folder / "vocab.json", dict(vocab))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    named = {f"{name}_token": token for name, token in SPECIAL_TOKENS.items()}
    named |= {"cls_token": "<s>", "sep_token": "</s>"}
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}
    _write_json(folder / "special_tokens_map.json", {**named, "mask_token": mask})
    settings = {"add_prefix_space": False, "errors": "replace", "trim_offsets": True, "model_max_length": max_length}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", **settings, **named})


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of ``bos``, ``pad``, ``eos``, ``unk`` and ``mask``.

    Raises:
        UserError: the tokenizer lacks one.
    """
    ids: dict[str, int] = {}
    for name, token in SPECIAL_TOKENS.items():
        if (known := tokenizer.token_to_id(token)) is not None:
            ids[name] = known
    missing = [token for name, token in SPECIAL_TOKENS.items() if name not in ids]
    if missing:
        raise UserError(f"the tokenizer lacks {', '.join(missing)}: not the byte-level BPE of a RoBERTa-like model")
    return ids


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
