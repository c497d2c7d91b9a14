"""For the lesson on a decoder layer: its parts under one set of names, figures, its explorer."""

from tutorial_utils.lessons.layer.explorer import explore_attention
from tutorial_utils.lessons.layer.figures import plot_gate, plot_looks, plot_patterns, plot_rotary
from tutorial_utils.lessons.layer.parts import OpenLayer, open_layers, tiny_llama

__all__ = [
    "OpenLayer",
    "explore_attention",
    "open_layers",
    "plot_gate",
    "plot_looks",
    "plot_patterns",
    "plot_rotary",
    "tiny_llama",
]
