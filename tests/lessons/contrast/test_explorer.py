"""The figures of lesson 06 and the contrast explorer, which shows what the functions give."""

from __future__ import annotations

from xml.etree import ElementTree

import ipywidgets as widgets
import pytest
import torch

import tiny_models
from tutorial_utils import (
    candidate_layers,
    contrast_logits,
    encode,
    jensen_shannon,
    load_model,
    logit_lens,
    read_activations,
    top_tokens,
)
from tutorial_utils.draw.html import probability, visible
from tutorial_utils.lessons.contrast import explore_contrast, plot_before_after, plot_contrast
from tutorial_utils.lessons.contrast import explorer as module
from tutorial_utils.lessons.explorer import Explorer, LayerPicker

PROMPT = "The capital of France is"


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model_and_tokenizer(request, tmp_path_factory):
    make = {"llama": tiny_models.make_llama, "gpt2": tiny_models.make_gpt2}[request.param]
    folder = make(tmp_path_factory.mktemp(request.param), layers=5, initializer_range=0.5)
    return load_model(folder, device="cpu")


def controls(explorer: Explorer) -> dict[str, widgets.Widget]:
    """The parts by what they are called here."""
    text, picker, sliders, message, said, drawing = explorer.children
    parts = {"Layers": picker, "said": said, "message": message, "drawing": drawing}
    return parts | {part.description: part for part in (text, *sliders.children)}


def expected(model, tokenizer, prompt, place, candidates, alpha):
    """What the explorer must say, from the package's functions on the whole prompt."""
    lens = logit_lens(model, read_activations(model, **encode(model, tokenizer, prompt)))
    final = lens[max(lens)][0, place]
    result = contrast_logits(final, {i: lens[i][0, place] for i in candidates}, alpha=alpha)
    first = [top_tokens(x.softmax(-1), tokenizer, 1)[0][0] for x in (final, result.scores)]
    return int(result.layer), int(result.scores.isfinite().sum()), first


def check(explorer, model, tokenizer, prompt, place, candidates, alpha):
    said = controls(explorer)["said"].value
    layer, kept, (first, then) = expected(model, tokenizer, prompt, place, candidates, alpha)
    assert f"layer {layer} differs most" in said and f"{kept} token" in said
    first, then = visible(first, 14), visible(then, 14)
    text = f"stays «{first}»" if first == then else f"was «{first}», now «{then}»"
    assert module.html.escape(text) in said
    assert controls(explorer)["message"].value == ""  # no error, no advice


def test_each_control_shows_what_the_functions_give(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    explorer = explore_contrast(model, tokenizer, PROMPT)
    parts = controls(explorer)
    places = range(encode(model, tokenizer, PROMPT)["input_ids"].shape[1])
    low = candidate_layers(model, "low")
    assert parts["Layers"].value == tuple(low) and parts["Token"].value == places[-1]
    check(explorer, model, tokenizer, PROMPT, places[-1], low, 0.1)
    seen = {parts["drawing"].value}
    for layers, place, alpha in (((1, 3, 4), 0, 0.1), ((2,), 1, 0.0), ((0, 1, 2, 3, 4), 2, 1.0)):
        parts["Layers"].value, parts["Token"].value, parts["alpha"].value = layers, place, alpha
        check(explorer, model, tokenizer, PROMPT, place, layers, alpha)
        seen.add(parts["drawing"].value)
    assert len(seen) == 4
    parts["Prompt"].value = "Anna has a ball"
    last = encode(model, tokenizer, "Anna has a ball")["input_ids"].shape[1] - 1
    assert parts["Token"].value == last
    check(explorer, model, tokenizer, "Anna has a ball", last, (0, 1, 2, 3, 4), 1.0)


def test_the_model_runs_once_for_each_prompt(model_and_tokenizer, monkeypatch):
    model, tokenizer = model_and_tokenizer
    runs = []
    real = module.read_activations
    monkeypatch.setattr(module, "read_activations", lambda *a, **k: runs.append(1) or real(*a, **k))
    parts = controls(explore_contrast(model, tokenizer, PROMPT))
    parts["Layers"].value = (1, 2)
    parts["alpha"].value = 0.5
    parts["Token"].value = 0
    assert len(runs) == 1
    parts["Prompt"].value = "Anna has"
    assert len(runs) == 2


def test_nothing_picked_and_nothing_typed_is_advice(model_and_tokenizer):
    parts = controls(explore_contrast(*model_and_tokenizer, PROMPT))
    parts["Layers"].value = ()
    assert "at least one of the layers" in parts["message"].value
    parts["Layers"].value = (1,)
    assert parts["message"].value == ""
    parts["Prompt"].value = ""
    assert "Type a prompt" in parts["message"].value


def test_a_prompt_that_is_too_long_is_told_and_is_no_error(model_and_tokenizer):
    parts = controls(explore_contrast(*model_and_tokenizer, PROMPT))
    before = parts["drawing"].value
    parts["Prompt"].value = "ball " * 600
    assert "The prompt is too long" in parts["message"].value
    assert parts["drawing"].value == before
    parts["Prompt"].value = "Anna has a ball"
    assert parts["message"].value == "" and parts["drawing"].value != before


def test_an_error_is_shown_and_raised(model_and_tokenizer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the model is gone")

    parts = controls(explore_contrast(*model_and_tokenizer, PROMPT))
    monkeypatch.setattr(module, "read_activations", broken)
    with pytest.raises(RuntimeError, match="the model is gone"):
        parts["Prompt"].value = "Anna"
    assert "This did not work:</b> the model is gone" in parts["message"].value


def test_the_reader_sees_that_the_model_reads(model_and_tokenizer):
    parts = controls(explore_contrast(*model_and_tokenizer, PROMPT))
    seen = []
    parts["message"].observe(lambda change: seen.append(change["new"]), "value")
    parts["Prompt"].value = "Anna has"
    assert "reads the prompt" in seen[0] and seen[-1] == ""


def test_long_prompts_keep_their_last_tokens(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    prompt = PROMPT * 12
    view = module.read_contrast(model, tokenizer, prompt)
    assert len(view.tokens) == module.MOST_TOKENS
    said, _ = module.contrast_at(view, tokenizer, -1, [1, 3], 0.1)
    layer, kept, _ = expected(model, tokenizer, prompt, -1, [1, 3], 0.1)
    assert f"layer {layer} differs" in said and f"{kept} token" in said
    left_out = encode(model, tokenizer, prompt)["input_ids"].shape[1] - module.MOST_TOKENS
    assert f"The first {left_out} tokens are left out." in said


def test_a_picker_with_the_last_layer_can_be_shared(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    picker = LayerPicker(range(6), picked=[5])
    parts = controls(explore_contrast(model, tokenizer, PROMPT, picker))
    assert "at least one" in parts["message"].value
    picker.value = (3, 5)
    assert "layer 3 differs most" in parts["said"].value


def some_probs(*indices: int) -> torch.Tensor:
    probs = torch.zeros(400)
    probs[list(indices)] = 1 / len(indices)
    return probs


def test_plot_contrast_says_what_it_was_given(model_and_tokenizer):
    tokenizer = model_and_tokenizer[1]
    figure = plot_contrast(
        {0: 0.9, 1: 0.4, 2: 0.5},
        2,
        some_probs(40, 41),
        some_probs(41, 42),
        tokenizer,
        candidates=[0, 2],
        k=3,
    )
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [0.9, 0.4, 0.5]
    assert [bool(bar.get_hatch()) for bar in left.patches] == [False, True, False]
    assert [(text.get_text(), text.get_position()[1]) for text in left.texts] == [(" picked", 2)]
    shown = [bar.get_width() for bar in right.patches]
    assert sorted(shown[:3]) == [0, 0.5, 0.5] and sorted(shown[3:]) == [0, 0.5, 0.5]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "last layer",
        "contrasted",
    ]


@pytest.mark.parametrize(
    ("divergence", "picked", "candidates", "after", "message"),
    [
        ({0: 1.0, 2: 0.5}, 1, None, some_probs(1), "one of the candidates"),
        ({0: 1.0, 2: 0.5}, 4, [0, 4], some_probs(1), "layers with a divergence"),
        ({0: 1.0}, 0, None, torch.zeros(5), r"\(vocab,\)"),
        ({0: 1.0}, 0, None, torch.zeros(2, 400), r"\(vocab,\)"),
    ],
)
def test_plot_contrast_refuses(model_and_tokenizer, divergence, picked, candidates, after, message):
    with pytest.raises(ValueError, match=message):
        plot_contrast(
            divergence, picked, some_probs(3), after, model_and_tokenizer[1], candidates=candidates
        )


def words(row: ElementTree.Element) -> list[str]:
    return [text for text in row.itertext() if text.strip()]


def tables(drawing: str) -> list[list[list[str]]]:
    """The words of both tables, row by row; fails where a text is not escaped."""
    found = ElementTree.fromstring(drawing).findall(".//tbody")
    return [[words(row) for row in body.findall("tr")] for body in found]


def test_the_drawing_writes_out_what_the_functions_give(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    view, place, candidates = module.read_contrast(model, tokenizer, PROMPT), 2, [1, 3, 4]
    layers, tokens = tables(module.contrast_at(view, tokenizer, place, candidates, 0.1)[1])
    lens = logit_lens(model, read_activations(model, **encode(model, tokenizer, PROMPT)))
    lens = {layer: logits[0, place] for layer, logits in lens.items()}
    result = contrast_logits(lens[max(lens)], {i: lens[i] for i in candidates})
    part = {i: "candidate" if i in candidates else "–" for i in range(max(lens))}
    part[int(result.layer)] = "◂ picked"
    bits = {i: probability(float(jensen_shannon(lens[max(lens)], lens[i]))) for i in part}
    assert layers == [
        [f"layer {i}", bits[i].replace("&lt;", "<"), part[i]] for i in sorted(part, reverse=True)
    ]
    before, after = lens[max(lens)].softmax(-1), result.scores.softmax(-1)
    first, then = (top_tokens(probs, tokenizer, 1)[0] for probs in (before, after))
    assert len(tokens) == module.BEST
    shown = {row[0]: row[1:] for row in tokens}
    assert tokens[0][:2] == [visible(first[0], 14), f"{first[1]:.3f}"]
    assert shown[visible(then[0], 14)][1] == f"{then[1]:.3f}"


def test_the_drawing_says_what_is_dropped_and_escapes():
    drawing = module.contrast_html(
        {0: 0.25, 1: 0.5}, 1, [1], [("<b>", 0.75, None), ("b", 0.2, 1.0)], "After <i>"
    )
    assert tables(drawing) == [
        [["layer 1", "0.500", "◂ picked"], ["layer 0", "0.250", "–"]],
        [["<b>", "0.750", "dropped"], ["b", "0.200", "1.000"]],
    ]
    assert "width:25.00%" in drawing and "dashed" in drawing
    assert "After &lt;i&gt;" in drawing


def test_the_drawing_has_as_many_rows_after_each_token(model_and_tokenizer):
    """Its columns have fixed widths, so that nothing jumps from one token to the next."""
    model, tokenizer = model_and_tokenizer
    view = module.read_contrast(model, tokenizer, PROMPT)
    drawn = [module.contrast_at(view, tokenizer, place, [0, 3], 0.1)[1] for place in range(4)]
    assert {tuple(map(len, tables(drawing))) for drawing in drawn} == {(5, module.BEST)}
    assert all(drawing.count("table-layout:fixed") == 2 for drawing in drawn)


def test_plot_contrast_keeps_its_size_and_place(model_and_tokenizer):
    """Figures of several tokens stand under each other: labels must not move the axes."""
    tokenizer, bits = model_and_tokenizer[1], {0: 0.9, 1: 0.4}
    figures = [
        plot_contrast(bits, 0, some_probs(i, i + 1), some_probs(i), tokenizer) for i in (40, 90)
    ]
    assert len({tuple(f.get_size_inches()) for f in figures}) == 1
    assert len({axes.get_position().bounds for f in figures for axes in f.axes}) == 2


def test_plot_before_after_places_each_prompt():
    before, after = torch.tensor([0.1, 0.9]), torch.tensor([0.3, 0.2])
    figure = plot_before_after(
        {"facts": (before, {"low": after, "high": before}), "b": (before, {})}
    )
    first, second = figure.axes
    assert torch.allclose(
        torch.tensor(first.collections[0].get_offsets()).float(), torch.stack([before, after], 1)
    )
    assert len(first.collections) == 2 and len(second.collections) == 0
    assert first.get_title() == "facts, 2 prompts"


@pytest.mark.parametrize("groups", [{}, {"facts": (torch.zeros(0), {})}])
def test_plot_before_after_with_nothing(groups):
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_before_after(groups)
