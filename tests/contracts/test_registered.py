"""No plug-in escapes its contract."""

import pytest

from tests.contracts.registered import example


def test_a_plug_in_without_an_example_fails_and_says_where_to_add_one():
    with pytest.raises(pytest.fail.Exception, match=r"'new' is registered without .* EXAMPLES in tests/x\.py"):
        example({"old": 1}, "new", "stage", "tests/x.py")


def test_an_example_is_found_by_name():
    assert example({"old": 1}, "old", "stage", "tests/x.py") == 1
