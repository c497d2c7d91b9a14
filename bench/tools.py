"""What is timed: for each tool functions that run the model once and give what was recorded.

A function gives {layer: tensor}, so that the bench can check it, or None where there is nothing
to check. Each group runs in the environment of its tool, on a model of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import SHIPPED

Tool = Callable[[Tensor], dict[int, Tensor] | None]


def bare(model: nn.Module) -> Tool:
    def run(ids):
        with torch.no_grad():
            model(ids)

    return run


def minimal_hooks(model: nn.Module, *, grad: bool = False) -> Tool:
    """One hook on each layer, as in the lesson on hooks: it keeps a reference to the output."""
    modules = [model.model.embed_tokens, *model.model.layers]

    def run(ids):
        kept, handles = {}, []

        def keep_as(number):
            def hook(module, args, output):
                kept[number] = output[0] if isinstance(output, tuple) else output

            return hook

        try:
            for number, module in enumerate(modules):
                handles.append(module.register_forward_hook(keep_as(number)))
            with torch.set_grad_enabled(grad):
                model(ids)
        finally:
            for handle in handles:
                handle.remove()
        return kept

    return run


def ours(model: nn.Module) -> dict[str, Tool]:
    from tutorial_utils import read_activations, record_activations

    count = len(model.model.layers)

    def recorder(**options):
        def run(ids):
            with torch.no_grad(), record_activations(model, **options) as activations:
                model(ids)
            return activations

        return run

    def reader(**options):
        return lambda ids: read_activations(model, ids, **options)

    def hidden_states(ids):
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        return dict(enumerate(states[:-1]))  # the last one comes after the final norm

    def article(ids):
        minimal_hooks(model, grad=True)(ids)  # its output[0] is a row where a layer gives a tensor

    return {
        "bare again": bare(model),
        "minimal hooks": minimal_hooks(model),
        "record, all layers": recorder(),
        "record, one layer": recorder(layers=count // 2),
        "record, last token": recorder(positions="last"),
        "read, all layers": reader(),
        "read, one layer": reader(layers=count // 2),
        "read, last token": reader(positions="last"),
        "read, first quarter": reader(layers=range(count // 4 + 1)),
        "output_hidden_states": hidden_states,
        "article's hooks": article,
    }


def nnsight(model: nn.Module) -> dict[str, Tool]:
    from nnsight import NNsight

    wrapped = NNsight(model)

    def run(ids):
        kept = {}
        with torch.no_grad(), wrapped.trace(ids):
            kept = {0: wrapped.model.embed_tokens.output.save()}
            for number, layer in enumerate(wrapped.model.layers):
                kept[number + 1] = layer.output.save()
            kept.save()
        return kept

    return {"nnsight": run}


def nnterp(model: nn.Module) -> dict[str, Tool]:
    from nnterp import StandardizedTransformer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    wrapped = StandardizedTransformer(model, tokenizer=tokenizer, check_renaming=False)

    def run(ids):
        kept = {}
        with torch.no_grad(), wrapped.trace(ids):
            kept = {0: wrapped.layers_input[0].save()}
            for number in range(wrapped.num_layers):
                kept[number + 1] = wrapped.layers_output[number].save()
            kept.save()
        return kept

    return {"nnterp": run}


def pyvene(model: nn.Module) -> dict[str, Tool]:
    import pyvene

    count = len(model.model.layers)
    parts = [{"layer": 0, "component": "block_input"}]
    parts += [{"layer": number, "component": "block_output"} for number in range(count)]
    width = model.config.hidden_size
    for part in parts:
        part["intervention"] = pyvene.CollectIntervention(embed_dim=width, keep_last_dim=True)
    wrapped = pyvene.IntervenableModel(parts, model=model, use_fast=True)

    def run(ids):
        everywhere = {"base": list(range(ids.shape[1]))}
        with torch.no_grad():
            (_, kept), _ = wrapped({"input_ids": ids}, unit_locations=everywhere)
        return dict(enumerate(kept))

    return {"pyvene": run}


def transformer_lens(model: nn.Module) -> dict[str, Tool]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    bridge = TransformerBridge.boot_transformers(
        str(SHIPPED), hf_model=model, tokenizer=tokenizer, device="cpu"
    )
    count = len(bridge.blocks)
    names = ["blocks.0.hook_in", *(f"blocks.{i}.hook_out" for i in range(count))]

    def stream(ids):
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=names)
        return {number: cache[name] for number, name in enumerate(names)}

    def everything(ids):
        with torch.no_grad():
            bridge.run_with_cache(ids)

    return {"TransformerLens, stream": stream, "TransformerLens, all": everything}


GROUPS = {
    "ours": ours,
    "nnsight": nnsight,
    "nnterp": nnterp,
    "pyvene": pyvene,
    "transformer-lens": transformer_lens,
}
