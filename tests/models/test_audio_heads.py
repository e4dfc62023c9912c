"""Speech heads where the reference is wrong, and their parts against plain references.

Each test of a difference also shows the reference's behaviour through ``compat="transformers"``.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
import zoo
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from data2vec import UserError
from data2vec.models.audio.augment import frame_mask, span_mask
from data2vec.models.audio.heads import frame_classification
from data2vec.models.audio.xvector import TimeDelayLayer, statistics
from data2vec.models.losses import ctc

COMPAT = {"compat": "transformers"}


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


# ---- padding


def test_padding_does_not_reach_valid_frames_and_in_the_reference_it_does() -> None:
    batch = zoo.audio_batch((1201, 900))
    single = {key: value[1:, :900] for key, value in batch.items()}
    for compat, reaches in (({}, False), (COMPAT, True)):
        model = zoo.build("Data2VecAudioModel", **compat)
        alone, together = model(**single).last_hidden_state[0], model(**batch).last_hidden_state[1]
        assert (difference(alone, together[: len(alone)]) > 1e-2) is reaches


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if "Audio" in name])
def test_left_padding_by_whole_frames_changes_nothing(name: str) -> None:
    batch = zoo.audio_batch((900,))
    frames = 7
    left = {key: torch.nn.functional.pad(value, (20 * frames, 0)) for key, value in batch.items()}
    for compat, equal in (({}, True), (COMPAT, False)):
        model = zoo.build(name, **compat)
        alone, padded = (model(**inputs)[zoo.main_output(name)] for inputs in (batch, left))
        if padded.dim() == 3:
            padded = padded[:, frames:]
        assert (difference(alone, padded) < 1e-5) is equal


def test_left_padded_letters_are_aligned_to_their_frames() -> None:
    labels = torch.tensor([[3, 4, 4]])
    batch = zoo.audio_batch((900,))
    left = {key: torch.nn.functional.pad(value, (140, 0)) for key, value in batch.items()}
    model = zoo.build("Data2VecAudioForCTC")
    assert torch.allclose(model(**batch, labels=labels).loss, model(**left, labels=labels).loss, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if "Audio" in name])
def test_a_row_of_nothing_gives_numbers_and_spoils_no_other(name: str) -> None:
    batch = zoo.audio_batch((900, 900))
    batch["attention_mask"][1] = 0
    model = zoo.build(name)
    labels = zoo.labels(name, frames=44)
    output = model(**batch, **labels)
    assert torch.isfinite(output[zoo.main_output(name)]).all()
    assert "loss" not in output or torch.isfinite(output.loss)
    alone = model(**{key: value[:1] for key, value in batch.items()})[zoo.main_output(name)]
    assert difference(alone, output[zoo.main_output(name)][:1]) < 1e-5


def test_the_reference_attends_to_a_row_of_nothing() -> None:
    batch = zoo.audio_batch((900, 900))
    batch["attention_mask"][1] = 0
    seen = {}
    for kind, compat in (("ours", {}), ("reference", COMPAT)):
        seen[kind] = zoo.build("Data2VecAudioModel", **compat)(**batch).frame_mask[1].sum()
    assert seen["ours"] == 0
    assert seen["reference"] == 44 - 1  # "length -1" is read as "all but one"


def test_padded_frames_do_not_count_in_the_loss_of_frames() -> None:
    batch = zoo.audio_batch((1201, 900))
    labels = torch.randint(0, 3, (2, zoo.FRAMES))
    other = labels.clone()
    other[1, 44:] = (other[1, 44:] + 1) % 3
    one_hot = torch.nn.functional.one_hot
    for compat, equal in (({}, True), (COMPAT, False)):
        model = zoo.build("Data2VecAudioForAudioFrameClassification", **compat)
        losses = [float(model(**batch, labels=one_hot(of, 3)).loss.detach()) for of in (labels, other)]
        assert math.isclose(*losses, rel_tol=1e-6) is equal
    ignored = labels.clone()
    ignored[1, 44:] = -100
    model = zoo.build("Data2VecAudioForAudioFrameClassification")
    whole = frame_classification(model(**batch).logits, ignored)
    assert torch.allclose(model(**batch, labels=labels).loss, whole)


def test_speakers_may_overlap() -> None:
    logits = torch.randn(2, 5, 3)
    labels = torch.randint(0, 2, (2, 5, 3))
    padding = torch.tensor([[False] * 5, [False] * 2 + [True] * 3])
    wanted = [
        torch.nn.functional.binary_cross_entropy_with_logits(logits[b, t], labels[b, t].float())
        for b in range(2)
        for t in range(5)
        if not padding[b, t]
    ]
    got = frame_classification(logits, labels, padding, multi_label=True)
    assert torch.allclose(got, torch.stack(wanted).mean())
    with pytest.raises(UserError, match="labels has shape"):
        frame_classification(logits, labels[:, :4])


# ---- CTC


def test_a_clip_too_short_for_its_labels_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    batch = zoo.audio_batch((900, 120))
    labels = torch.tensor([[3, 4, -100, -100, -100, -100], [5, 5, 6, 6, 7, 7]])
    model = zoo.build("Data2VecAudioForCTC")
    with caplog.at_level(logging.WARNING, logger="data2vec"):
        loss = model(**batch, labels=labels).loss
    assert "row 1 has 5 frames but its labels need 9" in caplog.text
    first = model(**{key: value[:1] for key, value in batch.items()}, labels=labels[:1]).loss
    assert torch.allclose(loss, first, rtol=1e-5)
    assert torch.isinf(zoo.build("Data2VecAudioForCTC", **COMPAT)(**batch, labels=labels).loss)
    caplog.clear()
    quiet = zoo.build("Data2VecAudioForCTC", ctc_zero_infinity=True)(**batch, labels=labels).loss
    assert torch.allclose(quiet, first, rtol=1e-5)
    assert not caplog.text


def naive_ctc(log_probs: Tensor, labels: list[int], blank: int) -> float:
    """All alignments, by recursion over frames."""

    def collapse(path: tuple[int, ...]) -> list[int]:
        return [a for a, b in zip(path, (None, *path), strict=False) if a != b and a != blank]

    frames, classes = log_probs.shape
    paths = np.indices((classes,) * frames).reshape(frames, -1).T
    scores = [
        float(sum(log_probs[t, c] for t, c in enumerate(path)))
        for path in map(tuple, paths)
        if collapse(path) == labels
    ]
    return -float(torch.tensor(scores, dtype=torch.float64).logsumexp(0))


def test_ctc_is_the_sum_over_all_alignments_of_valid_frames() -> None:
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    padding = torch.tensor([[False] * 5, [True, False, False, False, True]])
    labels = torch.tensor([[1, 1, -100], [2, 0, 1]])  # 0 is the blank: no label
    scores = logits.log_softmax(-1)
    wanted = naive_ctc(scores[0], [1, 1], 0) + naive_ctc(scores[1, 1:4], [2, 1], 0)
    assert math.isclose(float(ctc(logits, labels, padding, blank=0)), wanted, rel_tol=1e-5)


def test_labels_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(UserError, match="labels holds 12, but vocab_size is 12"):
        zoo.build("Data2VecAudioForCTC")(**zoo.audio_batch(), labels=torch.tensor([[12], [1]]))
    with pytest.raises(UserError, match="labels holds 3; the classes are 0 to 2"):
        zoo.build("Data2VecAudioForXVector")(**zoo.audio_batch(), labels=torch.tensor([3, 0]))


# ---- X-vectors


@pytest.mark.parametrize("frames", [1, 2, 6, 7, 8])
def test_short_clips_have_embeddings_alone_and_in_a_batch(frames: int) -> None:
    """The kernels here read 9 frames."""
    samples = 20 * frames + 37 - 20
    batch = zoo.audio_batch((1201, samples))
    single = {key: value[1:, :samples] for key, value in batch.items()}
    model = zoo.build("Data2VecAudioForXVector")
    assert model.head.window == 9
    alone, together = model(**single).embeddings[0], model(**batch).embeddings[1]
    assert torch.isfinite(alone).all()
    assert difference(alone, together) < 1e-5
    model.train()
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.filterwarnings("ignore:std")
def test_the_reference_counts_padding_and_fails_on_short_clips() -> None:
    """Nine frames are one window, whose deviation is NaN; and its lengths leave out dilation: five for three."""
    model = zoo.build("Data2VecAudioForXVector", **COMPAT)
    one_window = zoo.audio_batch((197,))
    assert torch.isnan(model(**one_window).embeddings).all()
    assert torch.isfinite(zoo.build("Data2VecAudioForXVector")(**one_window).embeddings).all()
    features = torch.randn(2, 20, 32)
    features[1, 11:] = 1e3
    padding = torch.arange(20) >= torch.tensor([[20], [11]])
    wrong = model.head.reference(features, torch.tensor([20, 11]))[0][1]
    right = model.head(features, padding)[0][1]
    assert difference(right, model.head(features[1:, :11])[0][0]) < 1e-5
    assert difference(wrong, right) > 0.1


def test_time_delay_layer_is_a_dilated_convolution() -> None:
    layer = TimeDelayLayer(4, 5, 3, 2)
    x = torch.randn(2, 11, 4)
    weight = layer.kernel.weight.view(5, 3, 4).transpose(1, 2)
    wanted = torch.nn.functional.conv1d(x.transpose(1, 2), weight, layer.kernel.bias, dilation=2).relu()
    assert torch.allclose(layer(x), wanted.transpose(1, 2), atol=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_statistics_are_those_of_each_row(counts: list[int]) -> None:
    x = torch.randn(len(counts), 9, 3)
    mean, deviation = statistics(x, torch.tensor(counts))
    for row, count in enumerate(counts):
        own = x[row, :count]
        assert torch.allclose(mean[row], own.mean(0), atol=1e-6)
        assert torch.allclose(deviation[row], own.std(0) if count > 1 else torch.zeros(3), atol=1e-5)


# ---- SpecAugment


def test_short_clips_train_under_spec_augment() -> None:
    """The reference refuses any clip shorter than a span."""
    changes = {"mask_time_prob": 0.5, "mask_time_length": 10, "mask_feature_prob": 0.2, "mask_feature_length": 40}
    model = zoo.build("Data2VecAudioForCTC", **changes, apply_spec_augment=True).train()
    loss = model(**zoo.audio_batch((197, 150)), labels=torch.tensor([[3], [4]])).loss
    assert torch.isfinite(loss)


def test_spec_augment_trains_only_and_follows_torchs_seed() -> None:
    model = zoo.build("Data2VecAudioModel", mask_time_prob=0.5, apply_spec_augment=True, mask_feature_prob=0.3)
    batch = zoo.audio_batch()
    assert torch.equal(model(**batch)[0], model(**batch)[0])
    model.train()
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(**batch).last_hidden_state)
    assert torch.equal(outputs[0], outputs[1])
    assert difference(outputs[0], outputs[2]) > 1e-2


def test_explicit_frames_are_hidden_in_evaluation_too() -> None:
    batch = zoo.audio_batch((1201, 1201))
    hidden = torch.zeros(2, zoo.FRAMES, dtype=torch.bool)
    hidden[:, 3:9] = True
    for compat, hides in (({}, True), (COMPAT, False)):  # the reference forgets them with apply_spec_augment=False
        model = zoo.build("Data2VecAudioForCTC", **compat)
        assert (difference(model(**batch, mask_time_indices=hidden).logits, model(**batch).logits) > 1e-3) is hides
    with pytest.raises(UserError, match="mask_time_prob"):
        zoo.build("Data2VecAudioModel", mask_time_prob=0.0)(**batch, mask_time_indices=hidden)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.floats(0.0, 1.0),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 9999),
)
def test_span_masks_stay_on_valid_frames(
    lengths: list[int], probability: float, span: int, least: int, seed: int
) -> None:
    mask = span_mask(lengths, 30, probability, span, least, np.random.RandomState(seed))
    assert mask.shape == (len(lengths), 30)
    for row, length in zip(mask, lengths, strict=True):
        assert not row[length:].any()
        if length < span:
            assert not row.any()
        if row.any():
            assert row.sum() >= span
    valid = torch.arange(30) >= 30 - torch.tensor(lengths)[:, None]  # the same, padded on the left
    shape = (probability, span, least)
    left = frame_mask(len(lengths), 30, ~valid, shape, np.random.RandomState(seed))
    for row, own, length in zip(left, mask, lengths, strict=True):
        assert row[30 - length :].tolist() == own[:length].tolist()
        assert not row[: 30 - length].any()


# ---- the rest


def test_an_adapter_drops_no_layer_in_training() -> None:
    """The reference does: the length of its output is random."""
    lengths = {}
    for kind, compat in (("ours", {}), ("reference", COMPAT)):
        model = zoo.build("Data2VecAudioModel", add_adapter=True, layerdrop=0.5, **compat).train()
        np.random.seed(0)
        outputs = [model(**zoo.audio_batch()).last_hidden_state.shape[1] for _ in range(8)]
        lengths[kind] = set(outputs)
    assert len(lengths["ours"]) == 1
    assert len(lengths["reference"]) > 1


def test_weighted_layers_train_under_layerdrop() -> None:
    """The reference crashes there: dropped layers leave no hidden state."""
    changes = {"use_weighted_layer_sum": True, "layerdrop": 0.9}
    model = zoo.build("Data2VecAudioForSequenceClassification", **changes).train()
    for _ in range(4):
        assert torch.isfinite(model(**zoo.audio_batch(), labels=torch.tensor([0, 1])).loss)


def test_one_label_is_a_regression_as_documented() -> None:
    """The reference takes class numbers only, against its documentation."""
    batch = zoo.audio_batch()
    wanted = torch.tensor([0.5, -1.0])
    model = zoo.build("Data2VecAudioForSequenceClassification", num_labels=1)
    output = model(**batch, labels=wanted)
    assert torch.allclose(output.loss, (output.logits[:, 0] - wanted).square().mean())
    assert model.config.problem_type is None  # the reference writes its guess into the config


def test_freezing() -> None:
    model = zoo.build("Data2VecAudioForCTC")
    model.freeze_feature_encoder()
    frozen = {path for path, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {path for path, _ in model.named_parameters() if ".frontend.convs." in path}
    model.freeze_base_model()
    trained = {path for path, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.letters.weight", "head.letters.bias"}
    with pytest.warns(FutureWarning, match="freeze_feature_encoder"):
        model.freeze_feature_extractor()


@pytest.mark.parametrize("task", ["SequenceClassification", "AudioFrameClassification"])
def test_heads_without_use_for_an_adapter_say_so(task: str) -> None:
    with pytest.raises(UserError, match="add_adapter=False"):
        zoo.build(f"Data2VecAudioFor{task}", add_adapter=True)


def test_xvectors_take_an_adapter_of_another_width() -> None:
    """The reference crashes there."""
    model = zoo.build("Data2VecAudioForXVector", add_adapter=True, output_hidden_size=16, num_adapter_layers=1)
    assert torch.isfinite(model(**zoo.audio_batch()).embeddings).all()
