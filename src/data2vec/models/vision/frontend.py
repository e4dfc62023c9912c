"""The images' front door: pixels -> patch embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from data2vec.models.vision.config import Data2VecVisionConfig


class VisionFrontend(nn.Module):
    """One linear map a patch, stored as the published convolution and computed as one matrix product.

    Args:
        config: of the model.
        inner: width of the patches before a second linear map to the model's; None: there is none.
    """

    def __init__(self, config: Data2VecVisionConfig, inner: int | None = None) -> None:
        super().__init__()
        self.patch = config.patch_shape
        self.projection = nn.Conv2d(config.num_channels, inner or config.hidden_size, self.patch, stride=self.patch)
        self.widening = None if inner is None else nn.Linear(inner, config.hidden_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, C, height, width) -> patches (B, rows * columns, H) and the grid (rows, columns).

        A rest beyond whole patches is cut off.
        """
        batch, channels = pixels.shape[:2]
        high, wide = self.patch
        rows, columns = pixels.shape[2] // high, pixels.shape[3] // wide
        pixels = pixels[:, :, : rows * high, : columns * wide]
        patches = pixels.reshape(batch, channels, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(batch, rows * columns, channels * high * wide)
        embedded = nn.functional.linear(
            patches.to(self.projection.weight.dtype), self.projection.weight.flatten(1), self.projection.bias
        )
        return embedded if self.widening is None else self.widening(embedded), (rows, columns)
