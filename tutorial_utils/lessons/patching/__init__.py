"""For the lesson on patching and steering: its two explorers and the figures."""

from tutorial_utils.lessons.patching.explorer import explore_steering, steering_table
from tutorial_utils.lessons.patching.figures import (
    plot_share_lines,
    plot_shares,
    plot_steering,
)
from tutorial_utils.lessons.patching.patching_explorer import explore_patching

__all__ = [
    "explore_patching",
    "explore_steering",
    "plot_share_lines",
    "plot_shares",
    "plot_steering",
    "steering_table",
]
