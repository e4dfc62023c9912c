"""What every class promises: shapes, losses, files, types of numbers, tuples, checkpointing, compilation, export."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import nn

import data2vec
from data2vec import UserError
from data2vec.modeling import PreTrainedModel

IDLE = ("mask_embedding", "pooler", "token_types", "mix.weights")
"""Parameters that a forward pass need not use."""


def run(model: nn.Module, name: str, **more: Any) -> Any:
    if zoo.task(name) == "CausalLM":
        more.setdefault("use_cache", False)
    return model(**zoo.batch(name), **more)


def main(output: Any, name: str) -> torch.Tensor:
    value: torch.Tensor = output[zoo.main_output(name)]
    return value


@pytest.mark.parametrize("name", zoo.NAMES)
def test_forward_and_backward_reach_every_parameter(name: str) -> None:
    model = zoo.build(name).train()
    output = run(model, name, **zoo.labels(name))
    loss = output.loss if "loss" in output else main(output, name).sum()
    assert torch.isfinite(loss)
    if zoo.labels(name):
        assert loss > 0
    loss.backward()
    for path, parameter in model.named_parameters():
        if not any(word in path for word in IDLE):
            assert parameter.grad is not None, path
            assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", zoo.NAMES)
def test_save_and_load_change_nothing(name: str, tmp_path: Path) -> None:
    model = zoo.build(name)
    model.save_pretrained(tmp_path, max_shard_size=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert (report.missing, report.unexpected) == ([], [])
    assert again.config.to_dict() == model.config.to_dict()
    assert not again.training
    assert all(torch.equal(again.state_dict()[path], value) for path, value in model.state_dict().items())
    # not bit for bit: a convolution's rounding depends on where its weights lie in memory
    assert torch.allclose(main(run(again, name), name), main(run(model, name), name), atol=1e-6)


@pytest.mark.parametrize("name", zoo.HEADS)
def test_base_into_head_and_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = zoo.build(name)
    head.save_pretrained(tmp_path / "head")
    base_class = getattr(data2vec, f"Data2Vec{zoo.modality(name)}Model")
    base, report = base_class.from_pretrained(tmp_path / "head", output_loading_info=True)
    assert all("pooler" in missing for missing in report.missing)
    assert report.unexpected
    for path, value in base.state_dict().items():
        if "pooler" not in path:
            assert torch.equal(value, head.base_model.state_dict()[path]), path
    base.save_pretrained(tmp_path / "base")
    monkeypatch.setattr(torch, "empty_like", _unset)
    again, report = type(head).from_pretrained(tmp_path / "base", output_loading_info=True, **head_fields(head))
    prefix = head.names.prefix
    assert not [missing for missing in report.missing if missing.startswith(prefix) and "pooler" not in missing]
    assert report.missing
    assert all(torch.isfinite(value).all() for value in again.state_dict().values())


def _unset(like: torch.Tensor, **options: Any) -> torch.Tensor:
    """What nobody initialises shows."""
    new = torch.zeros_like(like, **options)
    return new.fill_(torch.nan) if new.is_floating_point() else new


def head_fields(head: PreTrainedModel) -> dict[str, Any]:
    return {"num_labels": head.config.num_labels}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", zoo.NAMES)
def test_half_precision_is_close(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = zoo.build(name)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = main(run(model, name), name)
        for half in (
            copy.deepcopy(model).to(dtype),
            type(model).from_pretrained(tmp_path, dtype=dtype),
            type(model).from_pretrained(tmp_path, torch_dtype=str(dtype).removeprefix("torch.")),
        ):
            assert half.dtype == dtype
            output = run(half, name, **zoo.labels(name))
            got = main(output, name)
            assert got.dtype == dtype
            assert float((got.float() - wanted).norm() / wanted.norm()) < (0.06 if dtype == torch.bfloat16 else 0.01)
            if zoo.labels(name):
                assert torch.isfinite(output.loss)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_tuple_and_dict_hold_the_same(name: str) -> None:
    model = zoo.build(name)
    options = {"output_hidden_states": True, "output_attentions": True, **zoo.labels(name)}
    as_dict = run(model, name, **options)
    as_tuple = run(model, name, **options, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == len(as_dict) == len(as_dict.keys())
    for value, (key, wanted) in zip(as_tuple, as_dict.items(), strict=True):
        assert as_dict[key] is wanted is getattr(as_dict, key)
        flat = list(value) if isinstance(value, tuple) else [value]
        for a, b in zip(flat, wanted if isinstance(wanted, tuple) else [wanted], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_layers_are_returned_where_asked_for(name: str) -> None:
    model = zoo.build(name)
    depth = model.config.num_hidden_layers
    output = run(model, name, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == depth + 1
    assert len(output.attentions) == depth
    assert all(state.shape == output.hidden_states[0].shape for state in output.hidden_states)
    heads, tokens = model.config.num_attention_heads, output.hidden_states[0].shape[1]
    assert all(weights.shape[1:] == (heads, tokens, tokens) for weights in output.attentions)
    plain = run(model, name)
    assert plain.hidden_states is None
    assert plain.attentions is None


@pytest.mark.parametrize("name", zoo.NAMES)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = zoo.build(name, seed=3).train()
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        assert model.is_gradient_checkpointing is enable
        model.zero_grad()
        torch.manual_seed(0)
        output = model(**zoo.batch(name), **zoo.labels(name))
        (output.loss if "loss" in output else main(output, name).square().sum()).backward()
        gradients.append({path: p.grad.clone() for path, p in model.named_parameters() if p.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for path, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][path], rtol=1e-5, atol=1e-7), path


@pytest.mark.parametrize("name", zoo.NAMES)
def test_initialisation_is_whole_and_repeatable(name: str) -> None:
    """Parameters start as NaN: what is not initialised stays so."""
    states = []
    for _ in range(2):
        with torch.device("meta"):
            model = getattr(data2vec, name)(zoo.config(name))
        model.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                tensor.fill_(float("nan"))
        torch.manual_seed(0)
        model.init_weights()
        states.append(model.state_dict())
        assert all(torch.isfinite(value).all() for value in states[-1].values())
    torch.manual_seed(0)
    made = getattr(data2vec, name)(zoo.config(name)).state_dict()
    assert set(made) == set(states[0])
    assert all(torch.equal(states[0][path], states[1][path]) for path in made)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_names_on_disk_are_one_to_one(name: str) -> None:
    model = zoo.build(name, **({"use_weighted_layer_sum": True, "add_adapter": False} if "Audio" in name else {}))
    published = [model.names.published(path) for path in model.state_dict()]
    assert len(set(published)) == len(published)
    assert [model.names.ours(path) for path in published] == list(model.state_dict())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_an_unknown_keyword_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match="attenton_mask"):
        run(zoo.build(name), name, attenton_mask=None)
    with pytest.raises(UserError, match="num_lables"):
        type(zoo.config(name)).from_dict({}, num_lables=3)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_only_the_first_two_arguments_go_by_position(name: str) -> None:
    parameters = list(inspect.signature(getattr(data2vec, name).forward).parameters.values())[1:]
    ordered = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted = {
        "Audio": ["input_values", "attention_mask"],
        "Text": ["input_ids", "attention_mask"],
        "Vision": ["pixel_values", "labels"],
    }[zoo.modality(name)]
    if zoo.task(name) == "MultipleChoice":
        wanted = ["input_ids", "token_type_ids", "attention_mask"]
    if name == "Data2VecAudioModel":
        wanted = [*wanted, "mask_time_indices"]
    if name == "Data2VecVisionModel":
        wanted = ["pixel_values", "bool_masked_pos"]
    assert ordered == wanted
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters)


@pytest.mark.parametrize("name", [name for name in zoo.NAMES if "Vision" not in name])
def test_one_clip_or_text_alone_is_as_in_its_batch(name: str) -> None:
    model = zoo.build(name, **({"use_weighted_layer_sum": True} if "Audio" in name else {}))
    lengths = {"Audio": (1201, 900, 433), "Text": (12, 7, 3)}[zoo.modality(name)]
    batch = zoo.batch(name, lengths=lengths)
    whole = main(model(**batch), name)
    for row, length in enumerate(lengths):
        if zoo.task(name) == "MultipleChoice":
            single = {key: value[row : row + 1, :1, :length] for key, value in batch.items()}
            alone, together = main(model(**single), name)[0, :1], whole[row, :1]
        else:
            single = {key: value[row : row + 1, :length] for key, value in batch.items()}
            alone, together = main(model(**single), name)[0], whole[row]
        if together.dim() == 2 or zoo.task(name) == "QuestionAnswering":
            together = together[: len(alone)]
        assert torch.allclose(alone, together, rtol=1e-5, atol=1e-5), f"row {row}"


@pytest.mark.parametrize("name", ["Data2VecAudioForCTC", "Data2VecAudioForXVector", "Data2VecAudioModel"])
@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_an_adapter_keeps_a_clip_as_it_is_alone(name: str, kernel: int) -> None:
    model = zoo.build(name, add_adapter=True, adapter_kernel_size=kernel, num_adapter_layers=2, adapter_stride=2)
    lengths = (1201, 900, 433)
    batch = zoo.batch(name, lengths=lengths)
    output = model(**batch)
    for row, length in enumerate(lengths):
        single = model(**{key: value[row : row + 1, :length] for key, value in batch.items()})
        alone, together = main(single, name)[0], main(output, name)[row]
        if "frame_mask" in output:
            assert int(output.frame_mask[row].sum()) == len(alone)
            together = together[: len(alone)]
        assert torch.allclose(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Data2VecAudioModel", "Data2VecTextModel", "Data2VecVisionModel"])
def test_dropped_layers_still_count(name: str) -> None:
    drops = {"layerdrop": 0.9} if "Audio" in name else {}
    model = zoo.build(name, **drops).train()
    for _ in range(5):
        assert len(run(model, name, output_hidden_states=True).hidden_states) == model.config.num_hidden_layers + 1
