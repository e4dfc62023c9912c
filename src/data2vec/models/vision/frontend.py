"""The images' front door: pixels -> patch embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from data2vec.models.vision.config import Data2VecVisionConfig


class VisionFrontend(nn.Module):
    """One linear map a patch, stored as the published convolution and computed as one matrix product."""

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        self.patch = config.patch_shape
        self.projection = nn.Conv2d(config.num_channels, config.hidden_size, self.patch, stride=self.patch)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, C, height, width) -> patches (B, rows * columns, H) and (rows, columns); a rest beyond whole patches is
        cut off."""
        rows, columns = pixels.shape[2] // self.patch[0], pixels.shape[3] // self.patch[1]
        pixels = pixels[:, :, : rows * self.patch[0], : columns * self.patch[1]]
        patches = pixels.unflatten(3, (columns, self.patch[1])).unflatten(
            2, (rows, self.patch[0])
        )  # (B, C, r, ph, c, pw)
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, P, C * ph * pw)
        embedded = nn.functional.linear(
            patches.to(self.projection.weight.dtype), self.projection.weight.flatten(1), self.projection.bias
        )
        return embedded, (rows, columns)
