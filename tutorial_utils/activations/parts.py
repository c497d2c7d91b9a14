"""Find attention and MLP in a decoder layer, and where attention puts its heads together."""

from __future__ import annotations

from torch import nn

from tutorial_utils.activations.layers import find_decoder_layers

# What the two parts of a decoder layer are called, in the architectures of transformers.
PARTS = {
    "attention": ("self_attn", "attn", "self_attention", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2"),
}
# What the matrix that puts the heads together is called there.
OUTPUT = ("o_proj", "out_proj", "c_proj", "dense", "Wo")


def find_part(model: nn.Module, part: str, layer: int) -> nn.Module:
    """The module that computes this part, "attention" or "mlp", of the decoder layer `layer`.

    Raises:
        ValueError: for another part, for a layer that is not there, and for a layer in which no
            module is known as this part.
    """
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
            f"{', '.join(children)}. Use a hook of your own, as in the lesson on hooks"
        )
    return found[0]


def find_output_matrix(attention: nn.Module) -> nn.Module | None:
    """The module inside `attention` that takes all heads, side by side, back to the stream."""
    found = [
        module
        for name, module in attention.named_modules()
        if name.split(".")[-1] in OUTPUT and name.count(".") <= 1
    ]
    return found[0] if len(found) == 1 else None


def find_norm_behind(layer: nn.Module, part: str) -> nn.Module | None:
    """The norm that a decoder layer applies to what a part gives, before it is added (Gemma 2)."""
    children = dict(layer.named_children())
    if "post_self_attn_layernorm" in children:  # GLM 4
        names = {"attention": "post_self_attn_layernorm", "mlp": "post_mlp_layernorm"}
    elif "post_feedforward_layernorm" in children:  # Gemma 2 and 3, OLMo 2, EXAONE 4
        names = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
    else:
        return None
    return children.get(names[part])
