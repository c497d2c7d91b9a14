"""What was found adds up to the logit, and each share is what a calculation by hand gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import architectures
from streams import build, random_ids
from tiny_models import count_hooks
from tutorial_utils import attribute_logits, load_model, read_activations, read_heads, read_parts

MASKS = {
    "left": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7]),
    "right": torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}


def trained(kind: str, **settings: object) -> torch.nn.Module:
    """As a trained model: nothing is right for being 0 or 1, and logits differ by more than 1."""
    model = (
        build(kind, **settings) if kind in ("llama", "gpt2") else architectures.build_if_known(kind)
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        scale = 0.2 if parameter.dim() == 1 else 0.2 * parameter.shape[-1] ** -0.5
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return model


def total(found) -> Tensor:
    return found.embedding + found.attention.sum(1) + found.mlp.sum(1) + found.bias


@torch.no_grad()
def lead(model, token: int, other: int | None, **inputs) -> Tensor:
    logits = model(**inputs).logits[:, -1].float()
    return logits[:, token] - (0 if other is None else logits[:, other])


@pytest.mark.parametrize("other", [9, None])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "olmo2", "cohere", "granite", "gemma2"])
def test_it_adds_up(kind, other):
    """LayerNorm and biases, norms behind the parts, scaled logits, a scaled stream, small caps."""
    model = trained(kind)
    for layer in model.model.layers if kind == "granite" else []:
        layer.residual_multiplier = 0.22
    inputs = {"input_ids": random_ids()}
    found = attribute_logits(model, token=5, other=other, **inputs)
    torch.testing.assert_close(found.total, lead(model, 5, other, **inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(total(found), found.total, rtol=1e-3, atol=1e-3)
    layers = len(model.model.layers if hasattr(model, "model") else model.transformer.h)
    assert found.attention.shape == found.mlp.shape == (2, layers)
    assert found.heads.shape == (2, layers, 4)
    assert not count_hooks(model)


def test_capped_logits_are_refused():
    model = trained("gemma2")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 50)  # up to the cap of 30
    with pytest.raises(
        ValueError, match=r"not a linear function of the output .* perhaps because they are capped"
    ):
        attribute_logits(model, random_ids(), 5)
    model.config.final_logit_softcapping = None
    found = attribute_logits(model, random_ids(), 5)
    torch.testing.assert_close(total(found), found.total, rtol=1e-3, atol=1e-2)


def test_shares_by_hand():
    """Llama: the norm's scale is 1 / the root of the mean square, and there are no biases."""
    model, ids = trained("llama"), random_ids()
    found = attribute_logits(model, ids, 5, 9)
    last = read_activations(model, ids)[-1][:, -1]
    scale = (last.square().mean(dim=-1, keepdim=True) + model.config.rms_norm_eps).rsqrt()
    direction = model.lm_head.weight[5] - model.lm_head.weight[9]

    def share(vectors: Tensor) -> Tensor:
        return (vectors * scale * model.model.norm.weight) @ direction

    with torch.no_grad():
        torch.testing.assert_close(found.embedding, share(read_activations(model, ids)[0][:, -1]))
        heads = read_heads(model, ids, slice(1, None))
        for name in ("attention", "mlp"):
            for i, hidden in read_parts(model, ids, name).items():
                mine = getattr(found, name)[:, i - 1]
                torch.testing.assert_close(mine, share(hidden[:, -1]), rtol=1e-4, atol=1e-5)
        for i, each in heads.items():
            for head in range(4):
                mine = found.heads[:, i - 1, head]
                torch.testing.assert_close(mine, share(each[:, head, -1]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.heads.sum(2), found.attention, rtol=1e-4, atol=1e-5)
    assert not found.bias.any()


def test_what_is_left_of_attention_is_the_bias_of_its_matrix():
    """GPT-2: LayerNorm takes the mean off, and has a bias that is nobody's share."""
    model, ids = trained("gpt2"), random_ids()
    found = attribute_logits(model, ids, 5)
    last = read_activations(model, ids)[-1][:, -1]
    norm, direction = model.transformer.ln_f, model.lm_head.weight[5]
    scale = (last.var(dim=-1, keepdim=True, correction=0) + norm.eps).rsqrt()
    with torch.no_grad():
        torch.testing.assert_close(found.bias, (norm.bias @ direction).expand(2))
        for i, layer in enumerate(model.transformer.h):
            bias = layer.attn.c_proj.bias
            share = ((bias - bias.mean()) * scale * norm.weight) @ direction
            left = found.attention[:, i] - found.heads[:, i].sum(1)
            torch.testing.assert_close(left, share, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_real_token_of_each_row(kind, side):
    model, mask = trained(kind), MASKS[side]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # GPT-2 does not count from the mask
    inputs = {"input_ids": random_ids(), "attention_mask": mask, "position_ids": positions}
    found = attribute_logits(model, token=5, other=9, **inputs)
    for row, keep in enumerate(mask.bool()):
        alone = attribute_logits(model, random_ids()[row : row + 1, keep], 5, 9)
        for mine, expected in zip(found, alone):
            torch.testing.assert_close(mine[row], expected[0], rtol=1e-3, atol=1e-3)


def test_a_token_for_each_row():
    model, ids = trained("llama"), random_ids()
    found = attribute_logits(model, ids, torch.tensor([5, 6]), torch.tensor([9, 5]))
    for row, (token, other) in enumerate([(5, 9), (6, 5)]):
        alone = attribute_logits(model, ids[row : row + 1], token, other)
        for mine, expected in zip(found, alone):
            torch.testing.assert_close(mine[row], expected[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("token", [-1, 99, "Google", 1.5, torch.tensor([1, 2, 3]), None])
def test_what_is_no_token_is_refused(token):
    model = trained("llama")
    with pytest.raises(ValueError, match=r"a token is given by its id|is not in this vocabulary"):
        attribute_logits(model, random_ids(), token)
    assert not count_hooks(model)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bert", "is not the sum of the outputs of attention and MLP.*Models like BERT.*norm"),
        ("bart", r"of what decoder layer \d adds comes from neither"),
        ("falcon_h1", "comes from neither.*layers of other models have a third part"),
        ("minicpm3", "comes from neither.*or scale the stream"),
        ("modernbert-decoder", "not a linear function of the output"),
        ("musicgen", "last steps"),
        ("mamba", "no part that is known as attention"),
    ],
)
def test_what_cannot_be_attributed_is_refused_with_the_reason(kind, message):
    model = trained(kind)
    if kind == "minicpm3":
        model.model.layers[1].residual_scale = torch.tensor(0.5)  # no number: not known
    with pytest.raises(ValueError, match=message):
        attribute_logits(model, **architectures.inputs_of(model), token=5, other=9)
    assert not count_hooks(model)


def test_unknown_options():
    with pytest.raises(TypeError, match="attribute_logits has no option 'position'"):
        attribute_logits(trained("llama"), random_ids(), 5, position="last")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_half_precision(kind, dtype):
    model = trained(kind)
    exact = attribute_logits(model, random_ids(), 5, 9)
    found = attribute_logits(copy.deepcopy(model).to(dtype), random_ids(), 5, 9)
    largest = max(part.abs().max() for part in exact)
    for mine, expected in zip(found, exact):
        assert mine.dtype == torch.float32
        assert (mine - expected).abs().max() < 0.05 * largest


def test_under_inference_mode_and_inside_a_compiled_model():
    model = trained("llama")
    expected = attribute_logits(model, random_ids(), 5, 9)
    compiled = torch.compile(model, backend="eager")
    with torch.inference_mode():
        found = [attribute_logits(model, random_ids(), 5, 9)]
    found.append(attribute_logits(compiled, random_ids(), 5, 9))
    for each in found:
        for mine, wanted in zip(each, expected):
            torch.testing.assert_close(mine, wanted)


def test_offloaded_model(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model = trained("olmo2")
    expected = attribute_logits(model, random_ids(), 5, 9)
    parts = accelerate.disk_offload(model, tmp_path, torch.device("cpu"))
    for mine, wanted in zip(attribute_logits(parts, random_ids(), 5, 9), expected):
        torch.testing.assert_close(mine, wanted)


@pytest.fixture(scope="module")
def found():
    """Of the shipped model, on the prompt of the lessons."""
    model, tokenizer = load_model("pocket-llama", device="cpu")
    prompt = "Anna works at Google. Ben works at Nike. Anna works at"
    google, sony = (tokenizer(f" {name}")["input_ids"][-1] for name in ("Google", "Sony"))
    return attribute_logits(
        model, token=google, other=sony, **tokenizer(prompt, return_tensors="pt")
    )


def test_on_the_shipped_model_layer_2_looks_it_up(found):
    assert found.total.item() == pytest.approx(13.874, abs=2e-3)
    assert total(found).item() == pytest.approx(found.total.item(), abs=1e-3)
    assert found.attention[0, 1].item() == pytest.approx(8.43, abs=0.01)
    assert found.heads[0, 1].tolist() == pytest.approx([1.81, 1.29, 2.65, 2.68], abs=0.01)
    assert found.attention[0].argmax() == 1
