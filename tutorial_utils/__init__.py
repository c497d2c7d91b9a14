"""The functions that the notebooks derive by hand, ready to import.

`from tutorial_utils import load_model` works for every name below. A name's module is imported
when the name is first asked for, so that `import tutorial_utils` costs nothing and brings in
neither matplotlib nor ipywidgets.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "models": ["POCKET_LLAMA", "load_model", "pick_device", "pick_dtype"],
    "decoder_layers": ["find_decoder_layers"],
    "activations": ["edit_activations", "read_activations", "record_activations"],
    "decoding": [
        "DecodingStep",
        "decoding_steps",
        "encode",
        "filter_logits",
        "next_token_logits",
        "next_token_probs",
        "token_strings",
        "top_tokens",
    ],
    "lens": [
        "answer_layer",
        "entropy",
        "kl_divergence",
        "lens_choices",
        "logit_lens",
        "unembed",
    ],
    "contrast": [
        "Contrast",
        "candidate_layers",
        "contrast_layers",
        "contrast_logits",
        "jensen_shannon",
    ],
    "plots": [
        "plot_distributions",
        "plot_layer_token_heatmap",
        "plot_next_token",
        "plot_pipeline",
        "plot_similarity",
        "plot_tokens",
    ],
    "html_views": ["steering_table"],
    "patching": ["patch_each", "read_parts"],
    "plots_contrast": ["plot_before_after", "plot_contrast"],
    "plots_lens": ["plot_answer_layers", "plot_answers_by_layer", "plot_spread_by_layer"],
    "steering": ["Samples", "mean_differences", "sample_steered"],
    "token_views": ["continue_prompt", "filtered_choice", "token_rows"],
    "views": ["largest_coordinates", "layer_similarity", "residual_changes", "residual_norms"],
    "widgets": [
        "LayerPicker",
        "explore_activations",
        "explore_softmax",
        "explore_tokens",
        "step_decoding",
    ],
    "widgets_contrast": ["explore_contrast"],
    "widgets_lens": ["explore_lens"],
    "widgets_steering": ["explore_steering"],
    "doctor": ["check_machine", "short_report"],
    "harvest": ["harvest_activations"],
    "harvest_files": ["read_harvest"],
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
