"""Text heads and the decoder: cache, positions, padding, masks of heads, relative positions, resizing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn

from data2vec import Data2VecTextForCausalLM, Data2VecTextForMaskedLM, Data2VecTextModel, UserError

LM = "Data2VecTextForCausalLM"
RELATIVE = ("absolute", "relative_key", "relative_key_query")


def causal(**changes: Any) -> Data2VecTextForCausalLM:
    """A decoder whose logits differ enough to write something."""
    model = zoo.build(LM, initializer_range=0.3, **changes)
    assert isinstance(model, Data2VecTextForCausalLM)
    return model


# ---- cache and positions


@pytest.mark.parametrize("positions", RELATIVE)
@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("masked", [True, False])
def test_cached_steps_equal_the_whole_pass(positions: str, side: str, masked: bool) -> None:
    """Logits at every token, one by one and three at a time, for every padding."""
    model = causal(position_embedding_type=positions)
    batch = zoo.text_batch((12, 12 if side == "none" else 7))
    if side == "left":
        batch = {key: value.flip(1) for key, value in batch.items()}
    ids, mask = batch["input_ids"], batch["attention_mask"] if masked else None
    whole = model(ids, mask).logits
    cache, pieces = None, []
    for start, end in ((0, 5), (5, 6), (6, 9), (9, 12)):
        seen = None if mask is None else mask[:, :end]
        output = model(ids[:, start:end], seen, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        pieces.append(output.logits)
    valid = batch["attention_mask"].bool()
    assert torch.allclose(torch.cat(pieces, 1)[valid], whole[valid], rtol=1e-5, atol=1e-5)


def test_left_padding_changes_no_logits() -> None:
    model = causal()
    ids = zoo.text_batch((7,))["input_ids"]
    padded = nn.functional.pad(ids, (5, 0), value=1)
    mask = (padded != 1).long()
    alone = model(ids).logits
    assert torch.allclose(model(padded, mask).logits[:, 5:], alone, atol=1e-5)
    embedded = model.data2vec_text.frontend(padded)
    assert torch.allclose(model(None, mask, inputs_embeds=embedded).logits[:, 5:], alone, atol=1e-5)


def test_the_reference_miscounts_after_a_padded_cache_and_for_embeddings() -> None:
    ids = zoo.text_batch((8,))["input_ids"]
    padded = nn.functional.pad(ids, (3, 0), value=1)
    mask = (padded != 1).long()
    for compat, right in (({}, True), ({"compat": "transformers"}, False)):
        model = causal(**compat)
        whole = model(padded, mask).logits[:, -1]
        cache = model(padded[:, :-1], mask[:, :-1], use_cache=True).past_key_values
        stepped = model(padded[:, -1:], mask, past_key_values=cache).logits[:, -1]
        assert torch.allclose(stepped, whole, atol=1e-4) is right
        embedded = model.data2vec_text.frontend(padded)
        from_embeddings = model(None, mask, inputs_embeds=embedded).logits[:, -1]
        assert torch.allclose(from_embeddings, whole, atol=1e-4) is right


def test_a_text_over_the_maximum_is_one_clear_error() -> None:
    ids = torch.full((1, 39), 5)
    with pytest.raises(UserError, match="39 tokens; max_position_embeddings 40 allows 38"):
        causal()(ids)
    with pytest.raises(UserError, match=r"30 tokens and 9 new ones are more than the 38 positions"):
        causal().generate(ids[:, :30], max_new_tokens=9)
    assert causal().generate(ids[:, :30], max_new_tokens=8, eos_token_id=()).shape == (1, 38)
    cache = causal()(ids[:, :38], use_cache=True).past_key_values
    with pytest.raises(UserError, match="39 tokens"):
        causal()(ids[:, :1], past_key_values=cache)


def test_cross_attention_keys_are_computed_once() -> None:
    model = causal(add_cross_attention=True)
    ids = zoo.text_batch((6,))["input_ids"]
    context, mask = torch.randn(1, 5, 32), torch.tensor([[1, 1, 1, 0, 0]])
    options = {"encoder_hidden_states": context, "encoder_attention_mask": mask}
    whole = model(ids, **options).logits
    cache = model(ids[:, :4], use_cache=True, **options).past_key_values
    keys = cache.cross_attention[0].key
    stepped = model(ids[:, 4:], past_key_values=cache, **options).logits
    assert cache.cross_attention[0].key is keys
    assert torch.allclose(stepped, whole[:, 4:], atol=1e-5)
    assert torch.allclose(whole, model(ids, encoder_hidden_states=context[:, :3]).logits, atol=1e-5)
    assert not torch.allclose(whole, model(ids).logits, atol=1e-3)
    with pytest.raises(UserError, match="add_cross_attention"):
        causal()(ids, encoder_hidden_states=context)
    with pytest.raises(UserError, match="is_decoder=True"):
        zoo.build("Data2VecTextModel", add_cross_attention=True, is_decoder=False)


def test_the_loss_looks_one_token_ahead() -> None:
    model, batch = causal(), zoo.text_batch()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    output = model(**batch, labels=labels)
    scores = output.logits.log_softmax(-1)
    wanted = [-scores[b, t, labels[b, t + 1]] for b in range(2) for t in range(11) if labels[b, t + 1] >= 0]
    assert torch.allclose(output.loss, torch.stack(wanted).mean(), rtol=1e-5)
    assert output.past_key_values is None
    assert torch.equal(model(**batch, logits_to_keep=2).logits, model(**batch).logits[:, -2:])


def test_a_decoder_trains_with_checkpointing_whatever_its_cache() -> None:
    model = causal().train()
    model.gradient_checkpointing_enable()
    output = model(**zoo.text_batch())
    assert output.past_key_values is None
    output.logits.sum().backward()


def test_a_model_that_sees_the_future_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="data2vec"):
        model = causal(is_decoder=False)
    assert "is_decoder=True" in caplog.text
    with pytest.raises(UserError, match="is_decoder=True"):
        model.generate(torch.tensor([[5]]))


# ---- losses


def test_a_loss_of_nothing_is_nothing() -> None:
    """The reference gives NaN."""
    batch = zoo.text_batch()
    masked = zoo.build("Data2VecTextForMaskedLM")
    assert masked(**batch, labels=torch.full((2, 12), -100)).loss == 0
    answers = zoo.build("Data2VecTextForQuestionAnswering")
    outside = torch.tensor([12, 99])
    assert answers(**batch, start_positions=outside, end_positions=outside).loss == 0


def test_question_answering_is_the_mean_of_both_ends() -> None:
    model, batch = zoo.build("Data2VecTextForQuestionAnswering"), zoo.text_batch()
    start, end = torch.tensor([[1], [3]]), torch.tensor([[2], [40]])
    output = model(**batch, start_positions=start, end_positions=end)
    first, last = output.start_logits.log_softmax(-1), output.end_logits.log_softmax(-1)
    wanted = -((first[0, 1] + first[1, 3]) / 2 + last[0, 2]) / 2
    assert torch.allclose(output.loss, wanted)
    with pytest.raises(UserError, match="num_labels 3 is not 2"):
        zoo.build("Data2VecTextForQuestionAnswering", num_labels=3)


@pytest.mark.parametrize(
    ("labels", "fields", "kind"),
    [
        (torch.tensor([0.5, 1.0]), {"num_labels": 1}, "regression"),
        (torch.tensor([2, 0]), {}, "single_label_classification"),
        (torch.tensor([[1.0, 0.0, 1.0]] * 2), {}, "multi_label_classification"),
    ],
)
def test_the_kind_of_problem_is_read_off_the_labels_each_time(
    labels: Tensor, fields: dict[str, Any], kind: str
) -> None:
    batch = zoo.text_batch()
    guessed = zoo.build("Data2VecTextForSequenceClassification", **fields)
    told = zoo.build("Data2VecTextForSequenceClassification", **fields, problem_type=kind)
    assert torch.equal(guessed(**batch, labels=labels).loss, told(**batch, labels=labels).loss)
    assert guessed.config.problem_type is None


def test_wrong_labels_are_named() -> None:
    model = zoo.build("Data2VecTextForTokenClassification")
    with pytest.raises(UserError, match="labels holds 7; the classes are 0 to 2"):
        model(**zoo.text_batch(), labels=torch.full((2, 12), 7))
    with pytest.raises(UserError, match="multi_label_classification needs"):
        zoo.build("Data2VecTextForSequenceClassification")(**zoo.text_batch(), labels=torch.tensor([0.5, 1.0]))
    with pytest.raises(UserError, match="choices"):
        zoo.build("Data2VecTextForMultipleChoice")(**zoo.text_batch())


# ---- heads of attention, relative positions, activations


@pytest.mark.parametrize("name", ["Data2VecTextModel", "Data2VecAudioModel", "Data2VecVisionModel"])
def test_pruning_a_head_equals_masking_it(name: str, tmp_path: Path) -> None:
    changes = {"use_relative_position_bias": True} if "Vision" in name else {}
    model, batch = zoo.build(name, **changes), zoo.batch(name)
    before = model.num_parameters()
    model.prune_heads({0: [1, 3], 1: [0]})
    assert model.num_parameters() < before
    pruned = model(**batch).last_hidden_state
    if "Audio" not in name:
        whole = zoo.build(name, **changes)
        mask = torch.ones(whole.config.num_hidden_layers, 4)
        mask[0, [1, 3]], mask[1, 0] = 0.0, 0.0
        assert torch.allclose(whole(**batch, head_mask=mask).last_hidden_state, pruned, atol=1e-5)
        assert torch.allclose(model(**batch, head_mask=mask).last_hidden_state, pruned, atol=1e-5)
    model.prune_heads({0: [1, 2]})
    assert model.config.pruned_heads == {0: [1, 2, 3], 1: [0]}
    model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert (report.missing, report.unexpected) == ([], [])
    assert torch.allclose(again(**batch).last_hidden_state, model(**batch).last_hidden_state, atol=1e-6)
    with pytest.raises(UserError, match="has to remain"):
        model.prune_heads({0: [0]})
    with pytest.raises(UserError, match="block 9"):
        model.prune_heads({9: [0]})


def test_head_mask_of_every_form(caplog: pytest.LogCaptureFixture) -> None:
    model, batch = zoo.build("Data2VecTextModel", attn_implementation="eager"), zoo.text_batch()
    one = torch.tensor([1.0, 0.0, 1.0, 0.5])
    each = model(**batch, head_mask=one.expand(2, 4)).last_hidden_state
    assert torch.equal(model(**batch, head_mask=one).last_hidden_state, each)
    assert not torch.allclose(model(**batch).last_hidden_state, each, atol=1e-3)
    with pytest.raises(UserError, match="head_mask must be"):
        model(**batch, head_mask=torch.ones(3, 4))


def plain_relative(model: Data2VecTextModel, x: Tensor, kind: str) -> Tensor:
    """Scores of the first block, pair by pair, as transformers 4 documents them."""
    attention = model.encoder.blocks[0].attention
    heads, width = attention.heads, attention.head_width
    query = attention.q_proj(x).view(*x.shape[:2], heads, width)
    key = attention.k_proj(x).view(*x.shape[:2], heads, width)
    scores = torch.zeros(len(x), heads, x.shape[1], x.shape[1])
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            far = attention.distance.weight[i - j + model.config.max_position_embeddings - 1]
            total = (query[:, i] * key[:, j]).sum(-1) + query[:, i] @ far
            scores[:, :, i, j] = total + key[:, j] @ far if kind == "relative_key_query" else total
    return scores / width**0.5


@pytest.mark.parametrize("kind", RELATIVE[1:])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_relative_positions_are_added_to_the_scores(kind: str, attention: str) -> None:
    model = zoo.build("Data2VecTextModel", position_embedding_type=kind, attn_implementation=attention)
    assert isinstance(model, Data2VecTextModel)
    ids = zoo.text_batch((9, 9))["input_ids"]
    output = model(ids, output_attentions=True, output_hidden_states=True)
    wanted = plain_relative(model, output.hidden_states[0], kind).softmax(-1)
    assert torch.allclose(output.attentions[0], wanted, atol=1e-5)
    assert torch.allclose(model(ids).last_hidden_state, output.last_hidden_state, atol=1e-5)
    with pytest.raises(UserError, match="allows 40"):
        model(torch.full((1, 41), 5))


@pytest.mark.parametrize("name", ["Data2VecTextModel", "Data2VecAudioModel", "Data2VecVisionModel"])
def test_activations_may_be_functions(name: str, tmp_path: Path) -> None:
    """transformers 5 refuses them."""
    named = zoo.build(name, hidden_act="relu")
    called = zoo.build(name, hidden_act=nn.functional.relu)
    batch = zoo.batch(name)
    assert torch.equal(named(**batch).last_hidden_state, called(**batch).last_hidden_state)
    called.save_pretrained(tmp_path)
    assert type(called).from_pretrained(tmp_path).config.hidden_act == "relu"
    odd = zoo.build(name, hidden_act=lambda x: x * torch.sigmoid(3 * x))
    assert not torch.allclose(odd(**batch).last_hidden_state, named(**batch).last_hidden_state, atol=1e-3)


# ---- vocabulary


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", ["Data2VecTextForMaskedLM", LM])
def test_the_vocabulary_grows_and_shrinks(name: str, tie: bool, tmp_path: Path) -> None:
    model, ids = zoo.build(name, tie_word_embeddings=tie), zoo.text_batch((9,))["input_ids"] % 50
    before = model(ids).logits
    table = model.resize_token_embeddings(61, pad_to_multiple_of=8)
    assert table.num_embeddings == model.config.vocab_size == 64
    assert (table.weight is model.get_output_embeddings().weight) is tie
    after = model(ids).logits
    assert torch.allclose(after[..., :60], before, atol=1e-5)
    assert torch.isfinite(after).all()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.allclose(again(ids).logits, after, atol=1e-6)
    model.resize_token_embeddings(55)
    assert torch.allclose(model(ids).logits, before[..., :55], atol=1e-5)
    with pytest.raises(UserError, match="pad_token_id 1 is not below vocab_size 1"):
        model.resize_token_embeddings(1)
    with pytest.raises(UserError, match="no word table"):
        zoo.build("Data2VecAudioForCTC").resize_token_embeddings(3)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = zoo.build("Data2VecTextForMaskedLM")
    assert isinstance(model, Data2VecTextForMaskedLM)
    words = model.get_input_embeddings()
    assert model.head.decoder.weight is words.weight
    assert model.head.bias is model.head.decoder.bias
    untied = zoo.build("Data2VecTextForMaskedLM", tie_word_embeddings=False)
    assert untied.num_parameters() == model.num_parameters() + words.weight.numel()
    untied.save_pretrained(tmp_path)
    again = Data2VecTextForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(again.head.decoder.weight, untied.head.decoder.weight)
    assert not torch.equal(again.head.decoder.weight, again.get_input_embeddings().weight)


# ---- pooling


def test_texts_are_classified_by_their_first_token_or_by_the_mean_of_valid_ones() -> None:
    ids, mask = zoo.text_batch((9, 5)).values()
    for pooling in ("cls", "mean"):
        model = zoo.build("Data2VecTextForSequenceClassification", classifier_pooling=pooling).eval()
        together = model(ids, mask).logits
        alone = model(ids[1:, :5]).logits
        assert torch.allclose(together[1:], alone, rtol=1e-5, atol=1e-6)
        features = model.base_model(ids, mask).last_hidden_state
        wanted = torch.stack([features[0, :9].mean(0), features[1, :5].mean(0)])
        wanted = features[:, 0] if pooling == "cls" else wanted
        assert torch.allclose(model.head(wanted), together, rtol=1e-5, atol=1e-6)


def test_a_mean_without_mask_leaves_padding_out() -> None:
    model = zoo.build("Data2VecTextForSequenceClassification", classifier_pooling="mean").eval()
    ids, mask = zoo.text_batch((9, 5)).values()
    assert torch.equal(model(ids).logits[:1], model(ids, mask).logits[:1])
    features = model.base_model(ids).last_hidden_state[1, :5].mean(0)
    assert torch.allclose(model(ids).logits[1], model.head(features), rtol=1e-5, atol=1e-6)
