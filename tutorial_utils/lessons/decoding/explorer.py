"""The decoding stepper: each next token is chosen by hand or by a strategy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import filter_logits, token_strings
from tutorial_utils.draw.html import MONO, PALE, number, probability, visible
from tutorial_utils.lessons.decoding.steps import Continuation, continue_prompt
from tutorial_utils.lessons.explorer import Explorer, errors_shown, escape, message_line
from tutorial_utils.lessons.prompt import explain_if_unreadable, prompt_field

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"top_k": 1},
    "sample from all": {},
    "sample, temperature 0.7": {"temperature": 0.7},
    "sample, top-k 5": {"top_k": 5},
    "sample, top-p 0.9": {"top_p": 0.9},
    "sample, min-p 0.1": {"min_p": 0.1},
}

CODE = """import torch

from tutorial_utils import encode, filter_logits, top_tokens

ids = encode(model, tokenizer, {prompt!r})["input_ids"]
chosen = torch.tensor([{chosen}], dtype=torch.long, device=ids.device)  # (1, new tokens)
with torch.no_grad():
    logits = model(torch.cat([ids, chosen], dim=1)).logits[0, -1].float()  # (vocab,)
drawn_from = filter_logits(logits{settings}).softmax(dim=-1)
top_tokens(logits.softmax(dim=-1), tokenizer, {k})"""


def step_decoding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, *, k: int = 8
) -> Explorer:
    """Choose the next token by hand or by a strategy, step back, and see what the text becomes.

    Shows the `k` most probable next tokens. Draws start from the same seed each time.
    """
    stepper = _Stepper(model, tokenizer, prompt, k)
    does = "choose each next token yourself or by a strategy, and step back"
    return Explorer(stepper.parts, does, stepper.code)


class _Stepper:
    """The controls of `step_decoding`. `steps` has a `Continuation` for each length of the text."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, k: int
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.chosen: list[int] = []
        self.steps: list[Continuation] = []
        self.best: list[int] = []  # the ids of the candidates
        self.prompt = prompt_field(prompt, width="min(100%, 760px)")
        self.strategy = widgets.Dropdown(options=list(STRATEGIES), description="Strategy")
        self.one = self.button("Add 1 token", "let the strategy choose the next token", self.go)
        self.ten = self.button(
            "Add 10 tokens", "let the strategy choose ten tokens", lambda: self.go(10)
        )
        self.back = self.button("Step back", "remove the last token", self.step_back)
        self.again = self.button("Start again", "back to the prompt", self.restart)
        self.text, self.message = widgets.HTML(), message_line()
        self.rows = [self.candidate(place) for place in range(k)]
        buttons = [self.strategy, self.one, self.ten, self.back, self.again]
        wrap = widgets.Layout(flex_flow="row wrap", max_width="100%")
        self.table = widgets.VBox([row for _, _, _, row in self.rows])
        controls = widgets.HBox(buttons, layout=wrap)
        self.parts = [self.prompt, self.text, self.table, controls, self.message]
        self.prompt.observe(lambda _: self.restart(), "value")
        self.strategy.observe(lambda _: self.redraw(), "value")
        self.restart()

    def code(self) -> str:
        """Code that gives the same candidates for the next token."""
        settings = "".join(f", {k}={v}" for k, v in STRATEGIES[self.strategy.value].items())
        prompt, k = self.prompt.value, len(self.rows)
        return CODE.format(prompt=prompt, chosen=self.chosen, settings=settings, k=k)

    def button(self, name: str, tooltip: str, action: Callable[[], None]) -> widgets.Button:
        button = widgets.Button(description=name, tooltip=tooltip, layout={"width": "110px"})
        button.on_click(lambda _: action())
        return button

    def candidate(self, place: int) -> tuple:
        """A button with the token, a bar, and the probability in digits."""
        button = widgets.Button(tooltip="choose this token", layout={"width": "190px"})
        button.on_click(lambda _: self.choose(self.best[place]))
        bar = widgets.FloatProgress(min=0, max=1, layout={"width": "260px"})
        told = widgets.HTML()
        return button, bar, told, widgets.HBox([button, bar, told])

    def restart(self) -> None:
        self.chosen, self.steps = [], []
        self.generator = torch.Generator().manual_seed(0)
        with errors_shown(self.message, "The model reads the prompt …"):
            prompt, message = self.prompt.value, self.message
            try:
                if explain_if_unreadable(self.model, self.tokenizer, prompt, message):
                    self.steps.append(self.read())
            finally:
                self.show()  # shows no text if the prompt could not be read

    def read(self) -> Continuation:
        return continue_prompt(self.model, self.tokenizer, self.prompt.value, self.chosen)

    def choose(self, token_id: int) -> None:
        with errors_shown(self.message, "The model reads the text …"):
            self.add(token_id)
            self.show()

    def go(self, count: int = 1) -> None:
        """Let the strategy choose `count` tokens, or fewer if the text ends before."""
        for done in range(count):
            if self.steps[-1].ended:
                return
            with errors_shown(self.message, f"Token {done + 1} of {count} …"):
                self.add(self.draw())
                self.show()

    def add(self, token_id: int) -> None:
        self.chosen.append(token_id)
        try:
            self.steps.append(self.read())
        except BaseException:
            self.chosen.pop()
            raise

    def draw(self) -> int:
        logits = filter_logits(self.steps[-1].logits, **STRATEGIES[self.strategy.value])
        return int(logits.softmax(dim=-1).cpu().multinomial(1, generator=self.generator))

    def step_back(self) -> None:
        with errors_shown(self.message):
            self.chosen.pop()
            self.steps.pop()
            self.show()

    def redraw(self) -> None:
        with errors_shown(self.message):
            self.show()

    def show(self) -> None:
        """Make text, candidates and buttons show the present state."""
        open_ended = bool(self.steps) and not self.steps[-1].ended
        for button in (self.one, self.ten, *(row[0] for row in self.rows)):
            button.disabled = not open_ended
        self.back.disabled = not self.chosen
        self.table.layout.visibility = None if self.steps else "hidden"
        if not self.steps:
            self.text.value = ""
            return
        step = self.steps[-1]
        self.text.value = continuation_html(
            self.prompt.value, token_strings(self.tokenizer, self.chosen), step
        )
        probs = step.logits.softmax(dim=-1)
        left = filter_logits(step.logits, **STRATEGIES[self.strategy.value]).isfinite()
        best = probs.topk(min(len(self.rows), len(probs)))
        self.best = best.indices.tolist()
        tokens = zip(token_strings(self.tokenizer, self.best), self.best, strict=True)
        for (button, bar, told, _), (name, token_id) in zip(self.rows, tokens, strict=False):
            prob = probs[token_id].item()
            button.description = visible(name)
            bar.value = prob
            drops = "" if left[token_id] else " · the strategy drops it"
            told.value = probability(prob) + drops
        if step.ended:
            self.message.value = "The text has ended. Step back, or start again."


def continuation_html(prompt: str, tokens: list[str], step: Continuation) -> str:
    """The text so far, each new token in a box, and the probability of all of them together."""
    boxes = "".join(
        f'<wbr/><span style="background:{PALE[i % len(PALE)]};color:black;'
        f'border-radius:3px;padding:1px 2px;margin:0 1px">{escape(visible(token, 40))}</span>'
        for i, token in enumerate(tokens)
    )
    total = step.log_probs.sum().item()
    told = f"<b>{len(tokens)}</b> new {'token' if len(tokens) == 1 else 'tokens'}. "
    told += "Probability of all of them: "
    told += f"<b>{number(math.exp(total))}</b> (log-probability {total:.2f})."
    text = f'<div style="{MONO};line-height:1.8;white-space:pre-wrap">{escape(prompt)}{boxes}'
    return f"{text}</div><div>{told if tokens else 'No new token yet.'}</div>"
