"""Contrasting layers against an implementation of its own: plain loops over float64 numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

import tiny_models
from tutorial_utils import (
    candidate_layers,
    contrast_layers,
    contrast_logits,
    encode,
    jensen_shannon,
    load_model,
)

PROMPTS = ["The capital of France is", "Anna has the red ball. Who", "a"]


# The second implementation. Nothing of the package, and no tensor operation beyond `.tolist()`.


def log_softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    total = highest + math.log(math.fsum(math.exp(x - highest) for x in logits))
    return [x - total for x in logits]


def kl(log_p: list[float], log_q: list[float]) -> float:
    """D(p || q) in bits."""
    terms = (math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))
    return math.fsum(terms) / math.log(2)


def log_mean(a: float, b: float) -> float:
    return max(a, b) + math.log((1 + math.exp(-abs(a - b))) / 2)


def divergence(log_p: list[float], log_q: list[float], swapped: bool = False) -> float:
    log_m = [log_mean(a, b) for a, b in zip(log_p, log_q, strict=True)]
    if swapped:
        return (kl(log_m, log_p) + kl(log_m, log_q)) / 2
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


def dola(final: list[float], early: dict[int, list[float]], alpha: float, swapped: bool = False):
    """Scores, the picked layer and all divergences of one position."""
    log_final = log_softmax(final)
    log_early = {layer: log_softmax(logits) for layer, logits in early.items()}
    found = {layer: divergence(log_final, log_q, swapped) for layer, log_q in log_early.items()}
    layer = max(found, key=found.get)
    most = math.exp(max(log_final))
    scores = [
        a - b if math.exp(a) >= alpha * most else -math.inf
        for a, b in zip(log_final, log_early[layer], strict=True)
    ]
    return scores, layer, found


def vectors(model: torch.nn.Module, ids: list[int]) -> dict[int, list[float]]:
    """The last token's residual stream in float64, layer n after the final norm, as it comes."""
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return {layer: state[0, -1].tolist() for layer, state in enumerate(states)}


def norm(model: torch.nn.Module, x: list[float]) -> list[float]:
    """Llama's and GPT-2's final norms, written out."""
    if model.config.model_type == "llama":
        weight = model.model.norm.weight.tolist()
        scale = math.sqrt(math.fsum(v * v for v in x) / len(x) + model.config.rms_norm_eps)
        return [w * v / scale for w, v in zip(weight, x, strict=True)]
    mean = math.fsum(x) / len(x)
    var = math.fsum((v - mean) ** 2 for v in x) / len(x)
    scale = math.sqrt(var + model.config.layer_norm_epsilon)
    part = model.transformer.ln_f
    weight, bias = part.weight.tolist(), part.bias.tolist()
    return [w * (v - mean) / scale + b for w, v, b in zip(weight, x, bias, strict=True)]


def unembedded(model: torch.nn.Module, x: list[float]) -> list[float]:
    rows = model.lm_head.weight.tolist()
    if hasattr(math, "sumprod"):  # Python 3.12, and much faster
        return [math.sumprod(row, x) for row in rows]
    return [math.fsum(a * b for a, b in zip(row, x, strict=True)) for row in rows]


def greedy(
    model: torch.nn.Module,
    ids: list[int],
    layers: list[int],
    *,
    steps: int,
    alpha: float = 0.1,
    penalty: float = 1.0,
    final_norm: bool = True,
    swapped: bool = False,
) -> tuple[list[int], list[int]]:
    """New tokens and picked layers, one whole pass of the model for each token, no cache."""
    new, picked = [], []
    for _ in range(steps):
        states = vectors(model, ids + new)
        final = unembedded(model, states[max(states)])
        early = {
            layer: unembedded(model, norm(model, states[layer]) if final_norm else states[layer])
            for layer in layers
        }
        scores, layer, _ = dola(final, early, alpha, swapped)
        for token in set(ids + new):
            scores[token] *= penalty if scores[token] < 0 else 1 / penalty
        new.append(max(range(len(scores)), key=scores.__getitem__))
        picked.append(layer)
    return new, picked


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model_and_tokenizer(request, tmp_path_factory):
    """A random model of 5 layers in float64, so that both implementations see the same numbers."""
    make = {"llama": tiny_models.make_llama, "gpt2": tiny_models.make_gpt2}[request.param]
    # Wide weights: otherwise the earliest candidate is the farthest at nearly every token.
    folder = make(tmp_path_factory.mktemp(request.param), layers=5, initializer_range=0.5)
    model, tokenizer = load_model(folder, device="cpu")
    model.generation_config.eos_token_id = None  # a random model would stop anywhere
    torch.set_default_dtype(torch.float64)  # old versions make GPT-2's mask in it
    yield model.double(), tokenizer
    torch.set_default_dtype(torch.float32)


def random_logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.7, 1.0])
def test_contrast_logits_is_what_the_loops_give(alpha, swapped):
    final = random_logits(2, 3, 30)
    early = {layer: random_logits(2, 3, 30, seed=layer) for layer in (2, 4, 7)}
    got = contrast_logits(final, early, alpha=alpha, kl_swapped=swapped)
    assert got.scores.shape == (2, 3, 30) and got.layer.shape == (2, 3)
    assert torch.equal(final, random_logits(2, 3, 30))  # the inputs stay as they were
    assert all(torch.equal(given, random_logits(2, 3, 30, seed=i)) for i, given in early.items())
    for row in range(2):
        for column in range(3):
            one = {layer: logits[row, column].tolist() for layer, logits in early.items()}
            scores, layer, found = dola(final[row, column].tolist(), one, alpha, swapped)
            assert got.layer[row, column] == layer
            torch.testing.assert_close(got.scores[row, column], torch.tensor(scores))
            want = torch.tensor([found[layer] for layer in early])
            torch.testing.assert_close(got.divergence[:, row, column], want)
    assert len(got.layer.unique()) > 1  # else the choice was not tested


def test_the_batch_average_gives_all_rows_one_layer():
    final = random_logits(6, 8)
    early = {layer: random_logits(6, 8, seed=layer) for layer in (1, 2, 3)}
    alone, together = (contrast_logits(final, early, batch_average=b) for b in (False, True))
    assert len(alone.layer.unique()) > 1 and len(together.layer.unique()) == 1
    best = int(alone.divergence.mean(dim=1).argmax())
    assert int(together.layer[0]) == [1, 2, 3][best]
    one = contrast_logits(final[0], {i: given[0] for i, given in early.items()}, batch_average=True)
    assert one.layer == alone.layer[0]  # no batch, nothing to average


def test_jensen_shannon_at_its_ends():
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]).log(), torch.tensor([0.0, 0.0, 0.25, 0.75]).log()
    assert jensen_shannon(p, p) == 0
    assert jensen_shannon(p, q).item() == pytest.approx(1)
    assert jensen_shannon(p, q, swapped=True) == math.inf
    a, b = random_logits(7, 20), random_logits(7, 20, seed=1)
    assert torch.allclose(jensen_shannon(a, b), jensen_shannon(b, a))
    assert jensen_shannon(a, b + 5).shape == (7,)
    assert torch.allclose(jensen_shannon(a, b + 5), jensen_shannon(a, b), atol=1e-6)
    assert (jensen_shannon(a, a * (1 + 1e-7)) >= 0).all()


def test_a_forbidden_token_stays_forbidden():
    final = torch.tensor([1.0, -math.inf, 0.5])
    early = {1: torch.tensor([0.0, 1.0, 2.0]), 2: torch.tensor([2.0, 0.0, 0.0])}
    for swapped in (False, True):
        got = contrast_logits(final, early, alpha=0.0, kl_swapped=swapped)
        assert got.scores[1] == -math.inf and got.scores[[0, 2]].isfinite().all()
        assert got.divergence.isfinite().all()


@pytest.mark.parametrize("place", ["final", "early"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_passed_on(place, bad):
    final, early = random_logits(3, 6), {1: random_logits(3, 6), 2: random_logits(3, 6, seed=2)}
    (final if place == "final" else early[2])[1, 4] = bad
    got = contrast_logits(final, early)
    assert got.scores[1].isnan().all() and got.layer[1] == -1 and got.divergence[1, 1].isnan()
    assert got.layer[0] in (1, 2) and got.scores[0].max().isfinite()
    assert jensen_shannon(final, early[2])[1].isnan() and jensen_shannon(final, early[2])[0] > 0


def test_generating_stops_where_scores_are_not_finite(tmp_path):
    model, tokenizer = load_model(tiny_models.make_llama(tmp_path), device="cpu")
    torch.nn.init.constant_(model.model.layers[3].mlp.down_proj.weight, math.nan)
    inputs = encode(model, tokenizer, PROMPTS)
    for sampled in (False, True):
        with (
            pytest.raises(ValueError, match=r"not finite.*bfloat16"),
            contrast_layers(model, 1) as c,
        ):
            model.generate(**inputs, logits_processor=[c], do_sample=sampled, max_new_tokens=2)


def test_wrong_alphas_and_candidates():
    for alpha in (-0.1, 1.5):
        with pytest.raises(ValueError, match="from 0, all tokens, to 1"):
            contrast_logits(torch.zeros(3), {1: torch.zeros(3)}, alpha=alpha)
    for early in ({}, {1: torch.zeros(4)}, {1: torch.zeros(3), 2: torch.zeros(1, 3)}):
        with pytest.raises(ValueError, match=r"at least one .* final logits' shape"):
            contrast_logits(torch.zeros(3), early)


def layers_of(count: int, *, tied: bool = False) -> torch.nn.Module:
    """As much of a model as `candidate_layers` looks at, `count` layers deep."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=count, tie_word_embeddings=tied))


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (1, [0], [0]),
        (2, [0], [1]),
        (5, [0], [2, 4]),
        (8, [0, 2], [4, 6]),
        (12, [0, 2, 4], [6, 8, 10]),
        # The lists of the authors' own commands, for LLaMA 7B, 13B, 30B and 65B.
        (32, list(range(0, 16, 2)), list(range(16, 32, 2))),
        (40, list(range(0, 20, 2)), list(range(20, 40, 2))),
        (60, list(range(0, 20, 2)), list(range(40, 60, 2))),
        (80, list(range(0, 20, 2)), list(range(60, 80, 2))),
    ],
)
def test_candidate_layers_low_and_high(count, low, high):
    model = layers_of(count)
    assert candidate_layers(model) == candidate_layers(model, "low") == low
    assert candidate_layers(model, "high") == high


def test_candidate_layers_with_tied_embeddings_and_of_ones_own():
    for count, low in ((8, [2]), (2, [1]), (1, [0])):
        assert candidate_layers(layers_of(count, tied=True), "low") == low
    assert candidate_layers(layers_of(8, tied=True), [0, 2]) == [0, 2]  # asked for, so given
    model = layers_of(8)
    assert candidate_layers(model, 3) == [3]
    assert candidate_layers(model, [6, 1, 6]) == [1, 6]
    assert candidate_layers(model, range(2, 5)) == [2, 3, 4]
    assert candidate_layers(model, -2) == [7]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("middle", 'are "low", "high" or layer numbers'),
        (8, "layer 8 is the last layer"),
        ([2, -1], "layer 8 is the last layer"),
        (9, "layer 9 is not in this model"),
        ([], "no layer was asked for"),
        (1.5, "is a whole number"),
        (True, "is a whole number"),
    ],
)
def test_candidate_layers_that_are_not_there(which, message):
    model = layers_of(8)
    with pytest.raises(ValueError, match=message):
        candidate_layers(model, which)
    with pytest.raises(ValueError, match=message), contrast_layers(model, which):
        pass
    assert tiny_models.count_hooks(model) == 0


SWITCHES = [
    {},
    {"alpha": 0.0},
    {"alpha": 0.9},
    {"final_norm": False},
    {"swapped": True},
    {"penalty": 1.2},
    {"final_norm": False, "swapped": True, "penalty": 1.2},  # the released code, one prompt
]


def generated(model, inputs, layers, *, steps=6, penalty=1.0, swapped=False, **options):
    """New tokens (batch, steps) and picked layers (batch, steps) through transformers' loop."""
    before = tiny_models.count_hooks(model)
    with contrast_layers(model, layers, kl_swapped=swapped, **options) as contrast:
        processors = [contrast]
        if penalty != 1:
            processors.append(RepetitionPenaltyLogitsProcessor(penalty))
        settings = {"max_new_tokens": steps, "do_sample": False, "pad_token_id": 0}
        ids = model.generate(**inputs, logits_processor=processors, **settings)
    assert tiny_models.count_hooks(model) == before
    return ids[:, inputs["input_ids"].shape[1] :], torch.stack(contrast.picked, dim=1)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_generate_is_what_the_loops_give(model_and_tokenizer, switches):
    model, tokenizer = model_and_tokenizer
    inputs, layers = encode(model, tokenizer, PROMPTS[0]), [2, 3, 4]
    tokens, picked = generated(model, inputs, layers, **switches)
    want = greedy(model, inputs["input_ids"][0].tolist(), layers, steps=6, **switches)
    assert (tokens[0].tolist(), picked[0].tolist()) == want


# What swapping the KL divergences changes is compared above, on more positions.
@pytest.mark.parametrize("switches", [s for s in SWITCHES[1:] if set(s) != {"swapped"}], ids=str)
def test_each_switch_changes_what_is_generated(model_and_tokenizer, switches):
    model, tokenizer = model_and_tokenizer
    inputs = encode(model, tokenizer, PROMPTS)
    paper, switched = (
        generated(model, inputs, [2, 3, 4], steps=30, **s)[0] for s in ({}, switches)
    )
    assert not torch.equal(paper, switched)


def test_a_left_padded_batch_is_each_prompt_alone(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    inputs = encode(model, tokenizer, PROMPTS)
    assert (inputs["attention_mask"][:, 0] == 0).any()  # there is padding
    tokens, picked = generated(model, inputs, [2, 3, 4], steps=10)
    for row, prompt in enumerate(PROMPTS):
        alone = generated(model, encode(model, tokenizer, prompt), [2, 3, 4], steps=10)
        assert torch.equal(tokens[row], alone[0][0]) and torch.equal(picked[row], alone[1][0])
    together = generated(model, inputs, [2, 3, 4], steps=10, batch_average=True)[1]
    assert (together == together[0]).all() and not torch.equal(together, picked)


@pytest.mark.parametrize(
    "options", [{"use_cache": False}, {"num_return_sequences": 3, "do_sample": True}]
)
def test_other_ways_to_generate(model_and_tokenizer, options):
    model, tokenizer = model_and_tokenizer
    inputs = encode(model, tokenizer, PROMPTS[:2])
    rows = 2 * options.get("num_return_sequences", 1)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, **options}
    with contrast_layers(model, [1, 3]) as contrast:
        torch.manual_seed(0)
        ids = model.generate(**inputs, logits_processor=[contrast], **settings)
    assert ids.shape[0] == rows and [len(layer) for layer in contrast.picked] == [rows] * 5
    if not settings["do_sample"]:
        with contrast_layers(model, [1, 3]) as contrast:
            cached = model.generate(
                **inputs, logits_processor=[contrast], **{**settings, "use_cache": True}
            )
        assert torch.equal(ids, cached)


def test_beam_search_is_refused_in_words(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    inputs, before = encode(model, tokenizer, PROMPTS[0]), tiny_models.count_hooks(model)
    if isinstance(model(**inputs, use_cache=True).past_key_values, tuple):
        pytest.skip("an old GPT-2: after beams are moved its cache is another tuple, of a new text")
    with pytest.raises(ValueError, match="beam search"), contrast_layers(model, [2]) as contrast:
        model.generate(
            **inputs, logits_processor=[contrast], num_beams=3, max_new_tokens=8, pad_token_id=0
        )
    assert tiny_models.count_hooks(model) == before


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": 1.5},
        {"guidance_scale": 1.5, "negative_prompt_ids": torch.tensor([[7, 8, 9, 10]])},
        {"prompt_lookup_num_tokens": 2},
        {"assistant_model": "itself"},
        {"assistant_early_exit": 2},
    ],
    ids=lambda options: " and ".join(options),
)
def test_passes_that_are_not_those_of_the_scores_are_refused_in_words(tmp_path, options):
    model, tokenizer = load_model(tiny_models.make_llama(tmp_path, layers=5), device="cpu")
    inputs = encode(model, tokenizer, "the ball. the ball. the ball. the")
    options = {name: model if value == "itself" else value for name, value in options.items()}
    settings = {"do_sample": False, "max_new_tokens": 8, "pad_token_id": 0, **options}
    with pytest.raises(ValueError, match=r"assisted decoding"), contrast_layers(model, [1, 3]) as c:
        model.generate(**inputs, logits_processor=[c], **settings)
    assert tiny_models.count_hooks(model) == 0


def test_outside_its_block_the_processor_refuses(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    inputs = encode(model, tokenizer, PROMPTS[0])
    with contrast_layers(model, [2]) as contrast:
        with pytest.raises(ValueError, match="no forward pass of the model came before"):
            contrast(inputs["input_ids"], torch.zeros(1, 400))
        model(**inputs)
        with pytest.raises(ValueError, match="batch size was 1 in the model, and is 2 in"):
            contrast(inputs["input_ids"], torch.zeros(2, 400))
        for wrong in (inputs["input_ids"][:, :-1], inputs["input_ids"].flip(1)):
            model(**inputs)
            with pytest.raises(ValueError, match="something other than the end of this text"):
                contrast(wrong, torch.zeros(1, 400))
        model(**inputs)
        model(**inputs)  # another pass, after the one that made the scores
        with pytest.raises(ValueError, match="something other than the end of this text"):
            contrast(inputs["input_ids"], torch.zeros(1, 400))
    with pytest.raises(ValueError, match="inside the `with"):
        model.generate(**inputs, logits_processor=[contrast], max_new_tokens=2, pad_token_id=0)


def test_half_precision_and_float32_pick_alike(tmp_path: Path):
    """Not equal, but the same thing: bfloat16's rounding is all that differs."""
    model, tokenizer = load_model(tiny_models.make_llama(tmp_path, layers=5), device="cpu")
    inputs = encode(model, tokenizer, PROMPTS)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with contrast_layers(model.to(dtype), "high") as contrast:
            model.generate(**inputs, logits_processor=[contrast], max_new_tokens=1, pad_token_id=0)
        found.append(contrast.picked[0])
    assert torch.equal(*found)
