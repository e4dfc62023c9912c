"""What one run of the demo leaves for the report. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A probe's score on held-out items, before and after pre-training, as shares; with its standard error."""

    before: float
    after: float
    error: float


@dataclass(frozen=True)
class Point:
    """An item in a picture of the features."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Outcome:
    """One network pre-trained.

    Attributes:
        modality: speech, images or text.
        method: v1 or v2.
        records: the run's log, one record a few updates.
        parameters: of the network.
        classes: how many the probe tells apart.
        items: that trained the probe, and held-out ones that it was scored on.
        linear: logistic regression on the frozen features.
        neighbours: vote of the nearest neighbours.
        before: held-out items in the untrained network's features, in two dimensions.
        after: the same items after pre-training.
        command: what a user types to get this run again.
    """

    modality: str
    method: str
    records: Sequence[dict[str, float]]
    parameters: int
    classes: int
    items: tuple[int, int]
    linear: Score
    neighbours: Score
    before: Sequence[Point]
    after: Sequence[Point]
    command: str

    @property
    def updates(self) -> int:
        """Optimizer steps."""
        return int(self.records[-1]["update"])

    @property
    def seconds(self) -> float:
        """CPU time of the training."""
        return self.records[-1]["seconds"]


def table(outcomes: Sequence[Outcome]) -> str:
    """The scores as plain text."""
    lines = [
        f"{'':14}{'linear probe':<24}{'nearest neighbours':<24}{'updates':>9}{'CPU s':>7}",
        f"{'':14}" + 2 * f"{'untrained':<11}{'pre-trained':<13}",
    ]
    for each in outcomes:
        scores = "".join(
            f"{percent(score.before):>9}  {percent(score.after):>11}  " for score in (each.linear, each.neighbours)
        )
        lines.append(f"{each.modality:<8}{each.method:<6}{scores}{each.updates:>9,}{each.seconds:>7.0f}")
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.1f} %"
