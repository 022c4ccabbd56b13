import pytest
from pydantic import TypeAdapter, ValidationError

from nas.data.options import DataOptions
from nas.data.source import TASKS


def test_options_are_read_from_json_strictly():
    adapter = TypeAdapter(DataOptions)
    text = '{"height": 32, "width": 48, "augment": ["flip"], "validation": 0.2, "color": "grey", "limit": 100}'
    assert adapter.validate_json(text) == DataOptions(
        height=32, width=48, augment=("flip",), validation=0.2, color="grey", limit=100
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"height": 32, "width": 32, "colour": "grey"}', "Unexpected keyword argument"),
        ('{"height": "32", "width": 32}', "valid integer"),
        ('{"height": 32}', "width"),
        ('{"height": 32, "width": 32, "color": "gray"}', "'rgb', 'bgr' or 'grey'"),
        ('{"height": 32, "width": 32, "validation": 1.5}', "between 0 and 1"),
    ],
    ids=["unknown-key", "wrong-type", "missing", "unknown-name", "share"],
)
def test_other_json_is_refused(text, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(DataOptions).validate_json(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "squash"}, "resize must be one of stretch, crop, letterbox, got 'squash'"),
        ({"metric": "f1"}, "metric must be one of accuracy, balanced_accuracy, macro_f1"),
        ({"duplicates": "ignore"}, "duplicates must be one of warn, drop, error"),
        ({"test": 0.0}, "test is a share"),
        ({"test": 0.5, "validation": 0.5}, "leave nothing to train on"),
        ({"max_corrupt": 1.0}, "max_corrupt is a share"),
        ({"calibration_images": 0}, "calibration_images must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"fill": -1}, "grey level"),
        ({"height": 0}, "at least one pixel"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_done_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DataOptions(**{"height": 8, "width": 8} | options)


@pytest.mark.parametrize("name", ["digits", "image_folder", "npz"])
def test_built_in_sources_are_registered_and_refuse_unknown_keys(name):
    source = TASKS.get(name)
    assert TASKS.name_of(source) == name
    with pytest.raises(ValidationError, match="Unexpected keyword argument"):
        TypeAdapter(source).validate_json('{"path": "x", "nonsense": 1}')
