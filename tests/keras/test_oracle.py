"""The TF classes against what the originals computed: outputs, losses, gradients, statistics, files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tf_cases import Case, arrays, gradients, worst

pytest.importorskip("tensorflow", reason="needs the extra [tensorflow]")

from data2vec import TFData2VecVisionModel
from data2vec.errors import UserError
from data2vec.keras import weights
from data2vec.keras.backend import tf
from data2vec.models.names import VISION


def test_outputs_and_losses(case: Case) -> None:
    """The PyTorch original is the reference, and the TensorFlow one too where it is right."""
    compared = 0
    for call, inputs in case.calls():
        ours = case.run(**inputs)
        for name, theirs in case.torch_outputs.items():
            if name.startswith(f"{call}/"):
                mine = ours[name.partition("/")[2]]
                mine = mine.mean() if name.endswith("/loss") else mine
                assert worst(mine, theirs) < 1e-5, name
                compared += 1
        for name, theirs in case.tf_outputs.items():
            wrong = case.chains_its_pools and name.endswith(("/logits", "/loss"))
            if name.startswith(f"{call}/") and not wrong:
                assert worst(ours[name.partition("/")[2]], theirs) < 1e-5, name
                compared += 1
    assert compared >= 6


def test_chained_pooling_is_the_only_difference_from_the_original(cases: list[Case]) -> None:
    """The original pools what it has pooled before (D1); unchained it gives what PyTorch gives."""
    for case in recorded(cases, lambda case: "plain_ppm_fixed/logits" in case.tf_outputs):
        logits = case.run()["logits"]
        assert case.chains_its_pools
        assert worst(logits, case.tf_outputs["plain/logits"]) > 0.1
        assert worst(logits, case.tf_outputs["plain_ppm_fixed/logits"]) < 1e-5


def recorded(cases: list[Case], has: Callable[[Case], bool]) -> list[Case]:
    """The cases with a further recording; skip where there is none."""
    return [case for case in cases if has(case)] or pytest.skip("not recorded in this folder")


def test_gradients(cases: list[Case], extra: Path) -> None:
    """Of the mean classification loss, against both originals."""
    files = {
        case.folder.name: (case.folder / "pt_grads.npz", extra / f"{case.folder.name}_tf_grads.npz") for case in cases
    }
    for case in recorded(cases, lambda case: any(file.is_file() for file in files[case.folder.name])):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(case.model(case.inputs["pixel_values"], labels=case.inputs["labels"]).loss)
        ours = gradients(case.model, loss, tape)
        for file in files[case.folder.name]:
            if file.is_file():
                compare_gradients(ours, arrays(file))


def compare_gradients(ours: dict[str, np.ndarray], recorded: dict[str, np.ndarray]) -> None:
    theirs = {name: array for key, array in recorded.items() if (name := VISION.ours(key)) is not None}
    assert set(ours) == set(theirs)
    for name, gradient in ours.items():
        assert worst(gradient, theirs[name]) <= 1e-6 + 1e-4 * np.abs(theirs[name]).max(), name


def test_training_step(cases: list[Case], extra: Path) -> None:
    """Training mode: logits and gradients by the batch's statistics, and the running statistics after it."""
    files = {case.folder.name: extra / f"{case.folder.name}_tf_train.npz" for case in cases}
    for case in recorded(cases, lambda case: files[case.folder.name].is_file()):
        theirs, model = arrays(files[case.folder.name]), case.load()
        with tf.GradientTape() as tape:
            outputs = model(case.inputs["pixel_values"], labels=case.inputs["labels"], training=True)
            loss = tf.reduce_mean(outputs.loss)
        assert worst(outputs.logits, theirs["logits"]) < 2e-5
        assert abs(float(loss) - float(theirs["loss"])) < 1e-5
        compare_gradients(gradients(model, loss, tape), part_of(theirs, "grad/"))
        stored = {name: slot.read() for name, slot in weights.slots(model).items()}
        assert part_of(theirs, "stat/")
        for key, statistic in part_of(theirs, "stat/").items():
            assert worst(stored[str(VISION.ours(key))], statistic) < 1e-6, key


def part_of(recording: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): array for key, array in recording.items() if key.startswith(prefix)}


def test_a_perturbed_bias_table_is_seen(case: Case) -> None:
    """The comparison above is not blind: one table moved by hundredths leaves its tolerance."""
    before = np.asarray(case.model(case.inputs["pixel_values"])[0])
    variable = next(slot.variable for name, slot in weights.slots(case.model).items() if name.endswith(".table"))
    kept = variable.numpy()
    variable.assign(kept + 0.01 * np.random.default_rng(0).standard_normal(kept.shape))
    after = np.asarray(case.model(case.inputs["pixel_values"])[0])
    variable.assign(kept)
    assert worst(after, before) > 1e-5


def test_saved_bytes_are_those_read(case: Case, tmp_path: Path) -> None:
    case.model.save_pretrained(tmp_path)
    written, read = load_file(tmp_path / "model.safetensors"), load_file(case.folder / "model.safetensors")
    names = {str(VISION.ours(key)): key for key in read if VISION.ours(key) is not None}
    assert {VISION.ours(key) for key in written} - set(names) <= {  # a counter that the original's file may lack
        VISION.ours(key) for key in written if key.endswith("num_batches_tracked")
    }
    for key, tensor in written.items():
        if (name := str(VISION.ours(key))) in names:
            assert torch.equal(tensor, read[names[name]]), key


def test_a_lost_or_foreign_tensor_is_an_error(case: Case) -> None:
    tensors = weights.find_weights(case.folder)
    kept = [key for key in tensors if VISION.ours(key) is not None and not key.endswith(weights.COUNTER)]
    for lost in {kept[0], kept[len(kept) // 2], kept[-1], *(key for key in kept if "lambda_1" in key)}:
        with pytest.raises(UserError, match=VISION.published(str(VISION.ours(lost)))):
            weights.load(case.model, {key: tensor for key, tensor in tensors.items() if key != lost}, "a file")
    prefix = "data2vec_vision." if any(key.startswith("data2vec_vision.") for key in tensors) else ""
    with pytest.raises(UserError, match=r"encoder\.layer\.99"):
        weights.load(case.model, {**tensors, f"{prefix}encoder.layer.99.lambda_1": torch.zeros(4)}, "a file")


def test_old_tensorflow_files(cases: list[Case], extra: Path, tmp_path: Path) -> None:
    """``tf_model.h5`` and TensorFlow's names in safetensors give PyTorch's tensors, bit for bit; the folder loads."""
    for case in recorded(cases, lambda case: (extra / f"tf_format_{case.folder.name}").is_dir()):
        folder = extra / f"tf_format_{case.folder.name}"
        stored = load_file(case.folder / "model.safetensors")
        wanted = {VISION.ours(key): tensor for key, tensor in stored.items() if not key.endswith(weights.COUNTER)}
        for read in (weights.read_h5(folder / "tf_model.h5"), weights.find_weights(folder)):
            ours = {VISION.ours(key): tensor for key, tensor in read.items()}
            assert set(ours) == {name for name in wanted if name is not None}
            assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())
        for name in ("config.json", "tf_model.h5"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        assert worst(case.load(tmp_path)(case.inputs["pixel_values"]).logits, case.run()["logits"]) == 0.0


def test_base_model_from_a_head(cases: list[Case], extra: Path) -> None:
    files = {case.folder.name: extra / f"model_from_{case.folder.name}.npz" for case in cases}
    for case in recorded(cases, lambda case: files[case.folder.name].is_file()):
        base, report = TFData2VecVisionModel.from_pretrained(case.folder, output_loading_info=True)
        theirs = arrays(files[case.folder.name])["last_hidden_state"]
        assert worst(base(case.inputs["pixel_values"]).last_hidden_state, theirs) < 1e-5
        assert not report.missing
        assert "classifier.weight" in report.unexpected
