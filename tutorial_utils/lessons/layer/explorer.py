"""The attention explorer: a map of all heads, the pattern of one, and where one token looks.

The model runs once for each prompt, and once more for the induction scores.
"""

from __future__ import annotations

from typing import NamedTuple

import ipywidgets as widgets
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.layers import find_decoder_layers
from tutorial_utils.activations.patterns import read_attention
from tutorial_utils.decoding import encode, token_strings
from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import visible
from tutorial_utils.encoding import context_length
from tutorial_utils.lessons.explorer import Explorer, escape
from tutorial_utils.lessons.grid import CellGrid, Look, look_of
from tutorial_utils.lessons.layer.drawing import (
    LOOKED_AT,
    LOOKS,
    look_lists,
    pattern_html,
    thumbnails,
)
from tutorial_utils.lessons.prompt import PromptReader, Refused
from tutorial_utils.measures import head_scores

MOST_TOKENS = 300  # all patterns of SmolLM2 are then 100 MB, those of an 8B model 370 MB
SAID_TWICE = 50  # tokens, at most, that are said twice for the induction scores
SCORES = {
    "previous token": "how much of the head's attention goes to the token before, on average",
    "first token": "how much of the head's attention goes to the first token, on average",
    "induction": f"when the prompt (at most its first {SAID_TWICE} tokens) is read twice in a row, "
    "how much attention the head pays from a token of the second copy to the token that came after "
    "it in the first copy (the patterns are those of the prompt read once)",
}
CODE = """import torch

from tutorial_utils import encode, head_scores, read_attention

inputs = encode(model, tokenizer, {prompt!r})
patterns = read_attention(model, **inputs)  # {{layer: (batch, head, query, key)}}
{scores}
pattern = patterns[{layer}][0, {head}]  # (query, key)
pattern[{place}], pattern[:, {place}]  # where the token looks, and who looks at it"""
SCORE_CODE = 'scores = head_scores(patterns, "{kind}")  # {{layer: (batch, head)}}'
INDUCTION_CODE = """ids = inputs["input_ids"][:, :{end}]
twice = torch.cat([ids, ids[:, {start}:]], dim=1)
scores = head_scores(read_attention(model, twice), "induction", period={period}, start={start})"""
HINT = (
    "Pick a token. Blue: where it looks (at itself and at earlier tokens). "
    "Orange: which later tokens look at it."
)


class AttentionView(NamedTuple):
    """What one run of the model gives the explorer."""

    input_ids: Tensor  # (1, seq)
    tokens: list[str]  # (seq,)
    patterns: dict[int, Tensor]  # {layer: (1, head, query, key)}, float32 on the CPU
    without: list[int]  # the decoder layers that gave no pattern


def read_patterns(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> AttentionView:
    """Run the model on the prompt and keep all attention patterns; errors as in `read_attention`.

    `ValueError` too for layers that have different numbers of heads, which make no map.
    """
    inputs = encode(model, tokenizer, prompt)
    ids = inputs["input_ids"]
    if ids.shape[1] > MOST_TOKENS:
        raise Refused(
            f"the prompt has {ids.shape[1]} tokens, and this explorer shows at most {MOST_TOKENS}: "
            "type a shorter one"
        )
    patterns = {i: p.float().cpu() for i, p in read_attention(model, **inputs).items()}
    shapes = {tuple(pattern.shape) for pattern in patterns.values()}
    if len(shapes) > 1 or next(iter(shapes))[-1] != ids.shape[1]:
        raise ValueError(
            "for a map, all layers must have the same number of heads, and a key for each token "
            f"({ids.shape[1]} here); the patterns (batch, head, query, key) are {sorted(shapes)}"
        )
    without = [i + 1 for i in range(len(find_decoder_layers(model))) if i + 1 not in patterns]
    return AttentionView(ids, token_strings(tokenizer, ids[0]), patterns, without)


def score_heads(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, view: AttentionView, kind: str
) -> Tensor | None:
    """One of `SCORES` for each head, `(layers, heads)`; None where the prompt is too short for it.

    Induction is measured on the first tokens of the prompt, said twice after the BOS, if any.
    """
    if kind != "induction":
        if len(view.tokens) < 2:
            return None
        scores = head_scores(view.patterns, kind.split()[0])
    else:
        start, period = said_twice(model, tokenizer, view.input_ids)
        if period < 2:
            return None
        once = view.input_ids[:, : start + period]
        twice = torch.cat([once, once[:, start:]], dim=1)
        read = read_attention(model, twice, [*view.patterns])
        scores = head_scores(read, "induction", period=period, start=start)
    return torch.cat([*scores.values()])


def said_twice(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, input_ids: Tensor
) -> tuple[int, int]:
    """Where the text begins, and how many of its tokens there is room to say twice."""
    start = int(input_ids[0, 0].item() in tokenizer.all_special_ids)
    room = ((context_length(model) or 2 * SAID_TWICE + start) - start) // 2
    return start, min(input_ids.shape[1] - start, room, SAID_TWICE)


def explore_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> Explorer:
    """See the patterns of all heads, pick one, and see where a token looks and who looks at it.

    Raises:
        ValueError: with the message of `read_attention`, for a model that gives no patterns.
    """
    reader = PromptReader(model, tokenizer, prompt, read_patterns)
    kind = widgets.Dropdown(options=[*SCORES], description="Score")
    heads = CellGrid("Heads", "Layer", "Head")
    token = CellGrid("Tokens", "", "Token", "words")
    told, drawing, hint, lists = (widgets.HTML(layout={"max_width": "100%"}) for _ in range(4))
    hint.value = escape(HINT)
    scores: dict[str, Tensor | None] = {}  # of this prompt

    def show_prompt() -> None:
        scores.clear()
        names, layers = reader.view.tokens, [*reader.view.patterns]
        count = reader.view.patterns[layers[0]].shape[1]
        labels = [[f"L{layer}H{head}" for head in range(count)] for layer in layers]
        kept = heads.picked if heads.picked[0] < len(layers) else (0, 0)
        heads.offer([*map(str, layers)], [*map(str, range(count))], labels, kept)
        places = [f"{i + 1} {visible(name, 12)}" for i, name in enumerate(names)]
        token.offer([""], places, [places], (0, len(names) - 1))
        show_map()
        show_head()

    def show_map() -> None:
        if kind.value not in scores:
            scores[kind.value] = score_heads(model, tokenizer, reader.view, kind.value)
        found = scores[kind.value]
        none = torch.full((len(reader.view.patterns), len(heads.column.options)), torch.nan)
        css, pictures = thumbnails(torch.cat([*reader.view.patterns.values()]))
        looks = zip((none if found is None else found).tolist(), pictures, strict=True)
        cells = [
            [Look(look_of(score, "viridis"), f"{score:.2f}", at) for score, at in zip(*row)]
            for row in looks
        ]
        heads.paint("font-size:12px;line-height:1.2", cells, css)
        told.value = escape(tell_map(reader.view, kind.value, found is None))

    def show_head() -> None:
        if kind.value not in scores:  # it failed: the map of another score is no answer
            show_map()
        layer, head = [*reader.view.patterns][heads.picked[0]], heads.picked[1]
        pattern, place = reader.view.patterns[layer][0, head], token.picked[1]
        size = counted(len(pattern), "token")
        title = f"L{layer}H{head}: attention pattern of {size}, queries by keys"
        drawing.value = pattern_html(pattern, reader.view.tokens, place, title)
        lists.value = look_lists(pattern, reader.view.tokens, place)
        after = pattern[place + 1 :, place].tolist()
        looks = [(w, LOOKS) for w in pattern[place, : place + 1].tolist()]
        looks += [(w, LOOKED_AT) for w in after]
        cells = [
            Look(look_of(w, colors), f"{w:.2f}" if w >= 0.005 else "\N{NO-BREAK SPACE}")
            for w, colors in looks
        ]
        token.paint("", [cells])

    def code() -> str:
        layer, head = [*reader.view.patterns][heads.picked[0]], heads.picked[1]
        place, asked = token.picked[1], SCORE_CODE.format(kind=kind.value.split()[0])
        if kind.value == "induction":
            start, period = said_twice(model, tokenizer, reader.view.input_ids)
            asked = INDUCTION_CODE.format(start=start, period=period, end=start + period)
        prompt = reader.field.value
        return CODE.format(prompt=prompt, scores=asked, layer=layer, head=head, place=place)

    picked = reader.redrawing(show_head)
    heads.on_pick(picked)
    token.on_pick(picked)
    kind.observe(reader.redrawing(show_map), "value")
    reader.start(show_prompt, [told, heads, drawing, hint, token, lists])
    wrap = widgets.Layout(flex_flow="row wrap", max_width="100%")
    sliders = widgets.HBox([kind, heads.row, heads.column, token.column], layout=wrap)
    heads.layout.max_width, token.layout.max_height = "min(100%, 480px)", "170px"
    for name, value in {"flex": "1 1 320px", "overflow": "auto", "max_height": "600px"}.items():
        setattr(drawing.layout, name, value)
    both = widgets.HBox([heads, drawing], layout=wrap)
    parts = [reader.field, sliders, reader.message, told, both, hint, token, lists]
    return Explorer(parts, "pick a head, and see where each token looks and who looks at it", code)


def tell_map(view: AttentionView, kind: str, too_short: bool) -> str:
    """What the numbers of the map are, and which layers are not in it."""
    said = f"The number in a cell of the map: {SCORES[kind]}."
    if too_short:
        said = f"The prompt is too short for the score {kind!r}: the numbers are nan."
    if view.without:
        layers = ", ".join(map(str, view.without))
        said += f" These decoder layers gave no pattern of finite numbers: {layers}."
    return said
