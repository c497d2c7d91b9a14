"""For the lesson on next-token decoding: the decoding stepper."""

from tutorial_utils.lessons.decoding.explorer import step_decoding
from tutorial_utils.lessons.decoding.steps import continue_prompt

__all__ = ["continue_prompt", "step_decoding"]
