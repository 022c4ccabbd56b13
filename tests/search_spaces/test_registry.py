from dataclasses import dataclass

import pytest

from search_spaces.errors import PluginError, near_matches
from search_spaces.registry import Registry, load_plugin_file


@pytest.fixture
def fruits() -> Registry:
    registry = Registry("fruit", group="embedded_nas.test_fruits")

    @registry.register("apple")
    @dataclass(frozen=True)
    class Apple:
        weight: int = 1

    return registry


def test_unknown_name_lists_near_matches(fruits):
    with pytest.raises(PluginError, match="unknown fruit 'aple': did you mean 'apple'"):
        fruits.get("aple")


def test_a_name_that_is_known_twice_is_proposed_once():
    assert near_matches("her", ["here", "here", "here2"]) == "did you mean 'here' or 'here2'?"
    assert near_matches("x", ["here", "here"]) == "known: here"


def test_taken_name_is_an_error_naming_both(fruits):
    with pytest.raises(PluginError, match=r"two plug-ins want to be the fruit 'apple'.*Apple.*Pear"):

        @fruits.register("apple")
        @dataclass(frozen=True)
        class Pear:
            weight: int = 2


def test_plain_class_is_refused(fruits):
    with pytest.raises(PluginError, match="must be a dataclass"):

        @fruits.register("plum")
        class Plum:
            pass


def test_registered_class_tells_pydantic_to_refuse_unknown_keys(fruits):
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(fruits.get("apple"))
    assert adapter.validate_json('{"weight": 3}').weight == 3
    with pytest.raises(ValidationError, match="color"):
        adapter.validate_json('{"weight": 3, "color": "red"}')
    with pytest.raises(ValidationError, match="valid integer"):
        adapter.validate_json('{"weight": "3"}')


def test_plugin_file_registers_once(tmp_path):
    file = tmp_path / "my_blocks_for_test.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from search_spaces.architecture import BLOCKS\n"
        "@BLOCKS.register('identity_for_test')\n"
        "@dataclass(frozen=True)\n"
        "class Identity:\n"
        "    def build(self, input_shape):\n"
        "        from torch import nn\n"
        "        return nn.Identity()\n"
    )
    from search_spaces.architecture import BLOCKS

    load_plugin_file(str(file))
    load_plugin_file(str(file))
    try:
        assert "identity_for_test" in BLOCKS.names()
    finally:
        BLOCKS._names.pop(BLOCKS._members.pop("identity_for_test"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, "does not exist"),
        ("broken_for_test.py", "def", "does not load: SyntaxError"),
        ("json.py", "x = 1", "would hide the module 'json'"),
    ],
    ids=["missing", "syntax", "shadow"],
)
def test_bad_plugin_file_is_one_sentence(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PluginError, match=message):
        load_plugin_file(str(tmp_path / name))
