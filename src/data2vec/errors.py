"""The one error users meet, and the one way to ask for an optional package."""

from __future__ import annotations

import importlib
from types import ModuleType


class UserError(ValueError):
    """Something the user can mend. The message names the field, file or row, and says what to do.

    The command line prints it as one line and exits with status 2.
    """


class BadSample(UserError):
    """One file or row that cannot be used: a data set skips and counts it, anything else tells the user.

    Attributes:
        source: the file, ``archive.zip!member`` or ``file:row``.
        reason: a few words, without the source's name.
    """

    def __init__(self, source: object, reason: str) -> None:
        super().__init__(source, reason)
        self.source = str(source)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


class MissingExtra(UserError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        package: the module to import, e.g. ``"kenlm"``.
        extra: the extra of this distribution that installs it.

    Raises:
        MissingExtra: naming ``pip install 'data2vec[extra]'``.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(f"{package} is needed for this: pip install 'data2vec[{extra}]'") from error
