import pytest

from nas.pipeline.stopwatch import FILE, Stopwatch
from search_spaces.errors import RunError


def test_sessions_add_up(tmp_path):
    for _ in range(3):
        watch = Stopwatch.open(tmp_path)
        with watch.timed("training"):
            pass
        watch.at_least("training", watch.seconds["training"] + 2.0)
    assert 6.0 <= Stopwatch.open(tmp_path).seconds["training"] < 7.0


def test_a_step_that_fails_is_counted_too(tmp_path):
    with pytest.raises(ZeroDivisionError), Stopwatch.open(tmp_path).timed("search"):
        1 / 0  # noqa: B018
    assert Stopwatch.open(tmp_path).seconds["search"] >= 0.0


def test_a_step_never_becomes_shorter(tmp_path):
    watch = Stopwatch.open(tmp_path)
    watch.at_least("search", 5.0)
    watch.at_least("search", 1.0)
    assert Stopwatch.open(tmp_path).seconds == {"search": 5.0}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(RunError, match=FILE):
        Stopwatch.open(tmp_path)
