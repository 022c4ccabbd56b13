import json
from dataclasses import fields, replace

import pytest

from nas.results import SCHEMA, RunResults
from search_spaces.errors import RunError
from tests.nas.report.examples import many_classes, run_results, tabulated, without_timing

MAKERS = [run_results, without_timing, tabulated, many_classes]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_results_come_back_equal(tmp_path, make):
    results = make()
    results.save(tmp_path / "results.json")
    assert RunResults.load(tmp_path / "results.json") == results


def test_saved_results_are_plain_json_with_every_field(tmp_path):
    run_results().save(tmp_path / "results.json")
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record) == {item.name for item in fields(RunResults)}
    assert record["schema"] == SCHEMA


def test_numbers_come_back_to_the_last_bit(tmp_path):
    results = run_results()
    results = replace(results, search=replace(results.search, hypervolume=0.1 + 0.2, reference_objective=1e-17))
    results.save(tmp_path / "results.json")
    again = RunResults.load(tmp_path / "results.json").search
    assert (again.hypervolume, again.reference_objective) == (0.1 + 0.2, 1e-17)


def test_choices_keep_their_types(tmp_path):
    results = run_results()
    values = {"se": True, "width": 1, "ratio": 1.0, "activation": "1"}
    first = replace(results.search.networks[0], values=values)
    results = replace(results, search=replace(results.search, networks=(first,)))
    results.save(tmp_path / "results.json")
    again = RunResults.load(tmp_path / "results.json").search.networks[0].values
    assert {name: (type(value), value) for name, value in again.items()} == {
        name: (type(value), value) for name, value in values.items()
    }


def test_a_contender_is_found_by_name():
    results = run_results()
    assert results.contender(results.winner).name == results.winner
    with pytest.raises(KeyError, match="nobody"):
        results.contender("nobody")


def test_missing_results_ask_for_a_run(tmp_path):
    with pytest.raises(RunError, match=r"results.json cannot be read \(No such file.*; run `nas run` to the end first"):
        RunResults.load(tmp_path / "results.json")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff"], ids=["empty", "cut", "list", "no field", "no text"]
)
def test_damaged_results_are_one_sentence(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"results.json cannot be read") as error:
        RunResults.load(path)
    assert "\n" not in str(error.value)


def test_results_of_another_schema_are_refused_by_that_name_whatever_their_fields(tmp_path):
    path = tmp_path / "results.json"
    run_results().save(path)
    record = json.loads(path.read_text())
    for other in ({**record, "schema": SCHEMA + 1}, {"schema": SCHEMA + 1, "new_field": 3}):
        path.write_text(json.dumps(other))
        with pytest.raises(RunError, match=rf"has schema {SCHEMA + 1}, expected {SCHEMA}"):
            RunResults.load(path)
