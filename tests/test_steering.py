"""Steering gives what hooks by hand give, and turns the mood of the shipped model's stories."""

import random
import re
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from notebook_tools import code_cells, lesson_on, printed, read
from tiny_models import count_hooks, make_gpt2
from tutorial_utils import (
    encode,
    find_decoder_layers,
    load_model,
    mean_differences,
    next_token_logits,
    sample_steered,
)
from tutorial_utils.pocket_llama import corpus
from tutorial_utils.steering import _losses, _seeded

HAPPY, SAD = ["Anna was glad.", "The dog was happy and the ball was red."], ["Ben was sad.", "No."]


def vector_for(model, size: float = 3.0) -> torch.Tensor:
    torch.manual_seed(3)
    vector = torch.randn(model.config.hidden_size)
    return size * vector / vector.norm()


def test_mean_differences_equal_plain_loops(tiny):
    model, tokenizer = tiny
    got = mean_differences(model, tokenizer, HAPPY, SAD)
    n = model.config.num_hidden_layers
    assert list(got) == list(range(n + 1))

    def mean(texts, layer):
        rows = []
        for text in texts:  # one at a time: no padding
            with torch.no_grad():
                states = model(**encode(model, tokenizer, text), output_hidden_states=True)
            rows += list(states.hidden_states[layer][0])[1:]
        return sum(rows) / len(rows)

    for layer in range(n):  # transformers' last one is after the final norm
        want = mean(HAPPY, layer) - mean(SAD, layer)
        torch.testing.assert_close(got[layer], want, rtol=1e-4, atol=1e-4)
        assert got[layer].shape == (model.config.hidden_size,)


def test_mean_differences_wants_texts(pocket):
    with pytest.raises(ValueError, match="the list is empty"):
        mean_differences(*pocket, HAPPY, [])
    tokenizer = pocket[1]
    only_bos = tokenizer.bos_token  # with the one that the tokenizer adds, two tokens
    assert len(tokenizer(only_bos, add_special_tokens=False)["input_ids"]) == 1
    mean_differences(*pocket, HAPPY, [only_bos])


def test_a_text_of_one_token_is_refused(tmp_path):
    gpt2 = load_model(make_gpt2(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="text 1 of `others`, 'a', has only one token"):
        mean_differences(*gpt2, HAPPY, ["Ben was sad.", "a"])


@pytest.mark.parametrize("strength", [0, 2.5])
def test_equal_to_generate_with_a_hook(tiny, strength):
    model, tokenizer = tiny
    vector, prompts = vector_for(model), ["Anna has the ball.", "Once upon a time there was"]
    inputs, vectors = encode(model, tokenizer, prompts), {2: vector, 3: vector.flip(0)}

    def add(layer, module, args, output):
        if isinstance(output, tuple):
            return (output[0] + strength * vectors[layer], *output[1:])
        return output + strength * vectors[layer]

    layers = find_decoder_layers(model)
    handles = [layers[i - 1].register_forward_hook(partial(add, i)) for i in vectors]
    torch.manual_seed(5)
    ids = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=8)
    for handle in handles:
        handle.remove()
    new = ids[:, inputs["input_ids"].shape[1] :]
    got = sample_steered(model, tokenizer, prompts, vectors, strength, max_new_tokens=8, seed=5)
    assert got.texts == tokenizer.batch_decode(new, skip_special_tokens=True)
    torch.testing.assert_close(got.losses, _losses(model, inputs, new))  # the unedited model's


def test_a_direction_for_each_prompt(tiny):
    model, tokenizer = tiny
    prompts, vector = ["Anna has the ball."] * 2, vector_for(model, 30)
    rows = torch.stack([torch.zeros_like(vector), vector])[:, None]  # (batch, 1, hidden)
    plain, pushed, mixed = (
        sample_steered(model, tokenizer, prompts, {1: v}, 1).texts
        for v in (torch.zeros_like(vector), vector, rows)
    )
    assert mixed == [plain[0], pushed[1]] and plain != pushed


def test_seeds(tiny):
    model, tokenizer = tiny
    prompt, vector = "Anna has the ball.", vector_for(model)
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one, again, other = (
        sample_steered(model, tokenizer, prompt, {1: vector}, 1, seed=seed).texts
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.rand(3), expected)  # the caller's random numbers go on as they were
    assert one == again != other


def test_a_seed_for_each_prompt(tiny):
    """Equal seeds draw the same, whatever else is in the batch, and the caller's go on."""
    model, tokenizer = tiny
    prompt, vectors = "Anna has the ball.", {1: vector_for(model, 0)}
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one, other, again = sample_steered(model, tokenizer, [prompt] * 3, vectors, 1, seed=[4, 5, 4])[
        0
    ]
    assert torch.equal(torch.rand(3), expected)
    assert one == again != other
    for seed, text in ((4, one), (5, other)):
        assert sample_steered(model, tokenizer, prompt, vectors, 1, seed=[seed]).texts == [text]
    with pytest.raises(ValueError, match="give one seed for each prompt: 1, not 2"):
        sample_steered(model, tokenizer, prompt, vectors, 1, seed=[4, 5])


def test_with_seeds_for_each_prompt_tokens_are_as_frequent_as_the_model_says(tiny):
    model, tokenizer = tiny
    prompt, many = "Anna has the ball.", 3000
    logits = next_token_logits(model, tokenizer, prompt)[0] * 0
    logits[[40, 41, 42]] = torch.tensor([300.0, 301, 302])  # 9%, 24% and 67%
    hook = model.lm_head.register_forward_hook(
        lambda module, args, output: logits.expand_as(output)
    )
    try:
        texts = sample_steered(
            model, tokenizer, [prompt] * many, {}, 1, max_new_tokens=1, seed=[*range(many)]
        ).texts
    finally:
        hook.remove()
    for token, want in zip((40, 41, 42), (0.09, 0.245, 0.665)):
        assert texts.count(tokenizer.decode([token])) / many == pytest.approx(want, abs=0.03)


def test_every_generator_that_is_seeded_goes_on_as_it_was(monkeypatch):
    """torch.manual_seed seeds all GPUs, and MPS."""
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["first", "second"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", seen.append)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "mps")
    monkeypatch.setattr(torch.mps, "set_rng_state", seen.append)
    with _seeded(0):
        assert seen == []
    assert seen == [["first", "second"], "mps"]


def test_what_generation_config_says_besides_is_switched_off(tiny, monkeypatch):
    model, tokenizer = tiny
    plain = sample_steered(model, tokenizer, ["Anna has", "Ben"], {}, 1)
    said = {"temperature": 0.1, "top_p": 0.2, "num_beams": 3, "num_return_sequences": 2}
    said |= {"guidance_scale": 2.0, "repetition_penalty": 1.5, "min_p": 0.5, "typical_p": 0.5}
    for name, value in {**said, "no_repeat_ngram_size": 1}.items():
        monkeypatch.setattr(model.generation_config, name, value)
    assert sample_steered(model, tokenizer, ["Anna has", "Ben"], {}, 1).texts == plain.texts


def test_what_is_not_finite_is_no_text(tiny):
    model, tokenizer = tiny
    vector, wrong = vector_for(model), "strength times the direction of layer 1 is not finite"
    for strength in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=wrong):
            sample_steered(model, tokenizer, "Anna", {1: vector}, strength)
    hook = model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
    with pytest.raises(
        ValueError, match=r"logits of the steered model are not finite.*A weight or an edit"
    ):
        sample_steered(model, tokenizer, "Anna", {1: vector}, 1)
    hook.remove()


def test_losses_of_padded_prompts_up_to_the_end_token(tiny):
    """Each text alone under the model, in plain loops; what follows an end is not counted."""
    model, tokenizer = tiny
    end = model.generation_config.eos_token_id
    inputs = encode(model, tokenizer, ["Anna has the ball.", "Who has the red ball? Anna has"])
    new = torch.tensor([[40, 41, end, end, end], [50, 51, 52, 53, 54]])
    got = _losses(model, inputs, new)
    for row, kept in ((0, [40, 41, end]), (1, [50, 51, 52, 53, 54])):
        prompt = inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
        ids = torch.tensor([[*prompt, *kept]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        want = cross_entropy(logits, torch.tensor(kept))
        torch.testing.assert_close(got[row], want, rtol=1e-4, atol=1e-4)


def test_nothing_is_left(tiny):
    model, tokenizer = tiny
    hooks, vector = count_hooks(model), vector_for(model)
    sample_steered(model, tokenizer, "Anna", {1: vector}, 1)
    wide = torch.zeros(2, 1, model.config.hidden_size)  # two rows for one prompt
    with pytest.raises(ValueError, match="the edit of layer 1 returned"):
        sample_steered(model, tokenizer, "Anna", {1: wide}, 1)
    assert count_hooks(model) == hooks


def test_wrong_arguments(tiny):
    model, tokenizer = tiny
    vector, context = vector_for(model), model.config.max_position_embeddings
    with pytest.raises(ValueError, match="layer 9 is not in this model: it has layers 0 to 4"):
        sample_steered(model, tokenizer, "Anna", {9: vector}, 1)
    with pytest.raises(ValueError, match="the prompt is empty"):
        sample_steered(model, tokenizer, "", {1: vector}, 1)
    with pytest.raises(ValueError, match=f"at most {context} .*{context} new ones were asked for"):
        sample_steered(model, tokenizer, "Anna", {1: vector}, 1, max_new_tokens=context)


# -- steering on the shipped model ----------------------------------------------------------------


def mood_shares(pocket, openings, vectors, strength) -> tuple[dict[str, float], float]:
    samples = sample_steered(*pocket, openings, vectors, strength)
    moods = [corpus.mood_of(text) for text in samples.texts]
    shares = {mood: moods.count(mood) / len(moods) for mood in ("happy", "sad")}
    return shares, samples.losses.mean().item()


def test_a_strength_turns_the_stories_and_a_random_direction_does_not(pocket):
    """80% take the mood, the control stays within 15 points, and the loss at most doubles."""
    rng = random.Random(7)
    openings = [corpus.story_opening(rng)[0] for _ in range(100)]
    said = {}
    for mood, about in corpus.MOODS.items():
        sentences = [s.format(a="Anna", b="Ben") for s in about["sentences"]]
        threes = [" ".join(sentences[i : i + 3]) for i in range(10)]
        said[mood] = [f"One morning, Anna went to the park. {three}" for three in threes]
    layer = 3 * pocket[0].config.num_hidden_layers // 4
    direction = mean_differences(*pocket, said["happy"], said["sad"])[layer]
    torch.manual_seed(7)
    noise = torch.randn(len(openings), 1, len(direction))
    noise *= direction.norm() / noise.norm(dim=-1, keepdim=True)
    usual, usual_loss = mood_shares(pocket, openings, {}, 0)
    reached = {}
    for strength in (-3, -2, 3, 4):
        towards = "happy" if strength > 0 else "sad"
        steered, loss = mood_shares(pocket, openings, {layer: direction}, strength)
        control, _ = mood_shares(pocket, openings, {layer: noise}, strength)
        moved = abs(control[towards] - usual[towards])
        if steered[towards] >= 0.8 and moved <= 0.15 and loss <= 2 * usual_loss:
            reached[towards] = strength
    assert set(reached) == {"happy", "sad"}


def lesson_cells() -> list:
    return code_cells(read(lesson_on("patching and steering")))


def test_the_lessons_mood_is_the_corpus_mood():
    lesson: dict = {}
    lesson["sample_size"] = lambda model, small, *larger: small
    lesson["model"] = None
    for start in ("happy_words =", "people =", "openings =", "few, more,"):
        exec(next(c.source for c in lesson_cells() if c.source.startswith(start)), lesson)
    assert set(lesson["happy_words"]) == set(corpus.MOODS["happy"]["words"])
    assert set(lesson["sad_words"]) == set(corpus.MOODS["sad"]["words"])
    assert len(lesson["openings"]) == 56 == len(set(lesson["openings"]))
    assert not set(lesson["to_choose"]) & set(lesson["to_judge"])
    rng = random.Random(0)
    texts = [corpus.document(rng) for _ in range(200)]
    texts += [corpus.story_document(rng) for _ in range(200)]
    for text in texts + lesson["openings"]:
        assert lesson["mood"](text) == (corpus.mood_of(text) or "neither")


def test_the_lessons_own_verdict():
    """The committed output, and that the text after it says so."""
    text = printed(code_cells(read(lesson_on("patching and steering"))))
    found = re.findall(r"^(one side|further|random directions|loss) .* (yes|NO)$", text, re.M)
    first = dict(found[:4])  # those after it stand beside SmolLM2's
    assert first == dict.fromkeys(["one side", "further", "random directions", "loss"], "yes")
    moved = dict(re.findall(r"^(towards \w+|random directions) +([-+][\d.]+) ± ", text, re.M))
    moved = {kind: abs(float(logits)) for kind, logits in moved.items()}
    assert moved["random directions"] <= 0.6
    assert min(moved["towards happy"], moved["towards sad"]) >= 2
    markdown = "\n".join(c.source for c in read(lesson_on("patching and steering")).cells)
    assert "On the shipped model all four are true" in markdown
