"""Every way in which people list their files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from data2vec.data.manifest import read_columns, read_manifest
from data2vec.errors import BadSample, UserError

WAV = {".wav"}


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_a_folder_is_searched_sorted_and_rid_of_hidden_files(tmp_path: Path) -> None:
    files(tmp_path, "b/2.wav", "b/1.WAV", "a.wav", ".hidden/3.wav", "._a.wav", "notes.txt", "ü/4.wav")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    manifest = read_manifest(tmp_path, WAV)
    assert manifest.names == ["a.wav", "b/1.WAV", "b/2.wav", "ü/4.wav"]
    assert manifest.describe(1) == str(tmp_path / "b/1.WAV")
    assert manifest.open(0) == tmp_path / "a.wav"
    assert manifest.select([2, 0]).names == ["b/2.wav", "a.wav"]


def test_a_fairseq_tsv_keeps_its_order(tmp_path: Path) -> None:
    files(tmp_path, "audio/z.wav", "audio/a.wav")
    (tmp_path / "train.tsv").write_text("audio\nz.wav\t100\na.wav\t200\n")
    manifest = read_manifest(tmp_path / "train.tsv", WAV)
    assert manifest.names == ["z.wav", "a.wav"]
    assert manifest.root == tmp_path / "audio"
    (tmp_path / "abs.tsv").write_text(f"{tmp_path / 'audio'}\nz.wav\t100\n")
    assert read_manifest(tmp_path / "abs.tsv", WAV).root == tmp_path / "audio"


def test_csv_and_jsonl_keep_their_other_columns(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        'file_name,text\na.wav,"one, two"\nb.wav,"three\nfour"\n', encoding="utf-8-sig"
    )
    manifest = read_manifest(tmp_path / "metadata.csv", WAV)
    assert manifest.names == ["a.wav", "b.wav"]
    assert manifest.columns == {"text": ["one, two", "three\nfour"]}
    rows = [{"audio_filepath": "a.wav", "label": 3}, {"audio_filepath": "b.wav", "extra": [1]}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    manifest = read_manifest(tmp_path / "m.jsonl", WAV)
    assert manifest.names == ["a.wav", "b.wav"]
    assert manifest.columns == {"label": ["3", ""], "extra": ["", "[1]"]}


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("y/b.wav", "y/a.wav", "__MACOSX/y/._a.wav", "readme.txt"):
            archive.writestr(name, name)
    manifest = read_manifest(path, WAV)
    assert manifest.names == ["y/a.wav", "y/b.wav"]
    assert manifest.open(1) == b"y/b.wav"
    assert manifest.describe(1) == f"{path}!y/b.wav"
    data = bytearray(path.read_bytes())
    data[data.index(b"y/a.wav", data.index(b"y/a.wav") + 1)] ^= 1  # a stored byte: its checksum no longer fits
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(BadSample, match=r"bad\.zip!y/a\.wav"):
        read_manifest(tmp_path / "bad.zip", WAV).open(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a.wav\t100\n", "line 1"),
        ("a.tsv", "nowhere\na.wav\t100\n", "does not exist"),
        ("a.tsv", ".\na.wav\n", "line 2"),
        ("a.tsv", ".\n", "holds no"),
        ("a.tsv", "", "line 1"),
        ("a.csv", "", "empty"),
        ("a.csv", "text,label\nx,1\n", "no column of files"),
        ("a.csv", "path,text\na.wav\n", "line 2"),
        ("a.csv", "path,text\n,x\n", "row 1"),
        ("a.jsonl", '{"path": "a.wav"}\n{"path": \n', "line 2"),
        ("a.jsonl", "[1]\n", "line 1"),
        ("a.zip", "no zip", "not a zip"),
        ("a.xyz", "", "not a folder"),
    ],
)
def test_a_broken_list_says_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(tmp_path / name, WAV)
    assert name in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        read_manifest(tmp_path / "gone", WAV)
    with pytest.raises(UserError, match=r"holds no \.wav"):
        read_manifest(tmp_path, WAV)


def test_latin_1_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("path\nü.wav\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_columns(tmp_path / "a.csv")
