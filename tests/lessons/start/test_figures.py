"""The figure of the way from a prompt to the next token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from figure_checks import IDS, STRICT, TOKENS, looks_right, random_probs, random_values, words
from tutorial_utils.decoding import top_tokens
from tutorial_utils.draw.described import quoted
from tutorial_utils.lessons.start import plot_pipeline

pytestmark = STRICT


@pytest.mark.parametrize(("layers", "times"), [(2, 1), (33, 8)])
def test_the_pipeline_shows_all_its_parts(tokenizer, layers, times):
    tokens, ids, probs = TOKENS * times, IDS * times, random_probs()
    after = top_tokens(probs, tokenizer, 6)
    norms = random_values(layers, len(tokens))
    norms[1, 2] = torch.nan
    figure = plot_pipeline(tokens, torch.tensor(ids), norms, after, title="All of it")
    parts = [part.axes[0] for part in figure.subfigs]
    assert len(parts[0].patches) == len(parts[2].patches) == len(tokens)
    places = [[(box.get_x(), box.get_y()) for box in part.patches] for part in (parts[0], parts[2])]
    assert places[0] == places[1]  # an id stands below its token
    assert {text.get_text() for text in parts[2].texts} >= {str(token_id) for token_id in ids}
    image = parts[4].images[0].get_array()
    np.testing.assert_array_equal(image.filled(np.nan), norms.numpy())  # a nan stays grey
    bars = [bar.get_width() for bar in parts[6].patches if isinstance(bar, Rectangle)]
    assert bars == probs.topk(6).values.tolist()
    assert [len(part.texts) for part in (parts[1], parts[3], parts[5])] == [2, 2, 2]  # arrows
    assert figure.get_suptitle() == "All of it"
    assert looks_right(figure) and words(figure)
    assert figure.description.startswith(f"All of it: {len(tokens)} tokens with their ids: ")
    low, high = np.nanmin(norms), np.nanmax(norms)
    ends = f"at layers {'0, 1' if layers == 2 else f'0 to {layers - 1}'}, from {low:.3g} (layer "
    assert f". Below them, norms for {len(tokens)} tokens {ends}" in figure.description
    assert f" to {high:.3g} (layer " in figure.description
    best = f"the three most probable tokens: {quoted(after[0][0])} {after[0][1]:.3g}, "
    assert f"; 1 value is not finite; at the bottom, {best}" in figure.description
