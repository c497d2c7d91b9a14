"""Figures that a lesson draws in a cell: the description says what is drawn.

Each cell is run with values made up here, so that no word of it can fit by chance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from notebook_tools import LESSONS, code_cells, lesson_on, read
from tutorial_utils import POCKET_LLAMA, describe_figure, plot_layer_token_heatmap
from tutorial_utils.draw.described import NotebookFigure
from tutorial_utils.draw.html import OKABE_ITO

NAMES = {
    "describe_figure": describe_figure,
    "math": math,
    "NotebookFigure": NotebookFigure,
    "OKABE_ITO": OKABE_ITO,
    "plot_layer_token_heatmap": plot_layer_token_heatmap,
    "plt": plt,
    "torch": torch,
}


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    with plt.rc_context({"backend": "agg"}):
        yield
        plt.close("all")


def run(lesson: str, words: str, **values: Any) -> dict[str, Any]:
    """The names after the only cell of a lesson that has these words, run with these values."""
    [cell] = [c for c in code_cells(read(lesson_on(lesson))) if words in c.source]
    names = NAMES | values
    exec(cell.source, names)
    return names


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*\.?\d*", text)]


def lines(figure: Figure) -> dict[str, np.ndarray]:
    """The heights of each line that has a name in the legend."""
    drawn = [line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in drawn}


def test_tokens_by_merges():
    made = run("tokenization", "merges learned", lengths=[90, 71, 63, 58])
    [line] = made["figure"].axes[0].lines
    assert [*line.get_xydata()[-1]] == [3, 58]
    said = made["figure"].description
    assert said == "A line that falls from 90 tokens to 58 after 3 merges."


def test_tokens_by_language():
    made = run("tokenization", "def draw_cost", cost={})
    made["draw_cost"]({"Igbo": 31, "Welsh": 12}, "Cost")
    figure = plt.gcf()
    assert [bar.get_width() for bar in figure.axes[0].patches] == [31, 12]
    assert figure.description == "Cost. Tokens: Igbo 31, Welsh 12."


def test_embedding_rows():
    vectors = torch.zeros(1, 3, 100)
    vectors[0, 1, 5], vectors[0, 2, 80] = -2.345, 9  # the second is beyond what is drawn
    made = run("tokenization", "The embedding rows", vectors=vectors, strings=["a", "b", "c"])
    image = made["figure"].axes[0].images[0]
    assert image.get_array().shape == (3, 64) and image.get_clim() == pytest.approx((-2.345, 2.345))
    assert "for 3 tokens, values between -2.35 and 2.35. " in made["figure"].description


def test_entropy_by_temperature():
    made = run(
        "logits and softmax",
        "entropy in bits",
        prompt="P",
        story="S",
        model=None,
        tokenizer=None,
        next_token_logits=lambda _m, _t, text: torch.arange(8.0)[None] * len(text),
        softmax=lambda logits: logits.softmax(dim=-1),
        entropy=lambda p: -(p * p.clamp(min=1e-30).log()).sum(dim=-1),
    )
    said, drawn = made["figure"].description, lines(made["figure"])
    ends = [end for name in ("P", "S", "The die shows") for end in drawn[name][[0, -1]]]
    assert numbers(said) == pytest.approx([0.1, 10, *ends], abs=0.006)
    assert all(f"bits after {name!r}" in said for name in ("P", "S", "The die shows"))


def test_surprisal():
    made = run("logits and softmax", "def draw_surprisal", tokenizer=None, ids=None)
    made["draw_surprisal"](["a", "b", "c"], [1.26, 7.5], [False, False, True], "Text")
    figure = plt.gcf()
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.26, 7.5]
    assert figure.description == "Text. Bars, in bits: 'b' 1.3, 'c' 7.5."


def test_probability_of_each_step():
    made = run("next token decoding", "def draw_steps", tokenizer=None)
    made["draw_steps"](["a", "b"], [0.25, 0.875], "Steps")
    figure = plt.gcf()
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.25, 0.875]
    assert figure.description == "Steps. Bars: 'a' 0.25, 'b' 0.88."


def test_tokens_read_with_and_without_the_cache():
    made = run("next token decoding", "tokens read so far", start=5, by_hand=torch.zeros(1, 9))
    said, drawn = made["figure"].description, lines(made["figure"])
    assert drawn["without the cache"][-1] == 26 and drawn["with the cache"][-1] == 8
    assert said.endswith(
        "Over 4 new tokens they rise to 26 without the cache and to 8 with the cache."
    )


def test_sums_of_log_probabilities():
    texts = {"by_hand": torch.zeros(1, 4), "sampled": torch.zeros(1, 6), "tokens": torch.zeros(3)}
    made = run(
        "next token decoding",
        "How probable each text is so far",
        start=2,
        continuation_log_probs=lambda ids, start: torch.full((ids.shape[1] - start,), -1.5),
        **texts,
    )
    said, drawn = made["figure"].description, lines(made["figure"])
    assert len(drawn) == 3
    for name, heights in drawn.items():
        assert f"{name} ends at {heights[-1]:.1f} after {len(heights)} tokens" in said


def test_lengths_of_what_heads_add():
    apart = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    made = run(
        "inside a decoder layer", "up to {row.max()", apart=apart, tokens=[*"abcd"], number=2
    )
    image = made["figure"].axes[0].images[0].get_array()
    said = made["figure"].description
    assert "that each head of decoder layer 2 adds: head 0 up to" in said
    largest = [end for head, row in enumerate(image) for end in (head, row.max())]
    assert numbers(said)[1:] == pytest.approx(largest, abs=0.006)


def test_first_choices_scaled_in_three_ways():
    generator = torch.Generator().manual_seed(0)
    names = ("own norm", "scale of layer 2", "no norm")
    ways = {way: torch.randn(3, 50, generator=generator).softmax(dim=-1) for way in names}
    tokenizer = AutoTokenizer.from_pretrained(POCKET_LLAMA)
    made = run("the logit lens", "for way, p in zip(ways", ways=ways, n=2, tokenizer=tokenizer)
    drawn = made["figure"].axes[0].images[0].get_array()  # (layers, ways)
    said = made["figure"].description
    for name, column in zip(names, drawn.T, strict=True):
        assert f"{name}, {column.min():.3f} to {column.max():.3f}" in said
    assert "in layers 0 to 2: " in said


def test_layers_that_the_rule_picks():
    jsd = torch.zeros(6, 4)
    jsd[0, :3], jsd[2, 1], jsd[5, :3] = 0.1, 0.5, 0.3
    made = run(
        "contrasting layers dola",
        "the low and the high candidates",
        jsd=jsd,
        n=6,
        low=[0, 2],
        high=[3, 5],
        following=["a", "b", "c"],
    )
    texts = [text.get_text() for text in made["figure"].axes[0].texts]
    assert sorted(filter(None, texts)) == ["high"] * 3 + ["low"] * 3
    said = made["figure"].description
    assert said == (
        "Layers picked for 3 next tokens: layer 0 (low) for 2, layer 2 (low) for 1, "
        "layer 5 (high) for 3 of them."
    )


def test_exact_and_estimated_patches():
    moved = torch.tensor([[0.0, 1.0], [2.0, 8.0]])
    guessed = torch.tensor([[0.0, 1.1], [1.9, 4.0]])
    correlation = np.corrcoef(moved.flatten(), guessed.flatten())[0, 1]
    made = run(
        "patching and steering",
        "The change that each patch makes",
        moved=moved,
        guessed=guessed,
        shown=[0, 3],
        tokens=["a", "b"],
        correlation=correlation,
        far=3,
        at=1,
        point=(8.0, 4.0),
    )
    points = made["figure"].axes[0].collections[0].get_offsets()
    assert np.allclose(points, torch.stack([moved.flatten(), guessed.flatten()], dim=1))
    assert made["figure"].description == (
        f"Scatter of 4 patches, exact and estimated, with correlation {correlation:.2f}. Furthest "
        "from the line of equal values: layer 3, token 'b', exact 8.00, estimated 4.00."
    )


def test_differences_by_padding():
    difference = {"right": torch.tensor([1e-6, 3e-6]), "left": torch.tensor([0.5, 0.25])}
    made = run(
        "many prompts many devices",
        "How far padding moves",
        difference=difference,
        n=2,
        tolerance=1e-4,
    )
    said = made["figure"].description
    assert '"right" 0.0000030; "left" 0.5000000. The tolerance is 0.0001.' in said
    drawn = lines(made["figure"])
    assert [drawn[way].max() for way in difference] == pytest.approx([3e-6, 0.5])


def test_accuracies_of_probes():
    found = {"seen": [0.5, 0.91], "new": [0.5, 0.82], "by heart": [0.5, 0.73], "layer": 1}
    found |= {"control": [0.5, 0.44]}
    made = run("many prompts many devices", "def plot_probe", result=found)
    figure = made["plot_probe"](found, "Probe")
    assert {name: heights[1] for name, heights in lines(figure).items() if name in found} == {
        name: values[1] for name, values in found.items() if name != "layer"
    }
    assert figure.description == (
        'Probe. Accuracies at the chosen layer (1): 91% for "seen", 82% for "new", '
        '73% for "by heart", 44% for "control".'
    )


def test_each_cell_that_describes_a_figure_is_here():
    words = re.findall(r'run\(\s*"[^"]+",\s*"([^"]+)"', Path(__file__).read_text(encoding="utf-8"))
    cells = [cell.source for path in LESSONS for cell in code_cells(read(path))]
    described = [source for source in cells if "describe_figure(" in source]
    assert len(described) == len(words)
    assert all(any(known in source for known in words) for source in described)
