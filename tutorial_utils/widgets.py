"""The widgets of the lessons by one name each: thin skins over functions of the package.

What they share is in `widgets_shared`, each explorer in a module of its own.
"""

from .widgets_activations import explore_activations
from .widgets_decoding import step_decoding
from .widgets_shared import Explorer, LayerPicker, errors_shown, message_line
from .widgets_softmax import explore_softmax
from .widgets_tokens import explore_tokens

__all__ = [
    "Explorer",
    "LayerPicker",
    "errors_shown",
    "explore_activations",
    "explore_softmax",
    "explore_tokens",
    "message_line",
    "step_decoding",
]
