import dataclasses

import pytest

from nas.report import render
from tests.nas.report import examples
from tests.nas.report.reading import Page


def page_of(results):
    return Page(render(results))


@pytest.fixture(scope="module")
def page():
    return page_of(examples.run_results())


@pytest.fixture(scope="module")
def many():
    return page_of(examples.many_classes())


def test_search_stands_beside_its_control(page):
    table = page.table("The search beside a random search of equal number")
    assert table.head == ["", "Search (guided)", "Control (random)"]
    assert table.row("Networks trained")[1:] == ["32", "32"]
    assert table.row("Proposals skipped")[1:] == ["60", "60"]
    assert table.row("Share of random networks")[1:] == ["18.4 %", "18.4 %"]
    assert table.row("Size of the space")[1] == "4.82 \N{MULTIPLICATION SIGN} 10¹³"
    assert table.row("Hypervolume") == [
        "Hypervolume of the front accuracy above 50.0 %, latency below 0.25 ms",
        "0.1021 share \N{MULTIPLICATION SIGN} ms",
        "0.09580 share \N{MULTIPLICATION SIGN} ms the search has 1.066 times as much",
    ]


def test_search_without_control_stands_alone():
    table = page_of(examples.run_results(control=None)).table("The search")
    assert table.head == ["", "Search (guided)"]


@pytest.mark.parametrize(
    ("size", "text"), [("36", "36"), ("1000000", "1,000,000"), ("12345678901", "1.23 \N{MULTIPLICATION SIGN} 10¹⁰")]
)
def test_size_of_the_space_is_rounded_where_nobody_reads_all_digits(size, text):
    results = examples.run_results(control=None, search=examples.summary(space_size=size))
    assert page_of(results).table("The search").row("Size of the space")[1] == text


def test_front_is_listed_from_the_cheapest_with_intervals(page):
    members = [it for it in examples.summary(1).networks if it.on_front]
    table = page.table(f"The front: {len(members)} networks")
    assert [row[0] for row in table.rows] == [it.key for it in sorted(members, key=lambda it: it.objective)]
    assert table.head == [
        "Network",
        "Accuracy, validation measured 90 % interval",
        "Latency predicted 90 % interval",
        "MACs counted",
        "Parameters counted",
        "Ships in",
        "Trained to",
    ]


def test_every_trained_network_is_listed(page):
    table = page.table("Every trained network")
    assert [row[0].split()[0] for row in table.rows] == [it.key for it in examples.summary(1).networks]
    assert sum("on the front" in row[0] for row in table.rows) == sum(
        it.on_front for it in examples.summary(1).networks
    )


def test_skipped_proposals_are_counted_by_the_limit_they_exceed(page):
    skipped = examples.summary(1).skipped
    slow = sum(limits == ("latency_ms",) for _, limits in skipped)
    table = page.table("Limits exceeded by skipped proposals, 60 in all")
    assert sorted(row[:2] for row in table.rows) == [["Latency", str(slow)], ["Peak memory", str(60 - slow)]]


def test_failed_trainings_are_named_with_their_reason():
    first, *others = examples.summary(1).networks
    diverged = dataclasses.replace(first, failed="the loss became infinite in epoch 2", on_front=False)
    page = page_of(examples.run_results(search=examples.summary(networks=(diverged, *others))))
    assert f"{first.key}: the loss became infinite in epoch 2" in page.text
    assert page.table("Every trained network").rows[0][:2] == [f"{first.key} training failed", "—"]


def test_latency_model_is_scored_with_its_numbers(page):
    fit = examples.run_results().fits[0]
    row = page.table("The latency model on networks left out of its fit").row("float32")
    within = round(100 * fit.within_5)
    assert row == [
        "float32 measured",
        "100",
        f"{within} % {within} of 100",
        "100 % 100 of 100",
        f"{100 * fit.mape:.1f} %",
        "8",
    ]


def test_predictions_of_delivered_files_stand_beside_their_measurements(page):
    table = page.table("Files the run wrote, int8")
    assert table.head == ["File", "Predicted, ms", "Measured, ms", "Prediction is off by"]
    assert table.rows[0] == ["exports/3f9a11c2d07be654/model.int8.onnx", "0.122", "0.118", "+3.0 %"]
    assert len(table.rows) == 5


def test_the_latency_model_is_scored_on_the_networks_that_won_by_it():
    first, second = examples.run_results().fits
    told = dataclasses.replace(first, preferred_predicted_ms=(0.1, 0.184), preferred_measured_ms=(0.1, 0.2))
    table = page_of(examples.run_results(fits=(told, second))).table("The best networks of the search, timed before")
    assert table.rows == [["float32", "2", "\N{MINUS SIGN}4.0 %", "4.0 %", "100 % 2 of 2"]]


def test_tabulated_latencies_are_not_called_measured():
    page = page_of(examples.tabulated())
    assert page.table("The latency model").rows[0][0] == "int8 tabulated"
    assert page.plots()["plot-agreement"]["layout"]["xaxis"]["title"]["text"] == "tabulated latency, int8, ms"
    assert "it timed no delivered file" in page.text


def test_device_without_timing_has_no_milliseconds():
    page = page_of(examples.without_timing())
    assert "This device times nothing, so there is no latency model and the search minimized MACs." in page.text
    assert " ms" not in page.text
    assert page.table("The search").row("Hypervolume")[1] == "0.1021 share \N{MULTIPLICATION SIGN} MAC"


def test_stages_are_told_before_and_after_with_verdict_and_reason(page):
    table = next(table for table in page.tables if table.caption.startswith("Before and after each stage"))
    assert table.head == ["Stage", "Accuracy, validation", "Latency", "Size", "Verdict", "Why"]
    reason = "accuracy changed by -0.40 points, 90% interval [-1.20, +0.40] over 360 images: within a drop of 1.00"
    assert table.rows[0] == [
        "prune target = 0.8, multiple = 8, epochs = 3, importance = bn_scale 21.4 s",
        "97.4 % → 97.0 % \N{MINUS SIGN}0.40 points (measured)",
        "0.2832 ms → 0.2322 ms \N{MULTIPLICATION SIGN}0.820 (measured)",
        "184 kB → 147 kB \N{MULTIPLICATION SIGN}0.800 (measured)",
        "kept",
        reason + " hidden widths 96, 96, 144 became 64, 72, 112",
    ]
    assert table.rows[1][4] == "not worth it"
    assert "accuracy control: 97.2 % (measured); accuracy teacher: 98.3 % (measured)" in table.rows[1][5]


def test_every_contender_has_its_stages(page):
    assert sum(table.caption.startswith("Before and after each stage") for table in page.tables) == 5


@pytest.mark.parametrize("verdict", ["kept", "reverted", "failed", "not worth it"])
def test_verdicts_are_shown_as_they_were_given(verdict):
    record = examples.stage("prune", verdict, metric=(0.9, 0.8), latency_ms=(0.2, 0.1), size=(9000, 8000), reason="r")
    made = dataclasses.replace(examples.contenders()[0], stages=(record,))
    table = page_of(examples.run_results(contenders=(made,))).table("Before and after each stage")
    assert table.rows[0][4:] == [verdict, "r"]


def test_change_of_origin_within_a_stage_is_told():
    record = examples.stages(0.9, 0.2, 9000)[0]
    guessed = record.before | {"latency_ms": examples.ms(0.2, "predicted")}
    made = dataclasses.replace(examples.contenders()[0], stages=(dataclasses.replace(record, before=guessed),))
    cell = page_of(examples.run_results(contenders=(made,))).table("Before and after").rows[0][2]
    assert cell.endswith("(predicted → measured)")


def test_stage_without_a_figure_on_both_sides_says_so():
    record = dataclasses.replace(examples.stages(0.9, 0.2, 9000)[0], before={})
    made = dataclasses.replace(examples.contenders()[0], stages=(record,))
    assert page_of(examples.run_results(contenders=(made,))).table("Before and after").rows[0][1:4] == ["—", "—", "—"]


def test_long_options_are_cut_in_the_table():
    record = dataclasses.replace(examples.stages(0.9, 0.2, 9000)[0], options={"widths": list(range(200))})
    made = dataclasses.replace(examples.contenders()[0], stages=(record,))
    cell = page_of(examples.run_results(contenders=(made,))).table("Before and after").rows[0][0]
    assert len(cell) < 200
    assert "…" in cell


def test_classes_are_those_of_the_int8_file_even_where_float_ships():
    made = examples.contenders()[0]
    int8, plain = made.files
    matrix = tuple(tuple(7 if i == j else 0 for j in range(10)) for i in range(10))
    right = dataclasses.replace(plain, recalls=(1.0,) * 10, confusion=matrix)
    results = examples.run_results(contenders=(dataclasses.replace(made, files=(right, int8)),))
    assert (
        "search 1, exports/3f9a11c2d07be654/model.int8.onnx (int8), measured on the test split" in page_of(results).text
    )


def test_classes_of_a_network_without_int8_file_are_those_of_its_float_file():
    made = examples.contenders()[0]
    file = examples.file("exports/a/model.onnx", "float32", metric=0.9, latency_ms=0.2, size=9000)
    results = examples.run_results(contenders=(dataclasses.replace(made, files=(file,)),))
    assert "exports/a/model.onnx (float32), measured on the test split" in page_of(results).text


def test_confusion_of_few_classes_is_a_table_of_all_counts(page):
    table = page.table("Test images by true class (rows) and predicted class (columns)")
    matrix = examples.confusion(10)
    assert [row[1:] for row in table.rows] == [[str(cell) for cell in row] for row in matrix]
    assert table.head[1:] == list(examples.CLASSES)


def test_confusion_of_many_classes_is_a_plot_and_a_table_of_the_worst(many):
    assert not many.has_table("Test images by true class")
    shares = many.plots()["plot-confusion"]["data"]
    assert len(shares) == 2
    assert len(shares[0]["z"]) == len(shares[0]["z"][0]) == 100
    assert len(many.table("The 10 most frequent of").rows) == 10
    assert len(many.table("The 10 classes of least recall").rows) == 10


def test_recalls_are_listed_worst_first_with_their_images(many):
    rows = many.table("Recall of every class, worst first").rows
    assert len(rows) == 100
    shares = [int(row[2]) / int(row[1]) for row in rows[:-1]]
    assert shares == sorted(shares)
    assert rows[-1] == ["class 099 with a rather long name", "0", "—", "no test image", ""]


def test_recalls_have_no_digit_that_one_image_could_not_make(page):
    rows = page.table("Recall of every class").rows
    assert rows[0] == ["0", "36", "32", "89 %", ""]


def test_most_frequent_confusions_come_first(page):
    rows = page.table("The 10 most frequent of 23 confusions").rows
    assert [int(row[2]) for row in rows] == sorted((int(row[2]) for row in rows), reverse=True)
    matrix = examples.confusion(10)
    assert all(matrix[int(row[0])][int(row[1])] == int(row[2]) for row in rows)


def test_faultless_classes_have_no_confusions():
    made = examples.contenders()[0]
    matrix = ((5, 0), (0, 7))
    file = dataclasses.replace(made.files[0], recalls=(1.0, 1.0), confusion=matrix)
    results = examples.run_results(classes=("a", "b"), contenders=(dataclasses.replace(made, files=(file,)),))
    page = page_of(results)
    assert not [table for table in page.tables if "confusions" in table.caption]
    assert page.table("Test images by true class").rows == [["a", "5", "0"], ["b", "0", "7"]]


def test_recalls_without_a_matrix_are_told_without_images():
    made = examples.contenders()[0]
    file = dataclasses.replace(made.files[0], recalls=(0.5, -1.0), confusion=())
    results = examples.run_results(classes=("a", "b"), contenders=(dataclasses.replace(made, files=(file,)),))
    rows = page_of(results).table("Recall of every class").rows
    assert rows == [["a", "—", "—", "50.0 %", ""], ["b", "0", "—", "no test image", ""]]


def test_cost_lists_every_step_and_their_sum(page):
    results = examples.run_results()
    table = page.table("What the run cost")
    assert [row[0] for row in table.rows] == [*results.seconds, "all steps"]
    assert table.row("search")[1:3] == ["5 min 41 s", "33 %"]
    assert table.row("all steps")[1] == "17 min 02 s"


def test_seeds_versions_device_and_data_are_told(page):
    results = examples.run_results()
    assert page.table("Seeds").rows == [[name, str(seed)] for name, seed in results.seeds.items()]
    assert page.table("Versions and machine").rows == [list(item) for item in results.environment.items()]
    assert page.table("Device this machine").rows == [list(item) for item in results.fingerprint.items()]
    assert all(note in page.text for note in results.data_notes)


def test_legend_explains_every_origin(page):
    legend = page.text[page.text.index("How a figure is known") : page.text.index("Every figure", 5000)]
    assert all(
        origin in legend for origin in ("counted", "predicted", "estimated", "emulated", "measured", "tabulated")
    )


def test_appendix_holds_every_figure_of_every_file_to_the_last_digit(page):
    for contender in examples.contenders():
        for file in contender.files:
            table = page.table(f"Figures of {file.file}")
            assert len(table.rows) == len(file.figures) + len(contender.counted_by_fvcore)
    table = page.table("Figures of exports/3f9a11c2d07be654/model.int8.onnx")
    assert table.row("Accuracy, test")[1:] == [
        "0.962", "0.95", "0.974", "90 %", "1", "measured", "test split, 360 images",
    ]  # fmt: skip
    assert table.row("MACs, independent count")[1:] == ["1,482,240", "—", "—", "—", "MAC", "counted", ""]
