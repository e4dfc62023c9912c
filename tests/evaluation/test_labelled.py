"""Labelled files in the forms people have them."""

import zipfile
from pathlib import Path

import pytest

from data2vec.errors import UserError
from data2vec.evaluation.labelled import read_labelled

PNG = frozenset({".png"})


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_folders_are_classes_and_a_fifth_is_held_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)))
    train, dev = read_labelled(tmp_path, PNG)
    assert (len(train.items), len(dev.items)) == (16, 4)
    for part in (train, dev):
        assert all(
            isinstance(item, Path) and item.parent.name == label
            for item, label in zip(part.items, part.labels, strict=True)
        )
    assert not {*map(str, train.items)} & {*map(str, dev.items)}
    assert read_labelled(tmp_path, PNG) == (train, dev)
    assert read_labelled(tmp_path, PNG, seed=1) != (train, dev)


@pytest.mark.parametrize("held", ["dev", "val", "Validation", "test"])
def test_folders_within_a_split(tmp_path: Path, held: str) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{held}/cat/3.png", f"{held}/dog/4.png")
    train, dev = read_labelled(tmp_path, PNG)
    assert (train.labels, dev.labels) == (["cat", "dog"], ["cat", "dog"])


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.png" for name in ("test", "other") for i in range(5)))
    train, dev = read_labelled(tmp_path, PNG)
    assert {*train.labels, *dev.labels} == {"test", "other"}


def test_a_zip_is_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png"):
            file.writestr(name, name)
    train, dev = read_labelled(tmp_path / "all.zip", PNG)
    assert train.items == [b"train/a/1.png", b"train/b/2.png"]
    assert (train.labels, dev.labels) == (["a", "b"], ["a"])


def test_a_table_with_a_split(tmp_path: Path) -> None:
    rows = ["file_name,label,split", "1.png,a,train", "2.png,b,train", "3.png,b,test", "4.png,a,unused"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    train, dev = read_labelled(tmp_path / "metadata.csv", PNG)
    assert (train.labels, dev.items) == (["a", "b"], [tmp_path / "3.png"])


def test_two_tables_of_texts(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,topic\nballs fly,sports\nshares fall,money\n")
    (tmp_path / "dev.csv").write_text("text,topic\nbanks lend,money\n")
    train, dev = read_labelled(tmp_path, frozenset({".txt"}), column="topic", text="text")
    assert train.items == ["balls fly", "shares fall"]
    assert (dev.items, dev.labels) == (["banks lend"], ["money"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file_name,class\n1.png,a\n")
    with pytest.raises(UserError, match="no column 'label' among class"):
        read_labelled(tmp_path / "t.csv", PNG)
    touch(tmp_path, "loose.png", "cat/1.png")
    with pytest.raises(UserError, match=r"loose\.png lies in no folder"):
        read_labelled(tmp_path, PNG)
    (tmp_path / "s.csv").write_text("file_name,label,split\n1.png,a,train\n2.png,b,train\n")
    with pytest.raises(UserError, match="2 items to train a probe and 0 held out"):
        read_labelled(tmp_path / "s.csv", PNG)
