import dataclasses
import io

import pytest
from rich.console import Console

from nas.report import summary_table, summary_text
from tests.nas.report import examples


def printed(results, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(results))
    return console.export_text()


def test_table_names_all_networks_the_winner_first():
    text = printed(examples.run_results())
    places = [text.index(it.name) for it in examples.contenders()]
    assert places[0] == min(places)
    assert "search 1 (ships)" in text
    assert "digits on this machine: latency at most 0.25 ms; peak memory at most 65.54 kB" in text


@pytest.mark.parametrize(
    "figure", ["96.8 %", "95.6-98.0", "96.2 %", "0.1180 ms", "61.4 kB", "24.6 kB", "1.48 M", "41.2 k"]
)
@pytest.mark.parametrize("width", [80, 120])
def test_no_figure_is_cut_off(figure, width):
    assert figure in printed(examples.run_results(), width)


def test_no_line_is_wider_than_the_terminal():
    assert max(len(line.rstrip()) for line in printed(examples.run_results(), 80).splitlines()) <= 80


def test_networks_over_budget_are_told():
    lines = printed(examples.run_results()).splitlines()
    assert sum("not met" in line for line in lines) == 1


def test_measured_and_predicted_latency_have_columns_of_their_own():
    first, second, *_ = examples.contenders()
    guessed = second.files[0].figures | {"latency_ms": examples.ms(0.091, "predicted", 0.05)}
    mixed = dataclasses.replace(second, files=(dataclasses.replace(second.files[0], figures=guessed),))
    text = printed(examples.run_results(contenders=(first, mixed)))
    heads = next(line for line in text.splitlines() if "Network" in line)
    assert "measured" in heads
    assert "predicted" in heads
    row = next(line for line in text.splitlines() if "search 2" in line)
    assert row.index("—") < row.index("0.091 ms")


def test_device_without_timing_has_no_latency():
    text = printed(examples.without_timing())
    assert " ms" not in text
    assert "Latency" not in text


def test_names_with_brackets_are_no_markup():
    made = dataclasses.replace(examples.contenders()[0], name="[red]odd[/red]")
    assert "[red]odd[/red] (ships)" in printed(examples.run_results(contenders=(made,), winner=made.name))


def test_label_of_a_file_that_is_only_smaller_is_printed():
    made = examples.contenders()[0]
    slow = dataclasses.replace(made.files[0], label="smaller, not faster")
    results = examples.run_results(contenders=(dataclasses.replace(made, files=(slow,)),))
    assert "smaller, not faster" in printed(results)


def test_summary_tells_verdict_file_figures_budget_and_warnings():
    results = examples.run_results()
    assert summary_text(results).splitlines() == [
        f"run digits-demo: {results.verdict}",
        "ships: exports/3f9a11c2d07be654/model.int8.onnx, int8, search 1, found by search",
        "  accuracy, validation 96.8 %, 90 % interval 95.6 to 98.0 (measured)",
        "  accuracy, test 96.2 %, 90 % interval 95.0 to 97.4 (measured)",
        "  latency 0.1180 ms, 90 % interval 0.1168 to 0.1192 (measured)",
        "  file size 61.4 kB (measured)",
        "  peak memory 24.6 kB (counted)",
        "  MACs 1,482,240 (counted)",
        "  parameters 41,226 (counted)",
        "budget: latency at most 0.25 ms; peak memory at most 65.54 kB; measured latency is 0.118 ms, 47% of the limit",
        "warning: 360 validation images cannot resolve changes below 0.83 points.",
    ]


def test_summary_of_a_hand_made_winner_says_so():
    assert "MobileNetV2 x0.35, made by hand" in summary_text(examples.hand_made_wins())
