"""For the lesson on contrasting layers: its figures and its explorer."""

from tutorial_utils.lessons.contrast.explorer import explore_contrast
from tutorial_utils.lessons.contrast.figures import plot_before_after, plot_contrast

__all__ = ["explore_contrast", "plot_before_after", "plot_contrast"]
