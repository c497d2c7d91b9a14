"""The logit lens gives the model's own logits at layer n, on each kind of last steps."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import CONFIG_MAPPING as CONFIGS
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers import AutoModelForCausalLM as Auto

from architectures import build, inputs_of, small_config
from tiny_models import count_hooks
from tutorial_utils import (
    answer_layer,
    edit_activations,
    entropy,
    kl_divergence,
    lens_choices,
    logit_lens,
    read_activations,
    record_activations,
    unembed,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SOFT_CAPPED, DIVIDED = "soft-capped logits, four norms a layer", "logits divided"
# What the last steps of a model can hold, and a model type with it.
KINDS = {
    "an RMS norm, an unembedding of its own": ("llama", {"tie_word_embeddings": False}),
    "an RMS norm, tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "a LayerNorm, tied embeddings, positions added": ("gpt2", {}),
    "no final norm": ("openai-gpt", {}),
    "embedding scaling, one plus the norm's weight": ("gemma", {}),
    SOFT_CAPPED: ("gemma2", {"final_logit_softcapping": 1.5}),
    "two norms a head, no cap": ("gemma3_text", {}),
    DIVIDED: ("granite", {"logits_scaling": 7.0, "embedding_multiplier": 3.0}),
    "logits multiplied": ("cohere", {"logit_scale": 0.1}),
    "logits multiplied, sliding layers": ("cohere2", {"logit_scale": 0.3}),
    "projections in and out": ("opt", {"word_embed_proj_dim": 16}),
    "OPT's norm": ("opt", {"do_layer_norm_before": True}),
    "embeddings and head untied, tuples": ("gpt_neox", {}),
    "a bias in the unembedding": ("gptj", {}),
    "a norm without a bias": ("falcon", {}),
    "a bias, and partial rotation": ("phi", {}),
    "Phi 3": ("phi3", {}),
    "Qwen 2": ("qwen2", {}),
    "norms of queries and keys": ("qwen3", {}),
    "experts": ("mixtral", {}),
    "MPT": ("mpt", {}),
    "a norm of the embeddings": ("bloom", {}),
    "StarCoder's reshaping": ("gpt_bigcode", {}),
    "a model without parameters in its norms": ("olmo", {}),
    "norms after the parts": ("olmo2", {}),
    "logits multiplied by a setting": ("falcon_h1", {"lm_head_multiplier": 0.2}),
    "a state space": ("mamba", {}),
}


def tiny(model_type: str, settings: dict) -> torch.nn.Module:
    if model_type not in CONFIGS:
        pytest.skip(f"this transformers has no {model_type}")
    torch.manual_seed(0)
    config = small_config(CONFIGS[model_type], {})
    for name, value in settings.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    model = Auto.from_config(config).float().eval()
    with torch.no_grad():  # as if trained: biases and norms that do something, wide logits
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
            elif "embed" in name or "wte" in name or "head" in name:
                parameter.normal_()
    return model


@pytest.fixture(scope="module")
def llama():
    return tiny("llama", {})


@pytest.mark.parametrize("kind", KINDS)
def test_layer_n_gives_the_models_own_logits(kind):
    model = tiny(*KINDS[kind])
    inputs = inputs_of(model)
    with torch.no_grad(), record_activations(model) as activations:
        logits = model(**inputs, use_cache=False).logits
    lens = logit_lens(model, activations)
    assert list(lens) == list(activations)
    assert all(one.shape == logits.shape for one in lens.values())
    torch.testing.assert_close(lens[max(lens)], logits, rtol=1e-4, atol=1e-4)
    for layer in (0, len(lens) // 2):
        assert (lens[layer] - logits).abs().max() > 0.01
    one = activations[max(lens)][1, 3]  # (hidden,), a single row
    torch.testing.assert_close(unembed(model, one), logits[1, 3], rtol=1e-4, atol=1e-4)
    if kind in (SOFT_CAPPED, DIVIDED):  # this can tell: norm and unembedding alone would not do
        modules_only = model.lm_head(model.model.norm(activations[-1]))
        assert (modules_only - logits).abs().max() > 0.1


def test_an_early_layer_as_the_same_steps_by_hand(llama):
    inputs = inputs_of(llama)
    activations = read_activations(llama, **inputs)
    weight, eps = llama.model.norm.weight, llama.config.rms_norm_eps
    for layer in range(5):
        h = activations[layer].double()  # the scale is that of this layer
        normed = h / (h.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt() * weight
        expected = normed @ llama.lm_head.weight.double().T
        got = unembed(llama, activations[layer])
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_to_the_rounding_of_the_dtype(dtype):
    model = tiny("llama", {}).to(dtype)
    inputs = inputs_of(model)
    with torch.no_grad(), record_activations(model, -1) as activations:
        logits = model(**inputs).logits
    got = unembed(model, activations[-1])
    assert got.dtype == logits.dtype == dtype
    torch.testing.assert_close(got, logits, rtol=4 * torch.finfo(dtype).eps, atol=0.02)
    kept = {-1: activations[-1].float()}  # recorded in another dtype
    torch.testing.assert_close(logit_lens(model, kept)[-1], got)


def test_any_shape_and_any_layers(llama):
    activations = read_activations(llama, **inputs_of(llama))
    whole = unembed(llama, activations[2])
    torch.testing.assert_close(unembed(llama, activations[2][0, 4]), whole[0, 4])
    torch.testing.assert_close(unembed(llama, activations[2][:, None]), whole[:, None])
    picked = logit_lens(llama, activations, [3, 1])
    assert list(picked) == [3, 1]
    torch.testing.assert_close(picked[1], unembed(llama, activations[1]))


def test_the_model_is_left_as_it_was_and_gradients_only_flow_where_they_are_asked_for(llama):
    activations = read_activations(llama, **inputs_of(llama))
    hooks, before = count_hooks(llama), activations[1].clone()
    assert not unembed(llama, activations[1]).requires_grad
    assert torch.equal(activations[1], before)
    hidden = activations[1].clone().requires_grad_()
    unembed(llama, hidden)[0, 0, 5].backward()
    assert hidden.grad[0, 0].abs().max() > 0 and hidden.grad[0, 1].abs().max() == 0
    with torch.no_grad():
        assert not unembed(llama, hidden).requires_grad
    for parameter in llama.parameters():
        parameter.grad = None
    assert hooks == count_hooks(llama)


def test_recorders_and_editors_do_not_notice_the_lens(llama):
    """As in a LogitsProcessor: the lens looks at what is being recorded while it is generated."""
    ids, calls = inputs_of(llama)["input_ids"][:1], []
    expected = llama.generate(ids, max_new_tokens=4, do_sample=False)
    hidden = torch.randn(1, 1, 32)
    plain = unembed(llama, hidden)

    def look(input_ids, scores):
        seen = unembed(llama, activations[4][:, -1])
        torch.testing.assert_close(seen, scores, rtol=1e-4, atol=1e-4)
        return scores

    with record_activations(llama) as activations:
        got = llama.generate(ids, max_new_tokens=4, do_sample=False, logits_processor=[look])
    assert torch.equal(got, expected)
    assert activations[2].shape[:2] == (1, expected.shape[1] - 1)
    with record_activations(llama) as alone:
        llama.generate(ids, max_new_tokens=4, do_sample=False)
    torch.testing.assert_close(activations[2], alone[2])
    with edit_activations(llama, {4: lambda h: calls.append(h) or h * 0, 1: lambda h: h[:, [9]]}):
        torch.testing.assert_close(unembed(llama, hidden), plain)
    assert not calls


def test_choices_are_the_best_of_the_softmax(llama):
    activations = read_activations(llama, **inputs_of(llama))
    probs, ids = lens_choices(llama, activations, k=3)
    assert probs.shape == ids.shape == (5, 2, 7, 3)
    for layer, logits in logit_lens(llama, activations).items():
        best = logits.softmax(dim=-1).topk(3)
        torch.testing.assert_close(probs[layer], best.values)
        assert torch.equal(ids[layer], best.indices)
    some, _ = lens_choices(llama, activations, [4, 0], k=3)
    torch.testing.assert_close(some, probs[[4, 0]])


@pytest.mark.parametrize("vocab", [1536, 1531, 512])  # six blocks of words, none, two
@pytest.mark.parametrize("k", [1, 9])
def test_choices_of_vocabularies_that_do_and_do_not_fall_into_blocks(vocab, k):
    model = tiny("llama", {"vocab_size": vocab})
    activations = read_activations(model, **inputs_of(model), layers=[1, 4])
    probs, ids = lens_choices(model, activations, k=k)
    for row, logits in enumerate(logit_lens(model, activations).values()):
        best = logits.softmax(dim=-1).topk(k)
        torch.testing.assert_close(probs[row], best.values)
        assert torch.equal(ids[row], best.indices)


@pytest.fixture
def rows(monkeypatch):
    """How many positions each call of `unembed` inside the package is given."""
    seen = []

    def watched(model, hidden):
        seen.append(len(hidden))
        return unembed(model, hidden)

    monkeypatch.setattr("tutorial_utils.lens.unembed", watched)
    return seen


def test_choices_hold_the_logits_of_few_positions_at_once(llama, rows):
    ids = torch.randint(3, 128, (6, 100))
    activations = read_activations(llama, ids)
    probs, _ = lens_choices(llama, activations)
    assert max(rows) == 512 and sum(rows) == 5 * 6 * 100
    expected = unembed(llama, activations[3]).softmax(dim=-1).topk(5).values
    torch.testing.assert_close(probs[3], expected)


def test_a_large_vocabulary_has_fewer_positions_at_once(llama, rows, monkeypatch):
    """Of 128,256 words it is 130 positions, 67 MB of logits in float32."""
    activations = read_activations(llama, torch.randint(3, 128, (1, 100)))
    want = lens_choices(llama, activations)
    monkeypatch.setattr(llama.config, "vocab_size", 2**24 // 30)
    rows.clear()
    got = lens_choices(llama, activations)
    assert max(rows) == 30 and sum(rows) == 5 * 100
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[0], want[0])


def test_the_decoder_layers_do_not_run_for_the_lens(llama):
    hidden, ran = torch.randn(3, 32), []
    plain = unembed(llama, hidden)  # looks once at the form of what each layer gives
    handles = [
        layer.mlp.register_forward_hook(lambda *_: ran.append(1)) for layer in llama.model.layers
    ]
    torch.testing.assert_close(unembed(llama, hidden), plain)
    for handle in handles:
        handle.remove()
    assert not ran and not any("forward" in vars(layer) for layer in llama.model.layers)


def test_the_first_layer_of_an_answer():
    choices = torch.tensor([[1, 7, 4], [7, 7, 4], [2, 3, 4], [7, 7, 5]])  # (layers, batch)
    assert answer_layer(choices, torch.tensor([7, 7, 7])).tolist() == [1, 0, -1]
    assert answer_layer(choices[:, 2], torch.tensor(5)).item() == 3
    with pytest.raises(ValueError, match=r"here \(4, 3\) for \(2,\)"):
        answer_layer(choices, torch.tensor([7, 7]))


def test_entropy_and_divergence_are_those_of_plain_loops():
    torch.manual_seed(0)
    one, other = torch.randn(2, 3, 11) * 5, torch.randn(2, 3, 11) * 5
    for place in ((0, 0), (1, 2)):
        p, q = (z[place].double().softmax(-1).tolist() for z in (one, other))
        expected = -sum(a * math.log2(a) for a in p)
        assert entropy(one)[place].item() == pytest.approx(expected, abs=1e-5)
        expected = sum(a * math.log2(a / b) for a, b in zip(p, q, strict=True))
        assert kl_divergence(one, other)[place].item() == pytest.approx(expected, rel=1e-5)
    assert entropy(one).shape == kl_divergence(one, other).shape == (2, 3)
    assert kl_divergence(one, one).abs().max() < 1e-5
    assert kl_divergence(one, other).min() > 0


def test_entropy_and_divergence_at_their_ends():
    assert entropy(torch.zeros(8)).item() == pytest.approx(3)
    certain = torch.tensor([0.0, -math.inf, -math.inf, -math.inf])
    assert entropy(certain).item() == 0
    assert kl_divergence(certain, torch.zeros(4)).item() == pytest.approx(2)
    assert kl_divergence(torch.zeros(4), certain).item() == math.inf
    assert kl_divergence(certain, certain).item() == 0
    assert entropy(torch.zeros(8, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_neither_certain_nor_alike_nor_a_first_choice(llama, bad):
    logits = torch.zeros(2, 4)
    logits[1, 2] = bad
    assert entropy(logits)[1].isnan() and entropy(logits)[0] == 2
    for pair in ((logits, torch.zeros(2, 4)), (torch.zeros(2, 4), logits), (logits, logits)):
        assert kl_divergence(*pair)[1].isnan() and kl_divergence(*pair)[0] == 0
    everything = torch.full((2, 4), -math.inf)
    assert entropy(everything).isnan().all() and kl_divergence(everything, logits).isnan().all()
    activations = {i: torch.randn(1, 2, 32) for i in (1, 2)}
    activations[2][0, 1] = bad
    probs, ids = lens_choices(llama, activations, k=2)
    assert probs[1, 0, 1].isnan().all() and (ids[1, 0, 1] == -1).all()
    assert probs[0].isfinite().all() and (ids[0] >= 0).all() and (ids[1, 0, 0] >= 0).all()
    assert answer_layer(ids[..., 0], torch.full((1, 2), -1)).tolist() == [[-1, -1]]
    with pytest.raises(ValueError, match=r"token ids, whole numbers, not torch.float32.*argmax"):
        answer_layer(logits, torch.zeros(4))


@pytest.mark.parametrize(
    ("hidden", "said"),
    [
        (torch.randn(2, 3, 31), r"\(\.\.\., 32\).*\(2, 3, 31\)"),
        (torch.randn(0, 3, 32), "must not be empty"),
        (torch.ones(2, 32, dtype=torch.long), "torch.int64"),
        ([[0.0] * 32], "not list"),
        (torch.tensor(1.0), "floats"),
    ],
)
def test_what_is_no_residual_stream_is_refused(llama, hidden, said):
    with pytest.raises(ValueError, match=said):
        unembed(llama, hidden)


def test_no_layers_and_layers_that_were_not_recorded(llama):
    activations = read_activations(llama, **inputs_of(llama), layers=[1, 2])
    with pytest.raises(ValueError, match="no layers were picked"):
        logit_lens(llama, activations, [])
    with pytest.raises(KeyError, match="layer 3 was not recorded"):
        lens_choices(llama, activations, [3])


@pytest.mark.parametrize(
    ("model_type", "said"),
    [("inkling2_text", "more than the residual stream"), ("musicgen", "do not run on one token")],
)
def test_a_model_that_cannot_do_it_is_refused(model_type, said):
    if model_type not in CONFIGS:
        pytest.skip(f"this transformers has no {model_type}")
    try:
        model = build(model_type)
    except ValueError as error:
        pytest.skip(f"this transformers makes no {model_type} from numbers alone: {error}")
    for shape in ((2, 7, 32), (32,)):
        with pytest.raises(ValueError, match=said):
            unembed(model, torch.randn(shape))


def test_a_model_without_a_head_is_refused():
    model = AutoModel.from_config(small_config(LlamaConfig))
    with pytest.raises(ValueError, match=r"no logits.*AutoModelForCausalLM"):
        unembed(model, torch.randn(1, 2, 32))


def test_a_hook_that_breaks_leaves_nothing_behind(llama):
    def broken(module, args, output):
        raise KeyError("somebody else's hook")

    handle = llama.lm_head.register_forward_hook(broken)
    before = count_hooks(llama)
    with pytest.raises(KeyError, match="somebody else's"):
        unembed(llama, torch.randn(2, 32))
    assert count_hooks(llama) == before
    handle.remove()
    with record_activations(llama, 0) as activations:  # the recorder works again
        llama(**inputs_of(llama))
    assert activations[0].shape == (2, 7, 32)


def test_the_token_that_the_model_runs_on_has_no_say():
    model = GPT2LMHeadModel(small_config(GPT2Config)).eval()
    hidden = torch.randn(3, 32)
    expected = unembed(model, hidden)
    with torch.no_grad():
        model.transformer.wpe.weight[0] += 9  # where that token stands
    torch.testing.assert_close(unembed(model, hidden), expected)
