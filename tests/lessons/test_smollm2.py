"""What the lessons say of SmolLM2 stands in the stored results."""

from tutorial_utils.lessons.real import read_result


def test_the_first_token_has_massive_activations():
    real = read_result("activations")
    times = real["first token"]
    longest = max(times)
    assert longest >= 50
    assert real["six coordinates"][times.index(longest) + 1] > 0.9 > 3 * real["random numbers"]


def test_the_company_in_the_prompt_is_the_first_choice_and_less_sure():
    token, prob = read_result("start")["after"][0]
    assert token == " McDonald"
    assert prob < 0.5


def test_the_second_name_of_the_company_costs_less():
    real = read_result("softmax")
    bit_of = list(zip(real["labels"][1:], real["bits"], strict=True))
    for part in ("␣McDonald", "'s"):
        first, second = [bits for label, bits in bit_of if label == part]
        assert second < first


def test_spellings_of_a_word_are_near_and_the_template_leaves_the_turn_to_the_assistant():
    real = read_result("tokens")
    near, words = real["other spelling nearest"]
    assert near > 0.8 * words
    assert real["chat"].endswith("<|im_start|>assistant\n")
    assert real["ends as by hand"]


def test_the_filters_keep_few_where_it_is_sure_and_many_where_it_is_not():
    surest, least_sure = read_result("decoding")["kept"].values()
    assert surest["min-p 0.2"] == 1
    assert surest["top-p 0.9"] < least_sure["min-p 0.2"] < least_sure["top-p 0.9"] / 5


def test_the_last_token_of_a_chat_goes_by_its_topic_and_that_of_the_question_by_its_wording():
    nearest = read_result("activations")["nearest"]
    (_, topic, wording), *_ = nearest["question's last token"]
    assert topic <= 2 and wording >= 10
    (_, topic, wording), *_ = nearest["prompt's last token"]
    assert topic >= 10 and wording <= 2


def test_four_bits_keep_directions_and_change_first_choices():
    real = read_result("activations")
    cosine = real["four bits"]["cosine"]
    assert cosine[0] > 0.999 and 0.97 < min(cosine) < 0.99
    changed, total = real["four bits"]["changed"]
    assert 0.1 < changed / total < 0.3
    assert real["four bits"]["first choice"] < real["best"]


def test_the_lens_is_asked_for_what_the_model_knows():
    real = read_result("lens")
    known = real["known"]
    assert known["capital"][0] >= 9 and known["capital"][1] == 10
    assert [kind for kind, (right, asked) in known.items() if right < asked / 2] == []
    assert {kind: len(found) for kind, found in real["found"].items()} == {
        kind: right for kind, (right, _) in known.items()
    }
    assert [sum(column) for column in zip(*known.values(), strict=True)] == [38, 46]


def test_answers_are_first_choice_at_the_last_layers_only_and_those_of_other_prompts_at_none():
    real = read_result("lens")
    first = min(layer for found in real["found"].values() for layer in found)
    assert first >= 0.85 * real["last"]
    assert real["first choice"][0] == " McDonald" and real["from layer"] == real["last"]
    assert real["another prompt's"] == 0
