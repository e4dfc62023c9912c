"""The one error of this room."""

from __future__ import annotations

from data2vec.errors import UserError


class CheckpointError(UserError):
    """A checkpoint file that cannot, or must not, be read: damaged, malicious, or of no layout we know."""
