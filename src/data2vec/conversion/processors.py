"""Processor files beside the weights, so that a converted model predicts at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data2vec.conversion.checkpoint import Checkpoint
from data2vec.conversion.errors import CheckpointError
from data2vec.conversion.pickles import Record
from data2vec.conversion.values import Settings
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.bpe import build_bpe, save_bpe
from data2vec.processing.ctc import Wav2Vec2CTCTokenizer
from data2vec.processing.pixels import IMAGENET_MEAN, IMAGENET_STD
from data2vec.processing.vision import BeitImageProcessor

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # fairseq's `Dictionary` begins with these
_PUBLISHED = (
    "preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def write_processors(
    checkpoint: Checkpoint, folder: Path, dictionary: Path | None = None, bpe: Path | None = None
) -> None:
    """Write what turns raw input into the model's, and its output into words.

    Args:
        checkpoint: a loaded checkpoint.
        folder: where the converted weights lie.
        dictionary: fairseq's ``dict.ltr.txt`` or ``dict.txt``; None looks inside the checkpoint and beside it.
        bpe: folder with GPT-2's ``encoder.json`` and ``vocab.bpe``; None looks beside the checkpoint.

    Raises:
        CheckpointError: the dictionary does not fit the model.
    """
    beside = Path(checkpoint.report.source).parent
    if checkpoint.report.layout.startswith(("transformers", "data2vec-")):
        _copy_published(checkpoint, beside, folder)
    elif checkpoint.modality == "audio":
        _write_speech(checkpoint, folder, dictionary)
    elif checkpoint.modality == "text":
        _write_text(checkpoint, folder, dictionary, bpe or beside)
    else:
        _write_images(checkpoint, folder)


def _copy_published(checkpoint: Checkpoint, source: Path, folder: Path) -> None:
    for name in _PUBLISHED:
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)
            checkpoint.report.files[name] = f"a copy of {source / name}"


def _write_speech(checkpoint: Checkpoint, folder: Path, dictionary: Path | None) -> None:
    settings = Settings(checkpoint.settings, ("cfg.task", "cfg.model.w2v_args.task", "args"))
    normalize = settings.flag("normalize")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize is not False, return_attention_mask=True)
    extractor.save_pretrained(folder)
    how = "stored settings" if normalize is not None else "assumed: data2vec needs normalised input"
    checkpoint.report.files["preprocessor_config.json"] = f"16 kHz, normalised: {extractor.do_normalize} ({how})"
    if "lm_head.weight" not in checkpoint.tensors:
        return
    symbols, origin = _speech_symbols(checkpoint, dictionary)
    if symbols is None:
        checkpoint.report.files["vocab.json"] = "NOT written: no dict.ltr.txt; give it with --dictionary to get text"
        return
    rows = len(checkpoint.tensors["lm_head.weight"])
    if len(symbols) != rows:
        raise CheckpointError(
            f"{origin}: {len(symbols)} symbols, but the CTC head has {rows} rows: another dictionary?"
        )
    Wav2Vec2CTCTokenizer(ctc_vocabulary(symbols)).save_pretrained(folder)
    checkpoint.report.files["vocab.json"] = f"{rows} symbols of {origin}; row 0, fairseq's <s>, is the blank <pad>"


def ctc_vocabulary(symbols: Sequence[str]) -> dict[str, int]:
    """Symbols in fairseq's order -> the published vocabulary: row 0, the blank, is ``<pad>``, row 1 ``<s>``."""
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    return {**vocabulary, "<pad>": 0, "<s>": 1}


def _speech_symbols(checkpoint: Checkpoint, dictionary: Path | None) -> tuple[list[str] | None, str]:
    if dictionary is not None:
        return read_dictionary(dictionary), str(dictionary)
    stored = checkpoint.content.get("task_state") if isinstance(checkpoint.content, Mapping) else None
    if isinstance(stored, Mapping) and isinstance(record := stored.get("target_dictionary"), Record):
        symbols = record.state.get("symbols") if isinstance(record.state, Mapping) else None
        if isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols):
            return symbols, "the dictionary in the checkpoint"
    beside = Path(checkpoint.report.source).parent / "dict.ltr.txt"
    return (read_dictionary(beside), str(beside)) if beside.is_file() else (None, "")


def read_dictionary(path: Path) -> list[str]:
    """Symbols of a fairseq dictionary in the order of their ids: four special ones, then one a line with its count.

    Raises:
        CheckpointError: not such a file.
    """
    symbols = list(_SPECIAL)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        symbol, space, count = line.removesuffix(" #fairseq:overwrite").rpartition(" ")
        if not space or not count.isdigit():
            raise CheckpointError(f"{path}, line {number}: expected 'symbol count', found {line[:40]!r}")
        if symbol in _SPECIAL and line.endswith("#fairseq:overwrite"):
            continue
        symbols.append(symbol)
    if repeated := sorted({symbol for symbol in symbols if symbols.count(symbol) > 1} if len(symbols) < 2000 else ()):
        raise CheckpointError(f"{path}: {repeated[0]!r} appears twice")
    return symbols


def write_dictionary(vocabulary: Mapping[str, int], path: Path) -> None:
    """The inverse for CTC: ``dict.ltr.txt`` from a published vocabulary whose first four ids are special."""
    order = sorted(vocabulary, key=lambda symbol: vocabulary[symbol])
    path.write_text("".join(f"{symbol} 1\n" for symbol in order[4:]), encoding="utf-8")


def _write_text(checkpoint: Checkpoint, folder: Path, dictionary: Path | None, bpe: Path) -> None:
    assert isinstance(checkpoint.config, Data2VecTextConfig)
    source = dictionary or Path(checkpoint.report.source).parent / "dict.txt"
    files = [source, bpe / "encoder.json", bpe / "vocab.bpe"]
    if absent := [str(file) for file in files if not file.is_file()]:
        checkpoint.report.files["tokenizer.json"] = f"NOT written: {', '.join(absent)} missing (--dictionary, --bpe)"
        return
    vocabulary = text_vocabulary(read_dictionary(source), files[1])
    size = checkpoint.config.vocab_size
    if len(vocabulary) != size:
        raise CheckpointError(f"{source}: {len(vocabulary)} symbols, the model has {size}: another dictionary?")
    lines = files[2].read_text(encoding="utf-8").splitlines()
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    save_bpe(build_bpe(vocabulary, [(a, b) for a, b in merges]), folder, checkpoint.config.max_length)
    checkpoint.report.files["tokenizer.json"] = f"{size} tokens of {source} and {files[2]}"


def text_vocabulary(symbols: Sequence[str], encoder: Path) -> dict[str, int]:
    """Symbols that are GPT-2's token numbers as text become the tokens again. ``<mask>`` comes last.

    Raises:
        CheckpointError: a number that GPT-2's table does not have.
    """
    tokens = {index: token for token, index in json.loads(encoder.read_text(encoding="utf-8")).items()}
    vocabulary: dict[str, int] = {}
    for index, symbol in enumerate([*symbols, *([] if "<mask>" in symbols else ["<mask>"])]):
        if symbol.isdigit() and int(symbol) not in tokens:
            raise CheckpointError(f"{encoder}: no token number {symbol}, which the dictionary has")
        vocabulary[tokens[int(symbol)] if symbol.isdigit() else symbol] = index
    return vocabulary


def _write_images(checkpoint: Checkpoint, folder: Path) -> None:
    assert isinstance(checkpoint.config, Data2VecVisionConfig)
    settings = Settings(checkpoint.settings, ("args",))
    imagenet = settings.flag("imagenet_default_mean_and_std")
    how = "stored settings"
    if imagenet is None:
        imagenet = checkpoint.kind[1] == 2 or "classifier.weight" not in checkpoint.tensors
        how = "assumed from the published commands: fine-tuning of version 1 alone leaves ImageNet's out"
    size = dict(zip(("height", "width"), checkpoint.config.image_shape, strict=True))
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if imagenet else ((0.5,) * 3, (0.5,) * 3)
    BeitImageProcessor(size=size, crop_size=size, image_mean=mean, image_std=std).save_pretrained(folder)
    checkpoint.report.files["preprocessor_config.json"] = f"mean {mean}, deviation {std} ({how})"


def vocabulary_of(folder: Path) -> dict[str, Any] | None:
    """A CTC vocabulary beside a model, if there is one."""
    path = folder / "vocab.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else None
