"""For the lesson on patching and steering: the steering explorer."""

from tutorial_utils.lessons.patching.explorer import explore_steering, steering_table

__all__ = ["explore_steering", "steering_table"]
