"""The commands of the tutorials, as they stand there, on small data and with small networks."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from data2vec.cli.main import main

PAGES = Path(__file__).parents[2] / "docs" / "tutorials"
QUICK = "--loader.workers 0 --train.precision fp32 --device cpu"
WIDTH = "--model.hidden-size 32 --model.num-attention-heads 2 --model.intermediate-size 64"
SMALLER = {  # what is added to a command, so that it takes a second
    "speech": {
        "pretrain": f"--preset tiny {WIDTH} --model.conv-dim 16 16 16 16 16 16 16 --data.batch-samples 64000 "
        f"--data.max-samples 16000 --data.min-crop 8000 --data.concatenate 16000 --train.updates 3 {QUICK}",
        "finetune": f"--train.updates 4 --data.batch 8 {QUICK}",
    },
    "vision": {
        "pretrain": f"--preset tiny {WIDTH} --data.batch-images 4 --train.updates 3 {QUICK}",
        "finetune": f"--train.updates 4 --data.batch 8 {QUICK}",
    },
    "text": {
        "pretrain": f"--preset tiny {WIDTH} --data.vocab-size 300 --data.batch-tokens 256 --train.updates 3 {QUICK}",
        "finetune": f"--train.updates 4 --data.batch 256 {QUICK}",
    },
}
LEFT = {  # page -> files that it speaks of
    "speech": ["runs/asr/evaluation/report.html", "subtitles/interview.srt", "interview.html", "features.html"],
    "vision": ["runs/flowers/evaluation/report.html", "photos.html", "features.html"],
    "text": ["runs/reviews/evaluation/report.html"],
}


def commands(page: str) -> list[list[str]]:
    """The lines of its shell blocks, as arguments of ``data2vec``."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)).splitlines()
    assert all(line.startswith("data2vec ") for line in lines), lines
    return [shlex.split(line)[1:] for line in lines]


def smaller(page: str, command: list[str]) -> list[str]:
    added = SMALLER[page].get(command[0], "").split()
    if "--preset" in added:
        place = command.index("--preset")
        command = command[:place] + command[place + 2 :]
    return command + added


def put_data(labelled: Path, here: Path) -> None:
    """What the pages say that there is."""
    shutil.copytree(labelled / "strings", here / "speech")
    shutil.copytree(labelled / "clips", here / "recordings")
    shutil.copy(labelled / "strings/0.wav", here / "interview.wav")
    shutil.copytree(labelled / "pictures", here / "flowers")
    shutil.copytree(labelled / "pictures/train/dark", here / "photos")
    shutil.copytree(labelled / "plain", here / "corpus")
    shutil.copy(labelled / "text.csv", here / "reviews.csv")


@pytest.mark.parametrize("page", SMALLER)
def test_the_tutorial_runs(
    page: str, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_data(labelled, tmp_path)
    monkeypatch.chdir(tmp_path)
    run = commands(page)
    assert [name for name, *_ in run if name != "finetune"] == ["pretrain", "evaluate", "predict", "embed"]
    for command in run:
        assert main(smaller(page, command)) in (0, None), (command, capsys.readouterr().err)
    for name in [*LEFT[page], "features.safetensors"]:
        assert (tmp_path / name).is_file(), name


def test_every_page_is_tried_and_linked() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == set(SMALLER)
    root = PAGES.parents[1]
    for place in ("README.md", "docs/index.md", "mkdocs.yml"):
        text = (root / place).read_text(encoding="utf-8")
        assert all(f"tutorials/{page}.md" in text for page in SMALLER), place
