import pytest

from latency_models.backends.table import Table
from latency_models.device import Device, MemoryRegion
from search_spaces.errors import ConfigError

TABLE = Table(path="board.csv")
RAM = (MemoryRegion(name="dtcm", num_bytes=131_072), MemoryRegion(name="axi", num_bytes=524_288))


def device(**options):
    return Device(**{"name": "board", "backend": TABLE} | options)


def test_the_arena_must_fit_the_largest_region_less_what_is_reserved():
    assert device(ram=RAM, reserve_bytes=100_000).arena_bytes == 424_288


def test_weights_have_the_flash_less_the_code():
    assert device(flash_bytes=2_000_000, code_bytes=300_000).weight_limit_bytes == 1_700_000


def test_memory_that_nobody_stated_is_no_limit():
    assert device().arena_bytes is None
    assert device().weight_limit_bytes is None


def test_a_memory_region_has_bytes():
    with pytest.raises(ValueError, match="num_bytes of memory region 'dtcm' must be above 0, got 0"):
        MemoryRegion(name="dtcm", num_bytes=0)


def test_a_device_is_a_hashable_value():
    assert device() == device()
    assert len({device(), device(), device(alignment=16)}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"allow_ops": ("conv", "rellu")},
            "device 'board': allow_ops holds 'rellu', no operator kind; did you mean 'relu'",
        ),
        ({"allow_ops": ("aten::conv2d",)}, "no operator kind"),
        ({"precisions": ("float16",)}, "precisions holds 'float16', not float32 or int8"),
        ({"precisions": ()}, "precisions is empty"),
        ({"reserve_bytes": 10}, "ram says not of how much"),
        ({"code_bytes": 10}, "flash_bytes says not of how much"),
        ({"ram": RAM, "reserve_bytes": 524_288}, "nothing is left for activations"),
        ({"flash_bytes": 10, "code_bytes": 10}, "nothing is left for weights"),
        ({"flash_bytes": -1}, "flash_bytes must not be negative"),
        ({"name": ""}, "names a file"),
        ({"name": "lab/board"}, "names a file"),
        ({"name": "../board"}, "names a file"),
    ],
    ids=lambda value: ", ".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_a_description_that_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        device(**options)


@pytest.mark.parametrize("name", ["this-machine", "Raspberry Pi 4", "stm32h7.rev-B"])
def test_names_may_be_what_people_call_a_board(name):
    assert device(name=name).name == name
