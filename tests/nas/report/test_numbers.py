import pytest

from nas.report import numbers
from search_spaces.measurement import Measurement


def known(value, unit, lower=None, upper=None, level=0.9):
    return Measurement(value=value, unit=unit, origin="measured", lower=lower, upper=upper, level=level)


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (known(0.91234, "1"), "91.2 %"),
        (known(1.0, "1"), "100 %"),
        (known(0.0, "1"), "0 %"),
        (known(0.91234, "1", 0.90, 0.92), "91.2 %"),
        (known(0.91234, "1", 0.87, 0.95), "91 %"),
        (known(0.91234, "1", 0.9120, 0.9126), "91.234 %"),
        (known(0.31234, "ms"), "0.312 ms"),
        (known(0.31234, "ms", 0.3122, 0.3125), "0.31234 ms"),
        (known(12.5, "ms", 2.0, 30.0), "12 ms"),
        (known(812.0, "bytes"), "812 bytes"),
        (known(84_312.0, "bytes"), "84.3 kB"),
        (known(2_097_152.0, "bytes"), "2.10 MB"),
        (known(3e9, "bytes"), "3.00 GB"),
        (known(5_412_864.0, "MAC"), "5.41 M MACs"),
        (known(300.0, "MAC"), "300 MACs"),
        (known(2_278_604.0, "parameters"), "2.28 M parameters"),
        (known(1.25e9, "MAC"), "1.25 G MACs"),
        (known(3.0, "mJ"), "3 mJ"),
    ],
)
def test_figures_have_the_digits_their_interval_supports(measurement, text):
    assert numbers.figure(measurement) == text


def test_interval_shares_the_digits_and_unit_of_its_figure():
    measurement = known(0.91234, "1", 0.9012, 0.9203)
    assert numbers.interval(measurement) == "90 % interval 90.1 to 92.0"
    assert numbers.span(measurement, between="-") == "90.1-92.0"
    assert numbers.interval(known(0.9, "1")) == ""


def test_interval_of_a_figure_in_kilobytes_is_in_kilobytes():
    assert numbers.span(known(84_312.0, "bytes", 83_000.0, 85_000.0)) == "83.0 to 85.0"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (known(0.95, "1"), known(0.9417, "1"), "\N{MINUS SIGN}0.83 points"),
        (known(0.95, "1"), known(0.952, "1"), "+0.20 points"),
        (known(0.95, "1"), known(0.95, "1"), "0.00 points"),
        (known(0.4, "ms"), known(0.1, "ms"), "\N{MULTIPLICATION SIGN}0.250"),
        (known(0.4, "ms"), known(0.4, "ms"), "unchanged"),
        (known(0.0, "ms"), known(0.1, "ms"), ""),
    ],
)
def test_changes_of_shares_are_points_and_of_all_else_factors(before, after, text):
    assert numbers.change(before, after) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.25, "ms", "0.25 ms"),
        (65_536.0, "bytes", "65.54 kB"),
        (2e6, "MAC", "2 M MACs"),
        (0.0, "ms", "0 ms"),
        (7.0, "", "7"),
    ],
)
def test_limits_are_written_as_round_as_they_were_given(value, unit, text):
    assert numbers.quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds, text):
    assert numbers.duration(seconds) == text


def test_whole_numbers_keep_all_digits():
    assert numbers.count(-1_234_567) == "\N{MINUS SIGN}1,234,567"
    assert numbers.difference(2240) == "+2,240"
    assert numbers.exact(known(5_412_864.0, "MAC")) == "5,412,864"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0958, "0.09580"), (123456.0, "123,456"), (-0.00004, "\N{MINUS SIGN}0.00004000"), (0, "0")]
)
def test_significant_digits_never_need_exponents(value, text):
    assert numbers.significant(value, 4) == text
