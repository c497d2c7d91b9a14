"""For the first lesson: the whole way from a prompt to the next token, in one picture."""

from tutorial_utils.lessons.start.figures import plot_pipeline

__all__ = ["plot_pipeline"]
