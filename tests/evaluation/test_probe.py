"""Probes: the optimum that scikit-learn finds, neighbours as counted by hand, features without padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec.errors import UserError
from data2vec.evaluation import probe
from data2vec.evaluation.probe import extract_features, knn_probe, linear_probe
from data2vec.models.encoder import LayerOutputs, Tokens

Array = NDArray[np.float64]


def blobs(items: int, seed: int, *, width: int = 16, classes: int = 4, noise: float = 1.0) -> tuple[Array, Any]:
    """Correlated features on very different scales, and their classes; the classes' means depend on no seed."""
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    means, mixing = fixed.normal(size=(classes, width)), fixed.normal(size=(width, width))
    labels = rng.integers(0, classes, items)
    rows = (means[labels] + noise * rng.normal(size=(items, width))) @ mixing
    return rows * np.logspace(-3, 3, width) + 5, labels


# Linear


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_linear_fit_is_that_of_scikit_learn(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    monkeypatch.setattr(probe, "TOLERANCE", 1e-6)
    (train_x, train_y), (dev_x, _) = blobs(300, 0, noise=2.0), blobs(100, 1, noise=2.0)
    scaler = preprocessing.StandardScaler().fit(train_x)
    theirs = linear.LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
    expected = theirs.fit(scaler.transform(train_x), train_y).decision_function(scaler.transform(dev_x))
    as_tensors = [torch.tensor(rows, dtype=torch.float32) for rows in (train_x, dev_x)]
    standard = probe._standardize(as_tensors[0], torch.tensor(train_y), as_tensors[1])
    (ours,) = probe._logistic_scores(*standard, 4, [strength])
    centred = ours - ours.mean(1, keepdim=True)  # a constant added to every logit changes nothing
    np.testing.assert_allclose(centred, expected - expected.mean(1, keepdims=True), atol=0.01 * np.abs(expected).max())


def test_linear_probe_has_the_accuracy_of_the_published_protocol() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    pipeline = pytest.importorskip("sklearn.pipeline")
    (train_x, train_y), (dev_x, dev_y) = blobs(400, 0, noise=1.5), blobs(400, 1, noise=1.5)
    ours = linear_probe({"x": train_x}, train_y, {"x": dev_x}, dev_y)
    theirs = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear.LogisticRegression(C=ours.setting, max_iter=1000)
    ).fit(train_x, train_y)
    assert abs(ours.accuracy - theirs.score(dev_x, dev_y)) <= 0.01
    assert abs(ours.cv_accuracy - ours.accuracy) < 0.1


def test_probes_choose_the_features_that_know_something() -> None:
    (train_x, train_y), (dev_x, dev_y) = blobs(200, 0), blobs(200, 1)
    noise = np.random.default_rng(5).normal(size=(400, 7))
    train, dev = {"noise": noise[:200], "x": train_x}, {"noise": noise[200:], "x": dev_x}
    for result in (linear_probe(train, train_y, dev, dev_y), knn_probe(train, train_y, dev, dev_y)):
        assert result.features == "x"
        assert result.accuracy > 0.8 > 0.5 > max(result.candidates["noise"].values())
        assert result.cv_accuracy == max(result.candidates["x"].values()) == result.candidates["x"][result.setting]
        assert result.standard_error == pytest.approx((result.accuracy * (1 - result.accuracy) / 200) ** 0.5)


def test_probes_are_repeatable_and_blind_to_scale_shift_and_constant_columns() -> None:
    (train_x, train_y), (dev_x, dev_y) = blobs(120, 0), blobs(80, 1)
    for fit in (linear_probe, knn_probe):
        first = fit({"x": train_x}, train_y, {"x": dev_x}, dev_y)
        assert fit({"x": train_x}, train_y, {"x": dev_x}, dev_y) == first
        moved = [np.hstack([100 * rows - 7, np.full((len(rows), 1), 0.1)]) for rows in (train_x, dev_x)]
        second = fit({"x": moved[0]}, train_y, {"x": moved[1]}, dev_y)
        assert abs(second.accuracy - first.accuracy) <= 0.025


def test_labels_may_be_strings_and_unknown_ones_count_as_errors() -> None:
    (train_x, train_y), (dev_x, dev_y) = blobs(200, 0, noise=0.1), blobs(100, 1, noise=0.1)
    names = np.array(["ant", "bee", "cat", "dog"])
    known = linear_probe({"x": train_x}, names[train_y], {"x": dev_x}, names[dev_y])
    assert known.accuracy == 1.0
    dev_names = np.where(dev_y == 3, "emu", names[dev_y])
    assert linear_probe({"x": train_x}, names[train_y], {"x": dev_x}, dev_names).accuracy == np.mean(dev_y != 3)


def test_of_equal_scores_the_weakest_fit_wins() -> None:
    (train_x, train_y), (dev_x, dev_y) = blobs(200, 0, noise=0.01), blobs(50, 1, noise=0.01)
    train, dev = {"a": train_x, "b": train_x}, {"a": dev_x, "b": dev_x}
    result = linear_probe(train, train_y, dev, dev_y, strengths=(10.0, 0.1, 1.0))
    assert (result.setting, result.features) == (0.1, "a")
    assert knn_probe(train, train_y, dev, dev_y, neighbours=(9, 3)).setting == 3


# Neighbours


def test_neighbours_vote_as_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    x, y, items = rng.normal(size=(60, 3)), rng.integers(0, 3, 60), rng.normal(size=(40, 3))
    scores = probe._neighbour_scores(*map(torch.tensor, (x, y, items)), 3, [1, 4, 100])
    for k, found in zip((1, 4, 60), scores, strict=True):
        for item, row in zip(items, found, strict=True):
            cosines = x @ item / np.linalg.norm(x, axis=1) / np.linalg.norm(item)
            nearest = np.argsort(-cosines)[:k]
            votes, sums = Counter(y[nearest].tolist()), Counter[int]()
            for index in nearest:
                sums[int(y[index])] += cosines[index]
            assert int(row.argmax()) == max(votes, key=lambda label: (votes[label], sums[label]))


def test_more_cosine_breaks_a_tie_but_never_beats_a_vote() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    item = torch.tensor([[1.0, 0.2]])
    tie = probe._neighbour_scores(x[:2], torch.tensor([1, 0]), item, 2, [2])[0]
    assert int(tie.argmax()) == 1
    outvoted = probe._neighbour_scores(x, torch.tensor([1, 0, 0]), item, 2, [3])[0]
    assert int(outvoted.argmax()) == 0


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_y": np.zeros(20, int)}, "20 training items of 1 classes"),
        ({"train_x": {"x": np.zeros((2, 3))}, "train_y": [0, 1]}, "a probe needs 2 classes, 3 training items"),
        ({"dev_x": {"y": np.zeros((5, 3))}}, r"train_x has the features \['x'\], dev_x \['y'\]"),
        ({"dev_x": {"x": np.zeros((4, 3))}}, r"dev_x\['x'\] must be \(5 items, 3 features\), not \(4, 3\)"),
        ({"dev_x": {"x": np.zeros((5, 2))}}, r"dev_x\['x'\] must be \(5 items, 3 features\), not \(5, 2\)"),
        ({"train_x": {"x": np.zeros(20)}}, r"train_x\['x'\] must be \(20 items, any features\), not \(20,\)"),
        ({"dev_x": {"x": np.full((5, 3), np.nan)}}, r"dev_x\['x'\] row 0 has a feature that is not finite"),
        ({"dev_x": {"x": np.zeros((0, 3))}, "dev_y": []}, "0 development items"),
    ],
)
@pytest.mark.parametrize("fit", [linear_probe, knn_probe])
def test_bad_input_is_named(fit: Any, change: Mapping[str, Any], message: str) -> None:
    rows = np.random.default_rng(0).normal(size=(25, 3))
    good = {
        "train_x": {"x": rows[:20]},
        "train_y": np.arange(20) % 2,
        "dev_x": {"x": rows[20:]},
        "dev_y": [0, 1] * 2 + [0],
    }
    with pytest.raises(UserError, match=message):
        fit(**{**good, **change})


# Features


class Doubling(nn.Module):
    """Blocks that double: block i gives 2^i times the input, after one special token full of nonsense."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()

    def embed(self, batch: Mapping[str, Tensor]) -> Tokens:
        valid = batch.get("attention_mask")
        return Tokens(batch["input_values"], None if valid is None else valid == 0)

    def contextualize(self, tokens: Tokens, mask: Tensor | None = None) -> LayerOutputs:
        special = torch.full_like(tokens.features[:, :1], 1e6)
        states = self.dropout(torch.cat([special, tokens.features], dim=1) * self.weight)
        blocks = [states * 2**i for i in range(3)]
        return LayerOutputs(output=states, blocks=blocks, ffns=[], prefix=1)


def test_features_are_means_over_valid_tokens_without_special_ones() -> None:
    values, valid = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    values[1, 2:] = torch.nan
    encoder = Doubling().train()
    encoder.frozen.eval()
    batches = [{"input_values": values, "attention_mask": valid}, {"input_values": values[:1]}]
    features = extract_features(encoder, batches)
    plain = torch.stack([values[0].mean(0), values[1, :2].mean(0), torch.zeros(4), values[0].mean(0)])
    np.testing.assert_allclose(features["last"], 4 * plain, rtol=1e-6)
    np.testing.assert_allclose(features["mean"], 7 / 3 * plain, rtol=1e-5)
    assert encoder.training
    assert encoder.dropout.training
    assert not encoder.frozen.training


def test_no_batches_is_an_error() -> None:
    with pytest.raises(UserError, match="no batch"):
        extract_features(Doubling(), [])
