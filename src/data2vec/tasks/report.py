"""What an evaluation leaves behind: scores, predictions, and a page to look at."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data2vec.data.labelled.example import Example
from data2vec.evaluation.metrics import Confusion
from data2vec.tasks.figures import STYLE
from data2vec.tasks.run import Evaluation
from data2vec.tasks.task import Downstream, Prediction

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;text-align:left;vertical-align:top}
th{border-bottom:1px solid #999}.n{text-align:right}.wrong{background:#fbe9e7}h2{margin-top:2em}"""


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
    parts += ["<h2>Examples</h2>", example_table(found.examples, found.predictions)]
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


def example_table(examples: Sequence[Example], predictions: Sequence[Prediction], most: int = 60) -> str:
    """The first examples, wrong answers shaded, where right and wrong can be told."""
    rows = []
    for example, prediction in list(zip(examples, predictions, strict=True))[:most]:
        said = next(
            (prediction[key] for key in ("label", "text", "labels", "value", "answer") if key in prediction), ""
        )
        wrong = ' class="wrong"' if isinstance(said, str) and said != _short(example.target) else ""
        shown = example.input if isinstance(example.input, str | tuple) else Path(example.source).name
        cells = (_short(shown), _short(example.target), _short(said))
        rows.append(f"<tr{wrong}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    return f"<table><tr><th>input</th><th>true</th><th>answered</th></tr>{''.join(rows)}</table>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in header)}</tr>{body}</table>"


def _short(value: Any, most: int = 300) -> str:
    text = " | ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return text if len(text) <= most else text[:most] + " ..."
