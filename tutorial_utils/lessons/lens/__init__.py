"""For the lesson on the logit lens: its figures and its explorer."""

from tutorial_utils.lessons.lens.explorer import explore_lens
from tutorial_utils.lessons.lens.figures import (
    plot_answer_layers,
    plot_answers_by_layer,
    plot_spread_by_layer,
)

__all__ = ["explore_lens", "plot_answer_layers", "plot_answers_by_layer", "plot_spread_by_layer"]
