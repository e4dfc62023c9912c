"""Files of every published form, the hub, and what is wrong with a file: one clear error."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from torch import nn

import data2vec
from data2vec import UserError
from data2vec.weights import read_file

NAME = "Data2VecTextForSequenceClassification"


def saved(folder: Path, name: str = NAME, **changes: Any) -> nn.Module:
    model = zoo.build(name, **changes)
    model.save_pretrained(folder)
    return model


def as_bin(folder: Path) -> None:
    file = folder / "model.safetensors"
    torch.save(read_file(file), folder / "pytorch_model.bin")
    file.unlink()


@pytest.mark.parametrize("name", [NAME, "Data2VecAudioForCTC", "Data2VecVisionForSemanticSegmentation"])
def test_bin_files_are_read_without_running_them(name: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    as_bin(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


def test_a_malicious_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="more than tensors"):
        type(model).from_pretrained(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    model = saved(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is cut short"):
        type(model).from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match="none of"):
        type(model).from_pretrained(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = zoo.build(NAME)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    next(iter(tmp_path.glob("model-00002*"))).unlink()
    with pytest.raises(UserError, match="model-00002"):
        type(model).from_pretrained(tmp_path)


def test_the_config_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(UserError, match="model_type is 'data2vec-text'"):
        data2vec.Data2VecVisionModel.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="needs a Data2VecVisionConfig"):
        data2vec.Data2VecVisionModel(data2vec.Data2VecTextConfig())


def test_other_sizes_are_refused_or_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = saved(tmp_path)
    with pytest.raises(UserError, match=r"classifier\.out_proj\.\w+ has shape .* ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path, num_labels=7)
    with caplog.at_level(logging.WARNING, logger="data2vec"):
        wider, report = type(model).from_pretrained(
            tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
        )
    assert "classifier.out_proj.weight" in caplog.text
    assert ("classifier.out_proj.weight", (3, 32), (7, 32)) in report.mismatched
    assert wider(**zoo.text_batch()).logits.shape == (2, 7)
    assert torch.equal(wider.head.hidden.weight, model.head.hidden.weight)
    assert all(torch.isfinite(p).all() for p in wider.parameters())


def test_a_new_head_has_the_type_of_the_stored_weights(tmp_path: Path) -> None:
    zoo.build("Data2VecTextModel").to(torch.bfloat16).save_pretrained(tmp_path)
    for name in (NAME, "Data2VecTextForMaskedLM"):
        model = getattr(data2vec, name).from_pretrained(tmp_path)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert all(torch.isfinite(p).all() for p in model.parameters())
    full = getattr(data2vec, NAME).from_pretrained(tmp_path, dtype="float32")
    assert {p.dtype for p in full.parameters()} == {torch.float32}
    with pytest.raises(UserError, match="dtype 'float12'"):
        getattr(data2vec, NAME).from_pretrained(tmp_path, dtype="float12")


def test_unknown_options_are_errors(tmp_path: Path) -> None:
    model = saved(tmp_path)
    with pytest.raises(UserError, match="num_lables"):
        type(model).from_pretrained(tmp_path, num_lables=3)
    with pytest.raises(TypeError):
        model.save_pretrained(tmp_path, safe_serialisation=True)  # type: ignore[operator]
    with pytest.raises(UserError, match="pickle"):
        model.save_pretrained(tmp_path, safe_serialization=False)  # type: ignore[operator]
    with pytest.raises(UserError, match="use_reentrant"):
        model.gradient_checkpointing_enable({"use_reentrant": True})  # type: ignore[operator]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    zoo.build(NAME).save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()


def test_offline_a_hub_id_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is not cached"):
        data2vec.Data2VecTextModel.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(UserError, match="cannot be a hub id"):
        data2vec.Data2VecTextModel.from_pretrained("./no/such/folder")


def test_the_hub_is_asked_for_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    model = saved(tmp_path / "deep")
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, **options})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    again = type(model).from_pretrained("someone/model", revision="v2", token="secret", subfolder="deep")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert {call["repo_id"] for call in asked} == {"someone/model"}
    assert {call["revision"] for call in asked} == {"v2"}
    assert {call["token"] for call in asked} == {"secret"}
    assert all(pattern.startswith("deep/") for call in asked for pattern in call["allow_patterns"])


def test_a_model_is_pushed_as_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    model, calls = zoo.build(NAME), []

    class Api:
        def __init__(self, token: str | None = None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
            calls.append(("create", options))
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> SimpleNamespace:
            again = type(model).from_pretrained(folder_path)
            assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
            calls.append(("upload", {"repo_id": repo_id, **options}))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    address = model.push_to_hub("mine", private=True, token="secret", commit_message="First", revision="main")
    assert address == "https://hub/commit/1"
    wanted = {"repo_id": "me/mine", "commit_message": "First", "revision": "main", "create_pr": False}
    assert calls == [("token", "secret"), ("create", {"private": True, "exist_ok": True}), ("upload", wanted)]


def test_new_parameters_are_drawn_in_the_order_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set's order changes from process to process, and with it what a seed gives."""
    zoo.build("Data2VecTextModel").save_pretrained(tmp_path)
    drawn = []
    cls = data2vec.Data2VecTextForSequenceClassification
    original = cls.init_module

    def note(self: Any, module: nn.Module) -> None:
        drawn.append(module)
        original(self, module)

    monkeypatch.setattr(cls, "init_module", note)
    model = cls.from_pretrained(tmp_path)
    places = {module: name for name, module in model.named_modules()}
    assert [places[module] for module in drawn][-2:] == ["head.hidden", "head.labels"]
