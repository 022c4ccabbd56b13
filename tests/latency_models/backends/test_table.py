from pathlib import Path

import pytest

from latency_models.backends.table import Table, read_table
from latency_models.timing import BACKENDS
from search_spaces.errors import DeviceError, MeasurementError

FILES = [Path("anywhere/a.float32.onnx"), Path("b.int8.onnx")]
REFERENCE = Path("reference.onnx")


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table and returns its backend."""

    def write(text: str | bytes) -> Table:
        path = tmp_path / "board.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return Table(path=str(path))

    return write


def test_latencies_are_looked_up_by_file_name_in_the_order_asked_for(table):
    known = table("file,latency_ms,origin\nb.int8.onnx,0.75,measured\na.float32.onnx,1.5,measured\nc,9,measured\n")
    timings = known.measure(FILES, REFERENCE)
    assert [(found.name, found.latency_ms, found.clock, found.origin) for found in timings] == [
        ("a.float32.onnx", 1.5, "table", "measured"),
        ("b.int8.onnx", 0.75, "table", "measured"),
    ]


def test_several_rows_of_a_file_are_several_visits_of_it(table):
    known = table("file,latency_ms\na.float32.onnx,3\nb.int8.onnx,1\na.float32.onnx,1\na.float32.onnx,2\n")
    first, _ = known.measure(FILES, REFERENCE)
    assert [float(visit[0]) for visit in first.visits] == [3.0, 1.0, 2.0]
    assert first.latency_ms == 2.0


def test_a_table_that_does_not_say_how_its_figures_are_known_is_tabulated(table):
    timings = table("file,latency_ms\na.float32.onnx,3\nb.int8.onnx,1\n").measure(FILES, REFERENCE)
    assert {found.origin for found in timings} == {"tabulated"}
    blank = table("file,latency_ms,origin\na.float32.onnx,3,\nb.int8.onnx,1, \n").measure(FILES, REFERENCE)
    assert {found.origin for found in blank} == {"tabulated"}


def test_columns_may_stand_in_any_order_among_others_and_rows_may_be_unfilled(table):
    known = table("board,latency_ms,file\nx, 3.5 ,a.float32.onnx\nx,,b.int8.onnx\nx,1,b.int8.onnx\n")
    assert read_table(Path(known.path)) == {"a.float32.onnx": [(3.5, "tabulated")], "b.int8.onnx": [(1.0, "tabulated")]}


def test_a_byte_order_mark_of_a_spreadsheet_is_no_part_of_the_first_column(table):
    known = table("\ufefffile,latency_ms\r\na.float32.onnx,3\r\nb.int8.onnx,1\r\n")
    assert [found.latency_ms for found in known.measure(FILES, REFERENCE)] == [3.0, 1.0]


def test_progress_is_told_and_a_table_times_no_new_file(table):
    told = []
    known = table("file,latency_ms\na.float32.onnx,3\nb.int8.onnx,1\n")
    known.measure(FILES, REFERENCE, progress=told.append)
    assert told[-1] == 1.0
    assert known.live is False
    assert BACKENDS.get("table") is Table


# -- refusals, one sentence each


def test_files_it_does_not_list_are_named_and_counted(table):
    known = table("file,latency_ms\nb.int8.onnx,\n")
    with pytest.raises(MeasurementError, match=r"lists no latency for a.float32.onnx and 1 other files; `nas device"):
        known.measure(FILES, REFERENCE)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"], ids=str)
def test_a_latency_that_is_no_positive_number_is_named_by_line(table, value):
    known = table(f'file,latency_ms\na.float32.onnx,1\nb.int8.onnx,"{value}"\n')
    with pytest.raises(DeviceError, match=r"board.csv line 3: latency_ms must be above 0 milliseconds, got '"):
        known.measure(FILES, REFERENCE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fast", "latency_ms 'fast' is not a number$"),
        ("0.12 ms", "'0.12 ms' is not a number; the column is in milliseconds, leave out 'ms'"),
        ("0,165", "'0,165' is not a number; write a decimal point, 0.165$"),
        (
            "1,5 us",
            "is not a number; write a decimal point, 1.5; the column is in milliseconds, leave out 'us' and conv",
        ),
    ],
    ids=["word", "unit", "decimal comma", "both"],
)
def test_a_latency_that_is_no_number_says_how_it_is_written(table, value, message):
    known = table(f'file,latency_ms\na.float32.onnx,1\nb.int8.onnx,"{value}"\n')
    with pytest.raises(DeviceError, match=rf"board.csv line 3: .*{message}"):
        known.measure(FILES, REFERENCE)


@pytest.mark.parametrize(
    "text",
    [
        "file,latency_ms\na.float32.onnx,0,165\n",
        "file,latency_ms,origin\na.float32.onnx,0,165\n",
        "file,latency_ms,origin\na.float32.onnx,0,165,measured\n",
    ],
    ids=["no origin", "into origin", "beside origin"],
)
def test_a_number_that_a_decimal_comma_split_is_not_read_as_its_first_half(table, text):
    with pytest.raises(DeviceError, match=r"line 2.*a decimal comma splits a number in two, write 0\.165 for 0,165"):
        read_table(Path(table(text).path))


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs")], ids=["semicolons", "tabs"])
def test_a_table_with_another_delimiter_names_it(table, delimiter, name):
    with pytest.raises(DeviceError, match=f"its cells are separated by {name} .*, save it with commas"):
        read_table(Path(table(f"file{delimiter}latency_ms\na.float32.onnx{delimiter}0,165\n").path))


def test_an_origin_that_is_none_is_named_by_line(table):
    known = table("file,latency_ms,origin\na.float32.onnx,1,guessed\n")
    with pytest.raises(DeviceError, match=r"line 2: origin must be one of counted, .*tabulated, got 'guessed'"):
        known.measure(FILES, REFERENCE)


def test_samples_of_one_file_have_one_origin(table):
    known = table("file,latency_ms,origin\na.float32.onnx,1,measured\na.float32.onnx,1,tabulated\n")
    with pytest.raises(DeviceError, match=r"line 3: a.float32.onnx is tabulated here and measured before"):
        known.measure(FILES, REFERENCE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,latency_ms\na,1\n", "needs the columns file, latency_ms; 'file' is missing"),
        ("file,ms\na,1\n", "'latency_ms' is missing"),
        ("", "'file' is missing"),
        (b"file,latency_ms\n\xff\xfe,1\n", "cannot be read"),
        ("file,latency_ms\na.float32.onnx\n", None),
    ],
    ids=["no file", "no latency", "empty", "no text", "short row"],
)
def test_a_table_of_another_form_is_refused(table, text, message):
    known = table(text)
    with pytest.raises(DeviceError, match=message):
        known.measure(FILES, REFERENCE)


def test_a_table_that_is_not_there_is_named(tmp_path):
    missing = Table(path=str(tmp_path / "none.csv"))
    for act in (missing.fingerprint, lambda: missing.measure(FILES, REFERENCE)):
        with pytest.raises(DeviceError, match=r"the table .*none.csv cannot be read"):
            act()


# -- fingerprint


def test_an_edited_table_is_another_device_wherever_it_lies(table, tmp_path):
    known = table("file,latency_ms\na,1\n")
    before = known.fingerprint()
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(known.path).read_bytes())
    assert Table(path=str(copy)).fingerprint() == before
    assert table("file,latency_ms\na,1.0\n").fingerprint() != before
