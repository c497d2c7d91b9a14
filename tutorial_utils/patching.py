"""Activation patching: which activation, put into another run, changes the answer?

Two prompts of as many tokens are run, and an activation of the one is put into the run of the other
(Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262). By hand: the lesson on
patching and steering.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import check_options
from tutorial_utils.activations.layers import find_decoder_layers
from tutorial_utils.activations.record_and_edit import edit_activations
from tutorial_utils.decoding import next_token_logits
from tutorial_utils.encoding import prompt_ids

# What the two parts of a decoder layer are called, in the architectures of transformers.
PARTS = {
    "attention": ("self_attn", "attn", "self_attention", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2"),
}


def patch_each(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    source: Mapping[int, Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    part: str | None = None,
) -> Tensor:
    """Patch `prompt` at each layer and token in turn, and score what the model says next.

    Args:
        source: {layer: activations (1, seq, hidden)} of another prompt of as many tokens, as
            `read_activations` gives them, or `read_parts` with the same `part`.
        score: a function from next-token logits (batch, vocab), float32, to one number each
            (batch,).
        part: None patches the residual stream; "attention" or "mlp" what that part of each decoder
            layer gives out, before it is added to the stream.

    Gives the scores (layers, seq), float32 on the CPU, rows in the order of `source`. All tokens of
    a layer share one forward pass: row p of its batch is the prompt with token p patched. A bar
    shows the progress. By hand: the lesson on patching and steering.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be one string, not {prompt!r:.80}")
    seq = len(prompt_ids(model, tokenizer, prompt)[0])
    _check_source(source, seq)
    each = torch.arange(seq)
    scores = []
    for layer, activation in tqdm(source.items(), desc="patching", unit="layer", leave=False):

        def put(hidden: Tensor, activation: Tensor = activation) -> Tensor:
            patched = hidden.clone()  # (seq copies of the prompt, seq, hidden)
            patched[each, each] = activation[0].to(hidden)
            return patched

        with _edited(model, layer, seq, put, part):
            row = score(next_token_logits(model, tokenizer, [prompt] * seq))
        if not isinstance(row, Tensor) or row.shape != (seq,):
            given = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
            raise ValueError(
                f"score must give one number for each row of logits (batch, vocab), here a tensor "
                f"of shape ({seq},), and it gave {given}"
            )
        scores.append(row.float().cpu())
    return torch.stack(scores)


def read_parts(
    model: PreTrainedModel, input_ids: Tensor, part: str, **inputs: object
) -> dict[int, Tensor]:
    """What "attention" or "mlp" gives out in each decoder layer: {layer: (batch, seq, hidden)}.

    Layer i is the ith decoder layer, from 1: what its part adds to the residual stream on the way
    from layer i - 1 to layer i. (A few architectures, such as Gemma 2, normalise it in between.)
    `inputs` is what else the model takes, such as `attention_mask`; another name is a TypeError.
    By hand: the lesson on patching and steering.
    """
    check_options(model, inputs, "read_parts", ("part",))
    kept: dict[int, Tensor] = {}
    with ExitStack() as hooks, torch.no_grad():
        for layer in range(1, len(find_decoder_layers(model)) + 1):
            keep = _keeper(kept, layer)
            hooks.enter_context(_hooked_part(model, part, layer, len(input_ids), keep))
        model(input_ids=input_ids, **{"use_cache": False, **inputs})
    return kept


def _keeper(kept: dict[int, Tensor], layer: int) -> Callable[[Tensor], None]:
    def keep(hidden: Tensor) -> None:
        kept[layer] = hidden

    return keep


def _check_source(source: Mapping[int, Tensor], seq: int) -> None:
    if not isinstance(source, Mapping) or not source:
        raise ValueError("source is {layer: activations (1, seq, hidden)} with at least one layer")
    for layer, activation in source.items():
        shape = tuple(activation.shape)
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(
                f"the source at layer {layer} has shape {shape} instead of (1, seq, hidden): one "
                "prompt is patched into one prompt"
            )
        if shape[1] != seq:
            raise ValueError(
                f"the source has {shape[1]} tokens and the prompt has {seq}: each token takes the "
                "activation of the token in its place, so choose prompts of as many tokens"
            )


def _edited(
    model: nn.Module, layer: int, batch: int, put: Callable, part: str | None
) -> AbstractContextManager:
    if part is None:
        return edit_activations(model, {layer: put})
    return _hooked_part(model, part, layer, batch, put)


@contextmanager
def _hooked_part(
    model: nn.Module, part: str, layer: int, batch: int, function: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Call `function` on what this part of a layer adds; what it returns is added in its place."""
    module = _find_part(model, part, layer)
    signature = inspect.signature(module.forward)

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> object:
        is_many = isinstance(output, (tuple, list))  # attention gives its weights too
        given = output[0] if is_many else output  # OPT's is (batch * seq, hidden)
        # BLOOM and MPT add the stream inside of the part: taken off here, and put back below.
        stream = signature.bind(*args, **kwargs).arguments.get("residual", 0)
        new = function((given - stream).reshape(batch, -1, given.shape[-1]))
        if new is None:
            return None
        new = new.reshape(given.shape) + stream
        return type(output)([new, *output[1:]]) if is_many else new

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _find_part(model: nn.Module, part: str, layer: int) -> nn.Module:
    if part not in PARTS:
        raise ValueError(f'part is None, "attention" or "mlp", not {part!r}')
    layers = find_decoder_layers(model)
    if not 1 <= layer <= len(layers):
        raise ValueError(
            f"layer {layer} has no {part}: the decoder layers are 1 to {len(layers)} here"
        )
    children = dict(layers[layer - 1].named_children())
    found = [children[name] for name in PARTS[part] if name in children]
    if not found:
        raise ValueError(
            f"decoder layer {layer} has no part that is known as {part}: its parts are "
            f"{', '.join(children)}. Use a hook of your own, as the lesson on patching does by hand"
        )
    return found[0]
