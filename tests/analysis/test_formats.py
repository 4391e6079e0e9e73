"""Numbers in cells and sentences: digits by the interval, and no minus zero."""

import math

import pytest

from runner.analysis.formats import format_bounds, format_estimate, format_p, format_short, format_value, join_words

ESTIMATES = [
    ((0.70812, 0.51812, 0.89812), "0.708 ± 0.19"),
    ((0.708123, 0.706923, 0.709323), "0.7081 ± 0.0012"),
    ((465.3, 453.3, 477.3), "465 ± 12"),
    ((12345.6, 12333.6, 12357.6), "12,346 ± 12"),
    ((0.9, 0.6, 0.98), "0.900 (0.60 … 0.98)"),
    ((1.234e-9, 1.034e-9, 1.434e-9), "(1.23 ± 0.20)e-9"),
    ((0.708, math.nan, math.nan), "0.708"),
    ((1.0, 1.0, 1.0), "1"),
    ((-0.0, math.nan, math.nan), "0"),
    ((-0.00001, -0.5, 0.5), "0.000 ± 0.50"),
    ((math.nan, math.nan, math.nan), ""),
]


@pytest.mark.parametrize(("numbers", "text"), ESTIMATES, ids=[text or "nothing" for _, text in ESTIMATES])
def test_the_digits_of_an_estimate_are_those_that_its_interval_permits(numbers, text):
    assert format_estimate(*numbers) == text


def test_differences_have_a_sign():
    assert format_estimate(0.25, 0.15, 0.35, is_signed=True) == "+0.250 ± 0.10"
    assert format_estimate(-0.25, -0.35, -0.15, is_signed=True) == "-0.250 ± 0.10"
    assert format_estimate(0.0, -0.1, 0.1, is_signed=True) == "0.00 ± 0.10"


def test_numbers_are_short_and_never_minus_zero():
    found = [format_short(value) for value in (0.30000000000000004, 12345.678, 1e-7, 0.0, -0.0, 2e9)]
    assert found == ["0.3", "12,346", "1e-7", "0", "0", "2e9"]
    assert format_short(0.72, is_padded=True) == "0.720"
    assert (format_value(-0.0), format_value(1200), format_value(True)) == ("0", "1,200", "True")
    assert [format_p(p) for p in (3.6e-10, 0.0131, math.nan)] == ["<0.0001", "0.013", ""]
    assert format_bounds(0.714, 0.52, 0.9, "95 %") == "0.71, 95 % interval 0.52 … 0.90"


def test_lists_in_sentences():
    assert join_words(["a"]) == "a"
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert join_words(["a", "b", "c", "d"], 2) == "a, b and 2 more"
