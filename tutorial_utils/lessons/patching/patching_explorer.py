"""The patching explorer: what each patch of one prompt into another does to the answer.

All patches are made once for a pair of prompts. A move only shows another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets as widgets
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.decoding import encode, next_token_logits, token_strings
from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import OKABE_ITO, BarRow, bar_table, probability, visible
from tutorial_utils.encoding import prompt_ids
from tutorial_utils.lessons.explorer import (
    Explorer,
    check_logits,
    errors_shown,
    escape,
    message_line,
)
from tutorial_utils.lessons.grid import CellGrid, Look, look_of
from tutorial_utils.lessons.prompt import prompt_field, tell_mistake
from tutorial_utils.patching import patch_rows

CODE = """from tutorial_utils import edit_activations, encode, next_token_logits, patch_each
from tutorial_utils import read_activations

clean, corrupted = {prompts}
good, bad = (
    tokenizer(f"{{prompt}} {{answer}}")["input_ids"][len(tokenizer(prompt)["input_ids"])]
    for prompt, answer in zip((clean, corrupted), {answers})
)


def difference(logits):
    return logits[:, good] - logits[:, bad]


source = read_activations(model, **encode(model, tokenizer, clean), layers={layers})
patched = patch_each(model, tokenizer, corrupted, source, difference)  # (layers, seq)
top, bottom = (difference(next_token_logits(model, tokenizer, p)) for p in (clean, corrupted))
share = (patched - bottom.cpu()) / (top - bottom).cpu()


def put(hidden):
    hidden = hidden.clone()
    hidden[:, {place}] = source[{layer}][:, {place}]
    return hidden


with edit_activations(model, {{{layer}: put}}):
    probs = next_token_logits(model, tokenizer, corrupted)[0].softmax(dim=-1)
share, probs[good], probs[bad]"""
MOST_TOKENS = 60  # each token is a column, and a row of the batch
BEST = 5  # tokens that the patched model finds most probable
GOOD, BAD = f"background:{OKABE_ITO[4]}", f"background:{OKABE_ITO[5]}"


class PatchingView(NamedTuple):
    """What all patches give. Of the two runs without a patch, the clean one comes first."""

    names: list[str]  # of the tokens (seq,)
    layers: list[int]
    runs: Tensor  # (2,): the logit difference without a patch
    run_probs: Tensor  # (2, 2): the probabilities of both answers without a patch
    differences: Tensor  # (layers, seq): the logit difference with the patch
    probs: Tensor  # (layers, seq, 2): the probabilities of both answers with the patch
    best_probs: Tensor  # (layers, seq, BEST)
    best: Tensor  # (layers, seq, BEST): token ids

    @property
    def share(self) -> Tensor:
        """The share of the difference that comes back `(layers, seq)`: 1 is the clean run."""
        clean, corrupted = self.runs
        return (self.differences - corrupted) / (clean - corrupted)


def answer_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
) -> list[int]:
    """The first token of each prompt's answer, written after the prompt with a space between.

    `ValueError` for a pair that cannot be patched: prompts of different lengths or too long ones,
    and answers that begin alike or cannot be told from their prompt.
    """
    rows = [prompt_ids(model, tokenizer, prompt)[0] for prompt in prompts]
    lengths = [len(row) for row in rows]
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"the clean prompt has {counted(lengths[0], 'token')} and the corrupted one "
            f"{lengths[1]}: each token of one replaces a token of the other, so give prompts of "
            "the same length"
        )
    if lengths[0] > MOST_TOKENS:
        raise ValueError(
            f"the prompts have {lengths[0]} tokens, and this explorer shows at most {MOST_TOKENS}: "
            "give shorter ones"
        )
    ids = []
    for prompt, answer, row in zip(prompts, answers, rows, strict=True):
        longer = prompt_ids(model, tokenizer, f"{prompt} {answer}")[0]
        if not answer.strip() or longer[: len(row)] != row or len(longer) == len(row):
            raise ValueError(
                f"the answer {answer!r} cannot follow {prompt!r}: it is empty, adds no token, or "
                "changes the tokens of the prompt. Give another answer"
            )
        ids.append(longer[len(row)])
    if ids[0] == ids[1]:
        raise ValueError(f"both answers begin with {tokenizer.decode(ids[:1])!r}: give others")
    return ids


def read_patching(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    layers: Sequence[int] | None = None,
) -> PatchingView:
    """Patch the first of two prompts into the second, at each layer and token.

    Errors as in `answer_ids`.
    """
    ids = answer_ids(model, tokenizer, prompts, answers)
    clean, corrupted = (encode(model, tokenizer, prompt) for prompt in prompts)
    source = read_activations(model, layers=layers, **clean)

    def look(logits: Tensor) -> Tensor:
        probs = logits.softmax(dim=-1)
        best = probs.topk(BEST)
        both = logits[:, ids[0]] - logits[:, ids[1]]
        return torch.cat([both[:, None], probs[:, ids], best.values, best.indices], dim=1).cpu()

    logits = next_token_logits(model, tokenizer, list(prompts)).cpu()
    check_logits(logits, "the logits without a patch")
    runs = logits[:, ids]
    rows = torch.stack([*patch_rows(model, tokenizer, prompts[1], source, look)])
    differences, probs, best_probs, best = rows.split([1, 2, BEST, BEST], dim=-1)
    pairs = zip(
        *(token_strings(tokenizer, inputs["input_ids"][0]) for inputs in (corrupted, clean)),
        strict=True,
    )
    names = [
        f"{i} {visible(own, 9)}" + (f" ({visible(other, 9)})" if own != other else "")
        for i, (own, other) in enumerate(pairs, start=1)
    ]
    return PatchingView(
        names,
        [*source],
        runs[:, 0] - runs[:, 1],
        logits.softmax(dim=-1)[:, ids],
        differences[..., 0],
        probs,
        best_probs,
        best.long(),
    )


def cell_html(
    view: PatchingView,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[str],
    cell: tuple[int, int],
) -> str:
    """Two tables of bars: both answers with and without the patch, and the best tokens with it."""
    row, place = cell
    names = ["clean run", "corrupted run", "with the patch"]
    runs = [*view.run_probs, view.probs[row, place]]
    rows = [
        BarRow(name, [(good, GOOD), (bad, BAD)], [probability(good), probability(bad)])
        for name, (good, bad) in zip(names, (run.tolist() for run in runs), strict=True)
    ]
    title = f"Layer {view.layers[row]}, token {view.names[place]}"
    shown = [
        f"{side}: {escape(visible(answer, 10))}"
        for side, answer in zip(("above", "below"), answers, strict=True)
    ]
    left = bar_table(
        ["", "probability", *shown], rows, caption=title, widths=["130px", "auto", "130px", "130px"]
    )
    best, probs = view.best[row, place], view.best_probs[row, place].tolist()
    tokens = token_strings(tokenizer, best)
    rows = [
        BarRow(visible(token, 14) if prob == prob else "nan", [(prob, GOOD)], [probability(prob)])
        for token, prob in zip(tokens, probs, strict=True)
    ]
    right = bar_table(
        ["token", "0 to 1", ""],
        rows,
        caption=f"With the patch: the {BEST} best",
        widths=["124px", "auto", "80px"],
    )
    tables = "".join(
        f'<div style="flex:1 1 {width}px;min-width:0">{table}</div>'
        for width, table in ((440, left), (280, right))
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:24px">{tables}</div>'


def explore_patching(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    clean: str,
    corrupted: str,
    answers: Sequence[str],
    layers: Sequence[int] | None = None,
) -> Explorer:
    """Pick a layer and a token, and see what patching `clean` into `corrupted` there changes.

    `answers` are those of the clean and of the corrupted prompt. Prompts and answers can be typed
    over. `layers` are all layers by default. A pair that cannot be patched is a `ValueError`.
    """
    names = ("Clean prompt", "Corrupted prompt", "Clean answer", "Corrupted answer")
    fields = [
        prompt_field(text, name)
        for text, name in zip((clean, corrupted, *answers), names, strict=True)
    ]
    for field in fields:
        field.style.description_width = "130px"
    grid = CellGrid("Patches", "Layer", "Token", "table")
    message = message_line()
    told, tables = (widgets.HTML(layout={"max_width": "100%"}) for _ in range(2))
    at_first = read_patching(model, tokenizer, (clean, corrupted), answers, layers)
    view: PatchingView | None = at_first  # None while a pair cannot be patched

    def typed() -> tuple[list[str], list[str]]:
        texts = [field.value for field in fields]
        return texts[:2], texts[2:]

    def read_again(_: object) -> None:
        nonlocal view
        with errors_shown(message, "The model patches …", [told, grid, tables]):
            view = None
            try:
                answer_ids(model, tokenizer, *typed())
            except ValueError as error:
                tell_mistake(message, error)
                return
            view = read_patching(model, tokenizer, *typed(), layers)
            show_map(view)

    def show_map(view: PatchingView) -> None:
        share, rows = view.share, [f"layer {layer}" for layer in view.layers]
        labels = [[f"{row}, token {name}" for name in view.names] for row in rows]
        grid.offer(rows, view.names, labels, (0, len(view.names) - 1))
        grid.paint("", [[share_look(value) for value in row] for row in share.tolist()])
        good, bad = (visible(answer, 20) for answer in typed()[1])
        told.value = escape(
            f"logit({good}) - logit({bad}): {view.runs[0]:.2f} in the clean run, "
            f"{view.runs[1]:.2f} in the corrupted one. Each cell shows how far its "
            "patch goes on the way from the corrupted run (0) to the clean run (1)."
        )
        show_cell()

    def show_cell() -> None:
        if view is not None:
            with errors_shown(message, drawings=[told, grid, tables]):
                tables.value = cell_html(view, tokenizer, typed()[1], grid.picked)

    def code() -> str:
        prompts, expected = typed()
        row, place = grid.picked
        layer = 0 if view is None else view.layers[row]
        texts = {"prompts": prompts, "answers": expected, "layers": layers}
        return CODE.format(layer=layer, place=place, **texts)

    for field in fields:
        field.observe(read_again, "value")
    grid.on_pick(show_cell)
    show_map(at_first)
    wrap = widgets.Layout(flex_flow="row wrap", max_width="100%")
    sliders = widgets.HBox([grid.row, grid.column], layout=wrap)
    parts = [*fields, sliders, message, told, grid, tables]
    return Explorer(parts, "pick a layer and a token, and see what patching there changes", code)


def share_look(share: float) -> Look:
    """A share as a cell: blue towards the clean run, red away from it, as in the figure."""
    if not math.isfinite(share):
        return Look(look_of(math.nan, "RdBu"), str(share))
    text = f"{share:.{2 if abs(share) < 9.995 else 0}f}".replace("-0.00", "0.00")
    return Look(look_of((max(-1.0, min(1.0, share)) + 1) / 2, "RdBu"), text)
