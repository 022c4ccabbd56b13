"""Times ONNX files on a board. Stands alone: needs python3 (3.9 or newer), numpy and onnxruntime, and nothing else.

    python3 timing_script.py facts           what this board is, as JSON
    python3 timing_script.py fill FOLDER     times the files of FOLDER/table.csv and writes their latencies into it;
                                             stopped at any time, it goes on where it was
    python3 timing_script.py store FOLDER    receives files on stdin (used by the ssh back end)
    python3 timing_script.py serve           answers requests on stdin, one JSON object a line (likewise)

The timing protocol itself is written here and nowhere else: `latency_models.measure` imports it from this file, so a
board and the machine of the developer time alike. Results go to stdout, and a served board exits as soon as its
stdin closes: a lost connection leaves nothing running.
"""

from __future__ import annotations

import base64
import csv
import functools
import glob
import hashlib
import importlib.util
import io
import json
import os
import platform
import queue
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Callable, Sequence, TypeVar  # noqa: UP035 - python 3.9 subscripts these at run time

Run = Callable[[], object]
Samples = Sequence[float]
Visitor = Callable[[], Samples]
Failure = TypeVar("Failure", bound=Exception)

OUT_OF_MEMORY = ("failed to allocate memory", "bad_alloc", "bad allocation", "out of memory", "cannot allocate memory")
UNSUPPORTED = (
    "not_implemented",
    "could not find an implementation",
    "no op registered",
    "is not a registered function/op",
    "unsupported model ir version",
    "unsupported model",
    "is under development and support for this is limited",
)


# -- the protocol


def visit(run: Run, count: int, warmup: int, now: Callable[[], float]) -> list[float]:
    """Return `count` times of `run` in milliseconds, after some untimed runs."""
    for _ in range(warmup):
        run()
    samples = [0.0] * count
    for number in range(count):
        start = now()
        run()
        samples[number] = (now() - start) * 1e3
    return samples


def runs_of_visit(run: Run, visit_ms: float, least: int, most: int, now: Callable[[], float]) -> int:
    """Return how many runs fill a visit."""
    once = min(visit(run, 4, 1, now))
    return int(min(max(visit_ms / max(once, 1e-6), least), most))


def one_round(
    visitors: Sequence[Visitor], reference: Visitor, order: Sequence[int], every: int
) -> tuple[float, list[Samples]]:
    """Visit everything once, the reference before every `every` networks and at the end.

    Returns:
        The reference's level in milliseconds, and the samples in the order of `visitors`.
    """
    visits: list[Samples] = [()] * len(visitors)
    levels = []
    for place, item in enumerate(order):
        if place % every == 0:
            levels.append(min(reference()))
        visits[item] = visitors[item]()
    levels.append(min(reference()))
    return statistics.median(levels), visits


def spared(place: int, make: Callable[[], Visitor], failure: type[Failure], refused: dict[int, Failure]) -> Visitor:
    """Return the visitor that `make` makes, whose failure leaves the others of a round alone.

    The first failure, in making it or in a visit, is noted in `refused` under `place`; from then on a visit gives no
    samples and runs nothing.
    """
    try:
        visitor = make()
    except failure as error:
        refused[place] = error

    def visit_unless_refused() -> Samples:
        if place not in refused:
            try:
                return visitor()
            except failure as error:
                refused[place] = error
        return ()

    return visit_unless_refused


def take_rounds(
    one: Callable[[Sequence[int]], tuple[float, list[Samples]]],
    items: int,
    *,
    visits: int,
    retries: int,
    drift: float,
    seed: int = 0,
    progress: Callable[[float], None] = lambda _share: None,
) -> tuple[list[tuple[float, list[Samples]]], int]:
    """Take rounds in ever new orders until `visits` of them had a steady reference, or `retries` more were taken.

    A round counts when its reference lies within `drift` of the median or, of several levels, the most frequent one.

    Returns:
        The rounds that count, `visits` at most, and how many were taken in all.
    """
    draw = random.Random(seed)  # noqa: S311 - an order of visits
    taken: list[tuple[float, list[Samples]]] = []
    good: list[int] = []
    while len(good) < visits and len(taken) < visits + retries:
        order = list(range(items))
        draw.shuffle(order)
        taken.append(one(order))
        good = good_rounds([level for level, _ in taken], drift)
        progress(min(1.0, len(good) / visits))
    return [taken[index] for index in good[:visits]], len(taken)


def good_rounds(levels: Samples, drift: float) -> list[int]:
    """Return the rounds whose reference lies within `drift` of the median over all.

    A shared machine has a few levels, as its neighbours come and go, and the median may lie between two of them:
    where fewer than half the rounds are near it, the level that most rounds are near counts.
    """
    if drift <= 0:
        return list(range(len(levels)))
    middle = statistics.median(levels)

    def near(center: float) -> list[int]:
        return [number for number, level in enumerate(levels) if abs(level / center - 1.0) <= drift]

    found = near(middle)
    if 2 * len(found) >= len(levels):
        return found
    return near(max(levels, key=lambda center: (len(near(center)), -abs(center - middle))))


def percentile(samples: Samples, percent: float) -> float:
    """Return a percentile by linear interpolation."""
    ordered = sorted(samples)
    place = percent / 100.0 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def sustained(run: Run, seconds: float, *, window_s: float = 1.0) -> dict[str, Any]:  # Any: JSON values
    """Run without a pause, as a camera would, and return wall times and what the sensors said in every window."""
    points: list[dict[str, Any]] = []
    everything: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        samples: list[float] = []
        opened = time.perf_counter()
        while not samples or time.perf_counter() - opened < min(window_s, seconds):
            samples += visit(run, 1, 0, time.perf_counter)
        everything += samples
        elapsed = time.perf_counter() - start
        points.append({"elapsed_s": round(elapsed, 3), "p50_ms": percentile(samples, 50), **sensors()})
    ends = max(1, len(points) // 10)
    first = statistics.median([point["p50_ms"] for point in points[:ends]])
    last = statistics.median([point["p50_ms"] for point in points[-ends:]])
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "runs": len(everything),
        "p50_ms": percentile(everything, 50),
        "p95_ms": percentile(everything, 95),
        "p99_ms": percentile(everything, 99),
        "first_ms": first,
        "last_ms": last,
        "points": points,
    }


# -- what the board says about itself


def read_first(*paths: str) -> str:
    """Return the text of the first file that can be read; empty where none can."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - these are no project files
                return file.read().strip("\0 \n")
        except OSError:
            continue
    return ""


def cpu() -> tuple[str, list[str]]:
    """Return the CPU's name and its feature flags, as Linux names them."""
    name, flags = "", ""
    for line in read_first("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = value
    return name or read_first("/proc/device-tree/model") or platform.processor() or platform.machine(), flags.split()


def governor() -> str:
    """Return the frequency governor of the first core; "unknown" where the system shows none."""
    return read_first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown"


def frequency_limits() -> str:
    """Return least and greatest clock of every kind of core in MHz, such as "600-1800"; empty where none is shown."""
    found = []
    for policy in sorted(glob.glob("/sys/devices/system/cpu/cpufreq/policy*")):  # noqa: PTH207
        limits = [read_first(f"{policy}/scaling_{end}_freq") for end in ("min", "max")]
        if all(limit.isdigit() for limit in limits):
            found.append("-".join(str(int(limit) // 1000) for limit in limits))
    return " ".join(sorted(set(found)))


def sensors() -> dict[str, Any]:  # Any: JSON values
    """Return temperature, clock and throttle flags, each where the system shows it."""
    found: dict[str, Any] = {}
    zones = [read_first(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]  # noqa: PTH207
    temperatures = [int(zone) / 1000.0 for zone in zones if zone.lstrip("-").isdigit()]
    if temperatures:
        found["temperature_c"] = max(temperatures)
    clocks = [
        int(text) // 1000
        for text in map(read_first, glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))  # noqa: PTH207
        if text.isdigit()
    ]
    if clocks:
        found["frequency_mhz"] = max(clocks)
    throttled = read_first(
        "/sys/devices/platform/soc/soc:firmware/get_throttled",
        "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
    )
    if throttled:
        found["throttled"] = throttled
    return found


def facts() -> dict[str, Any]:  # Any: JSON values
    """Return everything the host wants to know about this board."""
    import onnxruntime

    name, flags = cpu()
    memory = [line.split()[1] for line in read_first("/proc/meminfo").splitlines() if line.startswith("MemTotal")]
    opset, ir_version = highest_versions()
    return {
        "machine": platform.machine(),
        "cpu": name,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory[0]) * 1024 if memory else 0,
        "python": platform.python_version(),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "opset": opset,
        "ir_version": ir_version,
        "governor": governor(),
        "frequency_limits_mhz": frequency_limits(),
        **sensors(),
    }


def highest_versions() -> tuple[int, int]:
    """Return the highest ONNX opset and IR version that the runtime opens, found by trying."""
    ir_version = _highest(lambda version: _opens(_identity_model(13, version)), 8)
    return _highest(lambda version: _opens(_identity_model(version, ir_version)), 13), ir_version


def _highest(works: Callable[[int], bool], start: int) -> int:
    """Return the last number of a run of numbers that work, from `start` on; downwards where that one does not."""
    version = start
    while version > 1 and not works(version):
        version -= 1
    while works(version + 1):
        version += 1
    return version


def _opens(model: bytes) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # whatever it raises, it does not open the file
        return False
    return True


def _identity_model(opset: int, ir_version: int) -> bytes:
    """Return an ONNX file of one Identity node, written byte by byte since the board has no onnx package."""

    def number(tag: int, value: int) -> bytes:
        return bytes([tag << 3]) + _varint(value)

    def block(tag: int, content: bytes) -> bytes:
        return bytes([tag << 3 | 2]) + _varint(len(content)) + content

    def tensor(name: bytes) -> bytes:
        sized = block(2, block(1, number(1, 1)))  # one dimension of 1
        return block(1, name) + block(2, block(1, number(1, 1) + sized))  # float

    node = block(1, b"x") + block(2, b"y") + block(4, b"Identity")
    graph = block(1, node) + block(2, b"g") + block(11, tensor(b"x")) + block(12, tensor(b"y"))
    return number(1, ir_version) + block(7, graph) + block(8, number(2, opset))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# -- running files


def open_session(path: str, threads: int) -> Any:  # Any: onnxruntime has no types
    """Return a session on the CPU with every optimization on, as the library opens one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path: str, threads: int) -> Run:
    """Return a function that runs the file once on a fixed random input."""
    import numpy as np

    session = open_session(path, threads)
    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
    draw = np.random.default_rng(0)
    feed = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in node.shape]
        kind = kinds[node.type]
        values = draw.standard_normal(shape) if kind is np.float32 else draw.integers(0, 127, shape)
        feed[node.name] = values.astype(kind)
    names = [node.name for node in session.get_outputs()]
    run: Run = lambda: session.run(names, feed)  # noqa: E731
    run()
    return run


def bind(cores: Sequence[int]) -> None:
    """Bind this thread, and those it will start, to some cores; empty leaves it where it is."""
    if cores:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            allowed = sorted(os.sched_getaffinity(0))
            raise SystemExit(f"cores {list(cores)} cannot be had, this board offers {allowed}: {error}") from error


def failure_kind(error: BaseException) -> str:
    """Return "out_of_memory", "unsupported" or "refused" for what a runtime raised."""
    text = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or any(word in text for word in OUT_OF_MEMORY):
        return "out_of_memory"
    if any(word in text for word in UNSUPPORTED):
        return "unsupported"
    return "refused"


class Refusal(Exception):  # noqa: N818 - an answer to the host
    """A request that cannot be met: its kind, the file it is about, and why."""

    def __init__(self, kind: str, file: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.file = kind, file

    def told(self) -> dict[str, Any]:
        """Return it as an answer tells it."""
        return {"kind": self.kind, "file": self.file, "message": str(self)}


def guarded(path: str, act: Callable[[], Any]) -> Any:  # Any: what `act` returns
    """Return what `act` returns; whatever the runtime raises becomes a Refusal about the file."""
    try:
        return act()
    except Exception as error:
        raise Refusal(failure_kind(error), path, f"{type(error).__name__}: {error}") from error


# -- serving a host


class Board:
    """Answers requests: holds the open files between them."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.visitors: list[Visitor] = []
        self.refused: dict[int, Refusal] = {}
        self.reference: Visitor = list

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says and return the answer."""
        verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "facts": lambda _request: facts(),
            "trim": self._trim,
            "open": self._open,
            "add": self._add,
            "round": self._round,
            "outputs": self._outputs,
            "distribution": self._distribution,
            "sustained": self._sustained,
        }
        return verbs[request["do"]](request)

    def _trim(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove the files used longest ago until the folder holds no more than so many bytes."""
        files = sorted(Path(request["folder"]).iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        room = request["bytes"]
        removed = 0
        for path in files:
            room -= path.stat().st_size
            if room < 0 or path.suffix in (".part", ".npy"):
                path.unlink()
                removed += 1
        return {"removed": removed}

    def _open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the reference; the files of the group are added one by one, so that one that ends this is known."""
        bind(request["cores"])
        self.settings, self.visitors, self.refused = request, [], {}
        self.reference = self._visitor(request["reference"])
        return {}

    def _add(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open one more file, unless the runtime refuses it."""
        place = len(self.visitors)
        visitor = spared(place, functools.partial(self._visitor, request["file"]), Refusal, self.refused)
        if place in self.refused:
            return {"refused": self.refused.pop(place).told()}
        self.visitors.append(visitor)
        return {}

    def _visitor(self, path: str) -> Visitor:
        asked = self.settings
        now = time.thread_time if asked["clock"] == "thread_cpu" else time.perf_counter
        os.utime(path)  # used now: the cleaner takes the oldest
        run = guarded(path, lambda: runner(path, asked["threads"]))
        limits = asked["visit_ms"], asked["least_runs"], asked["most_runs"]
        count = guarded(path, lambda: runs_of_visit(run, *limits, now))
        return lambda: guarded(path, lambda: visit(run, count, asked["warmup"], now))

    def _round(self, request: dict[str, Any]) -> dict[str, Any]:
        level, visits = one_round(self.visitors, self.reference, request["order"], self.settings["every"])
        rounded = [[round(sample, 6) for sample in samples] for samples in visits]
        refused = {str(place): refusal.told() for place, refusal in self.refused.items()}
        return {"level": level, "visits": rounded, "refused": refused, **sensors()}

    def _outputs(self, request: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        bind(request["cores"])

        def run() -> Any:
            session = open_session(request["file"], request["threads"])
            images, batch = np.load(request["input"]), request["batch"]
            name = session.get_inputs()[0].name
            parts = [session.run(None, {name: images[at : at + batch]})[0] for at in range(0, len(images), batch)]
            return np.concatenate(parts)

        text = io.BytesIO()
        np.save(text, guarded(request["file"], run), allow_pickle=False)
        return {"npy": base64.b64encode(text.getvalue()).decode()}

    def _distribution(self, request: dict[str, Any]) -> dict[str, Any]:
        bind(request["cores"])
        run = guarded(request["file"], lambda: runner(request["file"], request["threads"]))
        samples = visit(run, request["runs"], 20, time.perf_counter)
        return {"samples": [round(sample, 6) for sample in samples]}

    def _sustained(self, request: dict[str, Any]) -> dict[str, Any]:
        bind(request["cores"])
        run = guarded(request["file"], lambda: runner(request["file"], request["threads"]))
        return sustained(run, request["seconds"])


def serve(lines: IO[str], out: IO[str]) -> None:
    """Answer requests until stdin closes; the process ends at once then, even in the middle of a run."""
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in lines:
            requests.put(line)
        os._exit(0)

    board = Board()
    threading.Thread(target=read, daemon=True).start()
    while True:
        request = json.loads(requests.get())
        try:
            answer = {"ok": True, **board.answer(request)}
        except Refusal as refusal:
            answer = {"ok": False, **refusal.told()}
        except MemoryError as error:
            answer = {"ok": False, "kind": "out_of_memory", "file": "", "message": str(error) or "MemoryError"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def store(folder: Path, stream: IO[bytes]) -> None:
    """Receive files: a line of JSON with name, size and sha256 of each, then their bytes one after the other.

    A file appears under its name only when it is whole and its hash is right, so a cut connection leaves no torn one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in json.loads(stream.readline()):
        part = folder / (entry["name"] + f".{os.getpid()}.part")
        content = stream.read(entry["size"])
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise SystemExit(f"{entry['name']} did not arrive whole")
        part.write_bytes(content)
        os.replace(part, folder / entry["name"])  # noqa: PTH105


# -- filling a table by hand


class CarriedSet:
    """A folder of model files that was carried to a board: its table, and every round taken of its files so far.

    The rounds stand in `table.rounds.json` beside the table, and the rows of all files timed here are made from them
    anew whenever a group is added: what an interrupted fill left and what comes after it hang together by the
    reference. The rounds are written first, and a file whose row is empty is timed, whatever the rounds say.

    Attributes:
        rows: The table's rows by file, in its order.
        groups: Of each group of files its `levels_ms`, the reference's level in every round, and its `visits_ms`, by
            file the samples of every round; `again` where it was timed a second time.
        reference: Name of the file that is visited in every round of every group; empty before the first.
        ended_at: The file at whose opening the process was ended the last time; empty where it was not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table, self.rounds, self._opening = (folder / f"table.{end}" for end in ("csv", "rounds.json", "opening"))
        self.columns: list[str] = []
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.groups: list[dict[str, Any]] = []  # Any: JSON values
        self.reference = ""
        self._read_table()
        self._read_rounds()
        self.ended_at = read_first(str(self._opening))
        if self.ended_at:
            self._opening.unlink()

    def to_time(self) -> list[str]:
        """Return the files without a latency."""
        return [name for name, rows in self.rows.items() if not any(map(_filled, rows))]

    def foreign(self) -> set[str]:
        """Return the files whose latency was not taken here."""
        ours = {name for group in self.groups for name in group["visits_ms"]}
        return set(self.rows) - set(self.to_time()) - ours

    def references(self) -> list[str]:
        """Return the files that may be the reference, the best first: whole networks of middling size."""
        if self.reference:
            return [self.reference]
        blocks, sizes = self._blocks(), {}
        for name in self.rows.keys() - {self.ended_at}:
            path = self.folder / name
            sizes[name] = path.stat().st_size if path.is_file() else 0
        found = []
        for chosen in (sizes.keys() - blocks, sizes.keys() & blocks):
            by_size = sorted(chosen, key=lambda name: (sizes[name], name))
            places = sorted(range(len(by_size)), key=lambda place: abs(place - len(by_size) // 2))
            found += [by_size[place] for place in places]
        return found

    def opened(self, name: str, now: Callable[[], float]) -> Visitor:
        """Return the visitor of a file, whose name is noted meanwhile: it may end the process.

        Raises:
            Refusal: The runtime refuses the file.
        """
        path = self.folder / name

        def make() -> Visitor:
            run = runner(str(path), 1)
            count = runs_of_visit(run, 8.0, 5, 200, now)
            return lambda: guarded(name, lambda: visit(run, count, 2, now))

        self._opening.write_text(name, encoding="utf-8")
        try:
            visitor: Visitor = guarded(name, make)
        finally:
            self._opening.unlink()
        return visitor

    def put(self, group: dict[str, Any], place: int) -> None:  # Any: JSON values
        """Keep a group's rounds, instead of those that are at `place` already, and write rounds and table."""
        for old in self.groups[place : place + 1]:
            for name in old["visits_ms"].keys() - group["visits_ms"].keys():
                self.rows[name] = [{**self.rows[name][0], "latency_ms": ""}]
        self.groups[place : place + 1] = [group] if group["visits_ms"] else []
        record = {"format": 1, "reference": self.reference, "conditions": self._conditions(), "groups": self.groups}
        _replace(self.rounds, json.dumps(record))
        _replace(self.table, self._filled_table())

    def straying(self, drift: float) -> set[int]:
        """Return the groups whose reference lies off that of the others."""
        levels = [statistics.median(group["levels_ms"]) for group in self.groups]
        return set(range(len(levels))) - set(good_rounds(levels, drift)) if levels else set()

    def _filled_table(self) -> str:
        """Return the table, with every round divided by the reference's level over its median in all groups."""
        center = statistics.median([level for group in self.groups for level in group["levels_ms"]] or [1.0])
        for group in self.groups:
            for name, visits in group["visits_ms"].items():
                minima = [min(visit) * center / level for visit, level in zip(visits, group["levels_ms"])]  # noqa: B905
                told = [{"latency_ms": f"{minimum:.6f}", "origin": "measured"} for minimum in minima]
                self.rows[name] = [{**self.rows[name][0], **row} for row in told]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for rows in self.rows.values() for row in rows)
        return text.getvalue()

    def _read_table(self) -> None:
        if not self.folder.is_dir():
            raise _stop(f"{self.folder} is no folder: name the one that holds table.csv and the model files")
        try:
            with self.table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
                reader = csv.DictReader(file)
                for row in reader:
                    self.rows.setdefault(row.get("file") or "", []).append(row)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise _stop(f"{self.table} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        self.columns = list(reader.fieldnames or ())
        if "file" not in self.columns or "" in self.rows:
            raise _stop(f"{self.table} needs a column `file` that names a model file in every row")
        self.columns += [name for name in ("latency_ms", "origin") if name not in self.columns]

    def _read_rounds(self) -> None:
        """Read the rounds of those files that still have the rows made from them."""
        if not self.rounds.exists():
            return
        try:
            record = json.loads(self.rounds.read_text(encoding="utf-8"))
            for group in record["groups"]:
                kept = {name: visits for name, visits in group["visits_ms"].items() if self._made(name, len(visits))}
                self.groups += [{**group, "visits_ms": kept}] if kept else []
            self.reference, there = (record["reference"], record["conditions"]) if self.groups else ("", {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _stop(
                f"{self.rounds} cannot be read ({error!r}): remove it, and empty latency_ms of every row to start anew"
            ) from error
        if there and there != (here := self._conditions()):
            changed = ", ".join(f"{key} {there.get(key)} -> {here[key]}" for key in here if there.get(key) != here[key])
            raise _stop(
                f"{self.table} was begun under other conditions ({changed}), and what is timed now could not be "
                "compared with that: go on where it was begun, or empty latency_ms of every row to start anew"
            )

    def _made(self, name: str, visits: int) -> bool:
        """Return whether a file's rows were made from so many rounds."""
        rows = self.rows.get(name, [])
        return len(rows) == visits and all(_filled(row) and row.get("origin") == "measured" for row in rows)

    def _conditions(self) -> dict[str, str]:
        """Return what must stay as it is while a table is filled."""
        import onnxruntime

        path = self.folder / self.reference
        return {
            "machine": platform.machine(),
            "cpu": cpu()[0],
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "reference": hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "missing",
        }

    def _blocks(self) -> set[str]:
        """Return the files that hold single blocks, as the probe set tells; none where it does not."""
        try:
            files = json.loads((self.folder / "probes.json").read_text(encoding="utf-8"))["files"]
            return {entry["file"] for entry in files if entry["purpose"] == "block"}
        except (OSError, ValueError, KeyError, TypeError):
            return set()


def _filled(row: dict[str, str]) -> bool:
    return bool((row.get("latency_ms") or "").strip())


def _replace(path: Path, text: str) -> None:
    """Write a file that is whole at any time, even where the board loses its power."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)  # noqa: PTH105


def _stop(sentence: str) -> SystemExit:
    """Return the end of a process that cannot do what it was asked, having told why."""
    print(sentence, file=sys.stderr, flush=True)
    return SystemExit(2)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fill(
    folder: Path,
    *,
    visits: int = 13,
    group: int = 24,
    drift: float = 0.03,
    now: Callable[[], float] = time.thread_time,
    say: Callable[[str], None] = _say,
) -> tuple[int, int]:
    """Time every file that FOLDER/table.csv lists and write one row for each visit.

    Files are open in groups. One reference is visited in every round of all groups, and a round is divided by the
    reference's level over its median in all groups. A group whose reference strays from the others' is timed once
    more. All samples are kept in FOLDER/table.rounds.json.

    Rows that hold a latency already are kept, so an interrupted fill goes on where it was. The row of a file that
    the runtime refuses stays empty.

    Args:
        folder: Holds the model files and table.csv.
        visits: Rounds of a group that count; as many more may be taken again.
        group: Files that are open together.
        drift: Share by which the reference may stray from its median, within a group and from one to another.
        now: The clock, in seconds.
        say: Told of progress, of refused files and why, and of groups that strayed.

    Returns:
        How many files were timed, and how many were refused.

    Raises:
        SystemExit: The folder holds no table to fill or one begun elsewhere, or the board is not steady.
    """
    missing = [name for name in ("numpy", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:  # without the runtime every file would seem refused
        raise _stop(f"{sys.executable} has no {' and no '.join(missing)}: install it, with pip for example")
    carried = CarriedSet(folder)
    todo = carried.to_time()
    if foreign := carried.foreign():
        say(f"{len(foreign)} files hold latencies that were not taken here: they stay as they are, at their own level")
    if carried.ended_at in todo:
        say(f"{carried.ended_at} is left out: the last fill ended as it was opened; the next one tries it again")
    names = [name for name in todo if name != carried.ended_at]
    if names or carried.straying(drift):
        reference = _open_reference(carried, now, say)
        take = functools.partial(_take_group, carried, reference, visits=visits, drift=drift, now=now, say=say)
        for start in range(0, len(names) if carried.reference else 0, group):
            part = names[start : start + group]
            say(f"timing files {start + 1} to {start + len(part)} of {len(names)}")
            carried.put(take(part), len(carried.groups))
        _take_again(carried, take, drift, say)
    num_empty = len(carried.to_time())
    return max(0, len(todo) - num_empty), num_empty


def _take_again(
    carried: CarriedSet,
    take: Callable[[Sequence[str]], dict[str, Any]],  # Any: JSON values
    drift: float,
    say: Callable[[str], None],
) -> None:
    """Time the groups whose reference strays from the others' once more, and tell of those that stray even then."""
    for place in sorted(carried.straying(drift), reverse=True):  # backwards, since an emptied group goes
        if not carried.groups[place].get("again"):
            part = list(carried.groups[place]["visits_ms"])
            say(f"the board was slower or faster than else at {len(part)} files: timing them again, from {part[0]} on")
            carried.put({**take(part), "again": True}, place)
    if strayed := carried.straying(drift):
        say(
            f"the reference still strays by over {100 * drift:g} % in {len(strayed)} of {len(carried.groups)} groups. "
            "Their latencies are divided by its level; a board with a fixed clock (cpufreq governor) is more exact"
        )


def _open_reference(carried: CarriedSet, now: Callable[[], float], say: Callable[[str], None]) -> Visitor:
    """Open the best reference that the runtime takes and note its name; where it takes no file, tell why of each."""
    refusals = []
    for name in carried.references():
        try:
            visitor = carried.opened(name, now)
        except Refusal as refusal:
            refusals.append(refusal)
        else:
            carried.reference = name
            say(f"the reference is {name}")
            return visitor
    if carried.reference:
        raise SystemExit(f"the reference {carried.reference}, taken until now, is refused: {refusals[0]}")
    for told in refusals:
        _tell(told, say)
    return list


def _tell(refusal: Refusal, say: Callable[[str], None]) -> None:
    say(f"{refusal.file} is left out ({refusal.kind}): {refusal}")


def _take_group(
    carried: CarriedSet,
    reference: Visitor,
    names: Sequence[str],
    *,
    visits: int,
    drift: float,
    now: Callable[[], float],
    say: Callable[[str], None],
) -> dict[str, Any]:  # Any: JSON values
    """Return the reference's levels and the samples, in milliseconds, of the files that the runtime does not refuse."""
    refused: dict[int, Refusal] = {}
    visitors = [
        spared(place, functools.partial(carried.opened, name, now), Refusal, refused)
        for place, name in enumerate(names)
    ]
    rounds: list[tuple[float, list[Samples]]] = []
    if len(refused) < len(names):
        rounds, taken = take_rounds(
            lambda order: one_round(visitors, reference, order, 10),
            len(names),
            visits=visits,
            retries=visits,
            drift=drift,
            progress=_every(10.0, say),
        )
        if 2 * len(rounds) < visits:
            raise SystemExit(
                f"the board is not steady: {taken - len(rounds)} of {taken} rounds strayed by over {100 * drift:g} %; "
                "what was timed before is kept, the same command goes on from there"
            )
    for refusal in refused.values():
        _tell(refusal, say)
    return {
        "levels_ms": [round(level, 6) for level, _ in rounds],
        "visits_ms": {
            name: [[round(sample, 6) for sample in found[place]] for _, found in rounds]
            for place, name in enumerate(names)
            if place not in refused
        },
    }


def _every(seconds: float, say: Callable[[str], None]) -> Callable[[float], None]:
    """Return what tells a share done, but not more often than every so many seconds."""
    told = [time.monotonic()]

    def tell(share: float) -> None:
        if time.monotonic() - told[0] >= seconds:
            told[0] = time.monotonic()
            say(f"  {100 * share:.0f} % of their rounds")

    return tell


def _fill(folder: Path) -> None:
    """Fill a table, say how it went, and exit with 1 where rows stayed empty."""
    try:
        timed, empty = fill(folder)
    except OSError as error:
        raise _stop(f"{folder} cannot be filled: {error}") from error
    except Refusal as refusal:
        raise SystemExit(f"the reference {refusal.file} failed as it was timed: {refusal}") from refusal
    except KeyboardInterrupt:
        raise SystemExit("stopped; what was timed is kept, the same command goes on from there") from None
    print(f"{timed} files timed" + (f", {empty} refused: their rows are still empty" if empty else ""))
    raise SystemExit(1 if empty else 0)


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    if arguments == ["facts"]:
        print(json.dumps(facts()))
    elif arguments == ["serve"]:
        serve(sys.stdin, sys.stdout)
    elif len(arguments) == 2 and arguments[0] == "store":
        store(Path(arguments[1]), sys.stdin.buffer)
    elif len(arguments) == 2 and arguments[0] == "fill":
        _fill(Path(arguments[1]))
    elif arguments in (["-h"], ["--help"]):
        print(__doc__)
    else:
        raise _stop(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
