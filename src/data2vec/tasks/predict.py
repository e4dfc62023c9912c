"""Raw inputs to answers: files, folders and texts, by the task that a model was fine-tuned for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data2vec.data.manifest import read_manifest
from data2vec.errors import UserError
from data2vec.processing.pixels import IMAGE_SUFFIXES
from data2vec.processing.waveform import AUDIO_SUFFIXES
from data2vec.tasks.config import UNITS, LabelledConfig, TaskName
from data2vec.tasks.names import model_folder, task_class, task_of
from data2vec.tasks.run import predict, usable
from data2vec.tasks.task import Downstream, Prediction

_BATCH = {"seconds": 60.0, "tokens": 4096.0, "images": 32.0}
_SUFFIXES = {"seconds": AUDIO_SUFFIXES, "images": IMAGE_SUFFIXES, "tokens": frozenset[str]()}


def predict_inputs(folder: str | Path, inputs: Sequence[str], *, batch: float = 0.0) -> list[Prediction]:
    """What a fine-tuned model says about each input.

    Args:
        folder: the model, or the run that made it.
        inputs: files or folders of files (speech, pictures), or texts.
        batch: seconds, tokens or images at once; a usual number if 0.

    Raises:
        UserError: no head that we know, or an input that cannot be read.
    """
    source = model_folder(folder)
    name = task_of(source)
    cls = task_class(name)
    task: Downstream = cls.open(source, LabelledConfig())
    examples = [cls.example(item) for given in inputs for item in expand(given, name)]
    if not examples:
        raise UserError("give files or texts to predict")
    items, _ = usable(task, examples)
    unit = UNITS[name]
    budget = round((batch or _BATCH[unit]) * (16_000 if unit == "seconds" else 1))
    return predict(task, items, budget)


def expand(given: str, name: TaskName) -> list[str]:
    """A folder as the files in it; anything else as it is.

    Raises:
        UserError: a file that is not there.
    """
    suffixes = _SUFFIXES[UNITS[name]]
    if not suffixes:
        return [given]
    path = Path(given)
    if path.is_dir():
        manifest = read_manifest(path, suffixes)
        return [manifest.describe(index) for index in range(len(manifest))]
    if not path.is_file():
        raise UserError(f"{given}: no such file or folder")
    return [given]


def short(prediction: Prediction) -> str:
    """The answer in a few words."""
    for key in ("text", "label", "labels", "answer", "value"):
        if key in prediction:
            return _spell(prediction[key])
    return _spell({key: value for key, value in prediction.items() if key != "source"})


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
