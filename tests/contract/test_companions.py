"""peft, accelerate and transformers' Trainer each do one step with our classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import nn

THREE = ["Data2VecAudioForCTC", "Data2VecTextForSequenceClassification", "Data2VecVisionForImageClassification"]
DEEP = ["Data2VecAudioForXVector", "Data2VecTextForMaskedLM", "Data2VecVisionForSemanticSegmentation"]


@pytest.mark.parametrize("name", [*THREE, *DEEP])
def test_lora_trains_and_merges(name: str) -> None:
    peft: Any = pytest.importorskip("peft", reason="an extra")
    model, batch = zoo.build(name), {**zoo.batch(name), **zoo.labels(name)}
    targets = ["q_proj", "v_proj", *(["kernel"] if name.endswith("XVector") else [])]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=None))
    trained = [path for path, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora" in path for path in trained)
    adapted.train()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # the second factor starts at zero: the first one moves from the second step on
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in adapted.parameters())
    adapted.eval()
    wanted = adapted(**batch)[zoo.main_output(name)]
    merged = adapted.merge_and_unload()
    assert type(merged) is type(model)
    assert torch.allclose(merged(**batch)[zoo.main_output(name)], wanted, atol=1e-4)


@pytest.mark.parametrize("name", THREE)
def test_accelerate_trains(name: str) -> None:
    accelerate: Any = pytest.importorskip("accelerate", reason="an extra")
    model, batch = zoo.build(name), {**zoo.batch(name), **zoo.labels(name)}
    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = [p.detach().clone() for p in model.parameters()]
    loss = model(**batch).loss
    accelerator.backward(loss)
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", zoo.NAMES)
def test_accelerate_keeps_weights_elsewhere(name: str) -> None:
    """Weights stay outside the modules and come in only while one of them runs."""
    accelerate: Any = pytest.importorskip("accelerate", reason="an extra")
    model, batch = zoo.build(name), zoo.batch(name)
    with torch.no_grad():
        wanted = model(**batch)[zoo.main_output(name)]
        away = accelerate.cpu_offload(
            model, execution_device=torch.device("cpu"), preload_module_classes=model._no_split_modules
        )
        assert all(p.device.type == "meta" for p in away.parameters())
        assert torch.allclose(away(**batch)[zoo.main_output(name)], wanted, atol=1e-6)


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: value[index] for key, value in self.batch.items()}


@pytest.mark.parametrize("name", THREE)
def test_transformers_trainer_trains_and_evaluates(name: str, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers", minversion="5", reason="the oracle, a dev extra")
    pytest.importorskip("accelerate", reason="the Trainer needs it")
    model = zoo.build(name)
    rows = Rows({**zoo.batch(name), **zoo.labels(name)})
    before = [p.detach().clone() for p in model.parameters()]
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        learning_rate=1e-2,
        activation_checkpointing=True,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=model, args=settings, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert trainer.evaluate()["eval_loss"] > 0
    predictions = trainer.predict(rows).predictions
    scores = predictions[0] if isinstance(predictions, tuple) else predictions
    assert scores.shape[0] == 2
    model.save_pretrained(tmp_path / "saved")
    assert isinstance(type(model).from_pretrained(tmp_path / "saved"), nn.Module)
