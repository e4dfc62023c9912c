"""Tiny encoders as pre-training leaves them, and tiny labelled data of every task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from data2vec.models.audio.config import Data2VecAudioConfig
from data2vec.models.audio.model import Data2VecAudioModel
from data2vec.models.text.config import Data2VecTextConfig
from data2vec.models.text.model import Data2VecTextModel
from data2vec.models.v2.audio import Data2Vec2AudioModel
from data2vec.models.v2.config import Data2Vec2AudioConfig, Data2Vec2TextConfig, Data2Vec2VisionConfig
from data2vec.models.v2.text import Data2Vec2TextModel
from data2vec.models.v2.vision import Data2Vec2VisionModel
from data2vec.models.vision.config import Data2VecVisionConfig
from data2vec.models.vision.model import Data2VecVisionModel
from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.bpe import save_bpe, special_ids, train_bpe
from data2vec.processing.vision import BeitImageProcessor

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
RATE = 16_000
WORDS = ("the", "cat", "dog", "sat", "ran", "in", "rome", "paris", "ann", "bob", "good", "bad", "day")


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each modality."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    audio = Data2VecAudioModel(
        Data2VecAudioConfig(
            **SIZE, conv_dim=(16,) * 7, num_conv_pos_embeddings=1, conv_pos_kernel_size=3, layerdrop=0.0,
            num_conv_pos_embedding_groups=2, mask_time_min_masks=0,
        )
    )  # fmt: skip
    audio.save_pretrained(root / "audio")
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(root / "audio")
    tokenizer = train_bpe([" ".join(WORDS)] * 5, 320)
    ids = {f"{name}_token_id": index for name, index in special_ids(tokenizer).items() if name != "unk"}
    text = Data2VecTextConfig(
        **SIZE, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=34, type_vocab_size=1, **ids
    )
    Data2VecTextModel(text, add_pooling_layer=False).save_pretrained(root / "text")
    save_bpe(tokenizer, root / "text", max_length=text.max_length)
    vision = Data2VecVisionConfig(
        **{**SIZE, "num_hidden_layers": 4}, image_size=16, patch_size=4, use_mask_token=True, drop_path_rate=0.0,
        use_shared_relative_position_bias=True, use_mean_pooling=False, pool_scales=(1, 2), auxiliary_channels=8,
    )  # fmt: skip
    Data2VecVisionModel(vision).save_pretrained(root / "vision")
    BeitImageProcessor(size=16).save_pretrained(root / "vision")
    return {name: root / name for name in ("audio", "text", "vision")}


@pytest.fixture(scope="session")
def encoders2(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same of data2vec 2."""
    root = tmp_path_factory.mktemp("encoders2")
    for name, folder in encoders.items():
        shutil.copytree(folder, root / name)
        (root / name / "model.safetensors").unlink()
    torch.manual_seed(0)
    more = {"prenet_depth": 1, "prenet_dropout": 0.0}
    audio = Data2Vec2AudioConfig(
        **SIZE, **more, conv_dim=(16,) * 7, num_conv_pos_embeddings=1, conv_pos_kernel_size=3, layerdrop=0.0,
        num_conv_pos_embedding_groups=2, mask_time_min_masks=0,
    )  # fmt: skip
    Data2Vec2AudioModel(audio).save_pretrained(root / "audio")
    old = Data2VecTextConfig.from_pretrained(encoders["text"])
    ids = {name: getattr(old, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    text = Data2Vec2TextConfig(**SIZE, **more, vocab_size=old.vocab_size, max_position_embeddings=34, **ids)
    Data2Vec2TextModel(text).save_pretrained(root / "text")
    vision = Data2Vec2VisionConfig(
        **{**SIZE, "num_hidden_layers": 4}, **more, image_size=16, patch_size=4, pool_scales=(1, 2),
        auxiliary_channels=8,
    )  # fmt: skip
    Data2Vec2VisionModel(vision).save_pretrained(root / "vision")
    return {name: root / name for name in encoders}


def tone(pitch: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    t = np.arange(round(RATE * seconds)) / RATE
    wave = np.sign(np.sin(2 * np.pi * pitch * t)) * 0.3 + 0.01 * rng.standard_normal(len(t))
    return wave.astype(np.float32)


def split(index: int) -> str:
    return "dev" if index // 2 % 4 == 0 else "train"


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a task, in the formats people have."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for name in ("clips", "turns/audio", "seg/images/train", "seg/images/val", "seg/masks/train", "seg/masks/val"):
        (root / name).mkdir(parents=True)
    _clips(root / "clips", rng)
    _turns(root / "turns", rng)
    _pictures(root, rng)
    _texts(root, rng)
    _strings(root / "strings", rng)
    return root


def _clips(folder: Path, rng: np.random.Generator) -> None:
    rows, trials = ["file_name,label,speaker,transcription,split"], []
    for i in range(16):
        high = i % 2
        soundfile.write(folder / f"{i}.wav", tone(1500 if high else 200, 0.3 + 0.02 * (i % 3), rng), RATE)
        rows.append(
            f"{i}.wav,{'high' if high else 'low'},{'ann' if high else 'bob'},{'HI' if high else 'LO'},{split(i)}"
        )
        trials.append(f"{int(i % 2 == 0)} 0.wav {i}.wav")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "trials_dev.txt").write_text("\n".join(trials) + "\n")


def _strings(folder: Path, rng: np.random.Generator) -> None:
    """Two letters, each a tone, with a pause between: what a recogniser learns within seconds."""
    folder.mkdir()
    rows, pause = ["file_name,transcription,split"], np.zeros(RATE // 10, np.float32)
    for i in range(32):
        text = "".join(rng.choice(["A", "B"], 2 + i % 2))
        tones = [part for letter in text for part in (tone({"A": 200, "B": 1500}[letter], 0.12, rng), pause)]
        soundfile.write(folder / f"{i}.wav", np.concatenate([pause, *tones]), RATE)
        rows.append(f"{i}.wav,{text},{split(i)}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def _turns(folder: Path, rng: np.random.Generator) -> None:
    lines: dict[str, list[str]] = {"train": [], "dev": []}
    for i in range(6):
        wave = np.concatenate([tone(200, 0.5, rng), np.zeros(RATE // 4, np.float32), tone(1500, 0.5, rng)])
        soundfile.write(folder / f"audio/r{i}.wav", wave, RATE)
        lines[split(i)] += [
            f"SPEAKER r{i} 1 0.000 0.500 <NA> <NA> bob <NA> <NA>",
            f"SPEAKER r{i} 1 0.750 0.500 <NA> <NA> ann <NA> <NA>",
        ]
    for side, rows in lines.items():
        (folder / f"{side}.rttm").write_text("\n".join(rows) + "\n")


def _pictures(root: Path, rng: np.random.Generator) -> None:
    for i in range(16):
        side, name = {"train": "train", "dev": "val"}[split(i)], ("dark", "light")[i % 2]
        (root / f"pictures/{side}/{name}").mkdir(parents=True, exist_ok=True)
        base = 40 if name == "dark" else 200
        pixels = np.clip(base + rng.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"pictures/{side}/{name}/{i}.png")
    for i in range(8):
        side = {"train": "train", "dev": "val"}[split(i)]
        labels = np.zeros((20, 24), dtype=np.uint8)
        labels[:, 12:] = 1
        labels[:2] = 2
        picture = np.where(labels[..., None] == 1, 210, 30) + rng.integers(-20, 20, (20, 24, 3))
        Image.fromarray(picture.astype(np.uint8)).save(root / f"seg/images/{side}/{i}.png")
        Image.fromarray(labels).save(root / f"seg/masks/{side}/{i}.png")
    (root / "seg/classes.csv").write_text("index,name\n0,dark\n1,light\n2,void\n")


def _texts(root: Path, rng: np.random.Generator) -> None:
    texts, ner, qas = ["text,label,split"], {"train": "", "dev": ""}, {"train": [], "dev": []}
    choices = {"train": "", "dev": ""}
    for i in range(32):
        side, good = split(i), bool(i % 2)
        name, place = rng.choice(["ann", "bob"]), rng.choice(["rome", "paris"])
        texts.append(f"the {rng.choice(['cat', 'dog'])} sat {'good' if good else 'bad'} day,{int(good)},{side}")
        ner[side] += f"{name}\tB-PER\nran\tO\nin\tO\n{place}\tB-LOC\n\n"
        context = f"the cat sat in {place}"
        answer = {"text": place, "answer_start": context.index(place)}
        qas[side].append({"id": str(i), "question": "in", "answers": [answer]})  # type: ignore[attr-defined]
        qas[side][-1] = {"context": context, "qas": [qas[side][-1]]}  # type: ignore[index]
        row = {"sent1": "the cat", "sent2": "", "ending0": "good day", "ending1": "bad dog", "label": 0}
        if good:
            row |= {"ending0": row["ending1"], "ending1": row["ending0"], "label": 1}
        choices[side] += json.dumps(row) + "\n"
    (root / "text.csv").write_text("\n".join(texts) + "\n")
    for folder in ("ner", "qa", "choices", "plain"):
        (root / folder).mkdir()
    for side in ("train", "dev"):
        (root / f"ner/{side}.conll").write_text(ner[side])
        (root / f"qa/{side}.json").write_text(json.dumps({"data": [{"paragraphs": qas[side]}]}))
        (root / f"choices/{side}.jsonl").write_text(choices[side])
        (root / f"plain/{side}.txt").write_text("the cat sat in rome\n\n" * (400 if side == "train" else 60))
