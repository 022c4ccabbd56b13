from pathlib import Path

import pytest

from latency_models.backends.memory import Memory
from latency_models.device import Device
from latency_models.timing import BACKENDS
from search_spaces.errors import ConfigError, MeasurementError


def test_a_device_with_this_back_end_has_no_timing():
    assert BACKENDS.get("memory") is Memory
    assert not Memory.live
    assert not Device(name="board", backend=Memory()).is_timed
    assert Memory().fingerprint() == {"backend": "memory"}


def test_asking_it_for_a_time_is_an_error():
    with pytest.raises(MeasurementError, match=r"model\.onnx cannot be timed: the backend is of type memory"):
        Memory().measure([Path("model.onnx")], Path("model.onnx"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reserve_bytes": 1}, "a part of its memory is taken, but ram says not of how much"),
        ({"code_bytes": 1}, "a part of its memory is taken, but flash_bytes says not of how much"),
        ({"flash_bytes": 10, "code_bytes": 10}, "code_bytes is 10 of 10 flash_bytes; nothing is left for weights"),
        ({"flash_bytes": -1}, "flash_bytes must not be negative, got -1"),
    ],
    ids=["reserve", "code", "full", "negative"],
)
def test_memory_that_does_not_add_up_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Device(name="board", backend=Memory(), **options)
