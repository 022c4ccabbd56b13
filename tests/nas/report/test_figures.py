import dataclasses
import math

import numpy as np
import pytest

from nas.report.figures import agreement, confusion, embedded
from nas.report.front import cost_range, front, rung_label
from tests.nas.report import examples


def named(figure):
    return {trace.name: trace for trace in figure.data}


@pytest.fixture(scope="module")
def results():
    return examples.run_results()


@pytest.fixture(scope="module")
def plot(results):
    return front(results)


def test_front_tells_rungs_front_control_delivered_and_skipped_apart(plot):
    assert [trace.name for trace in plot.data] == [
        "random search",
        "front of the random search",
        "rung 1 of 3 (2 epochs)",
        "rung 2 of 3 (4 epochs)",
        "rung 3 of 3 (8 epochs)",
        "front of the search",
        "delivered, searched (measured)",
        "delivered, made by hand (measured)",
        "skipped, never trained",
    ]
    looks = [(trace.mode, trace.marker.symbol, trace.marker.color, trace.line.dash) for trace in plot.data]
    assert len(set(map(str, looks))) == len(looks)


def test_every_trained_network_is_drawn_once_at_its_cost_and_metric(results, plot):
    rungs = [trace for trace in plot.data if trace.name.startswith("rung")]
    drawn = [point for trace in rungs for point in zip(trace.x, trace.y, strict=True)]
    expected = [(it.objective, 100 * it.metric.value) for it in results.search.networks]
    assert sorted(drawn) == sorted(expected)
    control = named(plot)["random search"]
    assert len(control.x) == len(results.control.networks)


def test_front_is_a_step_that_only_rises_and_reaches_the_reference(results, plot):
    step = named(plot)["front of the search"]
    assert step.line.shape == "hv"
    assert list(step.x) == sorted(step.x)
    assert list(step.y) == sorted(step.y)
    assert step.x[-1] == results.search.reference_objective
    assert len(step.x) == 1 + sum(it.on_front for it in results.search.networks)


def test_delivered_files_stand_at_their_measured_latency_and_the_winner_is_a_star(plot):
    traces = named(plot)
    searched = traces["delivered, searched (measured)"]
    assert list(zip(searched.text, searched.x, searched.marker.symbol, strict=True)) == [
        ("search 1", 0.118, "star"),
        ("search 2", 0.084, "diamond"),
    ]
    assert list(traces["delivered, made by hand (measured)"].x) == [0.196, 0.223, 0.262]


def test_skipped_proposals_have_a_strip_of_their_own(results, plot):
    skipped = named(plot)["skipped, never trained"]
    assert skipped.yaxis == "y2"
    assert list(skipped.x) == [cost for cost, _ in results.search.skipped]
    assert set(skipped.text) == {"exceeds latency_ms", "exceeds peak_memory_bytes"}


def test_budget_is_a_line_in_view(results, plot):
    (line,) = plot.layout.shapes
    assert line.x0 == line.x1 == examples.BUDGET_MS
    low, high = cost_range(results)
    assert low < examples.BUDGET_MS < high
    assert plot.layout.xaxis.type == "log"
    assert plot.layout.annotations[0].x == pytest.approx(math.log10(examples.BUDGET_MS))


def test_front_without_control_skipped_or_budget_draws_none_of_them(results):
    bare = dataclasses.replace(results, control=None, budget={}, search=examples.summary(skipped=()))
    plot = front(bare)
    assert not [name for name in named(plot) if "random" in name or "skipped" in name]
    assert not plot.layout.shapes
    assert not plot.layout.annotations
    assert {trace.yaxis for trace in plot.data} <= {None, "y"}


def test_failed_trainings_are_not_drawn(results):
    first, *others = results.search.networks
    diverged = dataclasses.replace(first, failed="the loss became infinite")
    search = dataclasses.replace(results.search, networks=(diverged, *others))
    drawn = sum(len(t.x) for t in front(dataclasses.replace(results, search=search)).data if t.name.startswith("rung"))
    assert drawn == len(others)


def test_macs_are_never_called_milliseconds():
    plot = front(examples.without_timing())
    assert plot.layout.xaxis.title.text == "MACs (counted)"
    assert "ms" not in str([trace.text for trace in plot.data if trace.name.startswith("rung")])
    assert "delivered, searched (counted)" in named(plot)


def test_latency_axis_and_legend_say_how_latency_is_known(plot):
    assert plot.layout.xaxis2.title.text == "latency in ms (trained networks: predicted)"
    tabulated = front(examples.tabulated())
    assert "delivered, searched (predicted)" in named(tabulated)


@pytest.mark.parametrize(
    ("epochs", "rung", "label"),
    [((1, 2, 4), 0, "rung 1 of 3 (1 epoch)"), ((1, 2, 4), 2, "rung 3 of 3 (4 epochs)"), ((), 1, "rung 2 of 3")],
)
def test_rungs_are_counted_from_one(epochs, rung, label):
    assert rung_label(examples.summary(rung_epochs=epochs), rung) == label


def test_agreement_has_a_panel_for_each_precision(results):
    plot = agreement(results.fits)
    assert [(trace.name, trace.xaxis) for trace in plot.data] == [
        ("within 10 %", "x"),
        ("equal", "x"),
        ("probes left out of the fit", "x"),
        ("within 10 %", "x2"),
        ("equal", "x2"),
        ("probes left out of the fit", "x2"),
        ("delivered files", "x2"),
    ]
    explained = [trace.name for trace in plot.data if trace.showlegend]
    assert explained == ["within 10 %", "equal", "probes left out of the fit", "delivered files"]
    assert plot.layout.xaxis.title.text == "measured latency, float32, ms"


def test_agreement_draws_every_pair_known_over_predicted(results):
    fit = results.fits[1]
    probes, files = agreement(results.fits).data[-2:]
    assert (probes.x, probes.y) == (fit.measured_ms, fit.predicted_ms)
    assert (files.x, files.y) == (fit.delivered_measured_ms, fit.delivered_predicted_ms)
    assert set(files.text) == {"+3.0 %"}


def test_band_of_ten_percent_holds_the_networks_it_counts(results):
    fit = results.fits[0]
    band = agreement([fit]).data[0]
    low, high = band.x[0], band.x[1]
    assert list(band.y) == pytest.approx([0.9 * low, 0.9 * high, 1.1 * high, 1.1 * low])
    pairs = zip(fit.measured_ms, fit.predicted_ms, strict=True)
    assert np.mean([0.9 * known <= guess <= 1.1 * known for known, guess in pairs]) == fit.within_10


def test_confusion_shares_are_of_the_true_class_and_errors_have_their_own_color():
    plot = confusion([[3, 1], [0, 2]], ["cat", "dog"])
    found, mistaken = plot.data
    assert [list(row) for row in found.z] == [[0.75, None], [None, 1.0]]
    assert [list(row) for row in mistaken.z] == [[None, 0.25], [0.0, None]]
    assert found.colorscale != mistaken.colorscale
    assert plot.layout.yaxis.autorange == "reversed"


def test_confusion_of_a_class_without_images_has_no_share():
    plot = confusion([[0, 0], [0, 2]], ["cat", "dog"])
    assert plot.data[0].z[0][0] == 0.0


@pytest.mark.parametrize(("classes", "labels"), [(2, 2), (100, 100), (130, 0)])
def test_confusion_labels_every_class_while_they_can_be_read(classes, labels):
    names = [f"a class with quite a long name, number {number}" for number in range(classes)]
    plot = confusion(np.eye(classes, dtype=int).tolist(), names)
    assert len(plot.layout.xaxis.ticktext) == labels
    assert all(len(label) <= 18 for label in plot.layout.xaxis.ticktext)
    assert list(plot.data[0].x) == names
    assert 400 <= plot.layout.height <= 1300


def test_data_of_a_plot_cannot_end_its_script():
    plot = confusion([[1, 0], [0, 1]], ["</script><script>alert(1)</script>", "b"])
    markup = embedded(plot, "plot", label="A confusion matrix", caption="Two classes")
    assert markup.text.count("</script>") == 1
