"""What a probe reads: labelled files in the forms people have them."""

import zipfile
from pathlib import Path

import pytest
from torch import nn

from data2vec.data.labelled.example import Example, Splits, opened
from data2vec.errors import UserError
from data2vec.evaluation.frozen import Frozen, labelled_items


def texts() -> Frozen:
    """A model of text."""
    return Frozen(nn.Identity(), lambda items: {}, frozenset({".txt"}), text=True)  # type: ignore[arg-type]


def read(source: Path, *, seed: int = 0) -> Splits:
    """As a model of pictures reads them."""
    frozen = Frozen(nn.Identity(), prepare=lambda items: {}, suffixes=frozenset({".png"}))  # type: ignore[arg-type]
    return labelled_items(frozen, source, seed=seed)


def labels(side: list[Example]) -> list[str]:
    return [example.target for example in side]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_folders_are_classes_and_a_fifth_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)))
    splits = read(tmp_path)
    assert (len(splits.train), len(splits.dev)) == (16, 4)
    assert all(example.input.parent.name == example.target for example in splits.all)
    assert len({example.input for example in splits.all}) == 20
    assert read(tmp_path) == splits
    assert read(tmp_path, seed=1) != splits


@pytest.mark.parametrize("held", ["dev", "val", "Validation", "test"])
def test_folders_within_a_split(tmp_path: Path, held: str) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{held}/cat/3.png", f"{held}/dog/4.png")
    splits = read(tmp_path)
    assert (labels(splits.train), labels(splits.dev)) == (["cat", "dog"], ["cat", "dog"])


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.png" for name in ("test", "other") for i in range(5)))
    assert set(labels(read(tmp_path).all)) == {"test", "other"}


def test_a_zip_is_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png"):
            file.writestr(name, name)
    splits = read(tmp_path / "all.zip")
    assert [opened(example.input) for example in splits.train] == [b"train/a/1.png", b"train/b/2.png"]
    assert (labels(splits.train), labels(splits.dev)) == (["a", "b"], ["a"])


def test_a_table_with_a_split(tmp_path: Path) -> None:
    rows = ["file_name,label,split", "1.png,a,train", "2.png,b,train", "3.png,b,test"]
    (touch(tmp_path, "1.png", "2.png", "3.png") / "metadata.csv").write_text("\n".join(rows))
    splits = read(tmp_path / "metadata.csv")
    assert (labels(splits.train), [example.input for example in splits.dev]) == (["a", "b"], [tmp_path / "3.png"])


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_two_tables_of_texts(tmp_path: Path, suffix: str) -> None:
    comma = "," if suffix == "csv" else "\t"
    (tmp_path / f"train.{suffix}").write_text("text,topic\nballs fly,sports\nshares fall,money\n".replace(",", comma))
    (tmp_path / f"dev.{suffix}").write_text("text,topic\nbanks lend,money\n".replace(",", comma))
    splits = labelled_items(texts(), tmp_path, column="topic")
    assert [example.input for example in splits.train] == ["balls fly", "shares fall"]
    assert labels(splits.dev) == ["money"]


def test_text_files_in_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.txt", "train/b/2.txt", "dev/a/3.txt")
    splits = labelled_items(texts(), tmp_path)
    assert (labels(splits.train), labels(splits.dev)) == (["a", "b"], ["a"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file_name,class\n1.png,a\n")
    with pytest.raises(UserError, match="no column 'label' among file_name, class"):
        read(tmp_path / "t.csv")
    touch(tmp_path / "folder", "loose.png", "cat/1.png")
    with pytest.raises(UserError, match=r"loose\.png lies in no folder"):
        read(tmp_path / "folder")
    (tmp_path / "s.csv").write_text("file_name,label,split\nfolder/loose.png,a,train\n")
    with pytest.raises(UserError, match="1 examples to train on and 0 held out"):
        read(tmp_path / "s.csv")
    (tmp_path / "m.jsonl").write_text('{"text": "both", "label": ["a", "b"]}\n' * 5)
    with pytest.raises(UserError, match=r"m\.jsonl: line \d: has several labels"):
        labelled_items(texts(), tmp_path / "m.jsonl")
