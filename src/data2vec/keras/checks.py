"""What a wrong input is told: at once where values are known, built into the graph where not."""

from __future__ import annotations

from typing import Any

from data2vec.errors import UserError
from data2vec.keras.backend import tf


class InputError(UserError):
    """A `UserError` from inside a call, whose message reaches the user as it is.

    Keras adds every argument's repr to an error's message unless it finds its mark; AutoGraph turns an error into an
    anonymous one unless it knows how to build another with a longer message.
    """

    _keras_call_info_injected = True
    __init__ = Exception.__init__


def require_true(condition: Any, message: str, *seen: Any) -> None:
    """Every element of the bool tensor `condition` holds.

    Args:
        condition: bool tensor of any shape.
        message: what is wrong and how to mend it.
        seen: scalars that the message ends with.

    Raises:
        InputError: eagerly. In a graph the same message is an ``InvalidArgumentError`` of TensorFlow when it runs (XLA
            compiles no assertions).
    """
    holds = tf.reduce_all(condition)
    if not tf.executing_eagerly():
        tf.debugging.Assert(holds, [message, *seen])
    elif not bool(holds):
        raise InputError(f"{message} {', '.join(str(value.numpy()) for value in seen)}")
