"""What frozen features know: linear and k-nearest-neighbour probes, chosen on the training items alone.

The protocol: one vector an item, the mean over its tokens of the last block's output or of all blocks' outputs; each
column standardised on the training items; which of the two, and the strength C or the number of neighbours k, by
shuffled 3-fold cross-validation on the training items; then one score on the development items.

Shapes: N items, D features, K classes, B batch, T tokens, P special tokens in front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data2vec.errors import UserError
from data2vec.models.encoder import Encoder

Features = Mapping[str, ArrayLike]

TOLERANCE = 1e-4  # largest gradient entry of the mean loss at which a fit stops: scikit-learn's default


@dataclass(frozen=True)
class ProbeResult:
    """A probe's score and how it was chosen.

    Attributes:
        accuracy: share of development items named rightly, in [0, 1].
        standard_error: of `accuracy`, from the number of development items.
        cv_accuracy: cross-validated training accuracy of the chosen features and setting; less noisy than `accuracy`,
            a little optimistic because it was chosen by.
        features: name of the chosen features.
        setting: the chosen C or k.
        candidates: cross-validated accuracy of every choice, by features and setting.
    """

    accuracy: float
    standard_error: float
    cv_accuracy: float
    features: str
    setting: float
    candidates: dict[str, dict[float, float]]


def linear_probe(
    train_x: Features,
    train_y: ArrayLike,
    dev_x: Features,
    dev_y: ArrayLike,
    *,
    strengths: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
    folds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Multinomial logistic regression on frozen features.

    The optimum of scikit-learn's ``StandardScaler`` and ``LogisticRegression(C)``: summed cross-entropy plus
    |W|^2 / (2 C), intercepts free.

    Args:
        train_x: features by name, (N, D) each; the names may have different D.
        train_y: (N,) labels, integers or strings.
        dev_x: development features, the names of `train_x`.
        dev_y: development labels; a label that no training item has counts as an error.
        strengths: the Cs to choose from. Of equal scores the smallest C wins, then the first name.
        folds: of the cross-validation.
        seed: of the shuffle.

    Raises:
        UserError: names or shapes that disagree, numbers that are not finite, fewer than two classes, too few items.
    """
    return _probe(_logistic_scores, train_x, train_y, dev_x, dev_y, sorted(strengths), folds, seed)


def knn_probe(
    train_x: Features,
    train_y: ArrayLike,
    dev_x: Features,
    dev_y: ArrayLike,
    *,
    neighbours: Sequence[int] = (1, 5, 20),
    folds: int = 3,
    seed: int = 0,
) -> ProbeResult:
    """Vote of the k nearest training items by the cosine of standardised features.

    Of classes with equal votes the one with the larger sum of cosines wins. A k above the number of items means all.

    Args:
        train_x: features by name, (N, D) each.
        train_y: (N,) labels, integers or strings.
        dev_x: development features, the names of `train_x`.
        dev_y: development labels.
        neighbours: the ks to choose from; of equal scores the smallest wins.
        folds: of the cross-validation.
        seed: of the shuffle.

    Raises:
        UserError: as `linear_probe`.
    """
    return _probe(_neighbour_scores, train_x, train_y, dev_x, dev_y, sorted(neighbours), folds, seed)


@torch.no_grad()
def extract_features(encoder: Encoder, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, NDArray[np.float32]]:
    """Mean-pooled block outputs of a frozen encoder, in the order of the batches.

    Padded and special tokens are left out; an item without a valid token gives zeros. The encoder is put in evaluation
    mode and back as it was; batches are moved to its device.

    Returns:
        ``last``, the last block's output, and ``mean``, the mean of all blocks' outputs: (N, D) each.
    """
    assert isinstance(encoder, nn.Module), "an encoder is a module (models/encoder.py)"
    parameter = next(encoder.parameters(), None)
    training = {part: part.training for part in encoder.modules()}
    pooled: dict[str, list[Tensor]] = {"last": [], "mean": []}
    encoder.eval()
    try:
        for batch in batches:
            if parameter is not None:
                batch = {name: tensor.to(parameter.device) for name, tensor in batch.items()}
            tokens = encoder.embed(batch)
            layers = encoder.contextualize(tokens)
            blocks = [block[:, layers.prefix :] for block in layers.blocks]
            pooled["last"].append(_pool(blocks[-1], tokens.padding_mask))
            pooled["mean"].append(torch.stack([_pool(block, tokens.padding_mask) for block in blocks]).mean(0))
    finally:
        for part, was in training.items():
            part.training = was
    if not pooled["last"]:
        raise UserError("no batch to take features from: is the folder empty?")
    return {name: torch.cat(rows).cpu().numpy() for name, rows in pooled.items()}


def _pool(states: Tensor, padding_mask: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, D) fp32: mean over the valid tokens."""
    if padding_mask is None:
        return states.float().mean(1)
    counts = (~padding_mask).sum(1, keepdim=True).clamp(min=1)
    return states.float().masked_fill(padding_mask[..., None], 0).sum(1) / counts


Scores = Callable[[Tensor, Tensor, Tensor, int, Sequence[float]], list[Tensor]]
"""(train (N, D), labels (N,), items (M, D), K, settings) -> for each setting the classes' scores (M, K)."""


def _probe(
    scores: Scores,
    train_x: Features,
    train_y: ArrayLike,
    dev_x: Features,
    dev_y: ArrayLike,
    settings: Sequence[float],
    folds: int,
    seed: int,
) -> ProbeResult:
    """Choose features and setting by cross-validation, then score once on the development items."""
    classes, codes = np.unique(np.asarray(train_y), return_inverse=True)
    labels, truth = torch.from_numpy(codes.reshape(-1)), np.asarray(dev_y)
    if len(classes) < 2 or len(labels) < folds or not len(truth):
        raise UserError(
            f"{len(labels)} training items of {len(classes)} classes and {len(truth)} development items: "
            f"a probe needs 2 classes, {folds} training items and a development item"
        )
    if set(train_x) != set(dev_x):
        raise UserError(f"train_x has the features {sorted(train_x)}, dev_x {sorted(dev_x)}: they must be the same")
    train = {name: _matrix(rows, len(labels), f"train_x[{name!r}]") for name, rows in train_x.items()}
    dev = {name: _matrix(dev_x[name], len(truth), f"dev_x[{name!r}]", x.shape[1]) for name, x in train.items()}

    order = np.random.default_rng(seed).permutation(len(labels))
    parts = [torch.from_numpy(part) for part in np.array_split(order, folds)]
    candidates = {
        name: dict(zip(settings, _cross_validate(scores, x, labels, parts, settings), strict=True))
        for name, x in train.items()
    }
    choices = [(name, setting) for setting in settings for name in candidates]
    name, setting = max(choices, key=lambda choice: candidates[choice[0]][choice[1]])

    path = settings[: settings.index(setting) + 1]  # as in the cross-validation: a fit starts from the one before it
    final = scores(*_standardize(train[name], labels, dev[name]), len(classes), path)[-1]
    accuracy = float((classes[final.argmax(1).numpy()] == truth).mean())
    error = float(np.sqrt(accuracy * (1 - accuracy) / len(truth)))
    return ProbeResult(accuracy, error, candidates[name][setting], name, setting, candidates)


def _cross_validate(
    scores: Scores, x: Tensor, labels: Tensor, parts: Sequence[Tensor], settings: Sequence[float]
) -> list[float]:
    """Share of items named rightly by the fit without their part, for each setting."""
    right = np.zeros(len(settings))
    for held in parts:
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[held] = False
        fitted = scores(*_standardize(x[rest], labels[rest], x[held]), int(labels.max()) + 1, settings)
        right += [int((each.argmax(1) == labels[held]).sum()) for each in fitted]
    shares: list[float] = (right / len(labels)).tolist()
    return shares


def _matrix(rows: ArrayLike, count: int, name: str, width: int | None = None) -> Tensor:
    """Checked features, (count, width) fp32."""
    matrix = torch.from_numpy(np.array(rows, dtype=np.float32))
    if matrix.ndim != 2 or len(matrix) != count or matrix.shape[1] != (width or matrix.shape[-1]):
        raise UserError(f"{name} must be ({count} items, {width or 'any'} features), not {tuple(matrix.shape)}")
    bad = ~matrix.isfinite().all(1)
    if bad.any():
        raise UserError(f"{name} row {int(bad.nonzero()[0])} has a feature that is not finite: look at the checkpoint")
    return matrix


def _standardize(train: Tensor, labels: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both sets by the training set's mean and deviation; constant columns become 0."""
    mean, deviation = train.mean(0), train.std(0, correction=0)
    scale = torch.where(deviation > 1e-6 * mean.abs(), deviation, torch.inf)
    return (train - mean) / scale, labels, (items - mean) / scale


def _logistic_scores(x: Tensor, y: Tensor, items: Tensor, classes: int, strengths: Sequence[float]) -> list[Tensor]:
    """Logits of `items` at the optimum for each strength, which starts from the optimum before it."""
    weight, bias = x.new_zeros(x.shape[1], classes), x.new_zeros(classes)
    logits = []
    for strength in strengths:
        weight, bias = _fit_logistic(x, y, weight, bias, 1 / (2 * strength * len(x)))
        logits.append(items @ weight + bias)
    return logits


def _fit_logistic(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The weights (D, K) and biases (K,) of least mean cross-entropy + decay |weight|^2."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=TOLERANCE, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    @torch.enable_grad()
    def objective() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    search.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _neighbour_scores(x: Tensor, y: Tensor, items: Tensor, classes: int, neighbours: Sequence[float]) -> list[Tensor]:
    """For each k: votes of the k nearest, plus a tie-break below one vote from their cosines."""
    x, items = F.normalize(x), F.normalize(items)
    most = min(int(max(neighbours)), len(x))
    scores = [x.new_zeros(len(items), classes) for _ in neighbours]
    for start in range(0, len(items), 1024):  # (1024, N) cosines at a time
        cosines, nearest = (items[start : start + 1024] @ x.T).topk(most, dim=1)
        for score, k in zip(scores, neighbours, strict=True):
            votes = 1 + cosines[:, : int(k)] / (2 * k + 1)
            score[start : start + 1024].scatter_add_(1, y[nearest[:, : int(k)]], votes)
    return scores
