"""The steering explorer shows what `sample_steered` gives, and says so when it cannot."""

import pytest

from tiny_models import make_llama
from tutorial_utils import encode, load_model, mean_differences, sample_steered
from tutorial_utils.lessons.explorer import LayerPicker
from tutorial_utils.lessons.patching import explore_steering, steering_table
from tutorial_utils.lessons.patching import explorer as module
from tutorial_utils.lessons.patching.explorer import tell_steering

OPENING = "Anna has the ball."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")), device="cpu")


@pytest.fixture(scope="module")
def directions(tiny):
    return mean_differences(*tiny, ["Anna was glad."], ["Ben was sad."])


def parts(box):
    (picker, controls), table = box.children[0].children, box.children[1]
    start, strength, message = controls.children
    return picker, start, strength, message, table


def called_directly(tiny, directions, layers, strength, opening=OPENING):
    prompts, seeds = [opening] * 3, [0, 1, 2]
    chosen = {layer: directions[layer] for layer in layers}
    return steering_table(
        sample_steered(*tiny, prompts, {}, 0, seed=seeds),
        sample_steered(*tiny, prompts, chosen, strength, seed=seeds),
        title=tell_steering(layers, strength),
    )


def test_says_what_is_added_where():
    assert tell_steering((2,), -1.5) == "steered: strength -1.5 at layer 2"
    assert tell_steering((1, 3), 2) == "steered: strength 2 at layers 1, 3"
    assert tell_steering((), 2) == tell_steering((1,), 0) == "steered: nothing is added"


def test_shows_what_the_function_gives(tiny, directions):
    picker, start, strength, message, table = parts(explore_steering(*tiny, directions, OPENING))
    assert picker.value == (2,) and strength.value == 2
    assert table.value == called_directly(tiny, directions, [2], 2)
    shown = {table.value}
    strength.value = -6
    assert table.value == called_directly(tiny, directions, [2], -6)
    shown.add(table.value)
    picker.value = (1, 3)
    assert table.value == called_directly(tiny, directions, [1, 3], -6)
    shown.add(table.value)
    start.value = "The dog was"
    assert table.value == called_directly(tiny, directions, [1, 3], -6, "The dog was")
    shown.add(table.value)
    assert len(shown) == 4 and not message.value


def test_no_layer_or_no_strength_is_no_steering(tiny, directions):
    picker, _, strength, message, table = parts(explore_steering(*tiny, directions, OPENING))
    plain = sample_steered(*tiny, [OPENING] * 3, {}, 0, seed=[0, 1, 2])
    picker.value = ()
    nothing = steering_table(plain, plain, title="steered: nothing is added")
    assert table.value == nothing and not message.value
    picker.value = (1,)
    strength.value = 0
    assert table.value == nothing


def test_a_beginning_that_leaves_no_room_is_told_and_is_no_error(tiny, directions):
    _, start, strength, message, table = parts(explore_steering(*tiny, directions, OPENING))
    start.value = "Anna " * 300
    strength.value = 3
    assert "The prompt is too long" in message.value and table.layout.visibility == "hidden"
    words = "Anna"
    while encode(*tiny, words)["input_ids"].shape[1] < 245:
        words += " Anna"
    start.value = words  # the model could read this, but has no room for more
    assert "This model reads at most" in message.value and table.layout.visibility == "hidden"
    start.value = OPENING
    assert not message.value and table.layout.visibility is None
    assert table.value == called_directly(tiny, directions, [2], 3)


@pytest.mark.parametrize(("soon", "told"), [(0, ["The model writes …", ""]), (1e9, [])])
def test_the_reader_sees_that_a_slow_model_writes(tiny, directions, monkeypatch, soon, told):
    monkeypatch.setattr(module, "SHOW_BUSY_AFTER_S", soon)
    _, _, strength, message, _ = parts(explore_steering(*tiny, directions, OPENING))
    seen = []
    message.observe(lambda change: seen.append(change["new"]), "value")
    strength.value = 3
    assert seen == told


def test_each_text_is_sampled_once(tiny, directions, monkeypatch):
    calls = []  # how many texts, each time

    def counted(model, tokenizer, prompts, chosen, strength, seed):
        calls.append(len(prompts))
        return sample_steered(model, tokenizer, prompts, chosen, strength, seed=seed)

    monkeypatch.setattr(module, "sample_steered", counted)
    _, start, strength, _, table = parts(explore_steering(*tiny, directions, OPENING))
    strength.value = 3
    strength.value = 4
    assert calls == [6, 3, 3]
    start.value = "The dog was"
    assert calls == [6, 3, 3, 6]
    before = table.value
    start.value, strength.value = OPENING, 3
    assert calls == [6, 3, 3, 6] and table.value == called_directly(tiny, directions, [2], 3)
    start.value, strength.value = "The dog was", 4
    assert calls == [6, 3, 3, 6, 3] and table.value == before


def test_a_picker_can_be_shared(tiny, directions):
    picker = LayerPicker(range(5), picked=[3])
    two = [explore_steering(*tiny, directions, OPENING, picker=picker) for _ in range(2)]
    picker.value = (1,)
    for box in two:
        assert parts(box)[-1].value == called_directly(tiny, directions, [1], 2)


def test_a_picked_layer_without_a_direction_is_told(tiny, directions):
    picker = LayerPicker([3])
    with pytest.raises(ValueError, match=r"layers \(3,\) are picked; directions are for \[1\]"):
        explore_steering(*tiny, {1: directions[1]}, OPENING, picker=picker)


def test_table_escapes_what_a_model_writes(tiny):
    samples = sample_steered(*tiny, OPENING, {}, 0)
    nasty = samples._replace(texts=["<script>a & b</script>"])
    table = steering_table(samples._replace(texts=[""]), nasty, lambda text: f"<{len(text)}>")
    assert "<script>" not in table and "&lt;script&gt;a &amp; b" in table
    assert "(nothing)" in table and "&lt;0&gt;, loss" in table
