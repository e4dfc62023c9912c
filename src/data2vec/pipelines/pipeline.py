"""`pipeline`: a task and a model -> something that is called with files, bytes, arrays or texts.

A task is one function ``(model, processor, inputs, **options) -> answers``, one answer an input: prepare, run, say it
in plain values of the shapes that the pipelines of transformers return. Answers do not depend on `batch_size`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from data2vec.auto import find, model_type
from data2vec.errors import UserError
from data2vec.hub import HUB_ARGUMENTS
from data2vec.modeling import PreTrainedModel

_AUDIO, _TEXT, _VISION = "AutoFeatureExtractor", "AutoTokenizer", "AutoImageProcessor"
_TASKS = {  # task -> function, the model's auto class, the processor's
    "automatic-speech-recognition": ("audio:transcribe", "AutoModelForCTC", "AutoProcessor"),
    "audio-classification": ("audio:classify", "AutoModelForAudioClassification", _AUDIO),
    "audio-frame-classification": ("audio:classify_frames", "AutoModelForAudioFrameClassification", _AUDIO),
    "speaker-verification": ("audio:compare_speakers", "AutoModelForAudioXVector", _AUDIO),
    "fill-mask": ("text:fill_mask", "AutoModelForMaskedLM", _TEXT),
    "text-generation": ("text:write", "AutoModelForCausalLM", _TEXT),
    "text-classification": ("text:classify", "AutoModelForSequenceClassification", _TEXT),
    "token-classification": ("text:classify_tokens", "AutoModelForTokenClassification", _TEXT),
    "question-answering": ("questions:answer", "AutoModelForQuestionAnswering", _TEXT),
    "multiple-choice": ("text:choose", "AutoModelForMultipleChoice", _TEXT),
    "image-classification": ("vision:classify", "AutoModelForImageClassification", _VISION),
    "image-segmentation": ("vision:segment", "AutoModelForSemanticSegmentation", _VISION),
    "feature-extraction": ("", "AutoModel", ""),
}
_BY_MODALITY = {
    "audio": ("audio:features", _AUDIO),
    "text": ("text:features", _TEXT),
    "vision": ("vision:features", _VISION),
}
TASKS = tuple(_TASKS)


@dataclass
class Pipeline:
    """A model with what prepares its input and reads its output.

    Attributes:
        task: one of `TASKS`.
        model: in eval mode.
        processor: of the model's files.
        answer: the task's function.
        options: defaults of its keyword arguments.
    """

    task: str
    model: PreTrainedModel
    processor: Any
    answer: Callable[..., list[Any]]
    options: dict[str, Any]

    def __call__(self, inputs: Any = None, *, batch_size: int = 1, **options: Any) -> Any:
        """Answer one input, or a list of them.

        Args:
            inputs: one input, or a list or iterator of them; what one is, the task's function says. For question
                answering and multiple choice also by name: ``question=..., context=...``.
            batch_size: inputs that go through the model at once; the answers do not depend on it.
            options: see the task's function.

        Returns:
            The answer; for a list, a list of them.

        Raises:
            UserError: an input that cannot be read, or an option that there is not.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        known = inspect.signature(self.answer).parameters
        fields = {name: options.pop(name) for name in _FIELDS.get(self.task, ()) if name in options}
        if unknown := options.keys() - {n for n, p in known.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}:
            allowed = [name for name, parameter in known.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
            raise UserError(f"{self.task} has no option {sorted(unknown)[0]!r}; it knows {', '.join(allowed)}")
        if inputs is None and not fields:
            raise UserError(f"{self.task}: give an input")
        given = fields if inputs is None else inputs
        many = isinstance(given, (list, Iterator))
        rest, answers = iter(given if many else [given]), list[Any]()
        while batch := list(islice(rest, batch_size)):
            with torch.inference_mode():
                answers += self.answer(self.model, self.processor, batch, **{**self.options, **options})
        whole = many or (self.task == "text-classification" and isinstance(answers[0], dict))  # as in transformers
        return answers if whole else answers[0]


_FIELDS = {"question-answering": ("question", "context"), "multiple-choice": ("prompt", "choices")}


def pipeline(
    task: str,
    model: str | Path | PreTrainedModel,
    processor: Any = None,
    *,
    device: str | int | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> Pipeline:
    """Make a pipeline.

    Args:
        task: one of `TASKS`.
        model: folder, hub id, the folder of a training run, or a model.
        processor: feature extractor, processor, tokenizer or image processor, or where to load it from; None: from
            where the model is.
        device: where the model runs; None leaves it where it is.
        dtype: type of its weights.
        options: defaults of the task's options; ``revision``, ``token`` and the like go to the hub.

    Raises:
        UserError: an unknown task, a model without the head for it, or a model without its processor.
    """
    if task not in _TASKS:
        raise UserError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    function, auto, processor_kind = _TASKS[task]
    hub = {key: options.pop(key) for key in list(options) if key in HUB_ARGUMENTS}
    source = None if isinstance(model, PreTrainedModel) else _folder(model)
    network = model if isinstance(model, PreTrainedModel) else _load(_folder(model), auto, task, hub)
    kind = network.config.model_type
    wanted = find(auto, kind)
    if not isinstance(network, wanted):
        raise UserError(f"{task} needs a {wanted.__name__}, not a {type(network).__name__}")
    if task == "feature-extraction":
        function, processor_kind = _BY_MODALITY[kind.rpartition("-")[2]]
        network = network.base_model
    if processor is None or isinstance(processor, (str, Path)):
        place = source if processor is None else processor
        if place is None:
            raise UserError(f"{task}: a model object does not know its files: pass processor=, a folder or an object")
        processor = find(processor_kind, kind).from_pretrained(place, **hub)
    module, _, name = function.partition(":")
    answer = getattr(import_module(f"data2vec.pipelines.{module}"), name)
    if isinstance(dtype, str):
        dtype = _dtype(dtype)
    return Pipeline(task, network.to(device=device, dtype=dtype).eval(), processor, answer, options)


def _folder(source: str | Path) -> str | Path:
    """Of a training run's folder, the ``model`` in it."""
    inner = Path(source) / "model"
    return inner if (inner / "config.json").is_file() and not (Path(source) / "config.json").is_file() else source


def _load(source: str | Path, auto: str, task: str, hub: dict[str, Any]) -> PreTrainedModel:
    cls = find(auto, model_type(source, **hub))
    model, report = cls.from_pretrained(source, output_loading_info=True, **hub)
    if report.missing and task != "feature-extraction":
        raise UserError(f"{source} has no trained head for {task} ({report.missing[0]} is missing): fine-tune it first")
    assert isinstance(model, PreTrainedModel)
    return model


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UserError(f"dtype {name!r} is unknown; use float32, bfloat16 or float16")
    return found
