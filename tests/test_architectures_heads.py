"""Patterns, heads and attribution on every model type that AutoModelForCausalLM knows.

Patterns are held against `output_attentions` of a model that was built with eager attention; heads
against hooks placed by hand; attribution against the model's own logits. What is refused is in a
table with the reason, and the last test counts all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from architectures import TABLES_HOLD, build, inputs_of
from test_architectures import MODEL_TYPES, NOT_BUILDABLE, REFUSED
from tiny_models import count_hooks
from tutorial_utils.activations.heads import ablate_heads, read_heads
from tutorial_utils.activations.parts import find_part
from tutorial_utils.activations.patterns import read_attention
from tutorial_utils.attribution import attribute_logits

pytestmark = pytest.mark.usefixtures("one_thread")

# Types whose patterns are refused, and why; then those whose heads are; then whose logits are.
NO_PATTERN = {
    **dict.fromkeys(
        "falcon_mamba mamba mamba2 nemotron_h rwkv xlstm".split(), "no softmax over keys is found"
    ),
    **dict.fromkeys(
        "ctrl dbrx recurrent_gemma zamba zamba2".split(), "attention has another name or place"
    ),
    "git": "its attention keeps the pattern to itself",
    "longcat_flash": "two attentions in a layer",
}
NO_HEADS = {
    **NO_PATTERN,
    "diffllama": "each head is a difference of two (differential attention)",
    "jetmoe": "a mixture of experts puts the heads together",
}
NO_ATTRIBUTION = {
    **NO_HEADS,
    **dict.fromkeys(
        "bart beam bert bert-generation big_bird blenderbot-small camembert data2vec-text electra "
        "ernie git marian mvp openai-gpt plbart rembert roberta roc_bert roformer trocr "
        "xlm-roberta xmod".split(),
        "a norm behind each addition: the stream is no sum",
    ),
    **dict.fromkeys(
        "megatron-bert roberta-prelayernorm xlm-roberta-xl".split(), "its MLP is two modules"
    ),
    **dict.fromkeys(
        "bamba granitemoehybrid jamba lfm2_moe lfm3 mllama olmo_hybrid qwen3_5 qwen3_5_moe "
        "qwen3_5_moe_text qwen3_5_text qwen3_next".split(),
        "some layers have something else than self-attention",
    ),
    **dict.fromkeys(
        "doge gemma4 gemma4_text gpt_neox_japanese inkling2_text inkling_text minimax zaya".split(),
        "the stream is scaled, or a part filtered, on the way",
    ),
    "falcon_h1": "a third part beside attention and MLP",
    "modernbert-decoder": "its head has a nonlinearity",
    **dict.fromkeys(["musicgen", "musicgen_melody"], "a head for each of several codebooks"),
}
# Where a norm over all heads stands before the output matrix, so that each hangs on all patterns.
NORM_OVER_HEADS = ("bitnet",)

TYPES = [name for name in MODEL_TYPES if name not in {**NOT_BUILDABLE, **REFUSED}]
OUTCOMES: dict[str, dict[str, str]] = {}


def randomise(model: nn.Module) -> None:
    """Biases and norms as a trained model has them, so that nothing is right for being 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() == 1 and parameter.is_floating_point():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)


def attentions_of(model_type: str, inputs: dict) -> list[Tensor]:
    """The patterns that a model built with eager attention gives when it is asked."""
    model = build(model_type, attn_implementation="eager")
    randomise(model)
    model(**inputs)  # BigBird replaces its attention in the first pass on a short prompt
    given = model(**inputs, output_attentions=True, use_cache=False).attentions
    # Linear attention gives something else there, and cross-attention looks at another input.
    square = [p for p in given if p is not None and p.dim() == 4 and p.shape[2] == p.shape[3]]
    return [p for p in square if p.min() >= 0]


@contextmanager
def watched(modules: list[nn.Module]) -> Iterator[list]:
    """(module, input, output) of each call of these modules, by hooks placed by hand."""
    calls: list = []
    handles = [m.register_forward_hook(lambda *call: calls.append(call)) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def output_matrix(model: nn.Module, attention: nn.Module, inputs: dict) -> nn.Module:
    """The last matrix that is used in an attention."""
    inside = [m for m in attention.modules() if not [*m.children()]]
    with watched(inside) as calls:
        model(**inputs, use_cache=False)
    return [m for m, *_ in calls if getattr(m, "weight", torch.zeros(1)).dim() == 2][-1]


def check_heads(model: nn.Module, layer: int, pattern: Tensor, inputs: dict) -> None:
    """What each head adds is what is missing when a hook sets its slice to 0."""
    heads = read_heads(model, **inputs, layers=layer)[layer]
    count = pattern.shape[1]
    assert heads.shape[1] == count
    matrix = output_matrix(model, find_part(model, "attention", layer), inputs)
    with watched([matrix]) as calls:
        model(**inputs, use_cache=False)
    (_, (mixed, *_), whole), *_ = calls
    size = mixed.shape[-1] // count
    for head in (0, count - 1):

        def leave_out(module, args, head=head):
            new = args[0].clone()
            new[..., head * size : (head + 1) * size] = 0
            return (new, *args[1:])

        handle = matrix.register_forward_pre_hook(leave_out)
        with watched([matrix]) as calls:
            without = model(**inputs, use_cache=False).logits
        handle.remove()
        gone = whole - calls[0][2]
        torch.testing.assert_close(heads[:, head], gone, rtol=1e-4, atol=1e-4 * whole.abs().max())
        with ablate_heads(model, [(layer, head)]):
            assert torch.equal(model(**inputs, use_cache=False).logits, without)


@torch.enable_grad()
def check_own_pattern(model_type: str, layer: int, inputs: dict) -> None:
    """Slice i of what goes into the output matrix depends on pattern i and on no other."""
    model = build(model_type, attn_implementation="eager")
    attention = find_part(model, "attention", layer)
    matrix = output_matrix(model, attention, inputs)
    with watched([attention, matrix]) as calls:
        model(**inputs, use_cache=False, output_attentions=True)
    mixed = next(args[0] for module, args, _ in calls if module is matrix)
    output = next(output for module, _, output in calls if module is attention)
    pattern = next(p for p in output[1:] if isinstance(p, Tensor) and p.dim() == 4)
    count = pattern.shape[1]
    for head in (0, count - 1):
        own = mixed.unflatten(-1, (count, -1))[..., head, :].square().sum()
        options = {"retain_graph": True, "allow_unused": not TABLES_HOLD}
        [gradient] = torch.autograd.grad(own, pattern, **options)
        if gradient is None:  # in old versions a few models give a copy of their pattern
            return
        used = gradient.abs().amax(dim=(0, 2, 3)) > 1e-3 * gradient.abs().max()
        assert used.nonzero().flatten().tolist() == [head]


def outcome(model_type: str, kind: str, table: dict[str, str], check: Callable) -> None:
    """Right, or refused in words with a reason that the table knows."""
    refusal = None
    try:
        check()
    except ValueError as error:
        refusal = str(error)
    if TABLES_HOLD:
        assert (refusal is not None) == (model_type in table), refusal or table[model_type]
    reason = table.get(model_type, "not in the table")
    OUTCOMES[model_type][kind] = "right" if refusal is None else f"refused: {reason}"


@pytest.mark.parametrize("model_type", TYPES)
@torch.no_grad()
def test_model_type(model_type):
    try:
        model = build(model_type)
        randomise(model)
        inputs, hooks = inputs_of(model), count_hooks(model)
        model(**inputs)
    except Exception as error:
        if TABLES_HOLD:
            raise
        pytest.skip(f"not buildable: {error!r:.200}")
    settings = settings_of(model)
    OUTCOMES[model_type] = {}
    patterns: dict[int, Tensor] = {}

    def patterns_are_right() -> None:
        patterns.update(read_attention(model, **inputs))
        expected = attentions_of(model_type, inputs)
        assert len(patterns) == len(expected)
        for pattern, other in zip(patterns.values(), expected):
            assert torch.equal(pattern, other)

    def heads_are_right() -> None:
        if not patterns:
            read_heads(model, **inputs, layers=1)
        for layer in (min(patterns), max(patterns)):
            check_heads(model, layer, patterns[layer], inputs)
            if model_type not in NORM_OVER_HEADS:
                check_own_pattern(model_type, layer, inputs)
        every = read_heads(model, **inputs, layers=[*patterns], positions="last")
        assert list(every) == list(patterns)

    def attribution_is_right() -> None:
        found = attribute_logits(model, token=5, other=9, **inputs)
        logits = model(**inputs, use_cache=False).logits[:, -1].float()
        torch.testing.assert_close(found.total, logits[:, 5] - logits[:, 9], rtol=1e-4, atol=1e-4)
        total = found.embedding + found.attention.sum(1) + found.mlp.sum(1) + found.bias
        torch.testing.assert_close(total, found.total, rtol=1e-3, atol=1e-3)

    outcome(model_type, "patterns", NO_PATTERN, patterns_are_right)
    outcome(model_type, "heads", NO_HEADS, heads_are_right)
    outcome(model_type, "attribution", NO_ATTRIBUTION, attribution_is_right)
    assert count_hooks(model) == hooks and settings_of(model) == settings


def settings_of(model: nn.Module) -> list:
    configs = [m.config for m in model.modules() if hasattr(m, "config")]
    return [getattr(config, "_attn_implementation", None) for config in configs]


def test_report(capsys):
    """How many types are right; all others are refused, each for a reason given."""
    if len(OUTCOMES) < len(TYPES):
        pytest.skip(f"{len(OUTCOMES)} of {len(TYPES)} model types have an outcome")
    with capsys.disabled():
        print(f"\n{len(TYPES)} model types of {len(MODEL_TYPES)} are built and have a stream:")
        for kind in ("patterns", "heads", "attribution"):
            counts = Counter(found[kind] for found in OUTCOMES.values())
            print(f"{kind}: {counts.pop('right')} right")
            print(
                *(f"  {number} {reason}\n" for reason, number in counts.most_common()),
                sep="",
                end="",
            )
