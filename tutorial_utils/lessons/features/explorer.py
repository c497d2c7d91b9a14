"""The feature explorer: where a feature fires most strongly, how often, and what it promotes.

The activations of a harvest are encoded once; each move only looks things up.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ipywidgets as widgets
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.decoding import token_strings
from tutorial_utils.draw.html import MONO, NUMBER, OKABE_ITO, PALE, BarRow, bar_table, number
from tutorial_utils.draw.html import visible as shown
from tutorial_utils.features import Features, encode_features
from tutorial_utils.harvest.files import Column
from tutorial_utils.lens import unembed
from tutorial_utils.lessons.explorer import SYNC_WHILE_DRAGGING, Explorer, errors_shown
from tutorial_utils.lessons.prompt import PromptReader, encode_last, set_tokens, token_slider

# `codes` are what the reader gave the explorer, under this name or another.
CODE = """from tutorial_utils.lessons.features.explorer import promoted, strongest

rows, values = strongest(codes, {feature})  # the tokens it fires on, and how strongly
codes.prompt[rows], tokenizer.convert_ids_to_tokens(codes.tokens[rows].tolist()), values
promoted(model, tokenizer, features, {feature})  # the tokens that its direction raises"""
BEFORE, AFTER, TEXTS, BINS, BEST, FOUND = 12, 4, 8, 8, 6, 10
BLOCK = 8192  # rows encoded at once


class Codes(NamedTuple):
    """The features of each token of a harvest, at most k of them, the strongest first."""

    values: Tensor  # (rows, k), 0 where fewer than k are there
    features: Tensor  # (rows, k), their numbers
    prompt: Tensor  # (rows,), the number of the line
    tokens: Tensor  # (rows,), ids


def read_codes(features: Features, harvest: Mapping[int | str, Column]) -> Codes:
    """Encode the features' layer of a harvest of all positions, block by block."""
    column, parts = harvest[features.layer], []
    for start in range(0, len(column), BLOCK):
        codes = encode_features(features, column[start : start + BLOCK])
        parts.append(codes.topk(features.top_k, dim=1))
    values, numbers = (torch.cat(part) for part in zip(*parts))
    return Codes(values, numbers, harvest["prompt"][:], harvest["token"][:])


def strongest(codes: Codes, feature: int) -> tuple[Tensor, Tensor]:
    """The rows that the feature fires on and how strongly, the strongest first: (rows,), both."""
    rows, places = ((codes.features == feature) & (codes.values > 0)).nonzero().T
    values, order = codes.values[rows, places].sort(descending=True, stable=True)
    return rows[order], values


def promoted(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, features: Features, feature: int
) -> list[tuple[str, float]]:
    """The tokens whose logits the feature's direction raises most, and by how much.

    The direction alone goes through the model's last steps, minus what these give for zeros.
    """
    direction = features.decoder[feature].to(model.device, model.dtype)
    alone, nothing = unembed(model, torch.stack([direction, 0 * direction])[None])[0].float()
    best = (alone - nothing).topk(BEST)
    return list(zip(token_strings(tokenizer, best.indices), best.values.tolist()))


def feature_html(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    features: Features,
    codes: Codes,
    feature: int,
) -> str:
    """A feature as HTML: its strongest texts, how strongly it fires, and which logits it raises."""
    rows, values = strongest(codes, feature)
    share = len(rows) / len(codes.tokens)
    title = f"Feature {feature} fires on {share:.2%} of {len(codes.tokens):,} tokens"
    if not len(rows):
        return f"<p><b>{title}.</b> It is dead: it fires on no token.</p>"
    first: dict[int, tuple[int, float]] = {}  # the strongest token of each text
    for row, value in zip(rows.tolist(), values.tolist()):
        first.setdefault(int(codes.prompt[row]), (row, value))
        if len(first) == TEXTS:
            break
    lines = "".join(
        f'<tr><td style="{NUMBER};padding-right:10px">{number(value)}</td>'
        f'<td style="text-align:left;white-space:normal">{_context(tokenizer, codes, row, rows)}'
        "</td></tr>"
        for row, value in first.values()
    )
    heading = "text-align:left;font-weight:bold;padding:0 0 4px"
    texts = (
        f'<table style="border-collapse:collapse;{MONO};line-height:1.5">'
        f'<caption style="{heading}">{title}. It fires most strongly here</caption>'
        f"<tbody>{lines}</tbody></table>"
    )
    edges = torch.linspace(0, values[0].item(), BINS + 1)
    counts = torch.histogram(values, edges).hist.tolist()
    bars = [
        BarRow(
            f"{number(low)} to {number(high)}", [(count / max(counts), _fill(0))], [f"{count:,.0f}"]
        )
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts)
    ]
    histogram = bar_table(["strength", "", "tokens"], bars, caption="How many tokens, by strength")
    best = promoted(model, tokenizer, features, feature)
    top = max(abs(score) for _, score in best) or 1
    rises = [
        BarRow(shown(token), [(max(score, 0) / top, _fill(2))], [f"{score:+.3g}"])
        for token, score in best
    ]
    likelier = bar_table(["token", "", "logit"], rises, caption="Its direction raises these logits")
    return f"{texts}{histogram}{likelier}"


def _fill(colour: int) -> str:
    return f"background:{OKABE_ITO[colour]}"


def _context(tokenizer: PreTrainedTokenizerBase, codes: Codes, row: int, fires: Tensor) -> str:
    """The tokens around one, which is framed; the others that the feature fires on are coloured."""
    low, high = max(0, row - BEFORE), min(len(codes.tokens), row + AFTER + 1)
    near = [i for i in range(low, high) if codes.prompt[i] == codes.prompt[row]]
    also = set(fires[(fires >= low) & (fires < high)].tolist())
    words = []
    for i, text in zip(near, token_strings(tokenizer, codes.tokens[near])):
        style = f"background:{PALE[1]};color:black" if i in also else ""
        style += ";outline:2px solid #D55E00;font-weight:bold" if i == row else ""
        words.append(f'<span style="{style}">{html.escape(shown(text).replace("␣", " "))}</span>')
    return "".join(words)


def features_of(codes: Codes, wanted: Tensor, n_features: int) -> list[int]:
    """The features that fire on the rows of `wanted` (rows,), strongly there and rarely elsewhere.

    Ordered by F1 times the mean strength there, as a share of its highest strength anywhere.
    """
    fires = codes.values > 0
    every = torch.bincount(codes.features[fires], minlength=n_features)
    here = torch.bincount(codes.features[fires & wanted[:, None]], minlength=n_features)
    f1 = 2 * here / (every + wanted.sum()).clamp(min=1)
    numbers, values, none = (
        codes.features.flatten(),
        codes.values.flatten(),
        torch.zeros(n_features),
    )
    greatest = none.scatter_reduce(0, numbers, values, "amax")
    total = none.index_add(0, codes.features[wanted].flatten(), codes.values[wanted].flatten())
    best = (f1 * total / (here * greatest).clamp(min=1e-9)).topk(min(FOUND, n_features))
    return [i for i, score in zip(best.indices.tolist(), best.values.tolist()) if score > 0]


def explore_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    features: Features,
    codes: Codes,
    prompt: str,
) -> Explorer:
    """Pick a feature by number, by a word, or by a token of a prompt, and see where it fires.

    `codes` are those of the texts to show, as `read_codes` gives.
    """
    ids, where = codes.tokens.unique(return_inverse=True)
    names = [name.lower() for name in token_strings(tokenizer, ids)]

    def read(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple:
        inputs, positions, tokens = encode_last(model, tokenizer, prompt)
        at = features.layer
        hidden = read_activations(model, **inputs, layers=at, positions=positions)[at][0]
        return tokens, encode_features(features, hidden).cpu()  # (seq, features)

    reader = PromptReader(model, tokenizer, prompt, read)
    last = len(features.decoder) - 1
    by_number = widgets.BoundedIntText(
        value=0, min=0, max=last, description="Feature", layout={"width": "180px"}
    )
    search = widgets.Text(description="Search", continuous_update=False, placeholder="a word")
    token = token_slider(reader.view[0])
    found = widgets.SelectionSlider(
        options=[("0", 0)], description="Found", continuous_update=SYNC_WHILE_DRAGGING
    )
    table = widgets.HTML(layout={"max_width": "100%"})

    def offer(numbers: Sequence[int], told: Sequence[str]) -> None:
        """Give these features to choose from, and show the first."""
        found.unobserve(found_picked, "value")
        found.options = list(zip(told, numbers))
        found.index = 0
        found.observe(found_picked, "value")
        found_picked()

    def found_picked(_: object = None) -> None:
        if by_number.value == found.value:
            draw()
        by_number.value = found.value

    def draw(_: object = None) -> None:
        with errors_shown(reader.message, drawings=[table]):
            table.value = feature_html(model, tokenizer, features, codes, by_number.value)

    def searched(_: object) -> None:
        word = search.value.strip().lower()
        with errors_shown(reader.message, drawings=[table]):
            hit = torch.tensor([bool(word) and word in name for name in names])[where]
            numbers = features_of(codes, hit, last + 1)
            if not numbers:
                reader.message.value = (
                    "No token of the texts contains that. Try a part of a word."
                    if word
                    else "Type a word, or a part of one."
                )
                return
        offer(numbers, [str(i) for i in numbers])

    def token_picked() -> None:
        values = reader.view[1][token.index]
        best = values.topk(min(features.top_k, len(values)))
        pairs = [(i, v) for i, v in zip(best.indices.tolist(), best.values.tolist()) if v > 0]
        pairs = pairs or [(0, 0.0)]  # no feature fires: the bias alone
        offer([i for i, _ in pairs], [f"{i}: {number(v)}" for i, v in pairs])

    def new_prompt() -> None:
        token.unobserve(redraw, "value")
        set_tokens(token, reader.view[0])
        token.observe(redraw, "value")
        token_picked()

    redraw = reader.redrawing(token_picked)
    by_number.observe(draw, "value")
    search.observe(searched, "value")
    found.observe(found_picked, "value")
    token.observe(redraw, "value")
    reader.start(new_prompt, [table])
    wrap = widgets.Layout(flex_flow="row wrap")
    controls = [
        reader.field,
        widgets.HBox([token, search], layout=wrap),
        widgets.HBox([found, by_number], layout=wrap),
    ]
    does = "pick a feature by number, word or token; see its texts and its top logits"
    parts = [*controls, reader.message, table]
    return Explorer(parts, does, lambda: CODE.format(feature=by_number.value))
