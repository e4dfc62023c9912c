"""UPerNet on a plain ViT (arXiv 1807.10221, as BEiT uses it): four blocks' patches -> a map of classes.

Shapes: B batch, H width, h and w the patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.models.losses import cross_entropy
from data2vec.models.vision.config import Data2VecVisionConfig


class ConvLayer(nn.Module):
    """Convolution of odd kernel that keeps the size -> batch norm -> ReLU."""

    def __init__(self, source: int, width: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(source, width, kernel, padding=kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, source, h, w) -> (B, width, h, w)."""
        return F.relu(_batch_norm(self.convolution(x), self.normalization))


def _batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch norm; a single value a channel (one image, pooled to 1x1) has no variance: it gets the running one."""
    if norm.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    normed: Tensor = norm(x)
    return normed


class Pyramid(nn.Module):
    """Four maps of one resolution -> four maps of 4, 2, 1 and 1/2 times the patch grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.four = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, stride=2),
        )
        self.two = nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(B, H, h, w) each -> (B, H, 4h, 4w), (B, H, 2h, 2w), (B, H, h, w), (B, H, h // 2, w // 2)."""
        scales: tuple[Callable[[Tensor], Tensor], ...] = (self.four, self.two, nn.Identity(), _halve)
        return [scale(x) for scale, x in zip(scales, maps, strict=False)]


def _halve(x: Tensor) -> Tensor:
    """Maximum of 2x2; an axis of one patch stays."""
    return F.max_pool2d(x, (min(2, x.shape[2]), min(2, x.shape[3])))


class PoolBranch(nn.Module):
    """The map averaged to `size` x `size`, convolved, and brought back to its own size."""

    def __init__(self, size: int, source: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.conv = ConvLayer(source, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, source, h, w) -> (B, width, h, w)."""
        return resize(self.conv(F.adaptive_avg_pool2d(x, self.size)), x.shape[2:])


class SegmentationDecoder(nn.Module):
    """UPerNet: pooling at several scales on the coarsest map, a feature pyramid down to the finest, classes.

    Args:
        width: H, of the maps and inside.
        labels: classes.
        pool_scales: sizes of the pooled maps.
    """

    def __init__(self, width: int, labels: int, pool_scales: Sequence[int]) -> None:
        super().__init__()
        self.pools = nn.ModuleList(PoolBranch(scale, width, width) for scale in pool_scales)
        self.bottleneck = ConvLayer((1 + len(pool_scales)) * width, width, 3)
        self.laterals = nn.ModuleList(ConvLayer(width, width, 1) for _ in range(3))
        self.smoothers = nn.ModuleList(ConvLayer(width, width, 3) for _ in range(3))
        self.fusion = ConvLayer(4 * width, width, 3)
        self.classifier = nn.Conv2d(width, labels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> (B, labels, 4h, 4w)."""
        coarse = maps[-1]
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=False)]
        levels.append(self.bottleneck(torch.cat([coarse, *(pool(coarse) for pool in self.pools)], dim=1)))
        for index in range(len(levels) - 1, 0, -1):
            levels[index - 1] = levels[index - 1] + resize(levels[index], levels[index - 1].shape[2:])
        smooth = [smoother(x) for smoother, x in zip(self.smoothers, levels, strict=False)][: len(levels) - 1]
        finest = levels[0].shape[2:]
        fused = torch.cat([resize(x, finest) for x in (*smooth, levels[-1])], dim=1)
        scores: Tensor = self.classifier(self.fusion(fused))
        return scores


class AuxiliaryDecoder(nn.Module):
    """Plain convolutions on the map of the patch grid: a second loss while training.

    Args:
        config: names widths and depth.
    """

    def __init__(self, config: Data2VecVisionConfig) -> None:
        super().__init__()
        width, channels, depth = config.hidden_size, config.auxiliary_channels, config.auxiliary_num_convs
        self.convs = nn.ModuleList(ConvLayer(channels if index else width, channels, 3) for index in range(depth))
        reached = channels if depth else width
        self.conv_cat = ConvLayer(width + reached, channels, 3) if config.auxiliary_concat_input else None
        self.classifier = nn.Conv2d(channels if self.conv_cat is not None else reached, config.num_labels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, h, w) -> (B, labels, h, w)."""
        own = x
        for conv in self.convs:
            own = conv(own)
        if self.conv_cat is not None:
            own = self.conv_cat(torch.cat([x, own], dim=1))
        scores: Tensor = self.classifier(own)
        return scores


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, ., .) to (B, C, *size), bilinear."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def segmentation_loss(logits: Tensor, labels: Tensor, covered: tuple[int, int], ignored: int) -> Tensor:
    """Mean cross-entropy of the scores brought to the labels' size.

    Args:
        logits: (B, C, ., .), scores of an area of `covered` pixels.
        labels: (B, height, width) classes of the image, which may end before the area does.
        covered: (height, width) of the area, pixels of the image.
        ignored: label that does not count.
    """
    height, width = labels.shape[1:]
    logits = resize(logits, (max(height, covered[0]), max(width, covered[1])))
    return cross_entropy(logits[:, :, :height, :width], labels, ignored)
