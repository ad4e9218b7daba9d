"""Category columns as integer codes."""

import numpy as np

from churn.domain.encoding import Coded

PLANS = Coded(np.array([0, 2, -1, 1]), ("Free", "Basic", "Family"))


def test_codes_compare_like_the_texts_that_they_stand_for() -> None:
    assert (PLANS == "Family").tolist() == [False, True, False, False]
    assert (PLANS != "Family").tolist() == [True, False, True, True]


def test_codes_equal_no_text_that_is_not_among_their_values() -> None:
    assert not (PLANS == "Premium").any()
    assert (PLANS != "Premium").all()


def test_codes_of_texts_are_one_below_another_and_unlike_every_code_where_unknown() -> None:
    codes = PLANS.codes_of(("Family", "Premium"))

    assert codes.shape == (2, 1)
    assert (PLANS.codes == codes).tolist() == [[False, True, False, False], [False] * 4]


def test_some_rows_of_codes_are_codes_of_the_same_values() -> None:
    some = PLANS[np.array([1, 3])]

    assert len(some) == 2
    assert some.values == PLANS.values
    assert (some == "Family").tolist() == [True, False]
