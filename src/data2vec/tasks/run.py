"""Running a task on examples: rows of like length in batches, answers back to examples, scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data2vec.data.labelled.example import Example
from data2vec.data.skips import Skipped
from data2vec.errors import BadSample, UserError
from data2vec.tasks.task import Downstream, Item, Prediction, collate


def usable(
    task: Downstream, examples: Sequence[Example], *, train: bool = False, skip_bad: bool = False
) -> tuple[list[Item], list[Skipped]]:
    """Rows of the examples that the task can use.

    Rows to be judged by are read once, or a damaged file would end a run at its first evaluation, and an example of
    which a row is damaged is left out whole; those to train on are read as they come.

    Raises:
        UserError: one cannot be used and `skip_bad` is off, or none can.
    """
    items: list[Item] = []
    bad: list[BadSample] = []
    for item in task.items(examples, train=train):
        (items if isinstance(item, Item) else bad).append(item)  # type: ignore[arg-type]
    if not train:
        damaged = _damaged(task, items)
        items = [item for item in items if id(item.example) not in damaged]
        bad += damaged.values()
    if bad and not skip_bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; mend it, or leave such examples out with --skip-bad")
    if not items:
        raise UserError(str(bad[0]) if bad else "there are no examples")
    return items, [Skipped.of(each) for each in bad]


def _damaged(task: Downstream, items: Sequence[Item]) -> dict[int, BadSample]:
    """Why examples cannot be read, by their `id`; rows of one key are read once."""
    rows = {_key(item): item for item in items}
    problems: dict[Hashable, BadSample] = {}
    for key, item in rows.items():
        try:
            task.encode(item, None)
        except BadSample as error:
            problems[key] = error
    return {id(item.example): problems[_key(item)] for item in items if _key(item) in problems}


def batches(items: Sequence[Item], budget: int, *, alike: bool = False) -> Iterator[list[int]]:
    """Places of the items in batches of like length, longest first; rows x longest row stay within `budget`.

    With `alike` all rows of a batch have the same `Item.part`.
    """
    order = sorted(range(len(items)), key=lambda place: (-items[place].size, str(items[place].part) if alike else ""))
    held: list[int] = []
    for place in order:
        full = held and (len(held) + 1) * items[held[0]].size > budget
        if full or (held and alike and items[place].part != items[held[0]].part):
            yield held
            held = []
        held.append(place)
    if held:
        yield held


@torch.no_grad()
def predict(
    task: Downstream, items: Sequence[Item], budget: int, *, progress: Callable[[int], None] = lambda _: None
) -> list[Prediction]:
    """Predictions, one an example, in the order of their first items.

    Args:
        task: its model is put into eval mode for the time being.
        items: of the examples.
        budget: of a batch; see `batches`.
        progress: called with the number of items done.
    """
    model = task.model
    was_training = model.training
    model.eval()
    first = {_key(item): place for place, item in enumerate(items)}
    unique = sorted(first.values())
    known: dict[Any, Any] = {}
    try:
        for chosen in batches([items[place] for place in unique], budget, alike=not task.fills):
            places = [unique[index] for index in chosen]
            batch = collate([task.encode(items[place], None) for place in places], task.fills)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            output = model(**inputs_of(batch))
            for place, answer in zip(places, task.answers(output, batch), strict=True):
                known[_key(items[place])] = answer
            progress(len(places))
    finally:
        model.train(was_training)
    answers = [known[_key(item)] for item in items]
    groups: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        groups[id(item.example)].append(place)
    return [
        {"source": items[places[0]].example.source}
        | task.predict([items[place] for place in places], [answers[place] for place in places])
        for places in groups.values()
    ]


def _key(item: Item) -> Hashable:
    return id(item) if item.key is None else item.key


_LABELS = ("labels", "start_positions", "end_positions")


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A batch without its labels."""
    return {name: value for name, value in batch.items() if name not in _LABELS}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        scores: the metrics.
        predictions: one an example.
        examples: those judged, in the same order.
    """

    scores: dict[str, float]
    predictions: list[Prediction]
    examples: list[Example]


def evaluate(task: Downstream, items: Sequence[Item], budget: int) -> Evaluation:
    """Predict and score."""
    examples = list({id(item.example): item.example for item in items}.values())
    predictions = predict(task, items, budget)
    return Evaluation(task.score(examples, predictions), predictions, examples)
