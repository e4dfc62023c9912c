"""Every task from files to a model, its score and its answers, on data that a tiny network can learn."""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from data2vec.cli.main import main
from data2vec.pipelines.pipeline import pipeline
from data2vec.tasks.config import TASKS, AugmentConfig
from data2vec.tasks.names import task_of
from data2vec.tasks.predict import write_files
from data2vec.tasks.sentences import hide, load_tokenizer

QUICK = "--train.log-every 5 --loader.workers 0 --train.precision fp32 --device cpu --augment.noise 0"
TEXT = "--set hidden_dropout_prob=0 attention_probs_dropout_prob=0 --optim.layer-decay 1"
CTC = (
    "--freeze-updates 2 --optim.lr 5e-3 --optim.schedule constant --optim.clip-norm 5 --optim.layer-decay 1 "
    "--augment.speed 0 --set mask_feature_prob=0 "
    "mask_time_prob=0 final_dropout=0 hidden_dropout=0 attention_dropout=0 activation_dropout=0"
)
XVECTOR = "--set xvector_output_dim=8 tdnn_dim=[8,8] tdnn_kernel=[3,1] tdnn_dilation=[1,1]"


class Run(NamedTuple):
    """Data, modality, updates, further arguments, a score with the least (or, below 0, minus the most) it may be."""

    data: str
    modality: str
    updates: int
    more: str
    metric: str
    least: float
    given: str


RUNS = {
    "audio-classification": Run("clips", "audio", 40, "--data.batch 4", "accuracy", 1.0, "clips/0.wav"),
    "asr": Run("strings", "audio", 200, f"--data.batch 4 {CTC}", "cer", -0.3, "strings/0.wav"),
    "audio-frames": Run("turns", "audio", 40, "--data.batch 6 --optim.lr 3e-3", "der", -0.3, "turns/audio/r0.wav"),
    "speaker-verification": Run("clips", "audio", 20, f"--data.batch 4 {XVECTOR}", "eer", -0.2, "clips/0.wav"),
    "text-classification": Run(
        "text.csv", "text", 100, f"--data.batch 256 --optim.lr 3e-3 {TEXT}", "accuracy", 1.0, "the cat sat good day"
    ),
    "token-classification": Run(
        "ner", "text", 60, f"--data.batch 256 --optim.lr 3e-3 {TEXT}", "f1", 1.0, "ann ran in rome"
    ),
    "question-answering": Run(
        "qa", "text", 80, f"--data.batch 512 --optim.lr 3e-3 {TEXT}", "f1", 0.9, "in\tthe cat sat in rome"
    ),
    "multiple-choice": Run(
        "choices", "text", 80, f"--data.batch 512 --optim.lr 3e-3 {TEXT}", "accuracy", 0.9, "the cat\tbad dog\tgood day"
    ),
    "fill-mask": Run(
        "plain", "text", 100, f"--data.batch 1024 --optim.lr 1e-2 {TEXT}", "loss", -2.5, "the cat <mask> in rome"
    ),
    "causal-lm": Run("plain", "text", 60, f"--data.batch 1024 --optim.lr 1e-2 {TEXT}", "accuracy", 0.8, "the cat"),
    "image-classification": Run("pictures", "vision", 20, "--data.batch 8", "accuracy", 1.0, "pictures/val/dark/0.png"),
    "semantic-segmentation": Run(
        "seg",
        "vision",
        60,
        "--data.batch 4 --data.image-size 16 --optim.lr 3e-3",
        "mean_iou",
        0.6,
        "seg/images/val/0.png",
    ),
}


FILES = {
    "asr": {"0.srt", "0.vtt"},
    "audio-frames": {"r0.rttm"},
    "semantic-segmentation": {"0.png", "0.overlay.jpg"},
}
"""What `predict --files` leaves for the input of a row."""


def finetune(task: str, data: Path, model: Path, out: Path, *more: str) -> int:
    return main(["finetune", task, str(data), "--model", str(model), "--out", str(out), *QUICK.split(), *more])


def test_every_task_is_tried() -> None:
    assert set(RUNS) == set(TASKS)


@pytest.mark.parametrize("task", RUNS)
def test_from_files_to_a_score_and_an_answer(
    task: str, encoders: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RUNS[task]
    metric, data = run.metric, labelled / run.data
    steps = f"--train.updates {run.updates} --train.eval-every {run.updates // 2}".split()
    assert finetune(task, data, encoders[run.modality], tmp_path / "run", *run.more.split(), *steps) == 0
    assert task_of(tmp_path / "run" / "model") == task

    scores = json.loads((tmp_path / "run/evaluation/scores.json").read_text())
    assert (scores[metric] if run.least > 0 else -scores[metric]) >= run.least, scores
    logged = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    best = [record[f"dev_{metric}"] for record in logged if f"dev_{metric}" in record]
    assert any(math.isclose(scores[metric], value, rel_tol=1e-5, abs_tol=1e-6) for value in best)
    report = (tmp_path / "run/evaluation/report.html").read_text()
    assert ("<h2>Pictures</h2>" in report) == (task != "speaker-verification")  # judged by pairs, which have none

    capsys.readouterr()
    where = ["--out", str(tmp_path / "again"), "--json"]
    assert main(["evaluate", task, str(data), "--model", str(tmp_path / "run"), *where]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again[metric] == pytest.approx(scores[metric], rel=1e-5)
    predictions = [json.loads(line) for line in (tmp_path / "again/predictions.jsonl").read_text().splitlines()]
    assert len({prediction["source"] for prediction in predictions}) == len(predictions) > 0

    given = str(labelled / run.given) if run.modality != "text" else run.given
    assert main(["predict", str(tmp_path / "run"), given, "--jsonl"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer) > 1
    files = FILES.get(task, set())
    assert main(["predict", str(tmp_path / "run"), given, "--files", str(tmp_path / "files")]) == (0 if files else 2)
    assert {file.name for file in (tmp_path / "files").glob("*")} == files


def test_files_of_answers_keep_their_names(tmp_path: Path) -> None:
    said = {"text": "hi", "words": [{"word": "hi", "start": 0.0, "end": 0.5, "confidence": 1.0}]}
    sources = ("a/2026.11.21.wav", "b/2026.11.21.wav")
    files = write_files([{"source": source, **said} for source in sources], tmp_path)
    names = ["2026.11.21.srt", "2026.11.21.vtt", "2026.11.21-2.srt", "2026.11.21-2.vtt"]
    assert [file.name for file in files] == names
    third = {"source": "a/2026.11.21-2.wav", **said}
    again = write_files([*({"source": source, **said} for source in sources), third], tmp_path)
    assert len(set(again)) == 6  # the third's own name is taken
    turns = {"source": "a/x.y.wav", "turns": [[0.0, 1.5, "ann"]]}
    (file,) = write_files([turns], tmp_path)
    assert file.read_text().split()[:5] == ["SPEAKER", "x.y", "1", "0.000", "1.500"]


def words_for_letters(strings: Path, out: Path, kind: str) -> Path:
    """The recordings of `strings` with a word or a phone for each of their letters, as a table or a manifest."""
    names = {"A": "low", "B": "high"}
    rows = [line.split(",") for line in (strings / "metadata.csv").read_text().splitlines()[1:]]
    out.mkdir()
    for side in ("train", "dev"):
        mine = [(name, " ".join(names[letter] for letter in text)) for name, text, split in rows if split == side]
        paths = [f"{name}\t{soundfile.info(strings / name).frames}" for name, _ in mine]
        (out / f"{side}.tsv").write_text("\n".join([str(strings), *paths]) + "\n")
        (out / f"{side}.{'phn' if kind == 'phones' else 'wrd'}").write_text("\n".join(t for _, t in mine) + "\n")
    return out


@pytest.mark.parametrize(("kind", "metric"), [("words", "wer"), ("phones", "per")])
def test_a_recogniser_of_words_or_phones(
    kind: str,
    metric: str,
    encoders: dict[str, Path],
    labelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = words_for_letters(labelled / "strings", tmp_path / "data", kind), tmp_path / "run"
    more = ["--data.symbols", kind, *RUNS["asr"].more.split(), "--train.updates", "150", "--train.eval-every", "75"]
    assert finetune("asr", data, encoders["audio"], out, *more) == 0
    assert set(json.loads((out / "model/vocab.json").read_text())) >= {"low", "high"}
    scores = json.loads((out / "evaluation/scores.json").read_text())
    assert scores[metric] < 0.7, scores
    assert ("cer" in scores) == (kind == "words")

    given = str(labelled / "strings/0.wav")
    capsys.readouterr()
    assert main(["evaluate", "asr", str(data), "--model", str(out), "--json"]) == 0  # read as the run did
    assert json.loads(capsys.readouterr().out)[metric] == pytest.approx(scores[metric])
    assert main(["predict", str(out), given, "--jsonl"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["text"].split()) <= {"low", "high"}
    assert answer["text"].split() == [word["word"] for word in answer["words"]]
    assert pipeline("automatic-speech-recognition", str(out / "model"))(given)["text"] == answer["text"]
    assert main(["predict", str(out), given, "--decode.hotwords", "low"]) == 2
    assert f"this model recognises {kind}" in capsys.readouterr().err


ONLY_VERSION_1 = {"fill-mask", "causal-lm"}


@pytest.mark.parametrize("task", [task for task in RUNS if task not in ONLY_VERSION_1])
def test_data2vec_2_does_the_task(
    task: str, encoders2: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RUNS[task]
    data, out = labelled / run.data, tmp_path / "run"
    assert finetune(task, data, encoders2[run.modality], out, *run.more.split(), "--train.updates", "2") == 0
    kind = json.loads((out / "model/config.json").read_text())["model_type"]
    assert (kind, task_of(out / "model")) == (f"data2vec2-{run.modality}", task)
    capsys.readouterr()
    assert main(["evaluate", task, str(data), "--model", str(out), "--out", str(tmp_path / "again"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    written = json.loads((out / "evaluation/scores.json").read_text())
    assert scores.keys() == written.keys()
    assert scores[run.metric] == pytest.approx(written[run.metric], rel=1e-5)
    given = str(labelled / run.given) if run.modality != "text" else run.given
    assert main(["predict", str(out), given, "--jsonl"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 1


@pytest.mark.parametrize("task", sorted(ONLY_VERSION_1))
def test_data2vec_2_has_no_language_model(
    task: str, encoders2: dict[str, Path], labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(task, labelled / RUNS[task].data, encoders2["text"], tmp_path / "run") == 2
    assert "type 'data2vec2-text'; this task needs data2vec-text" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 2**32 - 1))
def test_hidden_tokens(encoders: dict[str, Path], share: float, seed: int) -> None:
    tokenizer, length = load_tokenizer(encoders["text"]), 2000
    ids = np.full(length, 100, dtype=np.int64)
    ids[0], ids[-1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    augment = AugmentConfig(hide=share)
    hidden = hide(ids, tokenizer, np.random.default_rng(seed), augment)
    assert (hidden[0], hidden[-1]) == (ids[0], ids[-1])
    assert set(hidden[1:-1].tolist()) == {100, tokenizer.mask_token_id}
    assert abs((hidden != ids).mean() - share) < 6 * math.sqrt(share * (1 - share) / length)
    assert hide(ids, tokenizer, None, augment) is ids
    assert hide(ids, tokenizer, np.random.default_rng(seed), AugmentConfig()) is ids
