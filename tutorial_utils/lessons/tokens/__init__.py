"""For the lesson on tokenization: the token explorer."""

from tutorial_utils.lessons.tokens.explorer import explore_tokens

__all__ = ["explore_tokens"]
