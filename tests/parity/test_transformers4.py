"""Every class against transformers 4, which runs in a Python of its own: set DATA2VEC_TRANSFORMERS4_PYTHON to it.

What transformers 5 dropped is held against it here: relative positions, head masks, pruned heads, `.bin` files, and the
names that segmentation heads had.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import data2vec

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import zoo
from zoo import Case, case

PYTHON = os.environ.get("DATA2VEC_TRANSFORMERS4_PYTHON", "")
SCRIPT = Path(__file__).with_name("dump_transformers4.py")
TOLERANCE = 1e-5

CASES = [
    *map(case, zoo.NAMES),
    case("Data2VecAudioModel", add_adapter=True, output_hidden_size=16),
    case("Data2VecAudioForCTC", ctc_loss_reduction="mean", pad_token_id=9),
    case("Data2VecAudioForXVector", use_weighted_layer_sum=True),
    case("Data2VecTextModel", position_embedding_type="relative_key"),
    case("Data2VecTextModel", position_embedding_type="relative_key_query"),
    case("Data2VecTextForMaskedLM", tie_word_embeddings=False),
    case("Data2VecTextForCausalLM", add_cross_attention=True),
    case("Data2VecTextForCausalLM", position_embedding_type="relative_key"),
    case("Data2VecTextModel", head_mask=True),
    case("Data2VecTextModel", pruned=True),
    case("Data2VecVisionModel", head_mask=True),
    case("Data2VecVisionModel", pruned=True),
    case("Data2VecVisionModel", use_relative_position_bias=True, use_shared_relative_position_bias=True),
    case("Data2VecVisionForImageClassification", use_mean_pooling=False, use_absolute_position_embeddings=True),
    case("Data2VecVisionForSemanticSegmentation", auxiliary_concat_input=True, auxiliary_num_convs=2),
]
RUNS = [
    (one, attention)
    for one in CASES
    for attention in ("eager", "sdpa")
    if attention == "eager" or zoo.modality(one.name) != "Text"  # 4.x has eager text only
]
HEADS = [[1.0, 0.0, 1.0, 0.5], [0.0, 1.0, 1.0, 1.0]]
PRUNED = {"0": [1, 3], "1": [0]}


def special(one: Case) -> tuple[dict[str, Any], bool, bool]:
    """Fields, whether heads are masked, whether they are pruned."""
    options = one.options
    masked, pruned = options.pop("head_mask", False), options.pop("pruned", False)
    return options, masked, pruned


def tensors(one: Case) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Inputs and labels."""
    options, masked, _ = special(one)
    batch = zoo.batch(one.name)
    if masked:
        layers = zoo.fields(one.name)["num_hidden_layers"]
        batch["head_mask"] = torch.tensor((HEADS * layers)[:layers])
    if options.get("add_cross_attention"):
        batch["encoder_hidden_states"] = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    labels = zoo.labels(one.name)
    if options.get("add_adapter"):
        labels = {}
    return batch, labels


def identity(one: Case, attention: str) -> str:
    return f"{one}-{attention}"


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a saved model and its outputs for every run."""
    if not PYTHON:
        pytest.skip("set DATA2VEC_TRANSFORMERS4_PYTHON to a Python with transformers 4 (see CONTRIBUTING.md)")
    folder = tmp_path_factory.mktemp("transformers4")
    inputs: dict[str, torch.Tensor] = {}
    rows = []
    for one, attention in RUNS:
        options, _, pruned = special(one)
        batch, labels = tensors(one)
        named = {f"{one}/{name}": value for name, value in {**batch, **labels}.items()}
        inputs.update(named)
        fields = zoo.fields(one.name, **options)
        if zoo.task(one.name) == "SemanticSegmentation":
            fields["out_indices"] = [2, 3, 4, 5]
        rows.append(
            {
                "id": identity(one, attention),
                "name": one.name,
                "config": zoo.CONFIGS[zoo.modality(one.name)][0],
                "fields": fields,
                "attention": attention,
                "batch": {name: f"{one}/{name}" for name in batch},
                "labels": {name: f"{one}/{name}" for name in labels},
                "call": {
                    "output_hidden_states": True,
                    "output_attentions": attention == "eager",
                    # its relative positions are wrong as soon as a cache is there
                    **({"use_cache": False} if zoo.task(one.name) == "CausalLM" else {}),
                },
                "prune": PRUNED if pruned else {},
            }
        )
    torch.save(inputs, folder / "inputs.pt")
    (folder / "cases.json").write_text(json.dumps(rows))
    result = subprocess.run(
        [PYTHON, str(SCRIPT), str(folder / "cases.json"), str(folder)], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).detach().norm()) / max(float(theirs.norm()), 1e-6)


@pytest.mark.parametrize(("one", "attention"), RUNS, ids=[identity(*run) for run in RUNS])
def test_files_and_numbers_of_transformers_4(dumps: Path, one: Case, attention: str) -> None:
    folder = dumps / identity(one, attention)
    assert (folder / ("model.safetensors" if attention == "sdpa" else "pytorch_model.bin")).is_file()
    wanted = torch.load(folder / "output.pt", weights_only=True)
    model, report = getattr(data2vec, one.name).from_pretrained(
        folder, compat="transformers", attn_implementation=attention, output_loading_info=True
    )
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    batch, labels = tensors(one)
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True, output_attentions=attention == "eager")
    gradients, loss = wanted.pop("gradients", {}), wanted.pop("loss", None)
    for name, value in wanted.items():
        mine = output[name]
        pairs = zip(mine, value, strict=True) if isinstance(value, tuple) else [(mine, value)]
        assert all(error(a, b) < TOLERANCE for a, b in pairs), name
    if loss is not None:
        assert error(model.train()(**batch, **labels).loss, loss) < TOLERANCE
        exact = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        model.double()(**exact, **labels).loss.backward()
        check_gradients(model, gradients)


def check_gradients(model: Any, wanted: dict[str, torch.Tensor]) -> None:
    found = {model.names.published(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
    largest = max(float(value.norm()) for value in wanted.values())
    for name, value in wanted.items():
        ours = model.names.ours(name)
        mine = found[model.names.published(ours)] if model.names.published(ours) in found else found["lm_head.bias"]
        assert float((mine - value).norm()) < TOLERANCE * max(float(value.norm()), 1e-6 * largest), name
