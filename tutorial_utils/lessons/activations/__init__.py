"""For the lesson on hooks: the activation explorer."""

from tutorial_utils.lessons.activations.explorer import explore_activations

__all__ = ["explore_activations"]
