"""The same training on TensorFlow and on PyTorch: `python benchmarks/keras_fit.py --data ../shared/data/cifar10`.

A small image classifier is fitted to CIFAR-10 with Keras' `fit`, and by a plain loop with the PyTorch class: same first
weights, same images in the same order, same Adam with the same decay to 0, no augmentation, fp32, one thread each. What
must come out: the loss falls, and the accuracies on the held-out images differ by at most two points. Held out are val/
and what train_6000.zip has beyond train/: of val/'s 400 images alone, two points are eight images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data2vec import Data2VecVisionConfig, Data2VecVisionForImageClassification

POINTS = 2.0
Split = tuple[np.ndarray, np.ndarray]


def config() -> Data2VecVisionConfig:
    return Data2VecVisionConfig(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=32,
        patch_size=4,
        use_relative_position_bias=True,
        drop_path_rate=0.0,
        layer_norm_eps=1e-6,
        num_labels=10,
    )


def images(data: Path) -> tuple[Split, Split]:
    """Training and held-out images: pixels (N, 3, 32, 32) from -2 to 2, and class numbers."""
    classes = (data / "classes.txt").read_text().split()
    train, held_out = (
        {_name(file): Image.open(file) for file in sorted(data.glob(f"{part}/*/*.jpg"))} for part in ("train", "val")
    )
    with zipfile.ZipFile(data / "train_6000.zip") as archive:
        for member in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            if _name(Path(member)) not in train:
                held_out[_name(Path(member))] = Image.open(io.BytesIO(archive.read(member)))
    return _arrays(train, classes), _arrays(held_out, classes)


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _arrays(pictures: dict[str, Image.Image], classes: list[str]) -> Split:
    pixels = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures.values()])
    labels = np.array([classes.index(name.partition("/")[0]) for name in pictures])
    return (pixels.transpose(0, 3, 1, 2) / 127.5 - 1) * 2, labels


def steps(train: Split, batch: int) -> int:
    return -(-len(train[1]) // batch)


def orders(count: int, epochs: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.permutation(count) for _ in range(epochs)]


def fit_tensorflow(start: Path, train: Split, held_out: Split, epochs: int, batch: int, rate: float) -> dict[str, Any]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from data2vec import TFData2VecVisionForImageClassification
    from data2vec.keras.backend import keras, tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = TFData2VecVisionForImageClassification.from_pretrained(start)
    decay = keras.optimizers.schedules.PolynomialDecay(rate, epochs * steps(train, batch), end_learning_rate=0.0)
    model.compile(optimizer=keras.optimizers.Adam(decay, epsilon=1e-8), metrics=["accuracy"])
    began, losses = time.process_time(), []
    for order in orders(len(train[1]), epochs):
        data = {"pixel_values": train[0][order], "labels": train[1][order]}
        losses += model.fit(data, batch_size=batch, shuffle=False, verbose=0).history["loss"]
    seconds = time.process_time() - began
    found = model.evaluate(*held_out, batch_size=100, verbose=0, return_dict=True)
    return {"losses": losses, "accuracy": 100 * float(found["accuracy"]), "cpu_seconds": seconds}


def fit_torch(start: Path, train: Split, held_out: Split, epochs: int, batch: int, rate: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = Data2VecVisionForImageClassification.from_pretrained(start).train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    count = epochs * steps(train, batch)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / count)
    x, y = (torch.as_tensor(part) for part in train)
    began, losses = time.process_time(), []
    for order in orders(len(y), epochs):
        total = 0.0
        for rows in torch.as_tensor(order).split(batch):
            optimizer.zero_grad()
            loss = model(x[rows], labels=y[rows]).loss
            loss.backward()
            optimizer.step()
            decay.step()
            total += loss.item() * len(rows)
        losses.append(total / len(y))
    seconds = time.process_time() - began
    with torch.no_grad():
        logits = torch.cat([model.eval()(part).logits for part in torch.as_tensor(held_out[0]).split(100)])
    return {
        "losses": losses,
        "accuracy": 100 * float(np.mean(logits.argmax(1).numpy() == held_out[1])),
        "cpu_seconds": seconds,
    }


def compare(data: Path, epochs: int, batch: int, rate: float) -> dict[str, Any]:
    """Both runs, and whether they do what they must."""
    train, held_out = images(data)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        Data2VecVisionForImageClassification(config()).save_pretrained(folder)
        runs = [fit(Path(folder), train, held_out, epochs, batch, rate) for fit in (fit_tensorflow, fit_torch)]
    ours, theirs = runs
    apart = abs(ours["accuracy"] - theirs["accuracy"])
    return {
        "images": {"train": len(train[1]), "held_out": len(held_out[1])},
        "settings": {"epochs": epochs, "batch": batch, "adam": rate},
        "tensorflow": ours,
        "pytorch": theirs,
        "points_apart": apart,
        "ok": ours["losses"][-1] < ours["losses"][0] and apart <= POINTS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the cifar10 folder")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    options = parser.parse_args()
    found = compare(options.data, options.epochs, options.batch, options.rate)
    for name in ("tensorflow", "pytorch"):
        run = found[name]
        losses = " ".join(f"{loss:.4f}" for loss in run["losses"])
        print(f"{name:10}  accuracy {run['accuracy']:.2f} %  {run['cpu_seconds']:.1f} CPU s  losses {losses}")
    print(f"{found['points_apart']:.2f} points apart (at most {POINTS}): {'ok' if found['ok'] else 'NOT OK'}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    raise SystemExit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
