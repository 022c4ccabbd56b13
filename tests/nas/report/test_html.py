import base64
import dataclasses
import hashlib
import re
from collections.abc import Mapping
from urllib.parse import unquote

import pytest
from plotly.offline import get_plotlyjs

from nas.report import render, write_report
from nas.results import RunResults
from search_spaces.errors import RunError
from search_spaces.measurement import Measurement
from tests.nas.report import examples
from tests.nas.report.reading import Page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)></script><!--{%&\\u003c"
VOCABULARY = {"unit", "origin", "precision", "verdict", "family", "metric"}


def two_classes():
    made = examples.contenders()[0]
    file = examples.file("exports/a/model.onnx", "float32", metric=0.95, latency_ms=0.2, size=50_000, classes=2)
    return examples.run_results(classes=("no", "yes"), contenders=(dataclasses.replace(made, files=(file,)),))


def without_test_figures():
    def untested(it):
        figures = {name: known for name, known in it.figures.items() if name != "test_metric"}
        return dataclasses.replace(it, figures=figures, recalls=(), confusion=())

    finished = tuple(
        dataclasses.replace(it, files=tuple(untested(file) for file in it.files)) for it in examples.contenders()
    )
    return examples.run_results(contenders=finished, images={"train": 1077, "validation": 360})


def alone():
    return examples.run_results(
        contenders=examples.contenders()[:1],
        control=None,
        budget={},
        warnings=(),
        absent_baselines={"MobileNetV2": "its narrowest width takes 0.31 ms, 24 % over the budget"},
    )


def without_networks():
    return examples.run_results(search=examples.summary(networks=(), skipped=(), hypervolume=0.0), control=None)


CASES = {
    "search wins": examples.run_results,
    "hand-made wins": examples.hand_made_wins,
    "without timing": examples.without_timing,
    "tabulated": examples.tabulated,
    "hundred classes": examples.many_classes,
    "two classes": two_classes,
    "without test figures": without_test_figures,
    "alone": alone,
    "without networks": without_networks,
}


@pytest.fixture(scope="module")
def page():
    return Page(render(examples.run_results()))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pages_are_well_formed_and_free_of_what_is_no_figure(case):
    page = Page(render(case()))
    words = set(re.findall(r"[\w.]+", page.text))
    assert not words & {"nan", "NaN", "None", "inf", "Infinity"}
    assert "NaN" not in str(page.plots())
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for table in page.tables:
        assert table.caption
        assert all(len(row) == len(table.head) for row in table.rows), table.caption


def test_page_loads_nothing_from_elsewhere(page):
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert not any("src" in attributes or "srcset" in attributes for _, attributes in page.elements)
    assert all(link.startswith(("#", "../")) for link in page.links())
    assert not re.search(r"url\(|@import|@font-face", "".join(page.styles))


def test_policy_allows_exactly_the_scripts_of_the_page(page):
    policy = next(a["content"] for a in page.tags("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    allowed = re.search(r"script-src ([^;]*);", policy).group(1).split()
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.programs()]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert "\r" not in "".join(page.programs()), "a browser reads another text than it was hashed as"


def test_plotly_is_embedded_once(page):
    plotly, own = page.programs()
    assert plotly == get_plotlyjs()
    assert len(own) < 1000


def test_every_plot_has_its_place_and_says_what_it_shows(page):
    places = {a["id"]: a for a in page.tags("div") if a.get("class") == "plot"}
    assert places.keys() == page.plots().keys() == {"plot-front", "plot-agreement"}
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in places.values())


def test_sections_stand_in_the_order_a_person_decides_by(page):
    sections = [attributes["id"] for attributes in page.tags("section")]
    assert sections == ["decision", "search", "latency", "stages", "classes", "provenance", "figures"]
    assert [link for link in page.links() if link.startswith("#")] == [f"#{name}" for name in sections]


def test_page_opens_with_verdict_warnings_task_device_and_budget(page):
    results = examples.run_results()
    start = page.text.index("Decision")
    opening = page.text[:start]
    for told in (results.verdict, *results.warnings, "digits: 10 classes", "this machine", "latency at most 0.25 ms"):
        assert told in opening
    assert "1,077 train, 360 validation, 360 test" in opening


def test_two_pages_of_the_same_results_are_equal_and_so_after_a_round_trip(tmp_path):
    results = examples.run_results()
    results.save(tmp_path / "results.json")
    assert render(RunResults.load(tmp_path / "results.json")) == render(results)


def test_text_of_users_never_becomes_markup(page):
    hostile = Page(render(poisoned(examples.run_results(absent_baselines={"MobileNetV2": "too slow"}))))
    assert hostile.text.count("<script>alert(1)</script>") > 100
    assert len(hostile.programs()) == 2
    assert len(hostile.scripts) == len(page.scripts)
    assert "img" not in {tag for tag, _ in hostile.elements}
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    assert all(link.startswith(("#", "../")) for link in hostile.links())


def test_text_of_users_never_becomes_markup_in_plots():
    results = examples.many_classes(21)
    classes = (HOSTILE, *results.classes[1:])
    figure = Page(render(dataclasses.replace(results, classes=classes))).plots()["plot-confusion"]
    assert figure["data"][0]["x"][0] == HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert "<" not in figure["layout"]["xaxis"]["ticktext"][0]


def test_links_lead_to_the_files_from_where_the_report_lies(tmp_path):
    made = examples.contenders()[0]
    odd = dataclasses.replace(made.files[0], file="exports/a b#c?d%20e/modèle.onnx")
    results = examples.run_results(contenders=(dataclasses.replace(made, files=(odd,)),))
    (tmp_path / odd.file).parent.mkdir(parents=True)
    (tmp_path / odd.file).touch()
    path = write_report(results, tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    links = {link for link in Page(path.read_text()).links() if not link.startswith("#")}
    assert len(links) == 1
    (link,) = links
    assert not re.search(r"[#?\s]", link)
    assert (path.parent / unquote(link)).resolve() == (tmp_path / odd.file).resolve()


def test_report_is_written_whole_or_not_at_all(tmp_path):
    write_report(examples.run_results(), tmp_path)
    write_report(examples.hand_made_wins(), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]
    assert "made by hand; the search did not win" in (tmp_path / "index.html").read_text()
    refused = tmp_path / "refused"
    (refused / "index.html").mkdir(parents=True)
    with pytest.raises(RunError, match=r"index\.html cannot be written"):
        write_report(examples.run_results(), refused)
    assert [file.name for file in refused.iterdir()] == ["index.html"]


def test_winner_that_is_no_contender_is_refused():
    with pytest.raises(KeyError, match="nobody"):
        render(examples.run_results(winner="nobody"))


def poisoned(value, name=""):
    """Return a value with hostile text in every string but those of the project's own vocabulary."""
    if isinstance(value, Measurement):
        return dataclasses.replace(value, source=value.source + HOSTILE)
    if dataclasses.is_dataclass(value):
        fields = {it.name: poisoned(getattr(value, it.name), it.name) for it in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        free = name in ("fingerprint", "environment", "options", "seconds", "seeds", "absent_baselines", "images")
        return {key + HOSTILE if free else key: poisoned(item, name) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(poisoned(item, name) for item in value)
    if isinstance(value, str) and value and name not in VOCABULARY:
        return value + HOSTILE
    return value
