"""What models return: dataclasses with attribute, key and integer access.

Unpacking and integers skip fields that are None. Shapes: B batch, T frames or tokens, H hidden size, P patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor


class ModelOutput:
    """Base of all outputs: a dataclass that also reads like a dict and like a tuple of its fields that are not None."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # torch.export, torch.compile and DDP look inside outputs through this registration.
        pytree.register_pytree_node(
            cls,
            lambda output: ([getattr(output, f.name) for f in fields(output)], None),
            lambda values, _: cls(*values),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

    def keys(self) -> list[str]:
        """Names of the fields that are not None, in order."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(getattr(self, name) for name in self.keys())

    def values(self) -> tuple[Any, ...]:
        """As `to_tuple`."""
        return self.to_tuple()

    def items(self) -> list[tuple[str, Any]]:
        """(name, value) of the fields that are not None."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` when it is None or unknown."""
        return getattr(self, name) if name in self.keys() else default

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class AudioModelOutput(ModelOutput):
    """`Data2VecAudioModel`.

    Attributes:
        last_hidden_state: (B, T, H), or (B, T_adapter, output_hidden_size) with an adapter.
        extract_features: (B, T, conv_dim[-1]), the layer-normed convolution features.
        hidden_states: num_layers + 1 of (B, T, H): the first block's input, then each block's output.
        attentions: num_layers of (B, heads, T, T).
        frame_mask: (B, T) bool, True = valid frame of `last_hidden_state`; None when nothing is padded.
    """

    last_hidden_state: Tensor
    extract_features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    frame_mask: Tensor | None = None


@dataclass
class TextModelOutput(ModelOutput):
    """`Data2VecTextModel`.

    Attributes:
        last_hidden_state: (B, L, H).
        pooler_output: (B, H), tanh(dense(first token)); None without pooling layer.
        past_key_values: the cache, when asked for.
        hidden_states: num_layers + 1 of (B, L, H): the embeddings, then each block's output.
        attentions: num_layers of (B, heads, L, L).
        cross_attentions: num_layers of (B, heads, L, L_encoder).
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    past_key_values: Any | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class VisionModelOutput(ModelOutput):
    """`Data2VecVisionModel`.

    Attributes:
        last_hidden_state: (B, P + 1, H).
        pooler_output: (B, H); None without pooling layer.
        hidden_states: num_layers + 1 of (B, P + 1, H): the embeddings, then each block's output (before the final
            norm).
        attentions: num_layers of (B, heads, P + 1, P + 1).
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class HeadOutput(ModelOutput):
    """What most heads return.

    Attributes:
        loss: scalar; None without labels.
        logits: scores before softmax; each subclass gives the shape.
        hidden_states: as of the base model, when asked for.
        attentions: as of the base model, when asked for.
    """

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CausalLMOutput(HeadOutput):
    """`Data2VecAudioForCTC`: logits (B, T, vocab_size); `frame_mask` (B, T) bool, True = valid frame, with padding."""

    frame_mask: Tensor | None = None


@dataclass
class SequenceClassifierOutput(HeadOutput):
    """Logits (B, num_labels)."""


@dataclass
class TokenClassifierOutput(HeadOutput):
    """Logits (B, T, num_labels); `frame_mask` (B, T) bool, True = valid frame, for padded audio."""

    frame_mask: Tensor | None = None


@dataclass
class MaskedLMOutput(HeadOutput):
    """Logits (B, L, vocab_size)."""


@dataclass
class MultipleChoiceModelOutput(HeadOutput):
    """Logits (B, choices)."""


@dataclass
class ImageClassifierOutput(HeadOutput):
    """Logits (B, num_labels)."""


@dataclass
class SemanticSegmenterOutput(HeadOutput):
    """Logits (B, num_labels, 4 * rows, 4 * columns) on four times the patch grid."""


@dataclass
class XVectorOutput(ModelOutput):
    """`Data2VecAudioForXVector`.

    Attributes:
        loss: scalar; None without labels.
        logits: (B, xvector_output_dim), what the margin softmax reads; not class scores.
        embeddings: (B, xvector_output_dim), to be compared by cosine.
        hidden_states: as of the base model, when asked for.
        attentions: as of the base model, when asked for.
    """

    loss: Tensor | None
    logits: Tensor
    embeddings: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """`Data2VecTextForCausalLM`: logits (B, L, vocab_size), or of the positions kept; the rest as `TextModelOutput`."""

    loss: Tensor | None
    logits: Tensor
    past_key_values: Any | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """`Data2VecTextForQuestionAnswering`: `start_logits` and `end_logits` (B, L) of the answer's two ends."""

    loss: Tensor | None
    start_logits: Tensor
    end_logits: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


# The documented names of the base models' outputs.
Data2VecAudioBaseModelOutput = AudioModelOutput
BaseModelOutputWithPoolingAndCrossAttentions = TextModelOutput
Data2VecVisionModelOutputWithPooling = VisionModelOutput
