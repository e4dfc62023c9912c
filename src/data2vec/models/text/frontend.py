"""Text's front door: token ids -> word embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from data2vec.models.text.config import Data2VecTextConfig


class TextFrontend(nn.Module):
    """The word table. Positions, token types and norm come after masking, so they belong to the encoder."""

    def __init__(self, config: Data2VecTextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, H)."""
        embedded: Tensor = self.words(input_ids)
        return embedded
