"""Times ONNX files on a board. Stands alone: needs python3 (3.9 or newer), numpy and onnxruntime, and nothing else.

    python3 timing_script.py facts           what this board is, as JSON
    python3 timing_script.py fill FOLDER     times the files of FOLDER/table.csv and writes their latencies into it
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


def fill(folder: Path, *, visits: int = 13, group: int = 24) -> tuple[int, int]:
    """Time every file that FOLDER/table.csv lists and write one row for each visit.

    Rows that hold a latency already are kept, so an interrupted fill goes on where it was. The row of a file that
    the runtime refuses stays empty, and the reason is told on stderr.

    Returns:
        How many files were timed, and how many were refused.
    """
    import onnxruntime  # noqa: F401 - without it every file would seem refused

    table = folder / "table.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    todo = [row["file"] for row in rows if not (row.get("latency_ms") or "").strip()]
    num_timed = num_refused = 0
    for start in range(0, len(todo), group):
        names = list(dict.fromkeys(todo[start : start + group]))
        timed = _time_group(folder, names, visits)
        num_timed, num_refused = num_timed + len(timed), num_refused + len(names) - len(timed)
        rows = [row for row in rows if row["file"] not in timed]
        for name, latencies in timed.items():
            rows += [{"file": name, "latency_ms": f"{ms:.6f}", "origin": "measured"} for ms in latencies]
        part = table.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file", "latency_ms", "origin"], lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({key: row.get(key, "") for key in ("file", "latency_ms", "origin")})
        os.replace(part, table)  # noqa: PTH105
        print(f"{min(start + group, len(todo))} of {len(todo)} files done", file=sys.stderr, flush=True)
    return num_timed, num_refused


def _time_group(folder: Path, names: Sequence[str], visits: int) -> dict[str, list[float]]:
    """Return the smallest sample of each visit, in milliseconds of this thread's CPU time, of files not refused."""
    now = time.thread_time

    def visitor(path: str) -> Visitor:
        run = runner(path, 1)
        count = runs_of_visit(run, 8.0, 5, 200, now)
        return lambda: visit(run, count, 2, now)

    opened: dict[str, Visitor] = {}
    for name in names:
        path = str(folder / name)
        try:
            opened[name] = guarded(path, functools.partial(visitor, path))
        except Refusal as refusal:
            print(f"{name} is left out ({refusal.kind}): {refusal}", file=sys.stderr, flush=True)
    if not opened:
        return {}
    visitors = list(opened.values())
    reference = visitors[len(visitors) // 2]
    rounds, taken = take_rounds(
        lambda order: one_round(visitors, reference, order, 10),
        len(visitors),
        visits=visits,
        retries=visits,
        drift=0.03,
    )
    if 2 * len(rounds) < visits:
        raise SystemExit(f"the board is not steady: {taken - len(rounds)} of {taken} rounds strayed by over 3 %")
    return {name: [min(samples[number]) for _, samples in rounds] for number, name in enumerate(opened)}


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    if arguments == ["facts"]:
        print(json.dumps(facts()))
    elif arguments == ["serve"]:
        serve(sys.stdin, sys.stdout)
    elif len(arguments) == 2 and arguments[0] == "store":
        store(Path(arguments[1]), sys.stdin.buffer)
    elif len(arguments) == 2 and arguments[0] == "fill":
        timed, refused = fill(Path(arguments[1]))
        print(f"{timed} files timed" + (f", {refused} refused: their rows are still empty" if refused else ""))
        raise SystemExit(1 if refused else 0)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
