"""For the lesson inside a decoder layer: its explorer of attention patterns."""

from tutorial_utils.lessons.layer.explorer import explore_attention

__all__ = ["explore_attention"]
