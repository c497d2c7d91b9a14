"""Heads add up to their part, and leaving one out is what a hook by hand does."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor

import architectures
from streams import HIDDEN, LAYERS, build, hidden_states, logits_of, random_ids
from tiny_models import count_hooks
from tutorial_utils import (
    ablate_heads,
    edit_heads,
    read_activations,
    read_attention,
    read_head_outputs,
    read_heads,
    read_parts,
)

HEADS, SIZE = 4, HIDDEN // 4
MASKS = {
    "left": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7]),
    "right": torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}


@pytest.fixture(params=["llama", "gpt2", "gptj"])
def model(request):
    """With biases that are not 0."""
    model = build(request.param)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data += torch.randn(parameter.shape)
    return model


def matrix_of(model, layer: int) -> torch.nn.Module:
    layers = model.model.layers if hasattr(model, "model") else model.transformer.h
    attention = getattr(layers[layer - 1], "self_attn", None) or layers[layer - 1].attn
    names = ("o_proj", "c_proj", "out_proj")
    return next(getattr(attention, name) for name in names if hasattr(attention, name))


def without(model, layer: int, head: int, value: Tensor | float = 0.0, run=logits_of):
    """By hand: a hook that sets this head's slice of the output matrix's input to a value."""

    def hook(module, args):
        mixed = args[0].clone()
        mixed[..., head * SIZE : (head + 1) * SIZE] = value
        return (mixed,)

    handle = matrix_of(model, layer).register_forward_pre_hook(hook)
    result = run(model)
    handle.remove()
    return result


def test_heads_add_up_to_the_part_less_the_bias(model):
    heads = read_heads(model, random_ids(), slice(1, None))
    parts = read_parts(model, random_ids(), "attention")
    assert list(heads) == list(parts)
    for layer, each in heads.items():
        assert each.shape == (2, HEADS, 7, HIDDEN)
        bias = getattr(matrix_of(model, layer), "bias", None)
        total = each.sum(dim=1) + (0 if bias is None else bias)
        torch.testing.assert_close(total, parts[layer], rtol=1e-4, atol=1e-5)


def test_each_head_is_its_slice_of_the_matrix(model):
    mixed = []
    matrix = matrix_of(model, 2)
    handle = matrix.register_forward_pre_hook(lambda module, args: mixed.append(args[0]))
    logits_of(model)
    handle.remove()
    weight = matrix.weight if type(matrix).__name__ == "Conv1D" else matrix.weight.T  # (in, out)
    heads = read_heads(model, random_ids(), 2)[2]
    outputs = read_head_outputs(model, random_ids(), 2)[2]
    assert outputs.shape == (2, 7, HEADS, SIZE)
    for head in range(HEADS):
        own = slice(head * SIZE, (head + 1) * SIZE)
        expected = mixed[0][..., own] @ weight[own]
        torch.testing.assert_close(heads[:, head], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(outputs[:, :, head], mixed[0][..., own])


@pytest.mark.parametrize(("side", "last"), [(None, [6, 6]), ("left", [6, 6]), ("right", [4, 6])])
def test_positions(model, side, last):
    mask = MASKS.get(side)
    every = read_heads(model, random_ids(), [1, -1], attention_mask=mask)
    assert list(every) == [1, LAYERS]
    read = {"layers": [1, -1], "attention_mask": mask}
    some = read_heads(model, random_ids(), positions=[0, -2], **read)
    at_last = read_heads(model, random_ids(), positions="last", **read)
    outputs = read_head_outputs(model, random_ids(), positions="last", **read)
    for layer, heads in every.items():
        torch.testing.assert_close(some[layer], heads[:, :, [0, -2]])
        torch.testing.assert_close(at_last[layer][:, :, 0], heads[[0, 1], :, last])
        assert outputs[layer].shape == (2, 1, HEADS, SIZE)
        for kept in (at_last[layer], outputs[layer]):
            assert kept.untyped_storage().nbytes() == kept.nbytes


@pytest.mark.parametrize("layer", [1, LAYERS, -1])
@pytest.mark.parametrize("head", [0, 3])
def test_ablation_is_what_a_hook_by_hand_does(model, layer, head):
    number = layer % (LAYERS + 1)
    with ablate_heads(model, [(layer, head)]):
        assert torch.equal(logits_of(model), without(model, number, head))
    other = random_ids().flip(1)
    values = read_head_outputs(model, other, number)
    with ablate_heads(model, [(layer, head)], values):  # of another prompt
        expected = without(model, number, head, values[number][:, :, head])
        assert torch.equal(logits_of(model), expected)
    means = {number: values[number].mean(dim=(0, 1))}  # (head, size)
    with ablate_heads(model, [(layer, head)], means):
        assert torch.equal(logits_of(model), without(model, number, head, means[number][head]))
    assert not count_hooks(model)


def test_ablation_of_several_heads_in_several_layers(model):
    heads = [(1, 0), (1, 2), (3, 1), (-1, 3)]

    def all_four(model):
        return without(model, 1, 2, run=lambda m: without(m, 3, 1, run=lambda m: without(m, 3, 3)))

    with ablate_heads(model, heads):
        assert torch.equal(logits_of(model), without(model, 1, 0, run=all_four))
    plain = logits_of(model)
    with ablate_heads(model, []):  # a control
        assert torch.equal(logits_of(model), plain)


def test_positions_are_chosen_before_heads_are_spread_out(llama, monkeypatch):
    """The matrix is asked about the chosen positions only, one head after the other."""
    shapes, matrix = [], llama.model.layers[1].self_attn.o_proj
    whole = matrix.forward
    monkeypatch.setattr(matrix, "forward", lambda x: shapes.append(tuple(x.shape)) or whole(x))
    read_heads(llama, random_ids(), 2, positions=[1, 4, 6])
    assert shapes == [(2, 7, HIDDEN), (2, 1, HIDDEN)] + [(2, 3, HIDDEN)] * HEADS


def test_what_reads_inside_a_block_sees_the_edit(model):
    values = {2: torch.ones(SIZE)}
    with ablate_heads(model, [(2, 1)], values):
        heads, outputs = (
            read(model, random_ids(), 2)[2] for read in (read_heads, read_head_outputs)
        )
        stream = read_activations(model, random_ids())
        part = read_parts(model, random_ids(), "attention")[2]
    assert (outputs[:, :, 1] == 1).all()
    assert torch.equal(stream[3], without(model, 2, 1, 1.0, run=lambda m: hidden_states(m)[3]))
    bias = getattr(matrix_of(model, 2), "bias", None)
    total = heads.sum(dim=1) + (0 if bias is None else bias)
    torch.testing.assert_close(total, part, rtol=1e-4, atol=1e-5)
    weight = matrix_of(model, 2).weight
    weight = weight if type(matrix_of(model, 2)).__name__ == "Conv1D" else weight.T
    expected = weight[SIZE : 2 * SIZE].sum(dim=0).expand(2, 7, -1)
    torch.testing.assert_close(heads[:, 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_cache", [True, False])
def test_ablation_inside_generate(model, use_cache):
    """With a KV cache a pass holds the new tokens only; each of them is without the head."""
    seen: list[tuple] = []

    def edit(heads):
        seen.append(tuple(heads.shape))
        return heads * torch.tensor([1.0, 0, 1, 1])[:, None]

    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def generate(model):
        return model.generate(random_ids(), use_cache=use_cache, **options)

    expected, at_zero = (without(model, 2, 1, value, run=generate) for value in (3.0, 0.0))
    with ablate_heads(model, [(2, 1)], {2: torch.full((SIZE,), 3.0)}):
        assert torch.equal(generate(model), expected)
    with edit_heads(model, {2: edit}):
        assert torch.equal(generate(model), at_zero)
    lengths = [7, 1, 1, 1] if use_cache else [7, 8, 9, 10]
    assert seen == [(2, n, HEADS, SIZE) for n in lengths]
    values = read_head_outputs(model, random_ids(), 2)
    with (
        pytest.raises(ValueError, match=r"values of layer 2, \(2, 7, 4, 8\), do not fit this pass"),
        ablate_heads(model, [(2, 1)], values),
    ):
        generate(model)
    assert not count_hooks(model)


def test_an_edit_keeps_the_gradient(llama):
    keep = torch.ones(HEADS, 1, requires_grad=True)
    with edit_heads(llama, {2: lambda heads: heads * keep}):
        llama(random_ids()).logits[:, -1, 5].sum().backward()
    assert (keep.grad.abs() > 0).all()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h[:1], r"edit of the heads of layer 2 returned \(1, 7, 4, 8\), torch.float32"),
        (lambda h: h.half(), r"torch.float16, cpu instead of \(2, 7, 4, 8\), torch.float32"),
        (lambda h: None, "returned None instead of"),
    ],
)
def test_wrong_edits(llama, edit, message):
    with pytest.raises(ValueError, match=message), edit_heads(llama, {2: edit}):
        logits_of(llama)
    assert not count_hooks(llama)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda m: ablate_heads(m, [(2, 4)]), "L2H4 is not there: heads are 0 to 3"),
        (lambda m: ablate_heads(m, [(2, -1)]), "L2H-1 is not there: heads are 0 to 3"),
        (lambda m: ablate_heads(m, [(0, 1)]), "layer 0 is the embedding output"),
        (lambda m: ablate_heads(m, [(9, 1)]), "layer 9 is not in this model"),
        (
            lambda m: ablate_heads(m, (2, 3)),
            r"pairs of a layer and a head, such as \(2, 3\), not 2",
        ),
        (lambda m: ablate_heads(m, [(2, 3)], {1: 0}), r"no values for layer 2, only for \[1\]"),
        (lambda m: edit_heads(m, {-1: abs, 3: abs}), "two of these layers are the same one"),
        (lambda m: edit_heads(m, abs), "edits are given as"),
        (lambda m: edit_heads(m, {1: None}), "edits are given as"),
    ],
)
def test_what_is_not_there_is_refused_before_any_hook(llama, block, message):
    with pytest.raises(ValueError, match=message):
        block(llama).__enter__()
    assert not count_hooks(llama)


def test_unknown_options(llama):
    for read in (read_heads, read_head_outputs):
        with pytest.raises(TypeError, match=f"{read.__name__} has no option 'position'"):
            read(llama, random_ids(), 1, position="last")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_gone_after_an_error(llama, error):
    def fail(module, args):
        raise error

    handle = llama.model.layers[1].self_attn.o_proj.register_forward_pre_hook(fail)
    for read in (read_heads, read_head_outputs):
        with pytest.raises(error):
            read(llama, random_ids(), [1, 2, 3])
    with pytest.raises(error), ablate_heads(llama, [(1, 1), (3, 2)]):
        logits_of(llama)
    handle.remove()
    assert not count_hooks(llama)


def test_two_threads_with_one_model_are_refused(llama):
    errors = []

    def work():
        try:
            read_heads(llama, random_ids(), 1)
        except ValueError as error:
            errors.append(str(error))

    with ablate_heads(llama, [(1, 1)]):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "another thread" in errors[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(model, dtype):
    exact, part = (
        read_heads(model, random_ids(), 2)[2],
        read_parts(model, random_ids(), "attention"),
    )
    half = copy.deepcopy(model).to(dtype)
    heads = read_heads(half, random_ids(), 2)[2]
    assert heads.dtype == dtype
    rounding = 4 * torch.finfo(dtype).eps * part[2].abs().max()  # of what the matrix gives
    assert (heads.float() - exact).abs().max() < rounding


def test_compiled_model(llama):
    compiled = torch.compile(build("llama"), backend="eager")
    plain = logits_of(compiled)
    expected = read_heads(llama, random_ids(), 2)[2]
    assert torch.equal(read_heads(compiled, random_ids(), 2)[2], expected)
    with ablate_heads(compiled, [(2, 1)]):
        torch.testing.assert_close(logits_of(compiled), without(llama, 2, 1))
    torch.testing.assert_close(logits_of(compiled), plain)


@pytest.mark.parametrize("how", ["cpu_offload", "disk_offload"])
def test_offloaded_model(model, how, tmp_path):
    accelerate = pytest.importorskip("accelerate")
    expected = read_heads(model, random_ids(), [1, 2], positions="last")
    patterns, ablated = read_attention(model, random_ids()), without(model, 2, 1)
    if how == "cpu_offload":
        parts = accelerate.cpu_offload(copy.deepcopy(model), torch.device("cpu"))
    else:
        parts = accelerate.disk_offload(copy.deepcopy(model), tmp_path, torch.device("cpu"))
    assert matrix_of(parts, 1).weight.is_meta
    for layer, heads in read_heads(parts, random_ids(), [1, 2], positions="last").items():
        torch.testing.assert_close(heads, expected[layer])
    assert torch.equal(read_attention(parts, random_ids())[2], patterns[2])
    with ablate_heads(parts, [(2, 1)]):
        torch.testing.assert_close(logits_of(parts), ablated)


def test_adapters():
    """The matrix has an adapter, one for each row: what it gives is what counts."""
    peft = pytest.importorskip("peft")
    llama = build("llama")
    config = peft.LoraConfig(target_modules=["o_proj"], r=4, init_lora_weights=False)
    adapted = peft.get_peft_model(llama, config, adapter_name="one").eval()
    adapted.add_adapter("two", config)
    names = {"adapter_names": ["one", "two"]}
    heads = read_heads(adapted, random_ids(), 2, **names)[2]
    part = read_parts(adapted, random_ids(), "attention", **names)[2]
    torch.testing.assert_close(heads.sum(dim=1), part, rtol=1e-4, atol=1e-5)
    with adapted.disable_adapter():
        bare = read_heads(adapted, random_ids(), 2)[2]
    assert (heads - bare).abs().max() > 0.1 * bare.abs().max()
    outputs = read_head_outputs(adapted, random_ids(), 2, **names)[2]
    alone = torch.zeros_like(outputs)
    alone[:, :, 1] = outputs[:, :, 1]
    matrix = adapted.base_model.model.model.layers[1].self_attn.o_proj
    with torch.no_grad():
        expected = matrix(alone.flatten(-2), **names)
    torch.testing.assert_close(heads[:, 1], expected, rtol=1e-4, atol=1e-5)


class Quantised(torch.nn.Module):
    """A matrix whose weights lie in whole numbers, as many to a byte as some kernels have."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features = linear.in_features
        self.scale = linear.weight.abs().amax() / 7
        self.packed = (linear.weight / self.scale).round().to(torch.int8)

    def forward(self, mixed: Tensor) -> Tensor:
        scale = mixed.abs().amax(dim=-1, keepdim=True) / 127  # int8 activations, row by row
        rounded = (mixed / scale.clamp(min=1e-9)).round()
        return rounded @ (self.packed.float().T * self.scale) * scale


def test_quantised_matrix(llama):
    """It is called, not read; heads add up within the error that its kernel has by itself."""
    attention = llama.model.layers[1].self_attn
    attention.o_proj = Quantised(attention.o_proj)
    heads = read_heads(llama, random_ids(), 2)[2]
    part = read_parts(llama, random_ids(), "attention")[2]
    assert 0 < (heads.sum(dim=1) - part).abs().max() < 0.02 * part.abs().max()


def test_heads_that_do_not_add_up_are_refused(llama):
    attention = llama.model.layers[1].self_attn
    whole = attention.o_proj.forward
    attention.o_proj.forward = lambda mixed: whole(mixed).tanh() * 5
    attention.o_proj.weight.data *= 50
    with pytest.raises(ValueError, match="heads of decoder layer 2 do not add up"):
        read_heads(llama, random_ids(), 2)
    assert not count_hooks(llama)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("diffllama", "a difference of two"),
        ("jetmoe", "no single output matrix"),
        ("mamba", "no part that is known as attention"),
    ],
)
def test_refused_architectures(model_type, message):
    model = architectures.build_if_known(model_type)
    with pytest.raises(ValueError, match=message):
        read_heads(model, **architectures.inputs_of(model), layers=1)
    with pytest.raises(ValueError, match=message):
        ablate_heads(model, [(1, 0)]).__enter__()


def test_a_count_that_is_not_clear_is_refused(llama):
    llama.model.layers[0].self_attn.num_heads = 8
    with pytest.raises(
        ValueError, match=r"the number of heads .* is not clear: .* a head has 8, .* as 8"
    ):
        read_heads(llama, random_ids(), 1)


def test_layers_of_different_counts():
    model = architectures.build_if_known("dots3_note")
    heads = read_heads(model, **architectures.inputs_of(model), layers=[1, 2])
    assert [each.shape[1] for each in heads.values()] == [128, 64]


@torch.no_grad()
def test_on_the_shipped_model_the_output_is_no_row_of_heads(pocket):
    """The mistake to avoid: the output matrix mixes the heads, so that its slices are no heads."""
    model, tokenizer = pocket
    inputs = tokenizer(
        "Anna works at Google. Ben works at Nike. Anna works at", return_tensors="pt"
    )
    google, sony = (tokenizer(f" {name}")["input_ids"][-1] for name in ("Google", "Sony"))

    def lead() -> float:
        logits = model(**inputs).logits[0, -1]
        return (logits[google] - logits[sony]).item()

    size = model.config.head_dim

    def sliced(module, args, output):
        output = output.clone()
        output[..., 3 * size : 4 * size] = 0
        return output

    plain = lead()
    with ablate_heads(model, [(2, 3)]):
        right = plain - lead()
    handle = model.model.layers[1].self_attn.o_proj.register_forward_hook(sliced)
    wrong = plain - lead()
    handle.remove()
    assert abs(right - wrong) > 1
