"""What an evaluation leaves behind: scores, predictions, and a page to look at."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data2vec.data.labelled.audio import Timeline
from data2vec.data.labelled.example import Example, Turn
from data2vec.data.labelled.text import Answer, Choices, Question
from data2vec.evaluation.metrics import Confusion
from data2vec.tasks.figures import STYLE
from data2vec.tasks.run import Evaluation
from data2vec.tasks.task import Downstream, Prediction

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999}.n{text-align:right}.wrong{background:#fbe9e7}h2{margin-top:2em}"""
_WHOLE = frozenset({"label", "labels", "text", "answer"})
"""Keys of predictions that are right or wrong; frames, pixels, tokens, values and cosines are more or less so."""
_PERFECT = {"exact_match": 1.0, "exact": 1.0, "accuracy": 1.0, "wer": 0.0, "per": 0.0}
"""Scores that say of one example whether its answer is right, and what they are then."""


def write_evaluation(task: Downstream, found: Evaluation, folder: Path, pictures: Sequence[str] = ()) -> None:
    """Write ``scores.json``, ``predictions.jsonl`` and ``report.html``, with `pictures` (HTML) in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(known(found.scores), indent=2) + "\n", encoding="utf-8")
    with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for example, prediction in zip(found.examples, found.predictions, strict=True):
            said = {name: value for name, value in prediction.items() if not isinstance(value, np.ndarray)}
            row = {**said, "target": plain(example.target)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "report.html").write_text(page(task, found, pictures), encoding="utf-8")


def known(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Scores as JSON has them: null for what the examples do not say."""
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def plain(value: Any) -> Any:
    """A target as JSON values."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else str(value)


def page(task: Downstream, found: Evaluation, pictures: Sequence[str] = ()) -> str:
    """One page without anything from elsewhere: scores, confusions, pictures, examples."""
    name = type(task.model).__name__
    parts = [f"<h1>{html.escape(name)}</h1><p>{len(found.examples)} examples</p>"]
    parts.append(_table(["", ""], [(key, f"{value:.4f}") for key, value in found.scores.items()]))
    confusion = getattr(task, "confusion", None)
    if confusion is not None and (counted := confusion(found.examples, found.predictions)) is not None:
        parts += ["<h2>What is taken for what</h2>", confusion_table(counted)]
    if any(pictures):
        parts += ["<h2>Pictures</h2>", *pictures]
    parts += ["<h2>Examples</h2>", example_table(task, found.examples, found.predictions)]
    return whole_page(name, "".join(parts))


def whole_page(title: str, body: str) -> str:
    """HTML that needs nothing from elsewhere."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}\n{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>\n"


def confusion_table(confusion: Confusion) -> str:
    """Rows are what is true, columns what was answered; shaded by the share of the row. The largest classes only."""
    most = confusion.counts.sum(axis=1).argsort()[::-1][:30]
    kept = sorted(most.tolist())
    rows = []
    for i in kept:
        total = max(1, int(confusion.counts[i].sum()))
        cells = "".join(
            f'<td class="n" style="background:rgba(30,100,200,{0.7 * confusion.counts[i, j] / total:.2f})">'
            f"{int(confusion.counts[i, j]) or ''}</td>"
            for j in kept
        )
        rows.append(f"<tr><th>{html.escape(str(confusion.classes[i]))}</th>{cells}</tr>")
    header = "".join(f"<th>{html.escape(str(confusion.classes[j]))}</th>" for j in kept)
    return f"<table><tr><th></th>{header}</tr>{''.join(rows)}</table>"


def example_table(
    task: Downstream, examples: Sequence[Example], predictions: Sequence[Prediction], most: int = 60
) -> str:
    """The first examples, wrong answers shaded, where right and wrong can be told."""
    rows = []
    for example, prediction in list(zip(examples, predictions, strict=True))[:most]:
        wrong = ' class="wrong"' if is_right(task, example, prediction) is False else ""
        cells = (_short(_asked(example)), _short(_true(example)), _short(_answered(prediction)))
        rows.append(f"<tr{wrong}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>input</th><th>true</th><th>answered</th></tr>{''.join(rows)}</table>"


def is_right(task: Downstream, example: Example, prediction: Prediction) -> bool | None:
    """Whether an answer is right as a whole, as the task's own score says of it alone; None where none can be so."""
    if not prediction.keys() & _WHOLE:
        return None
    scores = task.score([example], [prediction])
    return next((scores[name] == best for name, best in _PERFECT.items() if name in scores), None)


def _asked(example: Example) -> str:
    """The input in words; a file by its name."""
    words = isinstance(example.input, str | tuple | Question | Choices)
    return _spelled(example.input if words else Path(example.source))


def _true(example: Example) -> str:
    """The target in words; of text that is its own target, nothing."""
    match example.input, example.target:
        case Choices(options=options), int(place):
            return options[place]
        case _, bool(same):
            return "the same" if same else "different"
        case asked, target:
            return "" if target == asked else _spelled(target)


def _answered(prediction: Prediction) -> str:
    """The answer in words."""
    match prediction:
        case {"label": said} | {"text": said} | {"labels": said} | {"answer": said} | {"value": said}:
            return _spelled(said)
        case {"turns": turns}:
            return _spelled(Timeline(tuple(Turn(*turn) for turn in turns)))
        case {"shares": said} | {"score": said}:
            return _spelled(said)
        case {"hits": hits, "tokens": tokens}:
            return f"{hits} of {tokens} tokens"
    return ""


def _spelled(value: Any) -> str:
    """A value as people read it."""
    match value:
        case Turn(start, end, label):
            return f"{start:.2f}-{end:.2f} {label}"
        case Timeline(turns=turns):
            return "; ".join(map(_spelled, turns))
        case Question(question=question, context=context):
            return f"{question} | {context}"
        case Choices(prompt=prompt, options=options):
            return " | ".join((prompt, *options))
        case Answer(text=text):
            return text
        case dict():
            return ", ".join(f"{name} {_spelled(part)}" for name, part in value.items())
        case tuple() | list():
            return " | ".join(map(_spelled, value))
        case Path():
            return value.name
        case float():
            return f"{value:.4g}"
    return str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in header)}</tr>{body}</table>"


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[:most] + " ..."
