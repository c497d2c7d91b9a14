"""What every exercise check says about a tensor that is not right yet."""

import pytest
import torch

from tutorial_utils.lessons.exercise import NotYet, same_tensor

INF = torch.inf


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        ([-INF, 2.0], [-INF, 1.0], "expected 1 at one place, got 2"),
        ([1.0, 0.0], [1.0, -INF], "expected -inf at one place, got 0"),
        ([1.0, torch.nan], [1.0, 2.0], "expected 2 at one place, got nan"),
    ],
)
def test_the_place_that_is_named_is_one_that_differs(got, want, said):
    with pytest.raises(NotYet, match=said):
        same_tensor(torch.tensor(got), torch.tensor(want), case="a row", hint="look again.")


def test_equal_infinities_are_right():
    same_tensor(torch.tensor([-INF, 1.0]), torch.tensor([-INF, 1.0]), case="a row", hint="")
