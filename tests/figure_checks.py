"""What the tests of figures look at: the texts, the picture, whether all of it is inside."""

from __future__ import annotations

import re
from unittest.mock import patch

import pytest
import torch
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from notebook_tools import png_in

# A character without a glyph, a layout that does not fit, a scale with nothing on it are errors.
STRICT = [
    pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning"),
    pytest.mark.usefixtures("nothing_left_behind"),
]
VOCAB = 398
TOKENS = ["<|begin_of_text|>", "Trump", " works", " at", " McDonald", "'s", "."]
IDS = [0, 322, 315, 303, 311, 280, 15]


def random_probs(seed: int = 0) -> torch.Tensor:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.softmax(dim=-1)


def random_values(layers: int, seq: int) -> torch.Tensor:
    return torch.rand(layers, seq, generator=torch.Generator().manual_seed(0)) + 0.1


def words(figure: Figure) -> list[str]:
    """All texts with their sizes checked: none below 9 points, none read as mathematics."""
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert all(text.get_fontsize() >= 9 for text in found)
    assert not any(text.get_parse_math() for text in found if "$" in text.get_text())
    return [text.get_text() for text in found]


def labels(axis: Axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def drawn(figure: Figure) -> FigureCanvasAgg:
    figure.draw_without_rendering()
    return FigureCanvasAgg(figure).get_renderer()


def in_a_notebook(figure: Figure) -> dict[str, str]:
    """What a notebook shows of it and keeps, by kind."""
    with patch("IPython.display.publish_display_data") as publish:
        figure._ipython_display_()
    return publish.call_args.args[0]


def count_sentences(text: str) -> int:
    """How many sentences a description has; those inside quotation marks are not counted."""
    short = re.sub(r'"(\\.|[^"\\])*"', lambda quoted: f'"{quoted[0][-2]}"', text.strip())
    return 1 + len(re.findall(r'(?<!et al)[.?!] |[.?!]" (?=[A-Z])', short))


def looks_right(figure: Figure) -> bool:
    """It can be drawn, is not too large a picture, and nothing sticks out of it or its parts."""
    assert isinstance(figure, Figure)
    image = in_a_notebook(figure)["text/html"]
    picture = png_in(image)
    assert len(figure.description.split()) > 3
    assert count_sentences(figure.description) <= 2, figure.description
    assert len(picture) < 200_000
    assert int.from_bytes(picture[16:20], "big") <= 810  # the width in a PNG's header
    renderer = drawn(figure)
    boxes = [(figure.get_tightbbox(renderer).extents * figure.dpi, figure.bbox.extents)]
    boxes += [(part.get_tightbbox(renderer).extents, part.bbox.extents) for part in figure.subfigs]
    for box, edge in boxes:
        assert (box[:2] > edge[:2] - 2).all(), (box, edge)
        assert (box[2:] < edge[2:] + 2).all(), (box, edge)
    return True
