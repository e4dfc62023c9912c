"""The heads on data2vec 2: losses and gradients, files, rows alone as in a batch, conversion."""

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

import data2vec
from data2vec.conversion.building import find_class
from data2vec.conversion.loading import load_checkpoint
from data2vec.errors import UserError
from data2vec.modeling import PreTrainedModel

NAMES = [name.replace("Data2Vec", "Data2Vec2") for name in zoo.HEADS if zoo.task(name) not in ("MaskedLM", "CausalLM")]
NOT_HERE = {"Audio": (), "Text": ("type_vocab_size",), "Vision": ()}


def v1(name: str) -> str:
    return name.replace("Data2Vec2", "Data2Vec")


def config(name: str, **changes: Any) -> Any:
    word = zoo.modality(v1(name))
    values = {key: value for key, value in zoo.fields(v1(name), **changes).items() if key not in NOT_HERE[word]}
    values |= {"prenet_depth": 1, "prenet_dropout": 0.0, "use_alibi": True} | changes
    return getattr(data2vec, f"Data2Vec2{word}Config")(**values)


def build(name: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(data2vec, name)(config(name, **changes))
    zoo.perturb(model, seed)
    return model.eval()


def answer(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    output = model(**batch)
    return output[zoo.main_output(v1(type(model).__name__))]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_reach_everything(name: str) -> None:
    model = build(name).train()
    frames = model(**zoo.batch(v1(name))).logits.shape[1] if "Frame" in name else zoo.FRAMES
    output = model(**zoo.batch(v1(name)), **zoo.labels(v1(name), frames=frames))
    assert torch.isfinite(output.loss)
    output.loss.backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert unused == []


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, batch = build(name), zoo.batch(v1(name))
    model.save_pretrained(tmp_path)
    again, info = getattr(data2vec, name).from_pretrained(tmp_path, output_loading_info=True)
    assert (info.missing, info.unexpected) == ([], [])
    assert type(again) is getattr(data2vec, name)
    with torch.no_grad():
        assert torch.equal(answer(model, batch), answer(again, batch))


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("name", [name for name in NAMES if "Vision" not in name and "Choice" not in name])
def test_a_row_alone_as_in_a_batch(name: str, extra: int) -> None:
    model, batch = build(name, num_extra_tokens=extra), zoo.batch(v1(name))
    valid = int(batch["attention_mask"][1].sum())
    alone = {key: value[1:, :valid] for key, value in batch.items()}
    with torch.no_grad():
        together, single = answer(model, batch), answer(model, alone)
    together = together[1:, : single.shape[1]]
    torch.testing.assert_close(together, single, rtol=1e-5, atol=1e-5)


def test_choices_alone_as_in_a_batch() -> None:
    name = "Data2Vec2TextForMultipleChoice"
    model, batch = build(name), zoo.batch(v1(name))
    with torch.no_grad():
        together = answer(model, batch)
        alone = torch.cat(
            [answer(model, {key: value[row : row + 1] for key, value in batch.items()}) for row in (0, 1)]
        )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_layers_are_mixed_and_frames_follow_extra_tokens() -> None:
    name = "Data2Vec2AudioForSequenceClassification"
    model = build(name, use_weighted_layer_sum=True, num_extra_tokens=2)
    batch = zoo.batch(v1(name))
    base = model.base_model(**batch, output_hidden_states=True)
    weights = model.get_parameter("mix.weights").softmax(dim=0)
    mixed = sum(weight * state for weight, state in zip(weights, base.hidden_states, strict=True))[:, 2:]
    head = model.get_submodule("head")
    torch.testing.assert_close(model(**batch).logits, head(mixed, ~base.frame_mask))


def test_segmentation_reads_the_named_blocks_at_any_size() -> None:
    model = build("Data2Vec2VisionForSemanticSegmentation", num_extra_tokens=3)
    pixels = zoo.vision_batch((40, 24))["pixel_values"]
    with pytest.raises(UserError, match="interpolate_pos_encoding"):
        model(pixels)
    assert model(pixels, interpolate_pos_encoding=True).logits.shape == (2, 3, 20, 12)
    assert model.config.feature_blocks == (0, 1, 2, 3)


def test_training_hides_frames_behind_noise() -> None:
    model = build("Data2Vec2AudioForCTC", apply_spec_augment=True, mask_time_prob=0.5, mask_time_length=2).train()
    batch = zoo.batch("Data2VecAudioForCTC")
    torch.manual_seed(1)
    first = model(**batch).logits
    torch.manual_seed(1)
    assert torch.equal(first, model(**batch).logits)
    assert not torch.equal(first, model.eval()(**batch).logits)


def test_what_the_encoder_cannot_do_is_refused() -> None:
    for field, value in (("add_adapter", True), ("mask_feature_prob", 0.1)):
        with pytest.raises(UserError, match=field):
            build("Data2Vec2AudioForCTC", **{field: value})


@pytest.mark.parametrize("name", NAMES)
def test_conversion_finds_the_class(name: str, tmp_path: Path) -> None:
    model, batch = build(name), zoo.batch(v1(name))
    assert find_class(name) is type(model)
    model.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.model_class == name
    with torch.no_grad():
        assert torch.equal(answer(checkpoint.model(), batch), answer(model, batch))


AUTO = {"SequenceClassification": "AudioClassification", "XVector": "AudioXVector"}


@pytest.mark.parametrize("name", NAMES)
def test_auto_classes_find_it(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path)
    task = zoo.task(v1(name))
    auto = AUTO.get(task, task) if "Audio" in name.removeprefix("Data2Vec2")[:5] else task
    assert type(getattr(data2vec, f"AutoModelFor{auto}").from_pretrained(tmp_path)).__name__ == name
    assert type(data2vec.AutoModel.from_pretrained(tmp_path)).__name__.endswith("Model")
