import json
import subprocess
import sys

import pytest

from search_spaces.architecture import BLOCKS, Architecture, block_from_dict
from search_spaces.blocks import Classifier, Conv, InvertedResidual
from search_spaces.errors import PluginError, SpaceError
from search_spaces.mobilenet_v2 import mobilenet_v2


@pytest.fixture
def small() -> Architecture:
    return Architecture(
        (3, 32, 32),
        (
            (Conv(width=8, stride=2),),
            (InvertedResidual(width=8, hidden=16), InvertedResidual(width=16, hidden=24, stride=2, se=8)),
            (Classifier(classes=4),),
        ),
    )


def test_json_round_trip_gives_an_equal_architecture_with_an_equal_hash(small):
    again = Architecture.from_json(small.to_json())
    assert again == small
    assert hash(again) == hash(small)
    assert again.key == small.key


def test_key_is_stable_across_processes_and_releases(small):
    script = (
        "from search_spaces.mobilenet_v2 import mobilenet_v2;"
        "print(mobilenet_v2(width=0.5, classes=7, input_shape=(3, 64, 64)).key)"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    here = mobilenet_v2(width=0.5, classes=7, input_shape=(3, 64, 64)).key
    assert other.stdout.strip() == here
    assert small.key != here
    assert len(small.key) == 16


def test_every_field_changes_the_key(small):
    wider = Architecture(small.input_shape, (*small.stages[:1], (*small.stages[1][:1],), *small.stages[2:]))
    larger = Architecture((3, 40, 32), small.stages)
    assert len({small.key, wider.key, larger.key}) == 3


def test_json_is_canonical(small):
    record = json.loads(small.to_json())
    shuffled = json.dumps({key: record[key] for key in reversed(record)}, indent=3)
    assert Architecture.from_json(shuffled).to_json() == small.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=2), "expected an architecture of format 1, got format 2"),
        (lambda r: r.update(color="red"), "no key 'color'"),
        (
            lambda r: r["stages"][0][0].update(widht=3),
            r"stages\[0\]\[0\].*no field 'widht'.*did you mean 'width'",
        ),
        (lambda r: r["stages"][0][0].update(width="8"), r"stages\[0\]\[0\].width must be int, got '8'"),
        (lambda r: r["stages"][0][0].update(width=True), r"width must be int, got True"),
        (lambda r: r["stages"][0][0].update(type="convv"), r"unknown block 'convv': did you mean 'conv'"),
        (
            lambda r: r["stages"][0][0].update(stride=3),
            r"stages\[0\]\[0\].*stride must be 1 or 2, got stride=3",
        ),
        (lambda r: r["stages"][0][0].pop("width"), r"stages\[0\]\[0\]"),
        (lambda r: r.update(input_shape=[3, 32]), "three positive integers"),
        (lambda r: r.pop("stages"), "needs input_shape and stages"),
    ],
    ids=["format", "key", "field", "string", "bool", "block", "value", "missing", "shape", "stages"],
)
def test_wrong_json_is_refused_with_its_place(small, change, message):
    record = small.to_dict()
    change(record)
    with pytest.raises((SpaceError, PluginError), match=message):
        Architecture.from_dict(record)


def test_text_that_is_no_json_is_refused():
    with pytest.raises(SpaceError, match="must be JSON"):
        Architecture.from_json("{")


def test_blocks_may_leave_out_fields_with_defaults():
    assert block_from_dict({"type": "conv", "width": 4}) == Conv(width=4)


def test_block_names_are_found_both_ways():
    for name, cls in BLOCKS.items():
        assert BLOCKS.name_of(cls) == name
        assert BLOCKS.get(name) is cls
