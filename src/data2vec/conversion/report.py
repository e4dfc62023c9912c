"""What a conversion did with every tensor, and on what it had to rely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """The account of one checkpoint.

    Attributes:
        source: the file.
        layout: what it was recognised as.
        used: name in the file -> our name.
        dropped: name in the file -> why it was left out.
        made: our name -> why a tensor exists that the file does not hold.
        settings: configuration field -> where its value came from, where not from a tensor's shape.
        ignored: class in the pickle -> how many objects of it were left unread.
        files: processor file written -> what it was made from.
    """

    source: str
    layout: str
    used: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return asdict(self)

    def table(self, *, full: bool = False) -> str:
        """Lines to print: what was found, dropped, assumed and ignored; with `full` every tensor."""
        renamed = sum(theirs != ours for theirs, ours in self.used.items())
        lines = [f"{self.source}: {self.layout}; {len(self.used)} tensors used ({renamed} under a new name)"]
        if full:
            lines += _columns("used", self.used.items())
        lines += _columns("dropped", self.dropped.items())
        lines += _columns("made", self.made.items())
        lines += _columns("assumed", self.settings.items())
        lines += _columns("not read", ((name, f"{count} objects") for name, count in self.ignored.items()))
        lines += _columns("written", self.files.items())
        return "\n".join(lines)


def _shown(text: str) -> str:
    """Names come from the file: no control characters, no escape sequences for the terminal, no lone surrogates."""
    return text if text.isprintable() else ascii(text)


def _columns(title: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = [(_shown(name), _shown(text)) for name, text in rows]
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {title:<9}{name:<{width}}  {text}" for name, text in rows]
