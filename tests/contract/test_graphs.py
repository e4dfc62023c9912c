"""Classes as graphs: torch.compile in one piece, torch.export with dynamic batch and length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from torch.export import Dim

QUICK = ["Data2VecAudioForXVector", "Data2VecTextForMaskedLM", "Data2VecVisionForSemanticSegmentation"]
"""One class a modality, at every run; capturing a graph takes seconds, so the others wait for ``-m slow``."""

EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in zoo.NAMES]


def still(name: str) -> dict[str, Any]:
    return {"use_cache": False} if zoo.task(name) == "CausalLM" else {}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("name", EVERY)
def test_compiles_in_one_piece(name: str) -> None:
    model, batch = zoo.build(name), {**zoo.batch(name), **still(name)}
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        got, wanted = compiled(**batch), model(**batch)
    assert torch.allclose(got[zoo.main_output(name)], wanted[zoo.main_output(name)], atol=1e-5)


@pytest.mark.parametrize("name", ["Data2VecTextForSequenceClassification"])
def test_trains_compiled(name: str) -> None:
    model, batch = zoo.build(name).train(), {**zoo.batch(name), **zoo.labels(name)}
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    gradients = []
    for call in (model, compiled):
        model.zero_grad()
        call(**batch).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Data2VecAudioForCTC", "Data2VecTextForMaskedLM", "Data2VecVisionModel"])
def test_compiles_to_machine_code(name: str) -> None:
    model, batch = zoo.build(name), zoo.batch(name)
    with torch.no_grad():
        got, wanted = torch.compile(model)(**batch), model(**batch)
    assert torch.allclose(got[zoo.main_output(name)], wanted[zoo.main_output(name)], atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_exports_with_dynamic_batch_and_length(name: str) -> None:
    model, batch = zoo.build(name), zoo.batch(name)
    if zoo.modality(name) == "Vision":
        shapes = {"pixel_values": {0: Dim.DYNAMIC}}
        other = zoo.batch(name, images=3)
    else:
        axis = 2 if zoo.task(name) == "MultipleChoice" else 1
        shapes = {key: {0: Dim.DYNAMIC, axis: Dim.DYNAMIC} for key in batch}
        lengths = (1500, 800, 777) if zoo.modality(name) == "Audio" else (20, 9, 20)
        other = zoo.batch(name, lengths=lengths)
    options = still(name)
    with torch.no_grad():
        program = torch.export.export(
            model, (), {**batch, **options}, dynamic_shapes={**shapes, **dict.fromkeys(options)}, strict=False
        )
        for inputs in (batch, other):
            got, wanted = program.module()(**inputs, **options), model(**inputs, **options)
            assert torch.allclose(got[zoo.main_output(name)], wanted[zoo.main_output(name)], atol=1e-5)
