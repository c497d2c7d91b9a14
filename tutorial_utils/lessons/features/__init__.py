"""For the lesson on sparse features: its texts, how features are judged, figures and explorer."""

from tutorial_utils.lessons.features.explorer import explore_features, feature_html, read_codes
from tutorial_utils.lessons.features.figures import plot_fired, plot_judged, plot_switched
from tutorial_utils.lessons.features.judge import (
    f1_scores,
    judge_columns,
    probe_scores,
    shuffle_weights,
)
from tutorial_utils.lessons.features.world import ATTRIBUTES, draw_documents, label_tokens

__all__ = [
    "ATTRIBUTES",
    "draw_documents",
    "explore_features",
    "f1_scores",
    "feature_html",
    "judge_columns",
    "label_tokens",
    "plot_fired",
    "plot_judged",
    "plot_switched",
    "probe_scores",
    "read_codes",
    "shuffle_weights",
]
