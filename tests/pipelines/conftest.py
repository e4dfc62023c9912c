"""Tiny models with their processors, in folders, as a user has them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data2vec.processing.audio import Wav2Vec2FeatureExtractor
from data2vec.processing.bpe import load_bpe, save_bpe, train_bpe
from data2vec.processing.ctc import Wav2Vec2CTCTokenizer
from data2vec.processing.speech import Wav2Vec2Processor
from data2vec.processing.vision import BeitImageProcessor

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "models")]  # alike, zoo

PROSE = "The quick brown fox jumps over the lazy dog. To be or not to be, that is the question. "


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(class name, fields) -> a folder with such a model and what prepares its input; made once."""
    import zoo  # found by the path set above

    made: dict[Any, Path] = {}
    bpe = tmp_path_factory.mktemp("bpe")
    save_bpe(train_bpe([PROSE] * 4, vocab_size=300), bpe)

    def make(name: str, **fields: Any) -> Path:
        key = (name, str(fields))
        if key not in made:
            path = made[key] = tmp_path_factory.mktemp(name)
            if "Audio" in name[:14]:
                extractor = Wav2Vec2FeatureExtractor()
                tokens = Wav2Vec2CTCTokenizer(
                    {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIS"])}
                )
                Wav2Vec2Processor(extractor, tokens).save_pretrained(path)
            elif "Text" in name[:14]:
                save_bpe(load_bpe(bpe), path, max_length=38)
                fields = {"vocab_size": load_bpe(bpe).get_vocab_size(), "pad_token_id": 1, **fields}
            else:
                BeitImageProcessor(size=32, crop_size=32).save_pretrained(path)
            zoo.build(name, **fields).save_pretrained(path)
        return made[key]

    return make
