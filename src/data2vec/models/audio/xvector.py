"""The X-vector head (Snyder et al. 2018, with the loss of arXiv 1801.05599): frames -> one speaker embedding.

Shapes: B batch, T frames, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.losses import check_labels, cross_entropy

Statistics = tuple[Tensor, Tensor]


class KaimingLinear(nn.Linear):
    """A linear map that begins as its width asks for.

    The published N(0, .02) is not far from it at the published widths; with 128 channels it starves the signal in five
    layers of ReLU, and the margin softmax hardly begins to learn.
    """

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Kaiming normal weights, biases 0."""
        nn.init.kaiming_normal_(self.weight)
        self.bias.zero_()


class TimeDelayLayer(nn.Module):
    """A dilated convolution over frames without padding, then ReLU; stored as the published linear map."""

    def __init__(self, source: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.size, self.dilation = kernel, dilation
        self.kernel = KaimingLinear(source * kernel, width)

    @property
    def loss(self) -> int:
        """Frames by which the output is shorter than the input."""
        return (self.size - 1) * self.dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, source) -> (B, T - loss, width)."""
        frames = x.shape[1] - self.loss
        taps = [x[:, tap * self.dilation :][:, :frames] for tap in range(self.size)]
        return F.relu(self.kernel(torch.cat(taps, dim=-1)))


class MarginSoftmax(nn.Module):
    """Additive-margin softmax: cross-entropy of scaled cosines, the right class's lowered by a margin.

    Args:
        width: D.
        classes: C.
        scale: of the cosines.
        margin: taken off the right class's cosine.
    """

    def __init__(self, width: int, classes: int, scale: float = 30.0, margin: float = 0.4) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.empty(width, classes))

    def reset_parameters(self) -> None:
        """Standard normal, as published."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, D) and class numbers (B,) -> the mean loss."""
        labels = labels.flatten()
        check_labels(labels, self.weight.shape[1])
        cosine = F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)
        right = torch.arange(self.weight.shape[1], device=labels.device) == labels[:, None]
        return cross_entropy(self.scale * torch.where(right, cosine - self.margin, cosine), labels)


class XVectorHead(nn.Module):
    """Projection, time-delay layers, mean and deviation over time, two linear maps, margin softmax.

    Statistics are taken over the outputs whose whole window is valid. A clip shorter than one window (15 frames with
    the published kernels) is read as if silence followed it, and the deviation of a single frame is 0, where the
    reference gives NaN.

    Args:
        config: names the widths.
        width: D of the features.
    """

    def __init__(self, config: Data2VecAudioConfig, width: int) -> None:
        super().__init__()
        sizes = (config.tdnn_dim[0], *config.tdnn_dim)
        self.projector = KaimingLinear(width, sizes[0])
        self.tdnn = nn.ModuleList(
            TimeDelayLayer(source, target, kernel, dilation)
            for source, target, kernel, dilation in zip(
                sizes[:-1], sizes[1:], config.tdnn_kernel, config.tdnn_dilation, strict=True
            )
        )
        self.embedding = KaimingLinear(2 * sizes[-1], config.xvector_output_dim)
        self.classifier = KaimingLinear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = MarginSoftmax(config.xvector_output_dim, config.num_labels)

    @property
    def window(self) -> int:
        """Frames that one output of the time-delay layers reads."""
        return 1 + sum(layer.loss for layer in self.tdnn)  # type: ignore[misc]

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, T, D) and padding (B, T) -> embeddings and what the objective reads, (B, xvector_output_dim) each."""
        x = self.projector(x)
        missing = self.window - x.shape[1]
        if padding_mask is not None:
            x, padding_mask = _valid_first(x, padding_mask)
        if missing > 0:
            x = F.pad(x, (0, 0, 0, missing))
        for layer in self.tdnn:
            x = layer(x)
        counts = None
        if padding_mask is not None:
            counts = ((~padding_mask).sum(dim=1) - self.window + 1).clamp(min=1)
        return self.embed(statistics(x, counts))

    def embed(self, pooled: Statistics) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (B, tdnn_dim[-1]) each -> embeddings and the objective's input."""
        embeddings = self.embedding(torch.cat(pooled, dim=-1))
        return embeddings, self.classifier(embeddings)

    def reference(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same with the reference's lengths, which leave dilation out: padding counts, a short clip gives NaN."""
        x = self.projector(x)
        for layer in self.tdnn:
            x = layer(x)
            lengths = None if lengths is None else lengths - layer.size + 1  # type: ignore[operator]
        if lengths is None:
            return self.embed((x.mean(dim=1), x.std(dim=1)))
        rows = [row[: int(length)] for row, length in zip(x, lengths, strict=True)]
        mean, deviation = [row.mean(dim=0) for row in rows], [row.std(dim=0) for row in rows]
        return self.embed((torch.stack(mean), torch.stack(deviation)))


def _valid_first(x: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's valid frames moved to its start, zeros after them."""
    order = padding_mask.int().argsort(dim=1, stable=True)
    padding_mask = padding_mask.gather(1, order)
    return x.gather(1, order[..., None].expand_as(x)).masked_fill(padding_mask[..., None], 0.0), padding_mask


def statistics(x: Tensor, counts: Tensor | None = None) -> Statistics:
    """Mean and unbiased standard deviation over the first `counts` (B,) frames of x (B, T, D), all if None."""
    if counts is None:
        counts = torch.full((x.shape[0],), x.shape[1], device=x.device)
    inside = (torch.arange(x.shape[1], device=x.device) < counts[:, None])[..., None]
    number = counts[:, None].to(x.dtype)
    mean = torch.where(inside, x, 0.0).sum(dim=1) / number
    spread = torch.where(inside, x - mean[:, None], 0.0).square().sum(dim=1) / (number - 1).clamp(min=1)
    varies = spread > 0  # the root's slope at 0 is infinite
    return mean, torch.where(varies, torch.where(varies, spread, 1.0).sqrt(), 0.0)
