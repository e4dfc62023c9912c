"""Facts about tensors that must hold: checked at once where values are known, built into the graph where not."""

from __future__ import annotations

from typing import Any

from data2vec.errors import UserError
from data2vec.keras.backend import tf


def require_true(condition: Any, message: str, *seen: Any) -> None:
    """Every element of the bool tensor `condition` holds.

    Args:
        condition: bool tensor of any shape.
        message: what is wrong and how to mend it.
        seen: tensors whose first values the message ends with.

    Raises:
        UserError: eagerly. In a graph the same message is an ``InvalidArgumentError`` of TensorFlow when it runs (XLA
            compiles no assertions).
    """
    holds = tf.reduce_all(condition)
    if not tf.executing_eagerly():
        tf.debugging.Assert(holds, [message, *seen], summarize=8)
    elif not bool(holds):
        values = ", ".join(str(tf.reshape(tensor, [-1])[:8].numpy().tolist()) for tensor in seen)
        raise UserError(f"{message} {values}".rstrip())
