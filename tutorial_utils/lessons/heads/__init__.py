"""For the lesson on attention heads: whether a model's heads can be read, and the figures."""

from tutorial_utils.lessons.heads.figures import (
    plot_attribution,
    plot_effects,
    plot_head_maps,
    plot_patterns,
    plot_repeats,
)
from tutorial_utils.lessons.heads.readable import why_no_heads

__all__ = [
    "plot_attribution",
    "plot_effects",
    "plot_head_maps",
    "plot_patterns",
    "plot_repeats",
    "why_no_heads",
]
