"""What the lessons say of SmolLM2 stands in the stored results."""

from tutorial_utils.lessons.real import read_result


def test_the_first_token_has_massive_activations():
    real = read_result("activations")
    times = real["first token"]
    longest = max(times)
    assert longest >= 50
    assert real["six coordinates"][times.index(longest) + 1] > 0.9 > 3 * real["random numbers"]
