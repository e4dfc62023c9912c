"""Pipelines of text: shapes of the answers, batches of mixed lengths, and the models' own numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alike import same

import data2vec
from data2vec.errors import UserError
from data2vec.pipelines.pipeline import pipeline

Folder = Callable[..., Path]
TEXTS = ["The quick brown fox", "To be or not to be, that is the question.", "dog"]
MASKED = ["The quick <mask> fox", "To <mask> or not to <mask>, that is the question.", "<mask>"]
QUESTIONS = [
    {"question": "Who jumps?", "context": "The quick brown fox jumps over the lazy dog. " * 4},
    {"question": "What is that?", "context": "That is the question."},
]
CHOICES = [
    {"prompt": "The fox", "choices": ["jumps", "is the question", "dog"]},
    {"prompt": "To be", "choices": ["or", "not"]},
]
CASES: list[tuple[str, str, dict[str, Any], list[Any]]] = [
    ("fill-mask", "ForMaskedLM", {"top_k": 3}, MASKED),
    ("text-generation", "ForCausalLM", {"max_new_tokens": 4}, TEXTS),
    ("text-classification", "ForSequenceClassification", {"top_k": None}, TEXTS),
    ("token-classification", "ForTokenClassification", {}, TEXTS),
    ("question-answering", "ForQuestionAnswering", {"top_k": 2}, QUESTIONS),
    ("multiple-choice", "ForMultipleChoice", {}, CHOICES),
    ("feature-extraction", "Model", {}, TEXTS),
]


@pytest.mark.parametrize(("task", "name", "options", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_alone_as_in_a_batch(folder: Folder, task: str, name: str, options: dict[str, Any], inputs: list[Any]) -> None:
    run = pipeline(task, folder(f"Data2VecText{name}"), **options)
    together = run(inputs, batch_size=len(inputs))
    same(together, run(inputs, batch_size=1))
    same(together, run(iter(inputs), batch_size=2))
    same(together[1], run(inputs[1]))


def test_fill_mask(folder: Folder) -> None:
    run = pipeline("fill-mask", folder("Data2VecTextForMaskedLM"))
    found = run(MASKED[0])
    ids = run.processor(MASKED[0])["input_ids"]
    place = ids.index(run.processor.mask_token_id)
    expected = run.model(torch.tensor([ids])).logits[0, place].softmax(-1).topk(5)
    assert [row["token"] for row in found] == expected.indices.tolist()
    assert [row["score"] for row in found] == pytest.approx(expected.values.tolist(), abs=1e-6)
    assert found[0]["token_str"] == run.processor.decode([found[0]["token"]])
    assert "<mask>" not in found[0]["sequence"]
    assert [len(rows) for rows in run(MASKED[1], top_k=2)] == [2, 2]
    with pytest.raises(UserError, match="has no <mask>"):
        run("no such thing")


def test_classification_as_transformers_shapes_it(folder: Folder) -> None:
    run = pipeline("text-classification", folder("Data2VecTextForSequenceClassification"))
    one = run(TEXTS[0])
    assert isinstance(one, list)
    assert one[0].keys() == {"label", "score"}
    assert run(TEXTS[:2]) == [one[0], run(TEXTS[1])[0]]
    every = run(TEXTS[0], top_k=None)
    assert sum(row["score"] for row in every) == pytest.approx(1)
    assert every[0] == one[0]
    pair = run({"text": TEXTS[0], "text_pair": TEXTS[1]}, top_k=None)
    assert pair != every
    assert 0 < run(TEXTS[0], function_to_apply="sigmoid")[0]["score"] < 1
    with pytest.raises(UserError, match="function_to_apply"):
        run(TEXTS[0], function_to_apply="tanh")


def test_text_goes_on(folder: Folder) -> None:
    run = pipeline("text-generation", folder("Data2VecTextForCausalLM"), max_new_tokens=5)
    text = run(TEXTS[0])[0]["generated_text"]
    assert text.startswith(TEXTS[0])
    assert run(TEXTS[0], return_full_text=False)[0]["generated_text"] == text.removeprefix(TEXTS[0])
    assert len(run(TEXTS[0], num_return_sequences=2, num_beams=2)) == 2


def test_tokens_and_groups(folder: Folder) -> None:
    labels = {0: "O", 1: "B-X", 2: "I-X"}
    run = pipeline("token-classification", folder("Data2VecTextForTokenClassification", num_labels=3, id2label=labels))
    text = TEXTS[1]
    found = run(text, ignore_labels=())
    ids = run.processor(text)["input_ids"]
    assert [row["index"] for row in found] == list(range(1, len(ids) - 1))
    best = run.model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    assert [row["entity"] for row in found] == [labels[i] for i in best[1:-1]]
    assert "".join(text[row["start"] : row["end"]] for row in found).replace(" ", "") == text.replace(" ", "")
    groups = run(text, aggregation_strategy="simple", ignore_labels=())
    assert [group["word"] for group in groups] == [text[g["start"] : g["end"]].strip() for g in groups]
    assert groups[0].keys() == {"entity_group", "score", "word", "start", "end"}
    assert len(groups) <= len(found)
    assert {row["entity"] for row in run(text)} <= {"B-X", "I-X"}


def test_answers_lie_in_the_context(folder: Folder) -> None:
    run = pipeline("question-answering", folder("Data2VecTextForQuestionAnswering"))
    for given in QUESTIONS:
        found = run(given)
        assert found["answer"] == given["context"][found["start"] : found["end"]]
        assert 0 < found["score"] <= 1
        assert run(**given) == found
    ranked = run(QUESTIONS[0], top_k=4, handle_impossible_answer=True)
    assert [row["score"] for row in ranked] == sorted((row["score"] for row in ranked), reverse=True)
    short = run(QUESTIONS[1], max_answer_len=1)
    assert len(run.processor(short["answer"], add_special_tokens=False)["input_ids"]) == 1
    with pytest.raises(UserError, match="empty"):
        run(question="Who?", context=" ")
    with pytest.raises(UserError, match="give"):
        run("Who?")
    with pytest.raises(UserError, match="the question has"):
        run(question="Who? " * 30, context="That.")


def test_choices(folder: Folder) -> None:
    run = pipeline("multiple-choice", folder("Data2VecTextForMultipleChoice"))
    found = run(CHOICES[0])
    assert found == run(**CHOICES[0])
    assert found["answer"] == CHOICES[0]["choices"][found["choice"]]
    assert found["score"] == max(found["scores"])
    assert sum(found["scores"]) == pytest.approx(1)
    with pytest.raises(UserError, match="choices"):
        run({"prompt": "x", "choices": []})


def test_features_with_data2vec_2(folder: Folder) -> None:
    path = folder("Data2VecTextModel")
    tensor = pipeline("feature-extraction", path)(TEXTS[0], return_tensors=True)
    ids = data2vec.RobertaTokenizer.from_pretrained(path)(TEXTS[0])["input_ids"]
    assert tensor.shape == (1, len(ids), 32)
    config = data2vec.Data2Vec2TextConfig(
        vocab_size=400,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_extra_tokens=2,
    )
    run = pipeline("feature-extraction", data2vec.Data2Vec2TextModel(config), processor=path)
    same(run(TEXTS, batch_size=3), run(TEXTS))


def test_no_text(folder: Folder) -> None:
    run = pipeline("text-classification", folder("Data2VecTextForSequenceClassification"))
    for bad in (3, "", {"words": "x"}):
        with pytest.raises(UserError, match="text"):
            run(bad)
    with pytest.raises(UserError, match="give an input"):
        run()
    long = run("fox " * 200)  # cut to what the model can read
    assert len(long) == 1
