"""For the lesson on patching and steering: the steering explorer and the figures."""

from tutorial_utils.lessons.patching.explorer import explore_steering, steering_table
from tutorial_utils.lessons.patching.figures import (
    plot_share_lines,
    plot_shares,
    plot_steering,
)

__all__ = [
    "explore_steering",
    "plot_share_lines",
    "plot_shares",
    "plot_steering",
    "steering_table",
]
