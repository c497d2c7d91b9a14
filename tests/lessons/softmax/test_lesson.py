"""The lesson finds the final norm, also in models with other norms outside their layers."""

from __future__ import annotations

import pytest
import torch

from architectures import build_if_known, inputs_of
from notebook_tools import lesson_on, read

pytestmark = pytest.mark.usefixtures("one_thread")


def cell_with(text: str) -> str:
    """The lesson's code cell that contains this text."""
    cells = read(lesson_on("logits softmax")).cells
    (source,) = [c.source for c in cells if c.cell_type == "code" and text in c.source]
    return source


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "gemma4_text", "gemma4"])
@torch.no_grad()
def test_the_final_norm_is_found(kind):
    model = build_if_known(kind)
    inputs = inputs_of(model)
    hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
    names = {"model": model, "inputs": inputs, "torch": torch, "hidden": hidden}
    exec(cell_with("norm_name, norm ="), names)
    exec(cell_with("before_norm ="), names)
    assert not torch.allclose(names["before_norm"], hidden)
    torch.testing.assert_close(names["norm"](names["before_norm"]), hidden)
