"""What the cells of the lesson on patching and steering do, beyond what they print."""

from __future__ import annotations

import pytest

from notebook_tools import code_cells, lesson_on, read, tags


@pytest.fixture(scope="module")
def lesson(pocket) -> dict:
    """The names of the lesson's cells, up to the first patch by hand."""
    names: dict = dict(zip(("model", "tokenizer"), pocket, strict=True))
    exec("import torch", names)
    for cell in code_cells(read(lesson_on("patching and steering"))):
        if "setup" not in tags(cell):
            exec(cell.source, names)
        if "layers" in names:
            return names
    raise AssertionError("no cell finds the decoder layers")


@pytest.mark.parametrize("layer", [0, -1, 9])
def test_a_layer_that_no_decoder_layer_gives_is_refused(lesson, layer):
    """Layer 0 would be layers[-1]: the last layer, and no error."""
    with pytest.raises(ValueError, match=f"no decoder layer gives layer {layer}: choose 1 to 8"):
        lesson["patch_one"](layer, 4)
    back = lesson["patch_one"](8, lesson["seq"] - 1).item()
    assert back == pytest.approx(lesson["top"].item(), abs=1e-4)


def test_the_pair_is_one_that_the_model_knows(lesson):
    assert lesson["is_clear"](lesson["pair"])
    clean, good, corrupted, bad = lesson["pair"]
    assert not lesson["is_clear"]((clean, bad, corrupted, good))  # the answers swapped
    assert not lesson["is_clear"]((clean, good, clean, good))  # no difference at all
