"""For the lesson on logits and softmax: the softmax explorer."""

from tutorial_utils.lessons.softmax.explorer import explore_softmax, filtered_choice

__all__ = ["explore_softmax", "filtered_choice"]
