"""The contrast explorer shows what the functions give."""

from __future__ import annotations

import ipywidgets as widgets
import pytest
import torch

import tiny_models
from explorer_parts import rows_of
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
from tutorial_utils.lessons.contrast import explore_contrast
from tutorial_utils.lessons.contrast import explorer as module
from tutorial_utils.lessons.explorer import Explorer, LayerPicker
from tutorial_utils.lessons.prompt import LAST_TOKENS

PROMPT = "The capital of France is"


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model_and_tokenizer(request, tmp_path_factory):
    make = {"llama": tiny_models.make_llama, "gpt2": tiny_models.make_gpt2}[request.param]
    folder = make(tmp_path_factory.mktemp(request.param), layers=5, initializer_range=0.5)
    return load_model(folder, device="cpu")


def controls(explorer: Explorer) -> dict[str, widgets.Widget]:
    """The parts by what they are called here."""
    text, picker, sliders, message, said, drawing, *_ = explorer.children
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
    text = f"stays «{first}»" if first == then else f"was «{first}» and is now «{then}»"
    assert module.escape(text) in said
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


def test_nothing_picked_is_advice_and_shows_no_other_layers(model_and_tokenizer):
    parts = controls(explore_contrast(*model_and_tokenizer, PROMPT))
    parts["Layers"].value = ()
    assert "at least one of the layers" in parts["message"].value
    assert parts["drawing"].layout.visibility == parts["said"].layout.visibility == "hidden"
    parts["Layers"].value = (1,)
    assert parts["message"].value == "" and parts["drawing"].layout.visibility is None


def test_what_is_not_finite_is_no_choice_and_no_divergence(model_and_tokenizer):
    view = module.read_contrast(*model_and_tokenizer, PROMPT)
    view.lens[3][1, 7] = torch.nan
    view.divergence[3][1] = torch.nan
    tokenizer = model_and_tokenizer[1]
    with pytest.raises(ValueError, match="the logits of layer 3 are not finite"):
        module.contrast_at(view, tokenizer, 1, [1, 3], 0.1)
    drawing = module.contrast_at(view, tokenizer, 1, [1, 2], 0.1)[1]  # shown beside those picked
    assert ["layer 3", "nan", "–"] in rows_of(drawing)
    view.lens[5][1, 7] = torch.nan
    with pytest.raises(ValueError, match="the logits of layer 5 are not finite"):
        module.contrast_at(view, tokenizer, 1, [1, 2], 0.1)


def test_long_prompts_keep_their_last_tokens(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    prompt = PROMPT * 12
    view = module.read_contrast(model, tokenizer, prompt)
    assert len(view.tokens) == LAST_TOKENS
    said, _ = module.contrast_at(view, tokenizer, -1, [1, 3], 0.1)
    layer, kept, _ = expected(model, tokenizer, prompt, -1, [1, 3], 0.1)
    assert f"layer {layer} differs" in said and f"{kept} token" in said
    left_out = encode(model, tokenizer, prompt)["input_ids"].shape[1] - LAST_TOKENS
    assert f"The first {left_out} tokens are left out." in said


def test_a_picker_with_the_last_layer_can_be_shared(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    picker = LayerPicker(range(6), picked=[5])
    parts = controls(explore_contrast(model, tokenizer, PROMPT, picker))
    assert "at least one" in parts["message"].value
    picker.value = (3, 5)
    assert "layer 3 differs most" in parts["said"].value


def test_the_drawing_writes_out_what_the_functions_give(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    view, place, candidates = module.read_contrast(model, tokenizer, PROMPT), 2, [1, 3, 4]
    rows = rows_of(module.contrast_at(view, tokenizer, place, candidates, 0.1)[1])
    layers, tokens = rows[:5], rows[5:]
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
    assert len(tokens) == module.MAX_CANDIDATES
    shown = {row[0]: row[1:] for row in tokens}
    assert tokens[0][:2] == [visible(first[0], 14), f"{first[1]:.3f}"]
    assert shown[visible(then[0], 14)][1] == f"{then[1]:.3f}"


def test_the_drawing_says_what_is_dropped_and_escapes():
    drawing = module.contrast_html(
        {0: 0.25, 1: 0.5}, 1, [1], [("<b>", 0.75, None), ("b", 0.2, 1.0)], "After <i>"
    )
    layers = [["layer 1", "0.500", "◂ picked"], ["layer 0", "0.250", "–"]]
    assert rows_of(drawing) == [*layers, ["<b>", "0.750", "dropped"], ["b", "0.200", "1.000"]]
    assert "width:25.00%" in drawing and "dashed" in drawing
    assert "After &lt;i&gt;" in drawing


def test_the_drawing_has_as_many_rows_after_each_token(model_and_tokenizer):
    """Its columns have fixed widths, so that nothing jumps from one token to the next."""
    model, tokenizer = model_and_tokenizer
    view = module.read_contrast(model, tokenizer, PROMPT)
    drawn = [module.contrast_at(view, tokenizer, place, [0, 3], 0.1)[1] for place in range(4)]
    assert {len(rows_of(drawing)) for drawing in drawn} == {5 + module.MAX_CANDIDATES}
    assert all(drawing.count("table-layout:fixed") == 2 for drawing in drawn)
