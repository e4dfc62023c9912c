"""The usage samples of the documented classes, with our names and tiny models of our own; without its NameError.

The documentation imports `Data2VecAudioForCTC` and then calls `AutoModelForCTC`; both are names here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data2vec
from data2vec.processing.bpe import save_bpe, train_bpe

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import zoo

SOUND = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 48, 3), dtype=np.uint8))
LETTERS = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDE"])}


def saved(folder: Path, name: str, **fields: Any) -> str:
    """A checkpoint with its processor, in the place of the documentation's hub ids."""
    if "Audio" in name:
        tokens = data2vec.Wav2Vec2CTCTokenizer(LETTERS)
        data2vec.Wav2Vec2Processor(data2vec.Wav2Vec2FeatureExtractor(), tokens).save_pretrained(folder)
        fields = {"vocab_size": len(LETTERS), **fields} if "CTC" in name else fields
    elif "Text" in name:
        bpe = train_bpe(["Hello, my dog is cute. The capital of France is Paris."] * 3, 300)
        save_bpe(bpe, folder, max_length=38)
        fields = {"vocab_size": bpe.get_vocab_size(), "pad_token_id": 1, **fields}
    else:
        data2vec.BeitImageProcessor(size=32, crop_size=32).save_pretrained(folder)
    zoo.build(name, **fields).save_pretrained(folder)
    return str(folder)


def test_a_model_from_a_configuration() -> None:
    for name in ("Data2VecAudio", "Data2VecText", "Data2VecVision"):
        configuration = getattr(data2vec, f"{name}Config")(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        model = getattr(data2vec, f"{name}Model")(configuration)
        assert model.config is configuration


def test_speech_to_text_and_its_loss(tmp_path: Path) -> None:
    from data2vec import AutoModelForCTC, AutoProcessor

    checkpoint = saved(tmp_path, "Data2VecAudioForCTC")
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForCTC.from_pretrained(checkpoint)
    inputs = processor(SOUND, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    predicted_ids = torch.argmax(logits, dim=-1)
    transcription = processor.batch_decode(predicted_ids)
    said = re.sub("<[a-z/]+>", "", transcription[0])  # an untrained model's special tokens
    assert len(transcription) == 1 and set(said) <= set("ABCDE ")
    inputs["labels"] = processor(text="BAD CAB", return_tensors="pt").input_ids
    assert model(**inputs).loss > 0


@pytest.mark.parametrize("task", ["SequenceClassification", "AudioFrameClassification", "XVector"])
def test_sounds_have_classes_frames_and_speakers(tmp_path: Path, task: str) -> None:
    name = f"Data2VecAudioFor{task}"
    checkpoint = saved(tmp_path, name)
    feature_extractor = data2vec.AutoFeatureExtractor.from_pretrained(checkpoint)
    model = getattr(data2vec, name).from_pretrained(checkpoint)
    inputs = feature_extractor([SOUND, SOUND[:5000]], sampling_rate=16_000, return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model(**inputs)
    if task == "SequenceClassification":
        assert model.config.id2label[int(output.logits[0].argmax(-1))]
    elif task == "AudioFrameClassification":
        assert ((torch.sigmoid(output.logits[0]) > 0.5).long()).shape == output.logits[0].shape
    else:
        embeddings = torch.nn.functional.normalize(output.embeddings, dim=-1)
        assert -1 <= torch.nn.CosineSimilarity(dim=-1)(embeddings[0], embeddings[1]) <= 1


def test_a_masked_word_and_its_loss(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, "Data2VecTextForMaskedLM")
    tokenizer = data2vec.AutoTokenizer.from_pretrained(checkpoint)
    model = data2vec.Data2VecTextForMaskedLM.from_pretrained(checkpoint)
    inputs = tokenizer("The capital of France is <mask>.", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    mask_token_index = (inputs.input_ids == tokenizer.mask_token_id)[0].nonzero(as_tuple=True)[0]
    assert isinstance(tokenizer.decode(logits[0, mask_token_index].argmax(dim=-1).tolist()), str)
    labels = torch.where(inputs.input_ids == tokenizer.mask_token_id, 7, -100)
    assert model(**inputs, labels=labels).loss > 0


@pytest.mark.parametrize("task", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "CausalLM"])
def test_texts_have_classes_answers_and_ends(tmp_path: Path, task: str) -> None:
    name = f"Data2VecTextFor{task}"
    checkpoint = saved(tmp_path, name)
    tokenizer = data2vec.AutoTokenizer.from_pretrained(checkpoint)
    model = getattr(data2vec, name).from_pretrained(checkpoint)
    if task == "QuestionAnswering":
        inputs = tokenizer("Is my dog cute?", "My dog is cute.", return_tensors="pt")
        loss = model(**inputs, start_positions=torch.tensor([3]), end_positions=torch.tensor([5])).loss
    else:
        inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
        labels = torch.tensor([1]) if task == "SequenceClassification" else inputs.input_ids % 3
        loss = model(**inputs, labels=labels).loss
    assert loss > 0


def test_choices_share_a_prompt(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, "Data2VecTextForMultipleChoice")
    tokenizer = data2vec.AutoTokenizer.from_pretrained(checkpoint)
    model = data2vec.Data2VecTextForMultipleChoice.from_pretrained(checkpoint)
    prompt = "My dog is cute."
    encoding = tokenizer([prompt, prompt], ["Hello dog", "Paris"], return_tensors="pt", padding=True)
    outputs = model(**{k: v.unsqueeze(0) for k, v in encoding.items()}, labels=torch.tensor(0).unsqueeze(0))
    assert outputs.loss > 0 and outputs.logits.shape == (1, 2)


@pytest.mark.parametrize("task", ["ImageClassification", "SemanticSegmentation"])
def test_pictures_have_classes_and_maps(tmp_path: Path, task: str) -> None:
    name = f"Data2VecVisionFor{task}"
    checkpoint = saved(tmp_path, name)
    image_processor = data2vec.AutoImageProcessor.from_pretrained(checkpoint)
    model = getattr(data2vec, name).from_pretrained(checkpoint)
    inputs = image_processor(images=PICTURE, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    if task == "ImageClassification":
        assert model.config.id2label[outputs.logits.argmax(-1).item()]
    else:
        (found,) = image_processor.post_process_semantic_segmentation(outputs, target_sizes=[PICTURE.size[::-1]])
        assert found.shape == (40, 48)
