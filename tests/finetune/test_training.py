"""What fine-tuning adds to the trainer: freezing, adapters, mixing, balance, resume, and clear lines for bad input."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data2vec.cli.main import main
from data2vec.data.labelled.audio import Timeline
from data2vec.data.labelled.augment import cutmix, erase, mixup, rand_augment, smooth
from data2vec.data.labelled.example import Example, Turn, divide
from data2vec.errors import UserError
from data2vec.models.text.heads import Data2VecTextForSequenceClassification
from data2vec.recipes.finetune import FINETUNE, FinetuneConfig
from data2vec.tasks.asr import SpeechRecognition
from data2vec.tasks.config import AugmentConfig, LabelledConfig
from data2vec.tasks.frames import AudioFrames
from data2vec.tasks.names import task_class
from data2vec.tasks.run import batches, inputs_of, usable
from data2vec.tasks.sentences import TextClassification
from data2vec.tasks.task import LOWER_IS_BETTER, Item, collate
from data2vec.training.config import TrainConfig
from data2vec.training.finetune import adapt, check_soft_labels, export, judged_by, read_splits
from data2vec.training.supervised import LabelledSamples, SupervisedTask

EXAMPLES = [Example(str(i), f"the cat {'good' if i % 2 else 'bad'} day", str(i % 2)) for i in range(8)]
QUICK = "--loader.workers 0 --train.precision fp32 --device cpu --train.log-every 1 --data.batch 128"


@pytest.fixture
def task(encoders: dict[str, Path]) -> TextClassification:
    torch.manual_seed(0)
    return TextClassification.begin(
        encoders["text"], EXAMPLES, LabelledConfig(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def batch_of(task: TextClassification, augment: AugmentConfig | None = None) -> dict[str, torch.Tensor]:
    items, _ = usable(task, EXAMPLES)
    return collate([task.encode(item, None, augment) for item in items], task.fills)


def test_every_recipe_survives_its_json() -> None:
    for presets in FINETUNE.values():
        for preset in presets.values():
            config = preset()
            assert FinetuneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_only_the_head_learns_while_the_encoder_is_frozen(task: TextClassification) -> None:
    supervised = SupervisedTask(task, freeze_updates=2)
    batch = batch_of(task)
    encoder, head = task.model.base_model.parameters(), task.model.get_submodule("head").parameters()
    for update in range(3):
        supervised.zero_grad()
        supervised(batch).loss_sum.backward()
        frozen = update < 2
        assert all((p.grad is None) == frozen for p in task.model.base_model.parameters())
        assert all(p.grad is not None for p in task.model.get_submodule("head").parameters())
        supervised.after_step(update + 1)
    assert torch.is_grad_enabled()
    assert list(encoder) and list(head)


def test_loss_is_a_sum_over_rows(task: TextClassification) -> None:
    supervised, batch = SupervisedTask(task), batch_of(task)
    whole = supervised(batch)
    parts = [supervised({name: value[rows] for name, value in batch.items()}) for rows in (slice(0, 3), slice(3, 8))]
    assert float(whole.count) == 8 == sum(float(part.count) for part in parts)
    torch.testing.assert_close(whole.loss_sum, parts[0].loss_sum + parts[1].loss_sum)
    soft = SupervisedTask(task, soft=True)(batch_of(task, AugmentConfig(smoothing=0.1)))
    torch.testing.assert_close(whole.loss_sum, soft.loss_sum)  # encode gives 0 and 1; smoothing comes after mixing


def test_adapters_learn_alone_and_merge_into_the_weights(task: TextClassification, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    config = FINETUNE["text-classification"]["little"]()
    adapt(task, FinetuneConfig(**{**vars(config), "lora": 2}))
    learning = [name for name, p in task.model.named_parameters() if p.requires_grad]
    assert all("lora" in name or name.startswith("head.") for name in learning)
    assert any("q_proj.lora_A" in name for name in learning)
    with torch.no_grad():
        for name, p in task.model.named_parameters():
            if "lora_B" in name:
                p.normal_()
    batch = batch_of(task)
    task.model.eval()
    wanted = task.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    export(task, tmp_path)
    merged = Data2VecTextForSequenceClassification.from_pretrained(tmp_path)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    got = merged(**{k: v for k, v in batch.items() if k != "labels"}).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert any("lora" in name for name, _ in task.model.named_parameters())  # the model in training is left alone


@pytest.mark.parametrize(
    ("name", "data", "modality"),
    [
        ("audio-classification", "clips", "audio"),
        ("asr", "strings", "audio"),
        ("image-classification", "pictures", "vision"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_adapters_on_sound_and_pictures(
    name: str,
    data: str,
    modality: str,
    version: int,
    encoders: dict[str, Path],
    encoders2: dict[str, Path],
    labelled: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("peft", reason="needs the extra peft")
    torch.manual_seed(0)
    source = (encoders, encoders2)[version - 1][modality]
    cls, config = task_class(name), LabelledConfig()
    splits = divide(cls.read(labelled / data, config))
    task = cls.begin(source, splits.train, config)
    before = {key: value.clone() for key, value in task.model.base_model.state_dict().items()}
    adapt(task, FinetuneConfig(**{**vars(FINETUNE[name]["little"]()), "lora": 2}))
    items, _ = usable(task, splits.train[:4], train=True)
    batch = collate([task.encode(item, None, AugmentConfig()) for item in items], task.fills)
    supervised = SupervisedTask(task)
    optimizer = torch.optim.SGD([p for p in supervised.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):  # the first step moves lora_B only, off its zeros
        optimizer.zero_grad()
        supervised(batch).loss_sum.backward()
        optimizer.step()
    encoder = dict(task.model.base_model.named_parameters())
    assert {key for key, p in encoder.items() if p.requires_grad} == {key for key in encoder if "lora" in key}
    task.model.eval()
    wanted = task.model(**inputs_of(batch)).logits
    export(task, tmp_path)
    again = cls.open(tmp_path)
    torch.testing.assert_close(again.model.eval()(**inputs_of(batch)).logits, wanted, atol=1e-5, rtol=1e-4)
    changed = {key for key, value in again.model.base_model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all("q_proj.weight" in key or "v_proj.weight" in key for key in changed)


def test_classes_in_balance(task: TextClassification) -> None:
    examples = EXAMPLES + [Example(f"more {i}", "the dog good day", "1") for i in range(40)]
    items, _ = usable(task, examples)
    samples = LabelledSamples(task, items, AugmentConfig(balanced=True), seed=1)
    drawn = Counter(int(samples.load(i, epoch)["labels"]) for epoch in range(20) for i in range(len(items)))
    assert abs(drawn[0] / drawn.total() - 0.5) < 0.06
    assert list(samples.sizes(3)) == list(LabelledSamples(task, items, AugmentConfig(balanced=True), 1).sizes(3))


@given(st.integers(0, 1000), st.floats(0, 1))
def test_mixed_labels_stay_distributions(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    one = {"pixel_values": np.zeros((3, 8, 8), np.float32), "labels": np.array([1, 0, 0], np.float32)}
    other = {"pixel_values": np.ones((3, 8, 8), np.float32), "labels": np.array([0, 0, 1], np.float32)}
    cut = cutmix(one, other, share, rng)
    assert cut["labels"].sum() == pytest.approx(1)
    assert cut["pixel_values"].mean() == pytest.approx(cut["labels"][2])  # the area that comes from the other
    mixed = mixup(one, other, share)
    assert mixed["pixel_values"].mean() == pytest.approx(mixed["labels"][2], abs=1e-6)
    assert smooth(mixed["labels"], 0.1).sum() == pytest.approx(1)
    assert one["pixel_values"].max() == 0


def test_random_operations_repeat_and_change_pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    several = [np.asarray(rand_augment(image, 2, 9, np.random.default_rng(seed))) for seed in range(40)]
    assert {array.shape for array in several} == {(24, 20, 3)}
    assert sum(not np.array_equal(array, pixels) for array in several) > 20
    np.testing.assert_array_equal(several[3], np.asarray(rand_augment(image, 2, 9, np.random.default_rng(3))))
    blank = np.zeros((3, 24, 24), np.float32)
    erased = erase(blank, np.random.default_rng(0))
    assert 0.02 <= (erased[0] != 0).mean() <= 0.35
    assert not blank.any()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(50, 200))
def test_batches_hold_everything_once_within_the_budget(sizes: list[int], budget: int) -> None:
    items = [Item(EXAMPLES[0], size) for size in sizes]
    groups = list(batches(items, budget))
    assert sorted(place for group in groups for place in group) == list(range(len(sizes)))
    assert all(len(group) * max(sizes[place] for place in group) <= budget for group in groups)


def run(data: Path, model: Path, out: Path, *more: str) -> int:
    command = ["finetune", "text-classification", str(data), "--model", str(model), "--out", str(out)]
    return main([*command, *QUICK.split(), *more])


def test_bf16_reaches_the_losses_of_fp32(encoders: dict[str, Path], labelled: Path, tmp_path: Path) -> None:
    steps = ["--train.updates", "4", "--set", "hidden_dropout_prob=0", "attention_probs_dropout_prob=0"]
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        assert run(labelled / "text.csv", encoders["text"], out, *steps, "--train.precision", precision) == 0
        losses[precision] = logged_losses(out)
    assert len(losses["fp32"]) == 4
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["bf16"] != losses["fp32"]


def test_two_processes_make_one_run(encoders: dict[str, Path], labelled: Path, tmp_path: Path) -> None:
    still = ["--set", "hidden_dropout_prob=0", "--set", "attention_probs_dropout_prob=0", "--train.updates", "3"]
    assert run(labelled / "text.csv", encoders["text"], tmp_path / "one", *still) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "data2vec"]
    where = [str(labelled / "text.csv"), "--model", str(encoders["text"]), "--out", str(tmp_path / "two")]
    more = ["finetune", "text-classification", *where, *QUICK.split(), *still]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = logged_losses(tmp_path / "one")
    assert len(losses) == 3 and logged_losses(tmp_path / "two") == pytest.approx(losses, rel=1e-5)
    assert TextClassification.open(tmp_path / "two/model").answer.names == ("0", "1")
    assert json.loads((tmp_path / "two/evaluation/scores.json").read_text())["accuracy"] >= 0


def test_fields_of_the_network_may_be_set_one_by_one_or_together(
    encoders: dict[str, Path], labelled: Path, tmp_path: Path
) -> None:
    fields = ("hidden_dropout_prob=0", "attention_probs_dropout_prob=0")
    for name, options in {"together": ["--set", *fields], "single": ["--set", fields[0], "--set", fields[1]]}.items():
        out = tmp_path / name
        assert run(labelled / "text.csv", encoders["text"], out, *options, "--train.updates", "1") == 0
        network = json.loads((out / "run.json").read_text())["network"]
        assert network["hidden_dropout_prob"] == network["attention_probs_dropout_prob"] == 0


def logged_losses(out: Path) -> list[float]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def test_a_run_that_was_stopped_goes_on_to_the_same_model(
    encoders: dict[str, Path], labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data2vec.training.trainer import Trainer

    data, steps = labelled / "text.csv", ["--train.updates", "6", "--train.save-every", "3", "--train.eval-every", "3"]
    assert run(data, encoders["text"], tmp_path / "whole", *steps) == 0
    original = Trainer._update

    def until_three(self: Trainer, micro: object) -> object:
        if self.progress.update == 3:
            raise KeyboardInterrupt
        return original(self, micro)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_update", until_three)
    assert run(data, encoders["text"], tmp_path / "part", *steps) == 130
    monkeypatch.undo()
    assert run(data, encoders["text"], tmp_path / "part", *steps, "--resume") == 0
    whole, part = (
        [json.loads(line).get("loss") for line in (tmp_path / name / "log.jsonl").read_text().splitlines()][-3:]
        for name in ("whole", "part")
    )
    assert whole == part
    scores = [(tmp_path / name / "evaluation/scores.json").read_text() for name in ("whole", "part")]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("text,label,split\nhi,a,train\nyou,b,train\nhi,c,dev\n", "the label 'c' is none of the training data: a, b"),
        ("text,label,split\nhi,a,train\nyou,a,train\nhi,a,dev\n", "two classes are needed"),
        ("text,label,split\nhi,,train\nyou,b,train\nhi,b,dev\n", "line 2: has no label"),
        ("text,score\nhi,1.5\nyou,x\nhi,2\nhi,2\nhi,2\n", "table.csv: line 3"),
    ],
)
def test_bad_labels_are_one_clear_line(
    encoders: dict[str, Path], tmp_path: Path, table: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(table)
    more = ["--data.problem", "regression"] if "score" in table else []
    assert run(tmp_path / "table.csv", encoders["text"], tmp_path / "run", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("data2vec: error: ")
    assert line in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "more", "problem"),
    [("0.5 1.5 2 3", "--data.problem regression", "regression"), ("a;b a b b;a", "--data.separator ;", "multi_label")],
)
def test_soft_labels_are_for_one_class(
    labels: str, more: str, problem: str, encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"the cat,{label},{side}" for label in labels.split() for side in ("train", "dev")]
    (tmp_path / "table.csv").write_text("\n".join(["text,label,split", *rows]) + "\n")
    options = [*more.split(), "--augment.smoothing", "0.1"]
    assert run(tmp_path / "table.csv", encoders["text"], tmp_path / "run", *options) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"the problem here is {problem}: set augment.mixup=0 augment.cutmix=0 augment.smoothing=0" in said
    assert not (tmp_path / "run").exists()


def test_smoothing_one_class_is_fine(task: TextClassification) -> None:
    check_soft_labels(task, AugmentConfig(smoothing=0.1))


@pytest.mark.parametrize("side", ["train", "dev"])
def test_rows_without_a_label_are_named_or_left_out(
    side: str, encoders: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(labelled / "choices", data)
    with (data / f"{side}.jsonl").open("a") as file:
        row = {"sent1": "the cat", "sent2": "", "ending0": "good day", "ending1": "bad dog", "label": ""}
        file.write(json.dumps(row) + "\n")
    line = len((data / f"{side}.jsonl").read_text().splitlines())
    command = ["finetune", "multiple-choice", str(data), "--model", str(encoders["text"]), *QUICK.split()]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert f"{side}.jsonl: line {line}: has no label" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    config = FINETUNE["multiple-choice"]["little"]()
    config = replace(config, data=replace(config.data, skip_bad=True))
    splits = read_splits(task_class("multiple-choice"), data, config)
    assert all(example.target is not None for example in splits.all)
    assert len(splits.skipped) == 1


def test_no_reader_gets_rows_without_a_label_into_training() -> None:
    examples = [*EXAMPLES, Example("table.csv: line 10", "the cat")]
    reader, config = SimpleNamespace(read=lambda *_: iter(examples)), FINETUNE["text-classification"]["little"]()
    with pytest.raises(UserError, match=r"table\.csv: line 10: has no label to learn from"):
        read_splits(reader, Path(), config)
    splits = read_splits(reader, Path(), replace(config, data=replace(config.data, skip_bad=True)))
    assert (len(splits.all), [row.source for row in splits.skipped]) == (8, ["table.csv: line 10"])


def test_the_name_of_a_metric_says_what_is_better(task: TextClassification) -> None:
    begin = TrainConfig(updates=1)
    assert judged_by(task, begin) == replace(begin, metric="accuracy", maximize=True)
    assert judged_by(task, replace(begin, metric="matthews", maximize=False)).maximize
    assert not judged_by(task, replace(begin, metric="der_collar")).maximize


def test_errors_count_against_a_model() -> None:
    """Every metric of speech falls, or stays, where the answer is right instead of wrong."""
    turns = Example("a.wav", None, Timeline((Turn(0, 5, "x"), Turn(5, 9, "y")), (0.0, 10.0)))
    frames = SimpleNamespace(exclusive=False, mode="turns")
    right, wrong = [(0, 5, "1"), (5, 9, "2")], [(2, 10, "1")]
    rates = [AudioFrames.score(frames, [turns], [{"turns": answer}]) for answer in (right, wrong)]
    for written, metric in (("letters", "wer"), ("phones", "per")):
        units = list if written == "letters" else str.split
        asr = SimpleNamespace(written=written, metric=metric, _space=" ", units=units)
        for side, text in zip(rates, ("a b c d", "a x"), strict=True):
            side |= SpeechRecognition.score(asr, [Example("a.wav", None, "a b c d")], [{"text": text}])
    assert rates[0].keys() == rates[1].keys() <= LOWER_IS_BETTER
    assert all(rates[0][name] <= rates[1][name] for name in rates[0])


def test_bad_speech_is_named_or_left_out(
    encoders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["file_name,transcription,split"]
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).standard_normal(4000) / 9, 16_000)
        rows.append(f"{i}.wav,AB,{'dev' if i == 5 else 'train'}")
    rows[2] = "1.wav," + "AABB" * 9 + ",train"
    rows[6] = "5.wav,AZ,dev"
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    command = ["finetune", "asr", str(tmp_path), "--model", str(encoders["audio"]), *QUICK.split()]
    command += ["--train.updates", "1"]
    assert main([*command, "--out", str(tmp_path / "a")]) == 2
    assert "1.wav: its transcript of 36 symbols needs 54 frames, the recording has 12" in capsys.readouterr().err
    rows[6] = "5.wav,AB,dev"
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    assert main([*command, "--out", str(tmp_path / "b"), "--data.skip-bad"]) == 0
    skipped = [json.loads(line) for line in (tmp_path / "b/skipped.jsonl").read_text().splitlines()]
    assert [Path(row["path"]).name for row in skipped] == ["1.wav"]


def test_another_kind_of_model_is_refused(
    encoders: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(labelled / "text.csv", encoders["audio"], tmp_path / "run") == 2
    assert "'data2vec-audio'; this task needs data2vec-text" in capsys.readouterr().err
    assert main(["predict", str(encoders["text"]), "hi"]) == 2
    assert "fine-tune it for a task first" in capsys.readouterr().err
    assert main(["finetune", "nonsense", "x"]) == 2
    assert "known: asr, audio-classification" in capsys.readouterr().err
