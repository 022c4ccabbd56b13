import itertools
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from latency_models.backends.local import Local
from latency_models.backends.table import Table
from nas.config import RunConfig, describe, load_config, restore, schema
from nas.data import TASKS
from nas.data.digits import Digits
from nas.gate import Gate
from nas.run import RunDirectory
from search_spaces.architecture import BLOCKS
from search_spaces.errors import ConfigError, NasError, PluginError, RunError
from search_spaces.registry import load_plugin_file
from search_spaces.space import SEARCH_SPACES

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.toml") if path.stem != "custom_space")
"""All that need no plug-in: one imported here would stay in the registries for all other tests."""
MINIMAL = '[task]\ntype = "digits"\n[data]\nheight = 16\nwidth = 16\n'
BOARD = '[device]\nname = "board"\n'


@pytest.fixture
def load(tmp_path):
    """Return a function that reads a run file of the given text."""

    def read(text: str, **options) -> RunConfig:
        path = tmp_path / "run.toml"
        path.write_text(text)
        return load_config(path, **options)

    return read


@pytest.fixture
def registered():
    """Forget after a test what plug-in files registered in it."""
    registries = (TASKS, SEARCH_SPACES, BLOCKS)
    for registry in registries:
        registry.load()
    kept = [(registry, dict(registry._members), dict(registry._names)) for registry in registries]
    modules = set(sys.modules)
    yield
    for registry, members, names in kept:
        registry._members, registry._names = members, names
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.startswith("plugin_of_") or Path(file).parent == ROOT / "examples":
            del sys.modules[name]


def sentence(error: pytest.ExceptionInfo[NasError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# -- what is read


def plugins_of(path: Path) -> tuple[str, ...]:
    """Return the plug-in files that an example's first line names on its command line."""
    words = path.read_text().splitlines()[0].split()
    return tuple(str(ROOT / name) for flag, name in itertools.pairwise(words) if flag == "--plugin")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_comes_back_from_its_description(path):
    config = load_config(path, plugins=plugins_of(path))
    described = json.loads(json.dumps(describe(config), allow_nan=False))
    assert restore(described) == config
    assert describe(restore(described)) == describe(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BOARD + 'backend = { type = "local" }\nprecisions = ["float32"]\n[budget]\nprecision = "int8"\n',
            "budget.precision is int8, but the device board runs float32 only",
        ),
        ('[budget]\nprecision = "int8"\n[[stages]]\ntype = "distill"\n', "only int8 files may ship .*: add a stage"),
        ('[budget]\nprecision = "float32"\n[[stages]]\ntype = "quantize"\n', "only float32 files may ship .*leave"),
    ],
    ids=["device runs another", "nothing makes int8 files", "a stage makes int8 files"],
)
def test_a_precision_that_can_never_ship_is_refused(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL + text)


def test_every_kind_of_field_comes_back_from_its_description(load):
    config = load(
        MINIMAL
        + BOARD
        + 'backend = { type = "table", path = "board.csv" }\nprecisions = ["int8"]\nallow_ops = ["conv", "relu"]\n'
        + 'ram = [{ name = "dtcm", num_bytes = 131072 }, { name = "axi", num_bytes = 524288 }]\n'
        + 'quantization = { activation = "int8", keep_float = ["stages.0.0"] }\n'
        + "[budget]\nlatency_ms = 2\nweight_bytes = 300_000\n"
        + '[space]\ntype = "mixed"\nwidths = [[8, 16], [16]]\nse = [false]\n'
        + "[search]\nrungs = { epochs = [1, 3], keep = 0.25 }\n"
        + '[[stages]]\ntype = "prune"\ngate = { max_drop = 0.02, at_most = { latency_ms = 1.5 }, on_fail = "stop" }\n'
        + '[[stages]]\ntype = "quantize"\n'
        + '[train]\ninit = "weights.safetensors"\n'
    )
    assert restore(json.loads(json.dumps(describe(config)))) == config
    assert config.space.widths == ((8, 16), (16,))
    assert config.budget.latency_ms == 2.0
    assert [region.num_bytes for region in config.device.ram] == [131072, 524288]
    assert config.stages[0].gate == Gate(max_drop=0.02, at_most={"latency_ms": 1.5}, on_fail="stop")
    assert config.stages[1].gate == Gate()


def test_two_settings_have_two_descriptions(load):
    config = load(MINIMAL)
    other = replace(config, device=replace(config.device, backend=Local(threads=2)))
    assert describe(other) != describe(config)


def test_paths_start_at_the_run_file_and_survive_another_working_directory(load, tmp_path, monkeypatch):
    text = MINIMAL.replace('type = "digits"', 'type = "npz"\npath = "images.npz"')
    distill = '[[stages]]\ntype = "distill"\nteacher = "big.safetensors"\n'
    config = load(text + '[train]\ninit = "a.pth"\nteacher = "/data/b.pth"\n' + distill)
    monkeypatch.chdir("/")
    again = restore(describe(config))
    assert Path(again.task.path) == tmp_path / "images.npz"
    assert Path(again.train.init) == tmp_path / "a.pth"
    assert Path(again.train.teacher) == Path("/data/b.pth")
    assert Path(again.stages[0].stage.teacher) == tmp_path / "big.safetensors"


def test_the_space_takes_images_of_the_configured_size_unless_it_says_otherwise(load):
    assert load(MINIMAL).space.resolutions == (16,)
    assert load(MINIMAL + '[space]\ntype = "mixed"\nresolutions = [16, 24]\n').space.resolutions == (16, 24)
    with pytest.raises(ConfigError, match=r"data.height is 16 and data.width 20, .* take square images"):
        load(MINIMAL.replace("width = 16", "width = 20"))


# -- what is refused: one sentence that starts with the place


@pytest.mark.parametrize(
    ("text", "start", "match"),
    [
        (MINIMAL + "[serch]\ntrials = 3\n", "serch", "did you mean 'search'?"),
        (MINIMAL + "[search]\ntrails = 3\n", "search.trails", "did you mean 'trials'?"),
        (MINIMAL + "[search]\nrungs = { epoch = [1] }\n", "search.rungs.epoch", "did you mean 'epochs'?"),
        (MINIMAL.replace('"digits"', '"digits"\npath = "x"'), "task.path", "is no known key"),
        (MINIMAL + BOARD + 'backend = { type = "local", thread = 2 }', "device.backend.thread", "'threads'"),
        (MINIMAL + '[[stages]]\ntype = "prune"\ntarjet = 1\n', "stages[0].tarjet", "did you mean 'target'?"),
        (MINIMAL + '[[stages]]\ntype = "prune"\ngate = { max_drp = 0.1 }', "stages[0].gate.max_drp", "'max_drop'"),
        (MINIMAL + BOARD + 'backend = { type = "local" }\nram = [{ nam = "x" }]', "device.ram[0].nam", "'name'"),
    ],
    ids=["section", "key", "nested key", "key of a plug-in without any", "backend", "stage", "gate", "list of tables"],
)
def test_an_unknown_key_is_named_with_its_path_and_near_matches(load, text, start, match):
    with pytest.raises(ConfigError) as error:
        load(text)
    assert sentence(error).startswith(f"{start} is no known key: ")
    assert match in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[search]\ntrials = "many"', "search.trials must be an integer, got 'many'"),
        ("[search]\ntrials = 3.0", "search.trials must be an integer, got 3.0"),
        ("[search]\ntrials = true", "search.trials must be an integer, got True"),
        ("[search]\ncontrol = 1", "search.control must be true or false, got 1"),
        ("[budget]\nlatency_ms = nan", "budget.latency_ms must be a number, got nan"),
        ("[budget]\nlatency_ms = inf", "budget.latency_ms must be a number, got inf"),
        ("[budget]\nlatency_ms = 2020-01-01", "budget.latency_ms must be a number, got datetime.date(2020, 1, 1)"),
        ("[budget]\nparameters = 1e3", "budget.parameters must be an integer, got 1000.0"),
        ("[search]\nrungs = { epochs = [1, 2.5] }", "search.rungs.epochs must be a list of integers, got [1, 2.5]"),
        ('[space]\ntype = "mixed"\nwidths = [[8], ["a"]]', "space.widths must be a list of lists of integers, got"),
        (
            '[[stages]]\ntype = "prune"\ngate = { at_most = { macs = "x" } }',
            "stages[0].gate.at_most must be a table of",
        ),
        ("[search]\nrungs = 3", "search.rungs must be a table, got 3"),
        ('[stages]\ntype = "prune"', "stages must be a list, got"),
    ],
    ids=lambda value: value.split("\n")[-1] if "\n" in value else None,
)
def test_a_wrong_type_says_what_was_expected_and_what_was_got(load, text, message):
    with pytest.raises(ConfigError) as error:
        load(MINIMAL + text)
    assert sentence(error).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[budget]\nprecision = "int9"',
            "budget.precision must be one of 'float32', 'int8', 'best', got 'int9'; did you",
        ),
        ('[pipeline]\nbaselines = ["mobilenet_v2", "shuflenet_v2"]', "did you mean 'shufflenet_v2'"),
    ],
    ids=["value", "item of a list"],
)
def test_a_wrong_name_has_its_near_matches(load, text, message):
    with pytest.raises(ConfigError) as error:
        load(MINIMAL + text)
    assert message in sentence(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[space]\ntype = "mixd"', "space: unknown search space 'mixd': did you mean 'mixed'?"),
        (
            '[[stages]]\ntype = "prune"\n[[stages]]\ntype = "prun"',
            "stages[1]: unknown stage 'prun': did you mean 'prune'?",
        ),
        (BOARD + 'backend = { type = "lokal" }', "device.backend: unknown backend 'lokal': did you mean 'local'?"),
        ('[evaluator]\ntype = "trainin"', "evaluator: unknown evaluator 'trainin': did you mean 'training'?"),
        ('[latency]\ntype = "aditive"', "latency: unknown latency model 'aditive': did you mean 'additive'?"),
        ('[export]\ntype = "onx"', "export: unknown exporter 'onx': did you mean 'onnx'?"),
    ],
    ids=["space", "second stage", "backend", "evaluator", "latency model", "exporter"],
)
def test_an_unknown_type_has_its_near_matches(load, text, message):
    with pytest.raises(PluginError) as error:
        load(MINIMAL + text)
    assert sentence(error) == message


def test_a_missing_type_lists_what_there_is(load):
    with pytest.raises(ConfigError, match=r"^task needs type = the name of a task: digits, image_folder, npz"):
        load(MINIMAL.replace('type = "digits"', ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nheight = 16\nwidth = 16\n", "task is missing"),
        ('[task]\ntype = "digits"\n', "data is missing"),
        ('[task]\ntype = "digits"\n[data]\nwidth = 16\n', "data.height is missing"),
        (MINIMAL + BOARD, "device.backend is missing"),
        (MINIMAL + BOARD + 'backend = { type = "table" }', "device.backend.path is missing"),
    ],
    ids=["section", "second section", "key", "plug-in", "key of a plug-in"],
)
def test_what_is_missing_is_named(load, text, message):
    with pytest.raises(ConfigError) as error:
        load(text)
    assert sentence(error) == message


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[budget]\nlatency_ms = -1", ConfigError, "budget: latency_ms must be above 0"),
        ("[probe]\nnetworks = 3", ConfigError, "probe: networks must be at least 10"),
        ("[search]\nrungs = { epochs = [2, 1] }", ConfigError, "search.rungs: epochs of rungs must increase"),
        ('[latency]\ntype = "additive"\nlanes = []', ConfigError, "latency: lanes needs numbers of channels"),
        ('[latency]\ntype = "additive"\nfolds = 1', ConfigError, "latency: folds must be at least 2"),
        ("[pipeline]\nfinalists = 0", ConfigError, "pipeline: finalists must lie between 1 and attempts"),
        (
            BOARD + 'backend = { type = "local", threads = 0 }',
            ConfigError,
            "device.backend: threads must be at least 1",
        ),
        (BOARD + 'backend = { type = "local", visits = 0 }', ConfigError, "device.backend: visits must be above 0"),
        (BOARD + 'backend = { type = "local" }\nallow_ops = ["cnov"]', ConfigError, "did you mean 'conv'"),
        ('[device]\nname = "../x"\nbackend = { type = "local" }', ConfigError, "names a file"),
        (
            '[[stages]]\ntype = "prune"\ngate = { at_most = { latncy_ms = 1 } }',
            ConfigError,
            "did you mean 'latency_ms'",
        ),
        (
            '[[stages]]\ntype = "prune"\ngate = { max_drop = 1.5 }',
            ConfigError,
            r"stages\[0\].gate: max_drop must lie in",
        ),
    ],
    ids=lambda value: value.split("\n")[-1] if isinstance(value, str) and "\n" in value else None,
)
def test_a_value_its_class_refuses_is_told_with_its_place(load, text, error, message):
    with pytest.raises(error, match=message) as found:
        load(MINIMAL + text)
    sentence(found)


@pytest.mark.parametrize("name", ["seed", "workers"])
def test_numbers_of_the_whole_run_are_checked(load, name):
    with pytest.raises(ConfigError, match=f"^the run file: {name} must not be negative, got -1"):
        load(f"{name} = -1\n{MINIMAL}")


def test_a_missing_file_no_toml_and_no_text_are_named(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match=r"the run file .*run.toml cannot be read: No such file"):
        load_config(path)
    path.write_text("[task\n")
    with pytest.raises(ConfigError, match=r"run.toml is no TOML: .*line 1"):
        load_config(path)
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"run.toml is no TOML"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


# -- devices from files


def test_a_device_file_is_the_base_and_the_table_lies_over_it(load, tmp_path):
    (tmp_path / "board.toml").write_text(
        'name = "board"\nalignment = 16\nbackend = { type = "table", path = "t.csv" }\n'
    )
    device = load(MINIMAL + '[device]\nbase = "board.toml"\nname = "mine"\n').device
    assert (device.name, device.alignment) == ("mine", 16)
    assert device.backend == Table(path=str(tmp_path / "t.csv"))
    assert load('device = "board.toml"\n' + MINIMAL).device == replace(device, name="board")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^device.base: no device file 'board.toml'"),
        (b"name = ", r"^the device file .*board.toml is no TOML"),
        (b'nam = "x"', r"^device.nam is no known key: did you mean 'name'"),
    ],
    ids=["missing", "no TOML", "unknown key"],
)
def test_a_device_file_that_cannot_be_used_is_one_sentence(load, tmp_path, content, message):
    if content is not None:
        (tmp_path / "board.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL + '[device]\nbase = "board.toml"\n')


def test_an_unknown_shipped_device_is_refused(load):
    with pytest.raises(ConfigError, match=r"^device.base: no device file 'no-such-board'"):
        load(MINIMAL + '[device]\nbase = "no-such-board"\n')


# -- plug-ins by file

PLUGIN = """
from dataclasses import dataclass
from nas.data.digits import Digits
from nas.data import TASKS

@TASKS.register("{name}")
@dataclass(frozen=True, slots=True, kw_only=True)
class Mine:
    shift: int = 0

    def read(self):
        return Digits().read()
"""


@pytest.mark.usefixtures("registered")
def test_a_plugin_file_beside_the_run_file_is_known_by_its_name(load, tmp_path):
    (tmp_path / "plugin_of_config.py").write_text(PLUGIN.format(name="of_config"))
    text = MINIMAL.replace('type = "digits"', 'type = "of_config"\nshift = 3')
    config = load('plugins = ["plugin_of_config.py"]\n' + text)
    assert config.task.shift == 3
    assert restore(json.loads(json.dumps(describe(config)))) == config
    with pytest.raises(ConfigError, match=r"^task.shft is no known key: did you mean 'shift'"):
        load('plugins = ["plugin_of_config.py"]\n' + text.replace("shift", "shft"))
    assert "of_config" in [option["properties"]["type"]["const"] for option in schema()["properties"]["task"]["oneOf"]]


@pytest.mark.usefixtures("registered")
def test_a_plugin_of_the_command_line_starts_at_the_working_directory(load, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "plugin_of_flag.py").write_text(PLUGIN.format(name="of_flag"))
    monkeypatch.chdir(elsewhere)
    config = load(MINIMAL.replace('"digits"', '"of_flag"'), plugins=("plugin_of_flag.py",))
    assert config.plugins == (str(elsewhere / "plugin_of_flag.py"),)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('plugins = "x.py"', ConfigError, "plugins must be a list of strings, got 'x.py'"),
        ("plugins = 3", ConfigError, "plugins must be a list of strings, got 3"),
        ('plugins = ["x.py"]', PluginError, "x.py' does not exist"),
        ('plugins = ["plugin_of_broken.py"]', PluginError, "does not load: ZeroDivisionError"),
        ('plugins = ["plugin_of_thief.py"]', PluginError, "two plug-ins want to be the task 'digits'"),
    ],
    ids=["string", "number", "missing", "raises", "taken name"],
)
def test_plugins_that_do_not_load_are_one_sentence(load, tmp_path, text, error, message):
    (tmp_path / "plugin_of_broken.py").write_text("1 / 0\n")
    (tmp_path / "plugin_of_thief.py").write_text(PLUGIN.format(name="digits"))
    with pytest.raises(error, match=message) as found:
        load(f"{text}\n{MINIMAL}")
    sentence(found)


# -- the schema


def test_the_schema_knows_every_key_of_the_run_file_and_no_other():
    def check(described: object, place: str) -> None:
        assert isinstance(described, dict), place
        for number, option in enumerate((*described.get("oneOf", ()), *described.get("anyOf", ()))):
            check(option, f"{place}[{number}]")
        if described.get("type") == "object" and "properties" in described:
            assert described["additionalProperties"] is False, place
            assert set(described["required"]) <= set(described["properties"]), place
            for name, item in described["properties"].items():
                check(item, f"{place}.{name}")
        if described.get("type") == "array" and "items" in described:
            check(described["items"], f"{place}[]")

    found = json.loads(json.dumps(schema(), allow_nan=False))
    check(found, "run")
    assert set(found["properties"]) == set(RunConfig.__dataclass_fields__)
    assert found["required"] == ["task", "data"]
    stages = {
        option["properties"]["type"]["const"]: option for option in found["properties"]["stages"]["items"]["oneOf"]
    }
    assert {"prune", "distill", "quantize"} <= set(stages)
    assert "max_drop" in stages["prune"]["properties"]["gate"]["properties"]
    assert found["properties"]["search"]["properties"]["trials"] == {"type": "integer", "default": 40}


def fits(value: object, described: dict) -> bool:
    """Tell whether a schema takes a value: the few words of JSON Schema that ours uses."""
    if "oneOf" in described:
        return sum(fits(value, option) for option in described["oneOf"]) == 1
    if "anyOf" in described:
        return any(fits(value, option) for option in described["anyOf"])
    if "const" in described or "enum" in described:
        return value in described.get("enum", [described.get("const")])
    if described["type"] == "object" and "properties" in described:
        return (
            isinstance(value, dict)
            and set(described["required"]) <= set(value) <= set(described["properties"])
            and all(fits(item, described["properties"][name]) for name, item in value.items())
        )
    if described["type"] == "array":
        return isinstance(value, list) and all(fits(item, described.get("items", {"type": "any"})) for item in value)
    kinds = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "object": dict}
    return isinstance(value, kinds.get(described["type"], object))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_schema_takes_an_example_and_no_misspelt_one(path):
    for plugin in plugins_of(path):
        load_plugin_file(plugin)
    table = tomllib.loads(path.read_text())
    assert fits(table, schema())
    assert not fits({**table, "search": {**table["search"], "trails": 3}}, schema())
    assert not fits({**table, "search": {**table["search"], "trials": "3"}}, schema())


# -- against the run directory


def test_a_changed_run_file_is_refused_by_its_run_directory_in_words(load, tmp_path):
    config = load(MINIMAL + "[search]\ntrials = 20\n")
    assert config.task == Digits()
    with RunDirectory.open(tmp_path / "run", describe(config)) as run:
        run.log.append({"event": "started"})
    with pytest.raises(RunError, match=r"search.trials was 20 and is 30"):
        RunDirectory.open(tmp_path / "run", describe(load(MINIMAL + "[search]\ntrials = 30\n")))
