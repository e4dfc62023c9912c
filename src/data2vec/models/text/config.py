"""Configuration of data2vec for text. Defaults are the documented ones; `base()` is the published model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from data2vec.configuration import Activation, PretrainedConfig, positive, probability, ranged


@dataclass(kw_only=True)
class Data2VecTextConfig(PretrainedConfig):
    """`config.json` of ``data2vec-text``; names and defaults are the published ones.

    Attributes:
        max_position_embeddings: rows of the position table; the longest text is this minus ``pad_token_id + 1``.
        position_embedding_type: ``absolute``, or the relative forms that the documentation describes.
        mask_token_id: the id that hides a token in pre-training; None means the last id, as in the published
            vocabulary.
        classifier_pooling: what a whole text is classified by: ``cls``, the first token as published, or ``mean``, the
            mean of the valid ones, which an encoder that never trained its first token needs less data for.
    """

    model_type: ClassVar[str] = "data2vec-text"

    vocab_size: int = positive(30522)
    hidden_size: int = positive(768)
    num_hidden_layers: int = ranged(12, low=0)
    num_attention_heads: int = positive(12)
    intermediate_size: int = positive(3072)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = probability(0.1)
    attention_probs_dropout_prob: float = probability(0.1)
    max_position_embeddings: int = positive(512)
    type_vocab_size: int = positive(2)
    initializer_range: float = ranged(0.02, low=0.0)
    layer_norm_eps: float = ranged(1e-12, above=0.0)
    pad_token_id: int = ranged(1, low=0)
    bos_token_id: int | None = 0
    eos_token_id: int | None = 2
    position_embedding_type: Literal["absolute", "relative_key", "relative_key_query"] = "absolute"
    is_decoder: bool = False
    add_cross_attention: bool = False
    use_cache: bool = True
    classifier_dropout: float | None = ranged(None, low=0.0, high=1.0)
    classifier_pooling: Literal["cls", "mean"] = "cls"
    mask_token_id: int | None = ranged(None, low=0)
    encoder_hidden_size: int | None = ranged(None, low=1)

    def validate(self) -> None:
        """Check widths, special ids and the decoder flags against each other."""
        heads = self.num_attention_heads
        self.require(
            self.hidden_size % heads == 0,
            f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {heads}",
        )
        for name in ("pad_token_id", "mask_token_id"):
            value = getattr(self, name)
            self.require(
                value is None or value < self.vocab_size, f"{name} {value} is not below vocab_size {self.vocab_size}"
            )
        self.require(
            self.max_position_embeddings > self.pad_token_id + 1,
            f"max_position_embeddings {self.max_position_embeddings} leaves no position after "
            f"pad_token_id {self.pad_token_id}",
        )

    @property
    def max_length(self) -> int:
        """The longest text in tokens (512 of the published 514 positions)."""
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def base(cls) -> Data2VecTextConfig:
        """The architecture of the published text base model."""
        return cls(
            vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, mask_token_id=50264
        )
