"""What the TF classes return: a dict that also reads by attribute and by position."""

from __future__ import annotations

from typing import Any

import optree

_ORDER = ("loss", "logits", "last_hidden_state", "pooler_output", "hidden_states", "attentions")


class TFModelOutput(dict[str, Any]):
    """Outputs by name (``output["logits"]``), attribute (``output.logits``) or position (``output[0]``).

    A dict without the entries that were not asked for: iterating gives names, as in any dict; `to_tuple` gives the
    values, in the documented order. An attribute that was not asked for is None. Shapes: B batch, P patches, H hidden.

    Attributes:
        loss: of the labels: (B,), one a sample, from the classifier; (1,) from the segmenter.
        logits: (B, num_labels), or (B, num_labels, 4 * rows, 4 * columns).
        last_hidden_state: (B, P + 1, H).
        pooler_output: (B, H).
        hidden_states: num_layers + 1 of (B, P + 1, H): the embeddings, then each block's output.
        attentions: num_layers of (B, heads, P + 1, P + 1).
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _ORDER:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self)}")
        return self.get(name)

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in the documented order."""
        return tuple(self.values())


def gather(**outputs: Any) -> dict[str, Any]:
    """The outputs that are there, in the documented order."""
    return {name: outputs[name] for name in _ORDER if outputs.get(name) is not None}


def _flatten(output: Any) -> Any:
    """Values sorted by name, as those of a plain dict are: symbolic outputs are one."""
    return [output[name] for name in sorted(output)], tuple(output), sorted(output)


def _unflatten(names: Any, values: Any) -> Any:
    by_name = dict(zip(sorted(names), values, strict=True))
    return TFModelOutput((name, by_name[name]) for name in names)


# Keras' trees take a dict's subclass for a leaf; predict, metrics and Functional models look inside through this.
optree.register_pytree_node(TFModelOutput, _flatten, _unflatten, namespace="keras")
