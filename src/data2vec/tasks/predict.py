"""Raw inputs to answers: files, folders and texts, by the task that a model was fine-tuned for; and into files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from PIL import Image

from data2vec.data.labelled.audio import write_rttm
from data2vec.data.labelled.example import Turn
from data2vec.data.skips import Skipped
from data2vec.decoding.transcript import Piece, Transcript, subtitles
from data2vec.errors import UserError
from data2vec.nn.device import choose_device
from data2vec.processing.pixels import IMAGE_SUFFIXES, load_image
from data2vec.processing.waveform import AUDIO_SUFFIXES
from data2vec.tasks.config import UNITS, DecodeConfig, LabelledConfig
from data2vec.tasks.figures import laid_over
from data2vec.tasks.inputs import expand
from data2vec.tasks.look import look
from data2vec.tasks.names import model_folder, task_class, task_of
from data2vec.tasks.report import whole_page
from data2vec.tasks.run import predict, usable
from data2vec.tasks.task import Downstream, Prediction

_BATCH = {"seconds": 60.0, "tokens": 4096.0, "images": 32.0}
_SUFFIXES = {"seconds": AUDIO_SUFFIXES, "images": IMAGE_SUFFIXES, "tokens": frozenset[str]()}


def predict_inputs(
    folder: str | Path,
    inputs: Sequence[str],
    *,
    batch: float = 0.0,
    data: LabelledConfig | None = None,
    decode: DecodeConfig | None = None,
    page: Path | None = None,
    device: str = "auto",
) -> tuple[list[Prediction], list[Skipped]]:
    """What a fine-tuned model says about each input.

    Args:
        folder: the model, or the run that made it.
        inputs: files or folders of files (speech, pictures), or texts.
        batch: seconds, tokens or images at once; a usual number if 0.
        data: how long inputs are cut, whether case is folded, and whether bad ones are left out.
        decode: of speech recognition.
        page: an HTML page with pictures to write.
        device: ``auto``, ``cpu``, ``cuda`` ...

    Returns:
        The predictions, in order, and what was left out.

    Raises:
        UserError: no head that we know, or an input that cannot be read.
    """
    source = model_folder(folder)
    name = task_of(source)
    cls, unit = task_class(name), UNITS[name]
    options = {"decode": decode} if name == "asr" else {}
    if decode is not None and decode != DecodeConfig() and name != "asr":
        raise UserError(f"decode options are for speech recognition, and this model does {name}")
    data = data or LabelledConfig()
    task: Downstream = cls.open(source, data, **options)
    task.model.to(choose_device(device))
    names, missing = expand(inputs, _SUFFIXES[unit], skip_bad=data.skip_bad)
    items, damaged = usable(task, [cls.example(name) for name in names], skip_bad=data.skip_bad)
    found = predict(task, items, round((batch or _BATCH[unit]) * (16_000 if unit == "seconds" else 1)))
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        body = f"<h1>{name}</h1>{''.join(look(task, items, found, len(found)))}"
        page.write_text(whole_page(name, body), encoding="utf-8")
    return found, [*map(Skipped.of, missing), *damaged]


def short(prediction: Prediction) -> str:
    """The answer in a few words."""
    for key in ("text", "label", "labels", "answer", "value", "turns", "shares", "score"):
        if key in prediction:
            return _spell(prediction[key])
    return _spell({key: value for key, value in prediction.items() if key != "source"})


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_spell, value)) if value and isinstance(value[0], list) else " ".join(map(_spell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_files(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write what has a format of its own: subtitles, turns (RTTM), label maps and pictures with them laid over.

    Files are called as the inputs are; the second of two inputs of one name is ``name-2``.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    taken: set[str] = set()
    for prediction in predictions:
        stem = Path(prediction["source"]).stem
        name = next(name for name in chain([stem], (f"{stem}-{n}" for n in count(2))) if name not in taken)
        taken.add(name)
        written += _write(prediction, folder, name)
    if not written:
        raise UserError("this task's answers have no file format of their own: use --jsonl")
    return written


def _write(prediction: Prediction, folder: Path, name: str) -> list[Path]:
    if "words" in prediction:
        words = tuple(Piece(w["word"], w["start"], w["end"], w["confidence"]) for w in prediction["words"])
        files = [folder / f"{name}.{kind}" for kind in ("srt", "vtt")]
        for file in files:
            file.write_text(subtitles(Transcript(prediction["text"], words), file.suffix[1:]), encoding="utf-8")
        return files
    if "turns" in prediction:
        write_rttm(folder / f"{name}.rttm", {name: [Turn(*turn) for turn in prediction["turns"]]})
        return [folder / f"{name}.rttm"]
    if "map" in prediction:
        files = [folder / f"{name}.png", folder / f"{name}.overlay.jpg"]
        Image.fromarray(prediction["map"]).save(files[0])
        laid_over(load_image(Path(prediction["source"])), prediction["map"]).save(files[1])
        return files
    return []
