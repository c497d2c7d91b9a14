"""Read the inside of a causal language model: the tool that the lessons derive by hand.

`from tutorial_utils import load_model` works for every name below. A name's module is imported
when the name is first asked for, so that `import tutorial_utils` costs nothing and brings in
neither matplotlib nor ipywidgets.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"
_MODULES = {
    "models.load": ["POCKET_LLAMA", "load_model", "pick_device", "pick_dtype"],
    "activations.layers": ["find_decoder_layers"],
    "activations.parts": ["read_parts"],
    "activations.patterns": ["read_attention"],
    "activations.heads": ["ablate_heads", "edit_heads", "read_head_outputs", "read_heads"],
    "attribution": ["Attribution", "attribute_logits"],
    "activations.record_and_edit": ["edit_activations", "read_activations", "record_activations"],
    "encoding": ["encode"],
    "decoding": [
        "DecodingStep",
        "decoding_steps",
        "filter_logits",
        "next_token_logits",
        "next_token_probs",
        "token_strings",
        "top_tokens",
    ],
    "lens": ["answer_layer", "entropy", "kl_divergence", "lens_choices", "logit_lens", "unembed"],
    "contrast": [
        "Contrast",
        "candidate_layers",
        "contrast_layers",
        "contrast_logits",
        "jensen_shannon",
    ],
    "patching": ["patch_each"],
    "steering": ["Samples", "mean_differences", "sample_steered"],
    "features": [
        "Features",
        "encode_features",
        "load_features",
        "save_features",
        "train_features",
    ],
    "measures": [
        "head_scores",
        "largest_coordinates",
        "layer_similarity",
        "residual_changes",
        "residual_norms",
    ],
    "harvest.write": ["harvest_activations"],
    "harvest.files": ["read_harvest"],
    "draw.described": ["describe_figure"],
    "draw.figures": ["plot_distributions", "plot_next_token", "plot_tokens"],
    "draw.heatmaps": ["plot_layer_token_heatmap", "plot_similarity"],
    "doctor.report": ["check_machine", "short_report"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
