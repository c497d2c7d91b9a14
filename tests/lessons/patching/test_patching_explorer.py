"""The patching explorer shows what `patch_each` gives, and refuses pairs that cannot be patched."""

from __future__ import annotations

import re

import pytest
import torch

from explorer_parts import find, inside, parse, rows_of, shown, words
from tiny_models import make_llama
from tutorial_utils import (
    edit_activations,
    encode,
    load_model,
    next_token_logits,
    patch_each,
    read_activations,
    token_strings,
)
from tutorial_utils.draw.html import GREY, probability, visible
from tutorial_utils.lessons.patching import explore_patching
from tutorial_utils.lessons.patching import patching_explorer as module
from tutorial_utils.lessons.patching.patching_explorer import share_look

CLEAN, CORRUPTED, ANSWERS = "Anna has the ball.", "Anna has the lamp.", ("Anna", "Ben")
SHOWN = {"Clean prompt", "Corrupted prompt", "Clean answer", "Corrupted answer"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")), device="cpu")


@pytest.fixture
def explorer(tiny):
    return explore_patching(*tiny, CLEAN, CORRUPTED, ANSWERS)


def first_ids(tokenizer, clean, corrupted, answers):
    pairs = zip((clean, corrupted), answers, strict=True)
    return [tokenizer(f"{p} {a}")["input_ids"][len(tokenizer(p)["input_ids"])] for p, a in pairs]


def shares(tiny, clean=CLEAN, corrupted=CORRUPTED, answers=ANSWERS) -> torch.Tensor:
    good, bad = first_ids(tiny[1], clean, corrupted, answers)

    def difference(logits):
        return logits[:, good] - logits[:, bad]

    source = read_activations(tiny[0], **encode(*tiny, clean))
    patched = patch_each(*tiny, corrupted, source, difference)
    top, bottom = (difference(next_token_logits(*tiny, prompt)) for prompt in (clean, corrupted))
    return (patched - bottom) / (top - bottom)


def cells(explorer) -> list[str]:
    """The texts of the map, from the top left on."""
    return re.findall(r'button:nth-child\(\d+\)::after {content:"(.*?)"}', shown(explorer))


def check_cell(explorer, tiny, layer: int, place: int) -> None:
    """The tables under the map, from a patch made here."""
    model, tokenizer = tiny
    source = read_activations(model, **encode(*tiny, CLEAN))

    def put(hidden):
        hidden = hidden.clone()
        hidden[:, place] = source[layer][:, place]
        return hidden

    with edit_activations(model, {layer: put}):
        patched = next_token_logits(*tiny, CORRUPTED)[0].softmax(dim=-1)
    ids = first_ids(tokenizer, CLEAN, CORRUPTED, ANSWERS)
    runs = [next_token_logits(*tiny, prompt)[0].softmax(dim=-1) for prompt in (CLEAN, CORRUPTED)]
    names = ["clean run", "corrupted run", "with the patch"]
    best = patched.topk(5)
    expected = [
        [name, *(number(run[i].item()) for i in ids)]
        for name, run in zip(names, [*runs, patched], strict=True)
    ]
    tokens = token_strings(tokenizer, best.indices)
    for token, prob in zip(tokens, best.values.tolist(), strict=True):
        expected.append([visible(token, 14), number(prob)])
    assert rows_of(explorer.children[-3].value) == expected
    assert f"Layer {layer}, token {place + 1} " in shown(explorer)


def number(prob: float) -> str:
    return probability(prob).replace("&lt;", "<")


def test_the_map_is_the_share_that_comes_back(explorer, tiny):
    share = shares(tiny)
    assert len(share) == 5 and share.std() > 0.01
    expected = [share_look(value).text for row in share.flip(0).tolist() for value in row]
    assert cells(explorer) == expected
    assert expected[share.shape[1] - 1] == "1.00"  # the last layer at the last token


def test_a_cell_is_picked_and_its_probabilities_are_shown(explorer, tiny):
    seq = shares(tiny).shape[1]
    check_cell(explorer, tiny, 0, seq - 1)
    find(explorer, "Patches").index = seq + 2  # the second row from above
    check_cell(explorer, tiny, 3, 2)
    find(explorer, "Layer").index = 1
    check_cell(explorer, tiny, 1, 2)
    find(explorer, "Token").index = 4
    check_cell(explorer, tiny, 1, 4)


def test_tokens_that_differ_are_named_with_the_clean_one(explorer, tiny):
    one, two = (
        token_strings(tiny[1], encode(*tiny, p)["input_ids"][0]) for p in (CLEAN, CORRUPTED)
    )
    for name, clean, corrupted in zip(find(explorer, "Token").options, one, two, strict=True):
        other = f" ({visible(clean, 9)})" if clean != corrupted else ""
        assert name.endswith(f" {visible(corrupted, 9)}{other}")


def test_no_move_runs_the_model(explorer, tiny):
    calls = []
    handle = tiny[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        for name in ("Patches", "Layer", "Token"):
            for place in range(len(find(explorer, name).options)):
                find(explorer, name).index = place
    finally:
        handle.remove()
    assert not calls


def test_some_layers(tiny):
    explorer = explore_patching(*tiny, CLEAN, CORRUPTED, ANSWERS, [0, 3])
    assert find(explorer, "Layer").options == ("layer 0", "layer 3")
    expected = [share_look(v).text for row in shares(tiny)[[3, 0]].tolist() for v in row]
    assert cells(explorer) == expected


def test_other_prompts_are_typed(explorer, tiny):
    find(explorer, "Corrupted prompt").value = "Ben has the lamp, and so on."
    assert "each token of one replaces a token" in shown(explorer)
    assert "<table" not in shown(explorer)
    find(explorer, "Layer").index = 1
    assert "each token of one replaces a token" in shown(explorer)
    assert "<table" not in shown(explorer)
    find(explorer, "Corrupted prompt").value = other = "Ben has the lamp."
    share = shares(tiny, corrupted=other)
    assert cells(explorer) == [share_look(v).text for row in share.flip(0).tolist() for v in row]
    assert "<table" in shown(explorer)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("", CORRUPTED, ANSWERS), "is empty"),
        (
            (CLEAN, CORRUPTED, ("Anna", "")),
            "the answer '' cannot follow 'Anna has the lamp.': it is",
        ),
        ((CLEAN, CORRUPTED, ("Ben", "Ben")), "both answers begin with"),
        (("a " * 70, "a " * 70, ANSWERS), "this explorer shows at most 60"),
        (("An\udc80", CORRUPTED, ANSWERS), "half of a character"),
    ],
)
def test_a_pair_that_cannot_be_patched_is_refused_and_told(tiny, given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        explore_patching(*tiny, *given)
    explorer = explore_patching(*tiny, CLEAN, CORRUPTED, ANSWERS)
    clean, corrupted, answers = given
    values = dict(zip(sorted(SHOWN), (answers[0], clean, answers[1], corrupted), strict=True))
    for name, value in values.items():
        find(explorer, name).value = value
    text = " ".join(words(parse(find_message(explorer))))
    assert said.lower() in text.lower() and "<table" not in shown(explorer)


def find_message(explorer) -> str:
    return next(w.value for w in inside(explorer) if type(w).__name__ == "HTML" and w.value)


def test_an_error_is_shown_and_hides_the_map(explorer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(module, "patch_rows", broken)
        with pytest.raises(RuntimeError):
            find(explorer, "Clean answer").value = "the"
    assert "out of memory" in shown(explorer) and "<table" not in shown(explorer)
    find(explorer, "Token").index = 1
    assert "out of memory" in shown(explorer) and "<table" not in shown(explorer)
    find(explorer, "Clean answer").value = "Anna"
    assert "<table" in shown(explorer)


def test_what_is_not_finite_is_refused_or_grey(tiny, monkeypatch):
    def broken(*given, **options):
        for place, row in enumerate(module_rows(*given, **options)):
            yield torch.full_like(row, torch.nan) if place == 1 else row

    module_rows = module.patch_rows
    monkeypatch.setattr(module, "patch_rows", broken)
    explorer = explore_patching(*tiny, CLEAN, CORRUPTED, ANSWERS)
    assert cells(explorer).count("nan") == shares(tiny).shape[1]
    find(explorer, "Layer").index = 1
    rows = rows_of(explorer.children[-3].value)
    assert rows[2] == ["with the patch", "nan", "nan"] and rows[3] == ["nan", "nan"]
    monkeypatch.undo()
    with torch.no_grad():
        weight = tiny[0].model.norm.weight
        kept = weight.clone()
        weight.fill_(torch.nan)
        with pytest.raises(ValueError, match="not finite"):
            explore_patching(*tiny, CLEAN, CORRUPTED, ANSWERS)
        weight.copy_(kept)


def test_shares_are_short_and_coloured_as_in_the_figure():
    assert [share_look(v).text for v in (-0.001, 0.5, -12.34, torch.inf)] == [
        "0.00",
        "0.50",
        "-12",
        "inf",
    ]
    assert share_look(1.0).css == share_look(7.0).css != share_look(-1.0).css
    assert (
        share_look(torch.inf).css == share_look(torch.nan).css and GREY in share_look(torch.inf).css
    )
