"""Patching gives what plain loops with hooks of their own give; its controls bring back less."""

import io
from contextlib import redirect_stderr

import pytest
import torch

from tiny_models import count_hooks
from tutorial_utils import (
    edit_activations,
    encode,
    find_decoder_layers,
    next_token_logits,
    patch_each,
    read_activations,
    read_parts,
)

CLEAN, CORRUPTED = "The capital of France is", "The capital of Italy is"


def two_prompts(model, tokenizer) -> tuple[dict, dict, str]:
    """Inputs of another prompt and of a prompt, with as many tokens; and that prompt."""
    prompt = "Trump works at"
    inputs = encode(model, tokenizer, prompt)
    torch.manual_seed(0)
    ids = torch.randint(5, 300, inputs["input_ids"].shape)
    return {"input_ids": ids}, inputs, prompt


def score(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 7] - logits[:, 9]


def run_patched(model, inputs, module, activation, token, kind) -> float:
    """One run, one place, one hook: the score with `activation` (hidden,) put there."""

    def put(output):
        tensor = output[0] if isinstance(output, tuple) else output
        tensor = tensor.clone()
        tensor[0, token] = activation
        return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

    if kind == "input":
        handle = module.register_forward_pre_hook(lambda m, args: (put(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda m, args, output: put(output))
    with torch.no_grad():
        value = score(model(**inputs).logits[:, -1].float()).item()
    handle.remove()
    return value


def test_residual_stream_equals_a_run_for_each_place(tiny):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    with torch.no_grad():
        states = model(**source_inputs, output_hidden_states=True).hidden_states
    layers = find_decoder_layers(model)
    last = read_activations(model, **source_inputs)[len(layers)]  # before the final norm
    want = []
    for i, source in enumerate([*states[:-1], last]):
        module, kind = (layers[i - 1], "output") if i else (layers[0], "input")
        runs = [run_patched(model, inputs, module, h, t, kind) for t, h in enumerate(source[0])]
        want.append(runs)
    got = patch_each(model, tokenizer, prompt, read_activations(model, **source_inputs), score)
    assert got.shape == (len(layers) + 1, last.shape[1]) and got.dtype == torch.float32
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "names"), [("attention", ("self_attn", "attn")), ("mlp", ("mlp",))]
)
def test_parts_equal_a_run_for_each_place(tiny, part, names):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    source = read_parts(model, part=part, **source_inputs)
    layers = find_decoder_layers(model)
    assert list(source) == list(range(1, len(layers) + 1))
    seq = inputs["input_ids"].shape[1]
    want = torch.empty(len(layers), seq)
    for i, layer in enumerate(layers):
        module = next(getattr(layer, name) for name in names if hasattr(layer, name))
        for t in range(seq):
            want[i, t] = run_patched(model, inputs, module, source[i + 1][0, t], t, "output")
    got = patch_each(model, tokenizer, prompt, source, score, part=part)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert (got - score(next_token_logits(model, tokenizer, prompt))).abs().max() > 1e-3


def mlp_rows(model, counts: list) -> list:
    """Handles of hooks that note how many rows each decoder layer computes."""
    return [
        layer.mlp.register_forward_pre_hook(lambda m, args, i=i: counts.append((i, len(args[0]))))
        for i, layer in enumerate(find_decoder_layers(model), start=1)
    ]


def test_a_common_beginning_is_not_run_again(tiny):
    """Its rows give the score of the prompt as it is; a number that is not finite is run."""
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    ids = source_inputs["input_ids"]
    seq, common = ids.shape[1], ids.shape[1] - 2
    ids[:, :common] = inputs["input_ids"][:, :common]
    source = read_activations(model, input_ids=ids, layers=[1, 2])
    counts: list = []
    handles = mlp_rows(model, counts)
    got = patch_each(model, tokenizer, prompt, source, score)
    broken = {2: source[2].clone()}
    broken[2][0, 0] = torch.nan
    not_finite = patch_each(model, tokenizer, prompt, broken, score)
    for handle in handles:
        handle.remove()
    assert max(rows for _, rows in counts) <= seq - common + 2
    plain = score(next_token_logits(model, tokenizer, prompt)).item()
    assert got[:, :common] == pytest.approx(plain, abs=1e-4)
    assert ((got[:, common:] - plain).abs() > 1e-3).any(dim=1).all()
    assert not not_finite[0, 0].isfinite()
    assert not_finite[0, 1:common] == pytest.approx(plain, abs=1e-4)


def test_one_pass_for_each_layer_and_progress_is_shown(tiny):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    source = read_activations(model, **source_inputs, layers=[0, 2])
    shapes = []
    handle = model.register_forward_pre_hook(
        lambda m, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with redirect_stderr(io.StringIO()) as shown:
        got = patch_each(model, tokenizer, prompt, source, score)
    handle.remove()
    seq = inputs["input_ids"].shape[1]
    # One plain pass; with layers left out each pass has a row to check that this changes nothing.
    assert shapes == [(1, seq), (seq, seq), (seq + 1, seq)] and got.shape == (2, seq)
    assert "patching" in shown.getvalue() and "/2" in shown.getvalue()


@pytest.mark.parametrize("part", [None, "mlp"])
def test_the_layers_below_the_patch_are_not_run_again(tiny, part):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    source = read_parts(model, part=part, **source_inputs) if part else None
    source = source or read_activations(model, **source_inputs)
    seq, ran = inputs["input_ids"].shape[1], []
    handles = mlp_rows(model, ran)
    patch_each(model, tokenizer, prompt, {3: source[3]}, score, part=part)
    for handle in handles:
        handle.remove()
    assert ran[:4] == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert ran[4:] == [(i, seq + 1) for i in ((3, 4) if part else (4,))]


@pytest.mark.parametrize("batch_tokens", [1, 9, 13, 1000])
def test_a_pass_has_no_more_tokens_than_it_may(tiny, batch_tokens):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    source, seq, ran = read_activations(model, **source_inputs), inputs["input_ids"].shape[1], []
    want = patch_each(model, tokenizer, prompt, source, score)
    handles = mlp_rows(model, ran)
    got = patch_each(model, tokenizer, prompt, source, score, batch_tokens=batch_tokens)
    for handle in handles:
        handle.remove()
    most = max(rows for _, rows in ran)
    assert most == min(max(1, batch_tokens // seq), seq + 1)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def slow_way(model, tokenizer, prompt, source) -> torch.Tensor:
    rows, each = [], torch.arange(next(iter(source.values())).shape[1])
    for layer, stream in source.items():

        def put(hidden, stream=stream):
            return hidden.index_put((each, each), stream[0])

        with edit_activations(model, {layer: put}):
            rows.append(score(next_token_logits(model, tokenizer, [prompt] * len(each))))
    return torch.stack(rows)


@pytest.mark.parametrize("otherwise", ["nothing", "an error"])
def test_a_model_whose_layers_hand_on_more_than_the_stream(tiny, otherwise):
    """What the first layer's MLP gives reaches the third layer by another way."""
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)
    source, layers, handed = (
        read_activations(model, **source_inputs),
        find_decoder_layers(model),
        {},
    )

    def hand_on(module, args, output):
        handed["on"] = output

    def take(module, args, output):
        return output + (handed.pop("on") if otherwise == "an error" else handed.pop("on", 0))

    handles = [layers[0].mlp.register_forward_hook(hand_on)]
    handles.append(layers[2].mlp.register_forward_hook(take))
    want, ran = slow_way(model, tokenizer, prompt, source), []
    handles += mlp_rows(model, ran)
    got = patch_each(model, tokenizer, prompt, source, score)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    seq = inputs["input_ids"].shape[1]
    assert ran.count((1, seq)) == 5  # the slow way at each layer


def test_what_a_block_around_it_edits_is_edited_once(tiny):
    model, tokenizer = tiny
    source_inputs, _, prompt = two_prompts(model, tokenizer)
    source = read_activations(model, **source_inputs)
    with edit_activations(model, {2: lambda hidden: hidden + 0.3, 3: lambda hidden: hidden * 2}):
        want = slow_way(model, tokenizer, prompt, source)
        got = patch_each(model, tokenizer, prompt, source, score)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", [None, "attention", "mlp"])
def test_the_estimate_is_difference_times_gradient(tiny, part):
    model, tokenizer = tiny
    source_inputs, inputs, prompt = two_prompts(model, tokenizer)

    def read(given):
        return read_parts(model, part=part, **given) if part else read_activations(model, **given)

    own, other = read(inputs), read(source_inputs)
    before = score(next_token_logits(model, tokenizer, prompt))
    near = {i: own[i] + 1e-3 * (other[i] - own[i]) for i in own}
    exact = patch_each(model, tokenizer, prompt, near, score, part=part) - before
    for frozen in (True, False):
        model.requires_grad_(not frozen)
        whole = patch_each(model, tokenizer, prompt, other, score, part=part, approximate=True)
        assert whole.shape == exact.shape and whole.dtype == torch.float32
        assert not whole.requires_grad
        gain = (whole - before) * 1e-3  # linear in the difference
        assert (gain - exact).norm() < 0.02 * exact.norm()
    assert all(parameter.grad is None for parameter in model.parameters())
    some = {3: other[3], 1: other[1]}
    few = patch_each(model, tokenizer, prompt, some, score, part=part, approximate=True)
    torch.testing.assert_close(few, whole[[[*other].index(3), [*other].index(1)]])
    with torch.no_grad(), torch.inference_mode():
        again = patch_each(model, tokenizer, prompt, some, score, part=part, approximate=True)
    torch.testing.assert_close(again, few)


def test_the_estimate_takes_one_pass(tiny):
    model, tokenizer = tiny
    source_inputs, _, prompt = two_prompts(model, tokenizer)
    source, ran, hooks = read_activations(model, **source_inputs), [], count_hooks(model)
    handles = mlp_rows(model, ran)
    patch_each(model, tokenizer, prompt, source, score, approximate=True)
    for handle in handles:
        handle.remove()
    assert ran == [(1, 1), (2, 1), (3, 1), (4, 1)] and count_hooks(model) == hooks


def test_a_score_without_a_gradient_cannot_be_estimated(tiny):
    model, tokenizer = tiny
    source = read_activations(model, **two_prompts(model, tokenizer)[0])

    def first_choice(logits):
        return logits.argmax(dim=-1) == 7

    assert patch_each(model, tokenizer, "Trump works at", source, first_choice).max() <= 1
    with pytest.raises(ValueError, match="has no gradient, perhaps because it counts"):
        patch_each(model, tokenizer, "Trump works at", source, first_choice, approximate=True)


def test_nothing_is_left_or_changed(tiny):
    model, tokenizer = tiny
    source_inputs, _, prompt = two_prompts(model, tokenizer)
    source = {i: h.clone() for i, h in read_activations(model, **source_inputs).items()}
    before, hooks = {i: h.clone() for i, h in source.items()}, count_hooks(model)
    patch_each(model, tokenizer, prompt, source, score)
    assert not any("forward" in vars(layer) for layer in find_decoder_layers(model))

    def breaks(logits):
        raise RuntimeError("the score broke")

    for part in (None, "mlp"):
        given = read_parts(model, part="mlp", **source_inputs) if part else source
        with pytest.raises(RuntimeError, match="the score broke"):
            patch_each(model, tokenizer, prompt, given, breaks, part=part)
    assert all(torch.equal(source[i], before[i]) for i in source)
    assert count_hooks(model) == hooks


def test_wrong_sources_and_scores(tiny):
    model, tokenizer = tiny
    source_inputs, _, prompt = two_prompts(model, tokenizer)
    source = dict(read_activations(model, **source_inputs))
    seq = source[0].shape[1]
    short = {i: h[:, 1:] for i, h in source.items()}
    two = {i: h.repeat(2, 1, 1) for i, h in source.items()}
    wrong = [
        ((short, score, None), f"is {seq - 1} in the source and {seq} in the prompt"),
        ((two, score, None), r"shape \(2, .* instead of \(1, seq, hidden\)"),
        (({}, score, None), "at least one layer, but it is empty"),
        ((source[0], score, None), "at least one layer, not Tensor"),
        (({9: source[0]}, score, None), "layer 9 is not in this model"),
        ((source, score, "mlp"), "layer 0 has no mlp: the decoder layers are 1 to 4"),
        ((source, score, "head"), 'part is None, "attention" or "mlp", not'),
        ((source, lambda logits: logits, None), r"shape \(1,\), and it gave"),
        ((source, lambda logits: 1.0, None), "it gave float"),
    ]
    for (given, function, part), message in wrong:
        with pytest.raises(ValueError, match=message):
            patch_each(model, tokenizer, prompt, given, function, part=part)


def test_several_prompts_are_refused(tiny):
    with pytest.raises(ValueError, match="prompt must be one string"):
        patch_each(*tiny, [CLEAN], {}, score)
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        patch_each(*tiny, CLEAN, {}, score, batch_tokens=0)


def shares_of(pocket, source_ids, clean=CLEAN, corrupted=CORRUPTED, answers=(" Paris", " Rome")):
    model, tokenizer = pocket
    good, bad = (tokenizer(a, add_special_tokens=False)["input_ids"][0] for a in answers)

    def difference(logits):
        return logits[:, good] - logits[:, bad]

    top, bottom = (
        difference(next_token_logits(model, tokenizer, p)).item() for p in (clean, corrupted)
    )
    assert top > 1 and bottom < -1, "the shipped model does not know these facts"
    source = read_activations(model, source_ids)
    return (patch_each(model, tokenizer, corrupted, source, difference) - bottom) / (top - bottom)


def test_on_the_shipped_model_the_fact_moves_to_the_last_token(pocket):
    clean_ids = encode(*pocket, CLEAN)["input_ids"]
    share = shares_of(pocket, clean_ids)
    country = clean_ids.shape[1] - 2
    assert share[0, country].item() == pytest.approx(1, abs=1e-3)  # the whole difference of the ids
    assert share[-1, -1].item() == pytest.approx(1, abs=1e-3)
    assert share[0].argmax() == country and share[-1].argmax() == country + 1
    assert share[0, -1].abs() < 1e-3 and share[-1, :-1].abs().max() < 1e-3
    assert (share.max(dim=1).values > 0.5).all()  # at each layer it is somewhere


def test_on_the_shipped_model_the_controls_bring_back_less(pocket):
    clean_ids = encode(*pocket, CLEAN)["input_ids"]
    other_ids = encode(*pocket, "The capital of Japan is")["input_ids"]
    shuffled = clean_ids[:, torch.tensor([0, 3, 1, 2, 5, 4])]
    assert shares_of(pocket, clean_ids)[-1, -1] > 0.99
    for ids in (other_ids, shuffled):
        assert shares_of(pocket, ids)[-1].max() < 0.9
