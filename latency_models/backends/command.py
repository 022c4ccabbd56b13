"""Any program that takes a model file and prints milliseconds."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, get_args

from latency_models.backends.timing_script import failure_kind
from latency_models.failures import OutOfMemory, RefusedFile, TimedOut, all_timed, failure
from latency_models.measure import Rounds, take_visitors
from latency_models.timing import BACKENDS, Timing
from search_spaces.errors import ConfigError, DeviceError

Unit = Literal["ms", "us", "s", "ns"]
_TO_MS: Mapping[str, float] = {"ms": 1.0, "us": 1e-3, "s": 1e3, "ns": 1e-6}
FILE = "{file}"
LAST_NUMBER = r"(?<![\w.])([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)[^\d\n]*\s*\Z"
"""Pattern for the last number on the last line that is not blank: what a program prints that says little else."""


@BACKENDS.register("command")
@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    r"""Runs a program for every visit of every file and reads the latencies it prints.

    The program is started without a shell: each word of `command` is one argument. Where it prints several numbers
    that match, each is a sample of the visit. Files are visited interleaved with a reference, as everywhere.

    The examples below name `precisions = ["float32"]`: the int8 files hold onnxruntime's QDQ form, which converters to
    other formats do not keep and TensorRT takes with symmetric activations only. The files take uint8 images, batch x
    height x width x channels, and compute the normalization, unless the run file's [export] says otherwise; the
    converters to TFLite and ncnn expect float32 in the order of torch, so there it does.

    TFLite's benchmark_model on a phone, through adb. The probe files are ONNX; name a program of your own that
    converts and pushes first, such as this `bench.sh`. It empties its folder, so that one file is there to push:
    `rm -rf converted && onnx2tf -i "$1" -o converted && adb push converted/*_float32.tflite
    /data/local/tmp/m.tflite && adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/m.tflite
    --num_threads=1 --warmup_runs=5 --num_runs=50`. It prints "Inference (avg): 1234.5", in microseconds:

        [device]
        precisions = ["float32"]
        [device.backend]
        type = "command"
        command = ["./bench.sh", "{file}"]
        unit = "us"
        pattern = 'Inference \(avg\): ([0-9.e+]+)'
        [export]
        input = "float32"
        layout = "nchw"

    trtexec on a Jetson or another NVIDIA board prints "GPU Compute Time: min = 0.8 ms, ..., median = 0.9 ms, ...":

        [device]
        precisions = ["float32"]
        [device.backend]
        type = "command"
        command = ["trtexec", "--onnx={file}", "--fp16", "--iterations=50"]
        pattern = 'GPU Compute Time: min = ([0-9.]+) ms'
        timeout_s = 600.0
        visits = 3

    benchncnn times .param files, so convert first, for example in `ncnn.sh`: `rm -rf converted && mkdir converted &&
    cp "$1" converted/m.onnx && pnnx converted/m.onnx && benchncnn 50 1 0 -1 0 param=converted/m.ncnn.param
    shape=[96,96,3]` (loops, threads, power save, GPU, cool down); it prints "model  min = 1.23  max = 1.40
    avg = 1.27":

        [device]
        precisions = ["float32"]
        [device.backend]
        type = "command"
        command = ["./ncnn.sh", "{file}"]
        pattern = 'min = +([0-9.]+)'
        [export]
        input = "float32"
        layout = "nchw"

    Attributes:
        command: The program and its arguments; "{file}" stands for the path of the model file.
        pattern: Regular expression whose one group is a latency in what the program prints. By default the last
            number on the last line of stdout that is not blank (of stderr where stdout is), as in "0.25" or
            "latency: 0.25 ms". Digits within a word are no number: where they come last the file counts as refused.
        unit: Of the latencies printed.
        origin: What the program's numbers are: "measured" on the device, "emulated", or "estimated".
        version: A command whose output tells one runtime or device from another, such as ["trtexec", "--version"];
            it goes into the fingerprint. Empty for none: then only the program itself does.
        visits: Rounds of interleaved visits.
        drift: Share by which the reference network may stray before a round is taken again; 0 never takes one again.
        timeout_s: Longest time of one visit; a program that takes longer is killed, with all that it started.
    """

    command: tuple[str, ...]
    pattern: str = LAST_NUMBER
    unit: Unit = "ms"
    origin: Literal["measured", "emulated", "estimated"] = "measured"
    version: tuple[str, ...] = ()
    visits: int = 5
    drift: float = 0.03
    timeout_s: float = 120.0

    live: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_template(self.command, self.pattern, self.unit)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the command, how its output is read, what its program is, and what `version` prints.

        Raises:
            DeviceError: There is no such program.
        """
        program = shutil.which(self.command[0])
        if program is None:
            raise DeviceError(f"there is no program {self.command[0]!r}: install it, or correct `command`")
        found = {
            "backend": "command",
            "command": " ".join(self.command),
            "pattern": self.pattern,
            "unit": self.unit,
            "origin": self.origin,
            "program_sha256": hashlib.sha256(Path(program).read_bytes()).hexdigest()[:16],
        }
        if self.version:
            found["version"] = "".join(self._run(self.version, "")).strip()
        return found

    def measure(
        self,
        artefacts: Sequence[Path],
        reference: Path,
        *,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> Sequence[Timing]:
        """Time every file, interleaved with `reference`.

        A file is visited no more once the program failed on it.

        Raises:
            PartlyMeasured: The program failed on some of the files, in one of the ways below.
            TimedOut: It took longer than `timeout_s`, on the reference or on all files.
            OutOfMemory: It was killed, or says so.
            UnsupportedOperator: It says so.
            RefusedFile: It fails for another reason, or prints no latency.
            DeviceError: There is no such program.
            MeasurementError: The reference never settled.
        """
        rounds = Rounds(
            visits=self.visits, drift=self.drift, retries=self.visits, reference_every=max(1, len(artefacts))
        )
        taken = take_visitors(
            [partial(partial, self._visit, path) for path in artefacts],
            partial(partial, self._visit, reference),
            rounds=rounds,
            progress=progress,
        )
        return all_timed(taken.outcomes(artefacts, "device", self.origin))

    def _visit(self, path: Path) -> list[float]:
        arguments = [word.replace(FILE, str(path)) for word in self.command]
        out, err = self._run(arguments, path.name)
        text = out + err
        if self.pattern == LAST_NUMBER and out.strip():  # a warning on stderr is not the last line
            text = out
        return read_latencies(text, self.pattern, self.unit, file=path.name)

    def _run(self, arguments: Sequence[str], file: str) -> tuple[str, str]:
        """Run a program and return its stdout and stderr; its failures become ours, each of its kind."""
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own program
                list(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DeviceError(f"{arguments[0]} cannot be run: {error.strerror or error}") from error
        with process:
            try:
                out, err = process.communicate(timeout=self.timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # what a script started would slow the next visits
                if isinstance(error, subprocess.TimeoutExpired):
                    told = f"{arguments[0]} took longer than {self.timeout_s:g} s on {file or 'telling its version'}"
                    raise TimedOut(told, file=file) from error
                raise
        if process.returncode:
            raise_for_exit(process.returncode, out + err, file=file, program=arguments[0])
        return out, err


def check_template(command: Sequence[str], pattern: str, unit: str) -> None:
    """Raise ConfigError unless a command can take a file and a pattern can read a latency."""
    if not command or not any(FILE in word for word in command):
        raise ConfigError(f"command must have {FILE!r} where the model file goes, got {list(command)}")
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"pattern {pattern!r} is no regular expression: {error}") from error
    if groups != 1:
        raise ConfigError(f"pattern {pattern!r} must have one group, the latency; it has {groups}")
    if unit not in get_args(Unit):
        raise ConfigError(f"unit must be one of {', '.join(get_args(Unit))}, got {unit!r}")


def read_latencies(text: str, pattern: str, unit: str, *, file: str) -> list[float]:
    """Return the latencies a program printed, in milliseconds; raises RefusedFile when there is none above 0."""
    found = []
    for match in re.findall(pattern, text):
        try:
            found.append(float(match) * _TO_MS[unit])
        except ValueError:
            raise RefusedFile(f"the pattern {pattern!r} finds {match!r}, no number, for {file}", file=file) from None
    if not found or min(found) <= 0.0:
        raise RefusedFile(
            f"the program printed no latency above 0 that matches {pattern!r} for {file}; it printed: {_tail(text)}",
            file=file,
        )
    return found


def raise_for_exit(code: int, text: str, *, file: str, program: str) -> None:
    """Raise what an exit code and the text printed mean."""
    if code in (-9, 137):
        raise OutOfMemory(f"{program} was killed on {file}, as the kernel does when memory runs out", file=file)
    kind = failure_kind(RuntimeError(text))
    raise failure(kind, file, f"exit code {code}: {_tail(text)}", device=f"the program {program}")


def _tail(text: str) -> str:
    return " ".join(text.split())[-300:] or "nothing"
