"""Devices named in a run file, and what a device without timing changes about a run."""

from pathlib import Path

import numpy as np
import pytest

import latency_models
from nas.config import load_config, schema
from nas.search.objectives import Budget, RowCosts
from search_spaces import counts, memory
from search_spaces.errors import ConfigError
from search_spaces.lowering import lower
from search_spaces.mobilenet_v2 import MobileNetV2Space
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample

FILES = sorted((Path(latency_models.__file__).parent / "devices").glob("*.toml"))
MINIMAL = '[task]\ntype = "digits"\n[data]\nheight = 32\nwidth = 32\n[[stages]]\ntype = "quantize"\n'


def load(folder, text):
    path = folder / "run.toml"
    path.write_text(text)
    return load_config(path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_device_is_named_by_its_file(file, tmp_path):
    device = load(tmp_path, f'device = "{file.stem}"\n' + MINIMAL).device
    assert device.name == file.stem
    assert file.read_text().startswith(f"# {file.stem.upper()}")
    assert load(tmp_path, f'{MINIMAL}[device]\nbase = "{file.stem}"\n').device == device


def test_the_stm32h743_has_one_contiguous_region_for_the_arena(tmp_path):
    device = load(tmp_path, 'device = "stm32h743"\n' + MINIMAL).device
    assert device.arena_bytes == 512 * 1024 - 60_000
    assert device.weight_limit_bytes == 1_400_000 - device.code_bytes
    assert sum(region.num_bytes for region in device.ram) > device.arena_bytes + device.reserve_bytes


def test_a_name_nearly_right_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no device file 'stm32h473'; did you mean 'stm32h743'"):
        load(tmp_path, 'device = "stm32h473"\n' + MINIMAL)


def test_a_latency_budget_without_timing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"budget.latency_ms is 2, but nothing times the device stm32h743"):
        load(tmp_path, 'device = "stm32h743"\n' + MINIMAL + "[budget]\nlatency_ms = 2\n")


def test_the_schema_takes_a_name_for_a_device():
    assert schema()["properties"]["device"]["oneOf"][0]["type"] == "string"


@pytest.fixture
def device(tmp_path):
    return load(tmp_path, 'device = "stm32h743"\n' + MINIMAL + "[budget]\nmacs = 1000\n").device


def test_without_timing_macs_are_minimized_and_no_latency_is_known(device, rng):
    space = MobileNetV2Space()
    rows = sample(space, 20, rng)
    found = RowCosts(space, device, {}, Budget(macs=10_000_000))(rows)
    expected = [counts.macs(lower(decode(space, row))) for row in rows]
    assert np.array_equal(found.objective, expected)
    assert not [name for name in found.figures if name.endswith("_ms")]
    assert np.array_equal(found.excess["macs"] <= 0, np.array(expected) <= 10_000_000)
    assert set(found.excess) == {"unsupported operators", "macs", "peak_memory_bytes", "weight_bytes"}


@pytest.mark.parametrize("in_place", [False, True])
def test_peak_memory_is_that_of_the_devices_runtime(device, in_place, rng):
    import dataclasses

    space, device = MobileNetV2Space(), dataclasses.replace(device, in_place=in_place)
    costs = RowCosts(space, device, {}, Budget())
    rows = sample(space, 10, rng)
    networks = [decode(space, row) for row in rows]
    expected = [
        memory.peak_bytes(with_precision(lower(network), device.quantization), in_place=in_place)
        for network in networks
    ]
    assert np.array_equal(costs(rows).figures["peak_memory_bytes"], expected)
    assert np.array_equal(costs.of(networks).figures["peak_memory_bytes"], expected)
