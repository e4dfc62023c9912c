"""Which class does which task, and which task a fine-tuned model does."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from data2vec.errors import UserError
from data2vec.hub import resolve
from data2vec.tasks.config import TASKS, TaskName

_HOME: dict[TaskName, tuple[str, str]] = {
    "asr": ("data2vec.tasks.asr", "SpeechRecognition"),
    "audio-classification": ("data2vec.tasks.clips", "AudioClassification"),
    "audio-frames": ("data2vec.tasks.frames", "AudioFrames"),
    "speaker-verification": ("data2vec.tasks.speakers", "SpeakerVerification"),
    "fill-mask": ("data2vec.tasks.language", "FillMask"),
    "causal-lm": ("data2vec.tasks.language", "CausalLM"),
    "text-classification": ("data2vec.tasks.sentences", "TextClassification"),
    "token-classification": ("data2vec.tasks.tokens", "TokenClassification"),
    "question-answering": ("data2vec.tasks.questions", "QuestionAnswering"),
    "multiple-choice": ("data2vec.tasks.choices", "MultipleChoice"),
    "image-classification": ("data2vec.tasks.pictures", "ImageClassification"),
    "semantic-segmentation": ("data2vec.tasks.segmentation", "SemanticSegmentation"),
}


def task_class(name: str) -> Any:
    """The class of a task, a `data2vec.tasks.task.Downstream` with `begin`, `open`, `read` and `example`.

    Raises:
        UserError: an unknown task; names the known ones.
    """
    if name not in _HOME:
        raise UserError(f"unknown task {name!r}; known: {', '.join(_HOME)}")
    module, cls = _HOME[name]
    return getattr(importlib.import_module(module), cls)


def model_folder(source: str | Path) -> str | Path:
    """A model's folder or hub id; of a run's folder, the ``model`` in it."""
    inner = Path(source) / "model"
    return inner if (inner / "config.json").is_file() and not (Path(source) / "config.json").is_file() else source


def task_of(folder: str | Path) -> TaskName:
    """The task that a fine-tuned model does, by the class that it was saved from.

    Raises:
        UserError: it has no head that we know.
    """
    values = json.loads(resolve(folder, "config.json").read_text(encoding="utf-8"))
    saved = (values.get("architectures") or [""])[0]
    for name in TASKS:
        if name in _HOME and any(cls.__name__ == saved for cls in task_class(name).classes.values()):
            return name
    raise UserError(f"{folder} is a {saved or 'model without a class name'}: fine-tune it for a task first")
