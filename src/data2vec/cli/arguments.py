"""Arguments of a command: a dataclass read by tyro, whose complaints become this program's one line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import tyro

from data2vec.data.skips import Skipped
from data2vec.errors import UserError

T = TypeVar("T")


def parse(kind: type[T], argv: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Read `argv` into `kind`, a dataclass with one attribute an argument.

    Args:
        kind: its docstring is the help; fields are documented there, under Attributes.
        argv: arguments after the command's name.
        prog: what the usage line calls the program, e.g. ``"data2vec probe"``.
        default: an instance with the defaults, if not those of `kind`; `tyro.MISSING` marks what must be given.

    Raises:
        UserError: what a configuration said about a value it was given.
        SystemExit: after ``--help`` (0), or for arguments that do not parse (2, explained on stderr).
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=argv, prog=prog, default=default, config=_STYLE)  # type: ignore[return-value]
    except SystemExit as stop:
        reason: BaseException | None = stop
        while reason is not None:  # tyro draws a box round a UserError of a config; one line says it better
            if isinstance(reason, UserError):
                raise reason from None
            reason = reason.__context__
        sys.stderr.write(said.getvalue())
        raise


_STYLE = (tyro.conf.AvoidSubcommands,)


def spelled_out(argv: Sequence[str]) -> list[str]:
    """``--skip-bad`` as what it is short for."""
    return ["--data.skip-bad" if argument == "--skip-bad" else argument for argument in argv]


def given_inputs(inputs: Sequence[str]) -> list[str]:
    """Files or texts as they were given; of ``-`` alone, the lines of standard input that are not blank."""
    return list(inputs) if list(inputs) != ["-"] else [line.rstrip("\n") for line in sys.stdin if line.strip()]


def tell_left_out(skipped: Iterable[Skipped]) -> None:
    """A line on stderr for each."""
    for skip in skipped:
        print(f"left out: {skip.source}: {skip.reason}", file=sys.stderr)
