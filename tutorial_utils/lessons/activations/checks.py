"""Checks of the exercises on hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_utils.lessons.exercise import NotYet, as_tensor, call, exercise, same_tensor
from tutorial_utils.measures import residual_changes


@exercise(
    "of the decoder layers from 2 on, these change the stream most, relative to what was there."
)
def check_strongest(strongest: Tensor, activations: Mapping[int, Tensor]) -> None:
    """`strongest` (seq,) holds the decoder layers, from 2, with the largest relative change."""
    want = residual_changes(activations)[1:].argmax(dim=0) + 2  # of (n - 1, seq)
    layers = torch.stack([layer[0].float().cpu() for _, layer in sorted(activations.items())])
    absolute = (layers[2:] - layers[1:-1]).norm(dim=-1).argmax(dim=0) + 2
    strongest = as_tensor(strongest, case="the tokens", hint="use `change[1:].argmax(dim=0)`.")
    count = "`argmax` counts from 0, and row 0 of `change[1:]` belongs to decoder layer 2."
    hint = "take the `argmax` of `change[1:]` along the axis of the layers, `dim=0`."
    whole = not strongest.is_floating_point() and strongest.dtype != torch.bool
    if whole and strongest.shape == want.shape and not torch.equal(strongest, want):
        for low in (1, 2):
            if torch.equal(strongest + low, want):
                raise NotYet(f"each number is {low} too low.", count)
        if (strongest == 1).any():
            raise NotYet("decoder layer 1 is left out here.", count)
        if torch.equal(strongest, absolute):
            found = (
                "these layers add the longest vectors, but not relative to what was there before."
            )
            raise NotYet(found, "divide by the norm of what was there: `change` does that.")
        at = int((strongest != want).nonzero()[0])
        found = f"at token {at}, decoder layer {strongest[at]} does not have the largest change."
        raise NotYet(found, hint)
    same_tensor(strongest, want, case="the tokens", hint=hint)


BREAKS = {"raises": RuntimeError("the layer broke"), "raises KeyError": KeyError("broke")}


class _Layer(nn.Module):
    """Scales its input; gives a tensor or a tuple, or raises. Counts how often it runs."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        self.kind, self.weight, self.runs = kind, nn.Parameter(torch.rand(()) + 1.5), 0

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor] | tuple[Tensor, None]:
        self.runs += 1
        if self.kind in BREAKS:
            raise BREAKS[self.kind]
        out = self.weight * x
        if self.kind == "tuple of one":
            return (out,)
        return (out, None) if self.kind == "tuple" else out


class _Model(nn.Module):
    """Three layers, one after the other; the exercise asks for the second."""

    def __init__(self, second: str, third: str = "tensor") -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(), _Layer(second), _Layer(third)])
        self.runs = 0
        self.given: Any = None  # what the second layer gives

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        self.given = self.layers[1](self.layers[0](x))
        return self.layers[2](self.given[0] if isinstance(self.given, tuple) else self.given)


@exercise(
    "tested with a tensor, a tuple, a batch of 3, an error in the model, and somebody else's hook."
)
def check_output_of(output_of: Callable) -> None:
    """`output_of(model, module, x)` gives the module's output and leaves no hook of its own."""
    torch.manual_seed(0)
    with torch.enable_grad():
        for kind, batch, at in (("tensor", 1, 1), ("tensor", 3, 0), ("tuple", 3, 1)):
            _runs_well(output_of, kind, batch, at)
        _runs_well(output_of, "tuple of one", batch=2, at=1)
        _breaks_well(output_of, _Model("raises"), "a model that raises an error in that module")
        _breaks_well(output_of, _Model("tensor", "raises"), "a model that raises an error later")
        _breaks_well(output_of, _Model("raises KeyError"), "a layer that raises a KeyError")


def _runs_well(output_of: Callable, kind: str, batch: int, at: int) -> None:
    case = f"a layer that returns a {kind}, and a batch of {batch}"
    model, x = _Model(kind), torch.randn(batch, 4, 5, requires_grad=True)
    asked, stream = model.layers[at], [x.detach()]  # x, and what each layer gives
    for weight in model.parameters():
        stream.append(weight.detach() * stream[-1])
    before, want = stream[at], stream[at + 1]
    others = asked.register_forward_hook(lambda module, args, output: None)
    got = call(output_of, model, asked, x, case=case)
    if model.runs != 1:
        raise NotYet(f"for {case}, the model ran {model.runs} times.", "run model(x), once.")
    if asked.runs != 1:
        raise NotYet(
            f"for {case}, the layer ran {asked.runs} times.", "run model(x), nothing else."
        )
    _no_hook_left(model, others.id, case)
    if model.given is None:
        raise NotYet(f"for {case}, the model did not run to its end.", "let it run: model(x).")
    given = model.given[0] if kind != "tensor" and isinstance(model.given, tuple) else model.given
    if isinstance(model.given, tuple) != (kind != "tensor") or not torch.equal(given, stream[2]):
        found = f"for {case}, the hook changed what the layer gives to the rest of the model."
        raise NotYet(found, "what a hook returns replaces the output: let it return None.")
    if isinstance(got, tuple):
        raise NotYet(f"for {case}, you returned a tuple.", "take the first item of a tuple.")
    if not isinstance(got, Tensor):
        raise NotYet(f"for {case}, you returned {type(got).__name__}.", "return the tensor.")
    near = {"this is the output of the whole model: return what the hook gets.": stream[3]}
    near["this is the input of the module: take the hook's third argument."] = before
    hint = "return what the hook gets; use [0] only on a tuple, never on a tensor."
    same_tensor(got, want, case=case, hint=hint, mistakes=near)
    if got.requires_grad:
        raise NotYet(
            f"for {case}, the tensor that you returned is in the autograd graph.",
            "use `no_grad` or `detach()`.",
        )
    if not torch.is_grad_enabled():
        raise NotYet(f"after {case}, gradients are still off.", "use `with torch.no_grad():`.")


def _breaks_well(output_of: Callable, model: _Model, case: str) -> None:
    others = model.layers[1].register_forward_hook(lambda module, args, output: None)
    try:
        output_of(model, model.layers[1], torch.randn(1, 4, 5))
    except Exception as error:
        if any(error is broken for broken in BREAKS.values()):
            _no_hook_left(model, others.id, case)
            if not torch.is_grad_enabled():
                found = f"after {case}, gradients are still off."
                raise NotYet(found, "use `with torch.no_grad():`.") from None
            return
        found = f"for {case}, the error became {type(error).__name__}: {error}"
        raise NotYet(found, "use `finally` and not `except`, and return after it.") from None
    else:
        raise NotYet(f"for {case}, the error was swallowed.", "use `finally`, not `except`.")
    _no_hook_left(model, others.id, case)


def _no_hook_left(model: _Model, others: int, case: str) -> None:
    hooks = [key for m in model.modules() for key in (*m._forward_hooks, *m._forward_pre_hooks)]
    if others not in hooks:
        raise NotYet(f"for {case}, somebody else's hook is gone.", "remove only your own handle.")
    if len(hooks) > 1:
        raise NotYet(f"for {case}, a hook is left behind.", "`handle.remove()` in `finally`.")


@exercise("padding on the left, on the right and none, in batches of 1 to 3.")
def check_last_real(last_real: Callable) -> None:
    """`last_real(hidden, attention_mask)` gives the last real token of each row."""
    masks = {
        "no padding": [[1, 1, 1], [1, 1, 1]],
        "padding on the left": [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]],
        "padding on the right": [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]],
        "one prompt, padding on the right": [[1, 1, 0]],
    }
    for case, mask_rows in masks.items():
        mask, rows = torch.tensor(mask_rows), torch.arange(len(mask_rows))
        hidden = torch.randn(*mask.shape, 5)
        last = [max(i for i, real in enumerate(row) if real) for row in mask_rows]
        got = call(last_real, hidden, mask, case=case)
        together = "index rows and positions together: hidden[rows, positions]."
        mistakes = {
            "with padding on the right the last position is not a real token.": hidden[:, -1],
            "with padding on the left, real tokens do not begin at position 0.": (
                hidden[rows, mask.sum(dim=1) - 1]
            ),
            together: hidden[:, last],
        }
        hint = "find each row's last 1 in the mask first, and print it."
        if isinstance(got, Tensor) and got.shape == (len(rows), len(rows), 5):
            hint = together
        same_tensor(got, hidden[rows, last], case=case, hint=hint, mistakes=mistakes)
