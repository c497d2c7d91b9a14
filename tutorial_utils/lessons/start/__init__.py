"""For the first lesson: the whole way of a prompt in one picture."""

from tutorial_utils.lessons.start.figures import plot_pipeline

__all__ = ["plot_pipeline"]
