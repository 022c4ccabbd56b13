import dataclasses

import pytest

from nas.report import render
from search_spaces.measurement import Measurement
from tests.nas.report import examples
from tests.nas.report.reading import Page

CAPTION = "The network that ships beside the others"


def compared(results):
    return Page(render(results)).table(CAPTION)


def with_file(contender, **changes):
    return dataclasses.replace(contender, files=(dataclasses.replace(contender.files[0], **changes),))


@pytest.fixture(scope="module")
def page():
    return Page(render(examples.run_results()))


@pytest.fixture(scope="module")
def table(page):
    return page.table(CAPTION)


def test_winner_stands_first_beside_the_hand_made_networks(table):
    assert [head.split("  ")[0] for head in table.head] == [
        "Of the file each ships",
        "search 1 ships found by search",
        "MobileNetV2 x0.35 made by hand, MobileNetV2",
        "MobileNetV3-small x0.5 made by hand, MobileNetV3-small",
        "ShuffleNetV2 x0.5 made by hand, ShuffleNetV2",
        "search 2 found by search",
    ]


def test_hand_made_winner_stands_first_beside_the_searched_and_its_file_is_offered():
    page = Page(render(examples.hand_made_wins()))
    heads = page.table(CAPTION).head[1:4]
    assert [head[:8] for head in heads] == ["MobileNe", "search 1", "search 2"]
    assert "made by hand; the search did not win" in page.text
    assert "The file of a network made by hand is offered instead" in page.text
    assert page.links()[0] == "../exports/77d2e1a09c3b4f58/model.int8.onnx"


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        ("Meets the budget", "yes measured latency is 0.118 ms, 47% of the limit"),
        ("Accuracy, validation", "96.8 % 95.6 to 98.0"),
        ("Accuracy, test", "96.2 % 95.0 to 97.4"),
        ("Latency measured", "0.1180 ms 0.1168 to 0.1192 47 % of the budget"),
        ("Latency p50", "0.127 ms"),
        ("Latency p95", "0.155 ms"),
        ("Latency p99", "0.227 ms"),
        ("Latency predicted", "0.122 ms 0.114 to 0.129"),
        ("File size", "61.4 kB"),
        ("Peak memory", "24.6 kB 38 % of the budget"),
        ("MACs", "1.48 M 1,482,240 fvcore: the same"),
        ("Parameters", "41.2 k 41,226 fvcore: the same"),
        ("Precision", "int8"),
        ("Stages", "prune kept distill not worth it quantize kept"),
        ("Training and stages", "1 min 36 s"),
        ("File", "model.int8.onnx"),
    ],
)
def test_table_tells_what_a_person_decides_by(table, row, cell):
    found = [cells for cells in table.rows if cells[0].startswith(row) and not (row == "File" and "size" in cells[0])]
    assert len(found) == 1
    assert found[0][1] == cell


def test_every_head_names_origin_and_level(table):
    assert table.row("Accuracy, test")[0] == "Accuracy, test measured 90 % interval"
    assert table.row("Latency p99")[0] == "Latency p99 measured batch 1"
    assert table.row("MACs")[0] == "MACs counted"


def test_network_over_budget_says_by_how_much(table):
    assert table.row("Meets the budget")[4] == "no measured latency is 0.262 ms, 5 % over the limit of 0.25 ms"
    assert table.row("Latency measured")[4].endswith("105 % of the budget")


def test_measured_and_predicted_latency_never_share_a_row():
    first, second, *_ = examples.contenders()
    guessed = {name: known for name, known in second.files[0].figures.items() if not name.endswith("_ms")}
    guessed["latency_ms"] = examples.ms(0.091, "predicted", 0.05)
    table = compared(examples.run_results(contenders=(first, with_file(second, figures=guessed))))
    assert table.row("Latency measured")[1:] == ["0.1180 ms 0.1168 to 0.1192 47 % of the budget", "—"]
    predicted = [row for row in table.rows if row[0].startswith("Latency predicted")]
    assert [row[1:] for row in predicted] == [
        ["—", "0.091 ms 0.086 to 0.096 upper end 38 % of the budget"],
        ["0.122 ms 0.114 to 0.129", "—"],
    ]


def test_files_of_mixed_origin_are_labelled_in_their_cells():
    first, second, *_ = examples.contenders()
    guessed = second.files[0].figures | {"latency_ms": examples.ms(0.091, "predicted", 0.05)}
    results = examples.run_results(contenders=(first, with_file(second, figures=guessed)))
    cells = Page(render(results)).table("Every delivered file").column("Latency")
    assert [cell.split()[-1] for cell in cells] == ["measured", "measured", "predicted"]


def test_a_sustained_run_tells_what_the_device_went_through():
    results = examples.run_results()
    told = "this-machine, wall clock, without a pause: 900 runs in 60 s: p50 0.12 -> 0.19 ms, 41 -> 78 degrees C"
    hot = Measurement(value=0.19, unit="ms", origin="measured", source=told)
    first = results.contenders[0]
    first = with_file(first, figures={**first.files[0].figures, "sustained_ms": hot})
    table = compared(dataclasses.replace(results, contenders=(first, *results.contenders[1:])))
    row = table.row("Latency p50 at the end of a sustained run")
    assert row[1] == f"0.190 ms {told}"
    assert set(row[2:]) == {"—"}


def test_counts_that_differ_from_fvcore_are_flagged():
    made = examples.contenders()[0]
    counts = {"macs": examples.counted(1_480_000, "MAC")}
    page = Page(render(examples.run_results(contenders=(dataclasses.replace(made, counted_by_fvcore=counts),))))
    assert page.table(CAPTION).row("MACs")[1] == "1.48 M 1,482,240 fvcore: 1,480,000, +2,240 here"
    assert page.table(CAPTION).row("Parameters")[1] == "41.2 k 41,226 no independent count"
    assert sum(a.get("class") == "small differs" for a in page.tags("span")) == 1


def test_budget_table_gives_limit_use_and_origin(page):
    assert page.table("The budget and what search 1 uses").rows == [
        ["Latency measured", "0.25 ms", "0.1180 ms", "47 %", ""],
        ["Peak memory counted", "65.54 kB", "24.6 kB", "38 %", ""],
    ]


def test_predicted_latency_is_held_against_the_budget_by_its_upper_end():
    page = Page(render(examples.tabulated()))
    assert "upper end 81 % of the budget" in page.text
    assert page.table("The budget").rows[0] == ["Latency predicted", "0.25 ms", "0.2000 ms", "81 %", ""]


def test_limit_of_a_figure_that_is_not_known_says_so():
    page = Page(render(examples.run_results(budget={"weight_bytes": 1e5, "energy_mj": 2.0})))
    assert page.table("The budget").row("Energy mj")[1:] == ["2", "—", "—", ""]


def test_every_file_is_listed_with_link_and_parity(page):
    table = page.table("Every delivered file")
    made = [file for it in examples.contenders() for file in it.files]
    assert len(table.rows) == len(made) == 10
    assert table.rows[0] == [
        "search 1",
        "model.int8.onnx ships int8",
        "96.8 % 95.6 to 98.0",
        "0.1180 ms 0.1168 to 0.1192",
        "61.4 kB",
        "99.70 % 360 images",
        "2.8e-07 of the largest logit",
        "passed",
    ]
    assert {f"../{file.file}" for file in made} <= set(page.links())


def test_failed_parity_and_operators_left_in_float_are_told():
    made = examples.contenders()[0]
    odd = with_file(made, parity=examples.parity(passed=False, agreement=0.9), float_operators=3)
    row = Page(render(examples.run_results(contenders=(odd,)))).table("Every delivered file").rows[0]
    assert row[-1] == "failed top-1 differs on 12 images 3 operators left in float"


def test_int8_file_that_is_only_smaller_is_labelled():
    made = examples.contenders()[0]
    int8, plain = made.files
    slow = dataclasses.replace(int8, label="smaller, not faster")
    results = examples.run_results(contenders=(dataclasses.replace(made, files=(plain, slow)),))
    page = Page(render(results))
    assert page.table(CAPTION).row("Precision")[1] == "float32 int8 file: smaller, not faster"
    assert page.table("Every delivered file").rows[1][1] == "model.int8.onnx int8 smaller, not faster"


def test_figures_without_an_interval_are_not_given_one():
    made = examples.contenders()[0]
    bare = {"metric": Measurement(value=0.9, unit="1", origin="measured")}
    table = compared(examples.run_results(contenders=(with_file(made, figures=bare),)))
    assert table.row("Accuracy, validation") == ["Accuracy, validation measured", "90.0 %"]
    assert not [row for row in table.rows if row[0].startswith(("Accuracy, test", "Latency"))]


def test_hand_made_families_that_do_not_fit_are_told_apart_from_those_never_tried():
    reason = "its narrowest width takes 0.31 ms, 24 % over the budget"
    page = Page(
        render(examples.run_results(contenders=examples.contenders()[:1], absent_baselines={"ShuffleNetV2": reason}))
    )
    assert f"Not in the table: ShuffleNetV2: {reason}" in page.text
    assert len(page.table(CAPTION).head) == 2


def test_contender_without_a_file_stays_in_the_table():
    first, second, *_ = examples.contenders()
    lost = dataclasses.replace(second, files=(), meets_budget=False, budget_reason="parity failed")
    table = compared(examples.run_results(contenders=(first, lost)))
    assert table.row("Meets the budget")[2] == "no parity failed"
    assert table.row("Accuracy, test")[2] == "—"
    assert table.rows[-1][2] == "nothing delivered"
