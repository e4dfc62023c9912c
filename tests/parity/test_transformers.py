"""Every class against transformers 5: the same weights give the same outputs, losses and gradients, and files go both
ways.

`compat="transformers"` reproduces what the reference does with padding; on whole inputs there is nothing to reproduce
and our own numerics are held against it too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data2vec

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import zoo
from zoo import Case, case

transformers: Any = pytest.importorskip("transformers", minversion="5", reason="the oracle, a dev extra")

TOLERANCE = 1e-5

CASES = [
    *map(case, zoo.NAMES),
    # speech
    case("Data2VecAudioModel", conv_bias=True),
    case("Data2VecAudioModel", feat_extract_activation="relu", hidden_act="silu"),
    case("Data2VecAudioModel", conv_pos_kernel_size=4, num_conv_pos_embeddings=3),
    case("Data2VecAudioModel", num_conv_pos_embeddings=1, num_conv_pos_embedding_groups=1),
    case("Data2VecAudioModel", mask_time_prob=0.0),
    case("Data2VecAudioModel", layer_norm_eps=1e-3),
    case("Data2VecAudioModel", add_adapter=True),
    case("Data2VecAudioModel", add_adapter=True, output_hidden_size=16, adapter_stride=3, num_adapter_layers=1),
    case("Data2VecAudioModel", add_adapter=True, adapter_kernel_size=2, num_adapter_layers=2),
    case("Data2VecAudioForCTC", ctc_loss_reduction="mean"),
    case("Data2VecAudioForCTC", ctc_zero_infinity=True, pad_token_id=3),
    case("Data2VecAudioForCTC", add_adapter=True, output_hidden_size=16),
    case("Data2VecAudioForSequenceClassification", use_weighted_layer_sum=True),
    case("Data2VecAudioForSequenceClassification", classifier_proj_size=8, num_labels=5),
    case("Data2VecAudioForAudioFrameClassification", use_weighted_layer_sum=True),
    case("Data2VecAudioForXVector", use_weighted_layer_sum=True),
    case("Data2VecAudioForXVector", tdnn_dim=(8, 8), tdnn_kernel=(3, 2), tdnn_dilation=(1, 3), xvector_output_dim=6),
    case("Data2VecAudioForXVector", add_adapter=True, num_adapter_layers=1),
    # text
    case("Data2VecTextModel", is_decoder=True),
    case("Data2VecTextModel", hidden_act="relu", layer_norm_eps=1e-5),
    case("Data2VecTextModel", type_vocab_size=1, pad_token_id=0),
    case("Data2VecTextForMaskedLM", tie_word_embeddings=False),
    case("Data2VecTextForCausalLM", tie_word_embeddings=False),
    case("Data2VecTextForCausalLM", is_decoder=False),
    case("Data2VecTextForCausalLM", add_cross_attention=True),
    case("Data2VecTextForSequenceClassification", num_labels=1),
    case("Data2VecTextForSequenceClassification", problem_type="multi_label_classification"),
    case("Data2VecTextForSequenceClassification", problem_type="regression"),
    case("Data2VecTextForTokenClassification", num_labels=5),
    case("Data2VecTextForMultipleChoice", hidden_act="gelu_new"),
    # images
    case("Data2VecVisionModel", use_mean_pooling=False),
    case("Data2VecVisionModel", use_shared_relative_position_bias=True),
    case("Data2VecVisionModel", use_relative_position_bias=True),
    case("Data2VecVisionModel", use_relative_position_bias=True, use_shared_relative_position_bias=True),
    case("Data2VecVisionModel", use_absolute_position_embeddings=True, use_mask_token=True),
    case("Data2VecVisionModel", layer_scale_init_value=0.0),
    case("Data2VecVisionModel", num_channels=1),
    case("Data2VecVisionForImageClassification", use_mean_pooling=False, use_shared_relative_position_bias=True),
    case("Data2VecVisionForImageClassification", num_labels=1),
    case("Data2VecVisionForImageClassification", problem_type="multi_label_classification"),
    case("Data2VecVisionForSemanticSegmentation", use_auxiliary_head=False, pool_scales=(1, 2)),
    case("Data2VecVisionForSemanticSegmentation", auxiliary_num_convs=2, auxiliary_concat_input=True),
    case("Data2VecVisionForSemanticSegmentation", use_relative_position_bias=True, semantic_loss_ignore_index=1),
]
ATTENTIONS = ("eager", "sdpa")


def reference(one: Case, attention: str, seed: int = 0) -> Any:
    """The reference's model of the same sizes, every parameter generic."""
    torch.manual_seed(seed)
    fields = zoo.fields(one.name, **one.options)
    if zoo.task(one.name) == "SemanticSegmentation":
        fields["out_indices"] = [2, 3, 4, 5]  # the reference's numbers of blocks 0, 1, 2, 3
    settings = getattr(transformers, zoo.CONFIGS[zoo.modality(one.name)][0])(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    )
    model = getattr(transformers, one.name)._from_config(settings, attn_implementation=attention)
    zoo.perturb(model, seed)
    return model.eval()


def inputs(one: Case, *, padded: bool) -> dict[str, torch.Tensor]:
    word, options = zoo.modality(one.name), one.options
    if word == "Vision":
        # more images where batch norm sees one value each: the variance of two numbers magnifies rounding
        batch = zoo.batch(one.name, images=6 if zoo.task(one.name) == "SemanticSegmentation" else 2)
        return {"pixel_values": batch["pixel_values"][:, : options.get("num_channels", 3)]}
    lengths = {"Audio": (zoo.SAMPLES, 900 if padded else zoo.SAMPLES), "Text": (12, 7 if padded else 12)}[word]
    extra: dict[str, Any] = {"pad": options["pad_token_id"]} if word == "Text" and "pad_token_id" in options else {}
    batch = zoo.batch(one.name, lengths=lengths, **extra)
    if options.get("add_cross_attention"):
        generator = torch.Generator().manual_seed(3)
        batch["encoder_hidden_states"] = torch.randn(2, 5, 32, generator=generator)
        batch["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return batch


def labels(one: Case) -> dict[str, torch.Tensor]:
    made = zoo.labels(one.name, images=6)
    kind, count = one.options.get("problem_type"), one.options.get("num_labels")
    if kind in ("multi_label_classification", "regression"):
        return {"labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])}
    if count == 1:
        return {"labels": torch.tensor([0.5, -1.5])}
    if one.options.get("add_adapter") and zoo.task(one.name) == "CTC":
        made["labels"] = made["labels"][:, :2]
    return made


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    scale = max(float(theirs.detach().abs().max()), 1e-6)
    return float((ours - theirs).detach().abs().max()) / scale


def tensors(output: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that both outputs hold."""
    for name in output.keys():  # noqa: SIM118 -- an output iterates over its values
        value = output[name]
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, tuple):
            yield from ((f"{prefix}{name}.{i}", item) for i, item in enumerate(value) if item is not None)


def assert_equal_outputs(ours: Any, theirs: Any) -> None:
    mine = dict(tensors(ours))
    wanted = dict(tensors(theirs))
    assert wanted
    assert set(wanted) <= set(mine)
    assert set(mine) - set(wanted) <= {"frame_mask"}
    for name, value in wanted.items():
        assert error(mine[name], value) < TOLERANCE, name


def gradients(model: Any, output: Any) -> dict[str, torch.Tensor]:
    """Gradients of the loss, or of a fixed projection of the last hidden state, by published names."""
    model.zero_grad()
    if "loss" in output and output["loss"] is not None:
        target = output["loss"]
    else:
        hidden = output["last_hidden_state"]
        target = (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum()
    target.backward()
    names = getattr(model, "names", None)
    found = {
        names.published(name) if names else name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    if "lm_head.bias" in found:  # one parameter with two names here, and there when tied
        found["lm_head.decoder.bias"] = found.pop("lm_head.bias")
    return found


def parity(one: Case, attention: str, tmp_path: Path, *, padded: bool) -> None:
    theirs = reference(one, attention)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, report = getattr(data2vec, one.name).from_pretrained(
        tmp_path / "theirs", compat="transformers", attn_implementation=attention, output_loading_info=True
    )
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    batch = inputs(one, padded=padded)
    collect = {"output_hidden_states": True, "output_attentions": attention == "eager"}
    with torch.no_grad():
        assert_equal_outputs(ours(**batch, **collect), theirs(**batch, **collect))
    ours.train(), theirs.train()
    if zoo.modality(one.name) == "Text" and one.options.get("is_decoder"):
        batch["use_cache"] = False  # type: ignore[assignment]
    mine, wanted = ours(**batch, **labels(one)), theirs(**batch, **labels(one))
    if labels(one):
        assert error(mine.loss, wanted.loss) < TOLERANCE
    mine_grads, wanted_grads = gradients(ours, mine), gradients(theirs, wanted)
    assert set(mine_grads) == set(wanted_grads)
    largest = max(float(grad.norm()) for grad in wanted_grads.values())
    for name, grad in wanted_grads.items():
        # a key bias shifts all scores of a query alike: its true gradient is 0, what is left is rounding
        assert float((mine_grads[name] - grad).norm()) < TOLERANCE * max(float(grad.norm()), 1e-2 * largest), name


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("one", CASES, ids=str)
def test_their_weights_give_their_outputs_losses_and_gradients(one: Case, attention: str, tmp_path: Path) -> None:
    parity(one, attention, tmp_path, padded=True)


@pytest.mark.parametrize("one", CASES, ids=str)
def test_our_files_are_read_there_and_give_the_same(one: Case, tmp_path: Path) -> None:
    ours = zoo.build(one.name, **one.options)
    ours.save_pretrained(tmp_path)
    theirs, report = getattr(transformers, one.name).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    batch = inputs(one, padded=zoo.modality(one.name) == "Text")
    with torch.no_grad():
        assert_equal_outputs(ours(**batch), theirs.eval()(**batch))
    again = getattr(data2vec, one.name).from_pretrained(tmp_path)
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_compat_draws_the_references_spec_augment(tmp_path: Path) -> None:
    """Training with the same numpy seed hides the same frames and channels."""
    one = case("Data2VecAudioForCTC", mask_time_prob=0.4, mask_feature_prob=0.3, apply_spec_augment=True)
    theirs = reference(one, "sdpa")
    theirs.save_pretrained(tmp_path)
    ours = data2vec.Data2VecAudioForCTC.from_pretrained(tmp_path, compat="transformers")
    ours.train(), theirs.train()
    batch = inputs(one, padded=True)
    for seed in range(3):
        outputs = []
        for model in (ours, theirs):
            np.random.seed(seed)
            outputs.append(model(**batch, **labels(one)))
        assert error(outputs[0].loss, outputs[1].loss) < TOLERANCE
        assert error(outputs[0].logits, outputs[1].logits) < TOLERANCE
