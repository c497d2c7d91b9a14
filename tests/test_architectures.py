"""Recording, editing and the logit lens on every model type that AutoModelForCausalLM knows.

What cannot be built, and what is refused, is in a table with the reason, and the last test counts
them all.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from architectures import BATCH, LAYERS, SEQ, TABLES_HOLD, build, check_rows, inputs_of
from tiny_models import NumberTokenizer, count_hooks
from tutorial_utils import (
    edit_activations,
    find_decoder_layers,
    next_token_logits,
    patch_each,
    read_activations,
    record_activations,
)
from tutorial_utils.activations.inputs import ignores_mask
from tutorial_utils.lens import unembed

pytestmark = pytest.mark.usefixtures("one_thread")

MODEL_TYPES = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

# Types that cannot be built, or do not run on token ids alone.
NOT_BUILDABLE = {
    "gemma3n": "requires the timm library",
    "gemma4_assistant": "takes the KV cache of another model, not token ids",
    "gemma4_unified_assistant": "takes the KV cache of another model, not token ids",
}
# Types without one residual stream of shape (batch, seq, hidden), and why.
REFUSED = {
    "blt": "bytes and patches: an encoder, a global model and a decoder with a list each",
    "cpmant": "the stream has 32 positions of its own before the first token",
    "deepseek_v4": "several streams (hyper-connections)",
    "gemma3n_text": "several streams (AltUp)",
    "hrm_text": "two lists of layers, run again and again in turn",
    "hy_v4": "several streams (hyper-connections)",
    "prophetnet": "several streams (n-gram prediction), one after another in the seq axis",
    "qwen4_exp": "several streams (hyper-connections), side by side in the hidden axis",
    "qwen4_exp_text": "several streams (hyper-connections), side by side in the hidden axis",
    "reformer": "two streams (reversible layers)",
    "xlm": "no list of layers: attention, MLP and norms have a list each",
    "xlnet": "the stream is (seq, batch, hidden)",
}
# Types with a residual stream that no logit lens can look at, and why.
NO_LENS = {
    "inkling2_text": "its logits are made of the streams of several layers",
    "musicgen": "has a head for each of several codebooks",
    "musicgen_melody": "has a head for each of several codebooks",
}
# Types that read the padding in front of a prompt as text, whatever the mask says.
IGNORE_MASK = {"recurrent_gemma", "rwkv", "xlstm"}
# Where output_hidden_states is not the stream, as it leaves out the embedding output and counts
# from the first layer on: the list of layers, looked up in the model's source.
BY_HAND = {
    "falcon_mamba": "backbone.layers",
    "mamba": "backbone.layers",
    "mamba2": "backbone.layers",
    "rwkv": "rwkv.blocks",
    "xlstm": "backbone.blocks",
}


def first(value: object) -> torch.Tensor:
    return value[0] if isinstance(value, (tuple, list)) else value


def stream_by_hand(layers: torch.nn.ModuleList, model, inputs) -> tuple[list, torch.Tensor]:
    """Copies of the stream, and the logits: by other means than hooks."""
    stream: dict[int, torch.Tensor] = {}
    forwards = [layer.forward for layer in layers]

    def watched(i: int):
        def forward(*args, **kwargs):
            given = args[0] if args else kwargs["hidden_states"]
            stream.setdefault(0, given.clone())
            output = forwards[i](*args, **kwargs)
            stream[i + 1] = first(output).clone()
            return output

        return forward

    for i, layer in enumerate(layers):
        layer.forward = watched(i)
    try:
        logits = model(**inputs).logits
    finally:
        for layer in layers:
            del layer.forward
    return [stream[i] for i in range(len(layers) + 1)], logits


def layers_by_value(model, inputs) -> torch.nn.ModuleList:
    """The one list of modules that is given what output_hidden_states says, one after the other."""
    seen: dict[torch.nn.Module, torch.Tensor] = {}

    def note(module, args, kwargs):
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        if tensors:
            seen[module] = tensors[0].clone()

    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for modules in lists
        for module in modules
    ]
    states = model(**inputs, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    (found,) = [
        modules
        for modules in lists
        if len(modules) == len(states) - 1
        and all(m in seen and torch.equal(seen[m], s) for m, s in zip(modules, states))
    ]
    return found


def add_by_hand(layers: torch.nn.ModuleList, number: int, vector: torch.Tensor):
    """A hook that adds a vector to layer `number`."""
    if number == 0:

        def before(module, args, kwargs):
            if args:
                return (args[0] + vector, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": kwargs["hidden_states"] + vector}

        return layers[0].register_forward_pre_hook(before, with_kwargs=True)

    def after(module, args, output):
        if isinstance(output, torch.Tensor):
            return output + vector
        return type(output)([output[0] + vector, *output[1:]])

    return layers[number - 1].register_forward_hook(after)


def check(model: torch.nn.Module, by_hand: str | None) -> None:
    """Recording and editing are right at every layer, and leave nothing behind."""
    inputs = inputs_of(model)
    layers = model.get_submodule(by_hand) if by_hand else layers_by_value(model, inputs)
    stream, logits = stream_by_hand(layers, model, inputs)
    hooks = count_hooks(model)
    assert torch.isfinite(logits).all()

    assert find_decoder_layers(model) is layers
    with record_activations(model) as activations:
        model(**inputs)
    assert list(activations) == list(range(LAYERS + 1))
    for number, expected in enumerate(stream):
        assert expected.shape[:2] == (BATCH, SEQ)
        assert torch.equal(activations[number], expected), f"layer {number}"
    with record_activations(model) as expected:  # a few models compute differently with no cache
        model(**inputs, use_cache=False)
    for number, read in read_activations(model, **inputs).items():
        assert torch.equal(read, expected[number]), f"read_activations, layer {number}"

    with edit_activations(model, {number: lambda hidden: hidden + 0 for number in activations}):
        assert torch.equal(model(**inputs).logits, logits)
    vector = torch.randn(stream[0].shape[2], generator=torch.Generator().manual_seed(2))
    for number in (0, 2, LAYERS):
        hook = add_by_hand(layers, number, vector)
        expected = model(**inputs).logits
        hook.remove()
        assert not torch.equal(expected, logits)
        with edit_activations(model, {number: lambda hidden: hidden + vector}):
            assert torch.equal(model(**inputs).logits, expected), f"edit of layer {number}"
    assert count_hooks(model) == hooks


def check_lens(model: torch.nn.Module, model_type: str) -> None:
    """Layer n gives the model's own logits, or the model is refused in words."""
    with record_activations(model, -1) as activations:
        logits = model(**inputs_of(model)).logits
    if model_type in NO_LENS:
        with pytest.raises(ValueError, match=r"logits|last steps"):
            unembed(model, activations[-1])
        return
    try:
        lens = unembed(model, activations[-1])
    except ValueError:
        if TABLES_HOLD:
            raise
        return
    torch.testing.assert_close(lens, logits, rtol=1e-4, atol=1e-4)


def check_patching(model: torch.nn.Module) -> None:
    """Patching equals passes through all layers; the estimate is right for small differences."""
    if len(inputs_of(model)) > 1 or hasattr(model.config.get_text_config(), "num_codebooks"):
        return  # it reads more than the ids of a text
    tokenizer, prompt = NumberTokenizer(), "5 9 17 30"
    own = dict(read_activations(model, torch.tensor([[5, 9, 17, 30]])))
    other = dict(read_activations(model, torch.tensor([[8, 3, 77, 41]])))
    noise = torch.randn(own[0].shape, generator=torch.Generator().manual_seed(4))
    near = {layer: stream + 5e-4 * stream.std() * noise for layer, stream in own.items()}

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 7] - logits[:, 9]

    def by_hand(source: dict[int, torch.Tensor]) -> torch.Tensor:
        rows, each = [], torch.arange(4)
        for layer, stream in source.items():

            def put(hidden, stream=stream):
                return hidden.index_put((each, each), stream[0])

            with edit_activations(model, {layer: put}):
                rows.append(score(next_token_logits(model, tokenizer, [prompt] * 4)))
        return torch.stack(rows)

    got = patch_each(model, tokenizer, prompt, other, score)
    torch.testing.assert_close(got, by_hand(other), rtol=1e-4, atol=1e-5)
    before = score(next_token_logits(model, tokenizer, prompt))
    change = by_hand(near) - before
    estimate = patch_each(model, tokenizer, prompt, near, score, approximate=True) - before
    # Most layers: sharply curved ones, and those that choose tokens, jump.
    assert ((estimate - change).norm(dim=1) / change.norm(dim=1)).median() < 0.1


OUTCOMES: dict[str, str] = {}
REASONS: dict[str, str] = {}


def set_aside(model_type: str, outcome: str, error: Exception, table: dict[str, str]) -> None:
    """Note a type that was not passed, which the table must know, with its reason."""
    OUTCOMES[model_type] = outcome
    if TABLES_HOLD:
        assert model_type in table, f"{outcome}: {error!r}"
        REASONS[model_type] = table[model_type]
    else:
        REASONS[model_type] = str(error)
        pytest.skip(f"{outcome}: {str(error)[:200]}")


REFUSAL = "no single|does not tell which list"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@torch.no_grad()
def test_model_type(model_type):
    model = None
    try:
        model = build(model_type)
        with record_activations(model):
            model(**inputs_of(model))
    except Exception as error:
        if re.search(REFUSAL, str(error)):
            with pytest.raises(ValueError, match=REFUSAL):
                read_activations(model, **inputs_of(model))
            set_aside(model_type, "refused", error, REFUSED)
        else:
            if model is not None:  # it is the model itself that does not run
                with pytest.raises(type(error)):
                    model(**inputs_of(model))
            set_aside(model_type, "not buildable", error, NOT_BUILDABLE)
        return
    assert ignores_mask(model) == (model_type in IGNORE_MASK) or not TABLES_HOLD
    check(model, BY_HAND.get(model_type))
    check_lens(model, model_type)
    check_patching(model)
    check_rows(model)
    OUTCOMES[model_type] = "passed"


def test_report(capsys):
    """Every type is passed, refused or not buildable, each of the last two for a reason given."""
    if len(OUTCOMES) < len(MODEL_TYPES):
        pytest.skip(f"{len(OUTCOMES)} of {len(MODEL_TYPES)} model types have an outcome")
    counts = Counter(OUTCOMES.values())
    with capsys.disabled():
        print(f"\n{len(MODEL_TYPES)} model types of transformers {transformers.__version__}:")
        print(*(f"{number} {outcome}" for outcome, number in counts.items()), sep=", ")
        for model_type, reason in REASONS.items():
            print(f"  {OUTCOMES[model_type]}: {model_type}: {reason}")
    if TABLES_HOLD:
        assert counts["refused"] == len(REFUSED)
        assert counts["passed"] >= len(MODEL_TYPES) - len(REFUSED) - len(NOT_BUILDABLE)
