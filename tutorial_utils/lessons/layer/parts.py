"""A decoder layer's parts under one set of names, where it is built like Llama's, or nearly so.

The lesson puts them together by hand. So a layer counts as open only where its parts, put together
in Llama's way, give what the layer gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tutorial_utils.activations.hooks import hooked_modules
from tutorial_utils.activations.inputs import named_arguments
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.parts import (
    find_norm_behind,
    find_output_matrix,
    find_part,
    run_up_to,
)

Function = Callable[[Tensor], Tensor]
BEFORE_ATTENTION = ("input_layernorm", "ln_1", "ln1")
BEFORE_MLP = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "ln2")
IN = ("up_proj", "c_fc", "fc1", "dense_h_to_4h")
OUT = ("down_proj", "c_proj", "fc2", "dense_4h_to_h")
ACT = ("act_fn", "act", "activation_fn")


class OpenLayer(NamedTuple):
    """A decoder layer, with Llama's names for its parts; a part that it lacks is None.

    `q_proj`, `k_proj` and `v_proj` make queries, keys and values `(batch, seq, heads * size)`.
    """

    layer: nn.Module
    attention: nn.Module
    mlp: nn.Module
    norm_1: nn.Module | None  # before attention
    norm_2: nn.Module | None  # before the MLP; without one it reads what attention reads
    behind_1: nn.Module | None  # on what attention gives, as in Gemma 2
    behind_2: nn.Module | None
    q_proj: Function
    k_proj: Function
    v_proj: Function
    o_proj: nn.Module
    q_norm: nn.Module | None  # of each query, as in Qwen 3
    k_norm: nn.Module | None
    size: int  # of a head
    scale: float  # what scores are multiplied by
    cap: float | None  # what scores are capped at
    rotary: tuple[Tensor, Tensor] | None  # cos and sin that attention was given (1, seq, turned)
    is_parallel: bool  # the MLP reads the stream as it was before attention
    gate: Function | None
    up: Function | None  # None for an MLP of another kind, such as a mixture of experts
    act: Function | None
    down: nn.Module | None
    differs: list[str]  # from Llama's layer


def open_layers(
    model: PreTrainedModel, input_ids: Tensor, **inputs: object
) -> dict[int, OpenLayer]:
    """`{number: layer}`, from 1, of the decoder layers whose parts were found and fit together.

    The model runs once on `input_ids` `(1, seq)`, with no padding: whether parts fit together is
    tested on the input that their layer was given.
    """
    try:
        count = len(locate(model).layers)
        found, seen, rotary = _look(model, count, input_ids, inputs)
    except (AttributeError, ValueError):  # it has no single list of layers, or no single stream
        return {}
    opened = {}
    for number in found:
        part = _open(model, number, rotary.get(number))
        if part is not None and number in seen and _fits(part, *seen[number]):
            opened[number] = part
    return opened


def _look(model: PreTrainedModel, count: int, input_ids: Tensor, inputs: dict) -> tuple:
    """Attentions; what each layer takes in and gives; cos and sin that its attention is given."""
    layers, seen = locate(model).layers, dict[int, tuple[Tensor, Tensor]]()
    rotary: dict[int, tuple[Tensor, Tensor] | None] = {}

    def keep_stream(number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            given = args[0] if args else kwargs["hidden_states"]
            seen[number] = given, output[0] if isinstance(output, tuple) else output

        return hook

    def keep_rotary(number: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            given = named_arguments(module, args, kwargs).get("position_embeddings")
            rotary[number] = given if isinstance(given, tuple) else None

        return hook

    found = {}
    for number in range(1, count + 1):
        try:
            found[number] = find_part(model, "attention", number)
        except ValueError:  # a state-space layer, say
            continue
    hooks: list = [(layers[n - 1].register_forward_hook, keep_stream(n)) for n in found]
    hooks += [(a.register_forward_pre_hook, keep_rotary(n)) for n, a in found.items()]
    with hooked_modules(locate(model), hooks):
        run_up_to(count, model, input_ids, None, inputs)
    return found, seen, rotary


def tiny_llama(vocab: int, device: torch.device | str = "cpu") -> PreTrainedModel:
    """A Llama with random weights, to open where the model at hand has no layer that opens."""
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=vocab, **sizes, pad_token_id=None)
        model: nn.Module = LlamaForCausalLM(config)
        return cast(PreTrainedModel, model.to(device).eval())


def _first(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    children = dict(module.named_children())
    return next((children[name] for name in names if name in children), None)


def _open(
    model: PreTrainedModel, number: int, rotary: tuple[Tensor, Tensor] | None
) -> OpenLayer | None:
    """The parts of this layer; None where one that it must have is missing."""
    try:
        layer, attention = locate(model).layers[number - 1], find_part(model, "attention", number)
        mlp, matrix = find_part(model, "mlp", number), find_output_matrix(attention)
    except ValueError:
        return None
    behind = [find_norm_behind(layer, part) for part in ("attention", "mlp")]
    norm_1, norm_2 = _first(layer, BEFORE_ATTENTION), _first(layer, BEFORE_MLP)
    norm_2 = None if norm_2 is behind[0] else norm_2
    size = getattr(attention, "head_dim", getattr(attention, "head_size", None))
    if matrix is None or not size:
        return None
    projections = _projections(attention, size)
    if projections is None:
        return None
    scale = getattr(attention, "scaling", None)
    config = model.config.get_text_config()
    gate, up, act, down = _mlp(mlp)
    part = OpenLayer(
        layer=layer,
        attention=attention,
        mlp=mlp,
        norm_1=norm_1,
        norm_2=norm_2,
        behind_1=behind[0],
        behind_2=behind[1],
        q_proj=projections[0],
        k_proj=projections[1],
        v_proj=projections[2],
        o_proj=matrix,
        q_norm=_first(attention, ("q_norm", "q_layernorm", "query_layernorm")),
        k_norm=_first(attention, ("k_norm", "k_layernorm", "key_layernorm")),
        size=size,
        scale=size**-0.5 if scale is None else float(scale),
        cap=getattr(attention, "attn_logit_softcapping", None),
        rotary=rotary,
        is_parallel=getattr(config, "use_parallel_residual", False)
        or (norm_2 is None and behind[1] is None),
        gate=gate,
        up=up,
        act=act,
        down=down,
        differs=[],
    )
    return part._replace(differs=_differences(part))


def _projections(attention: nn.Module, size: int) -> list[Function] | None:
    """What makes queries, keys and values; a matrix that makes all three is cut in three."""
    children = dict(attention.named_children())
    if {"q_proj", "k_proj", "v_proj"} <= set(children):
        return [children[name] for name in ("q_proj", "k_proj", "v_proj")]
    if "c_attn" in children:  # GPT-2: all queries, all keys, all values
        return _thirds(children["c_attn"], lambda out: out.chunk(3, dim=-1))
    kv_heads = getattr(attention, "num_key_value_heads", None)
    if "qkv_proj" in children and kv_heads:  # Phi-3
        keys = kv_heads * size
        return _thirds(
            children["qkv_proj"],
            lambda out: out.split([out.shape[-1] - 2 * keys, keys, keys], dim=-1),
        )
    if "query_key_value" in children:  # GPT-NeoX: head by head
        return _thirds(
            children["query_key_value"],
            lambda out: [part.flatten(-2) for part in out.unflatten(-1, (-1, 3, size)).unbind(-2)],
        )
    return None


def _thirds(fused: nn.Module, cut: Callable[[Tensor], Sequence[Tensor]]) -> list[Function]:
    def third(i: int) -> Function:
        return lambda x: cut(fused(x))[i]

    return [third(i) for i in range(3)]


def _mlp(
    mlp: nn.Module,
) -> tuple[Function | None, Function | None, Function | None, nn.Module | None]:
    """Gate, up, act and down of an MLP, or None for all of them."""
    act, down, up = (_first(mlp, names) for names in (ACT, OUT, IN))
    act = getattr(mlp, "act_fn", None) if act is None else act
    both = _first(mlp, ("gate_up_proj",))  # Phi-3
    if isinstance(both, nn.Linear) and down is not None and act is not None:
        return (
            (lambda x: both(x).chunk(2, dim=-1)[0]),
            (lambda x: both(x).chunk(2, dim=-1)[1]),
            act,
            down,
        )
    if up is None or down is None or act is None:
        return None, None, None, None
    return _first(mlp, ("gate_proj",)), up, act, down


def _differences(part: OpenLayer) -> list[str]:
    """In what this layer is not built as Llama's, in words."""
    norm = part.norm_1 or part.behind_1
    turned = part.rotary[0].shape[-1] if part.rotary else 0
    found = {
        "there is no norm before attention": part.norm_1 is None,
        f"its norm is of the type {type(norm).__name__}": "RMS" not in type(norm).__name__,
        "there is a norm after attention, and one after the MLP": part.behind_1 is not None,
        "one matrix makes queries, keys and values": not isinstance(part.q_proj, nn.Module),
        "queries and keys have a norm of their own": part.q_norm is not None,
        "it has no rotary positions": not part.rotary,
        f"only {turned} of the {part.size} numbers of a head are turned": 0 < turned < part.size,
        f"scores are capped at {part.cap}": part.cap is not None,
        "the MLP reads the stream as it was before attention": part.is_parallel,
        "the MLP is not gated": part.up is not None and part.gate is None,
        f"its MLP, a {type(part.mlp).__name__}, is not taken apart": part.up is None,
    }
    return [text for text, holds in found.items() if holds]


@torch.no_grad()
def _fits(part: OpenLayer, given: Tensor, want: Tensor) -> bool:
    """Whether the parts, put together in Llama's way, give what the layer gives, up to rounding."""
    try:
        attended = _attend(part, _run(part.norm_1, given))
        after = given + _run(part.behind_1, attended)
        x = given if part.is_parallel else after
        x = _run(part.norm_1 if part.is_parallel and part.norm_2 is None else part.norm_2, x)
        mlp = part.mlp(x)
        got = after + _run(part.behind_2, mlp[0] if isinstance(mlp, tuple) else mlp)
    except (RuntimeError, TypeError, ValueError):  # shapes that Llama's way does not fit
        return False
    rounding = 1e-4 if torch.finfo(got.dtype).eps < 1e-6 else 0.05
    return bool((got - want).abs().max() <= rounding * want.abs().max())


def _run(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _attend(part: OpenLayer, x: Tensor) -> Tensor:
    q, k, v = (
        run(x).unflatten(-1, (-1, part.size)).transpose(1, 2)
        for run in (part.q_proj, part.k_proj, part.v_proj)
    )
    q, k = _run(part.q_norm, q), _run(part.k_norm, k)
    if part.rotary:
        q, k = (_turn(each, *part.rotary) for each in (q, k))
    k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for each in (k, v))
    scores = part.scale * q @ k.transpose(-1, -2)
    if part.cap is not None:
        scores = part.cap * (scores / part.cap).tanh()
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    pattern = softmax(scores.float().masked_fill(later, -torch.inf), dim=-1).to(v.dtype)
    return part.o_proj((pattern @ v).transpose(1, 2).flatten(-2))


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    other = torch.cat([-second, first], dim=-1)
    return torch.cat([turned * cos.unsqueeze(1) + other * sin.unsqueeze(1), rest], dim=-1)
