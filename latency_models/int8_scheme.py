"""Which 8-bit scheme and which file versions suit a device: decided by its instruction set and runtime alone.

On x86 the product of an unsigned with a signed byte is one instruction, so activations are unsigned (U8S8). Without
VNNI the instruction adds pairs of products in 16 bits, which saturate: weights then keep to 7 bits. S8S8 there falls
back to slower kernels (1.27 times here). On Arm both exist, and which is faster differs by core and by runtime
version, so both are timed. Channels of depthwise convolutions are padded for the kernel of onnxruntime on x86 alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latency_models.device import Device
from latency_models.failures import FileFailure, Outcome
from latency_models.graph import GraphInput
from latency_models.probe import write_probe
from latency_models.sessions import measured
from search_spaces.architecture import Architecture
from search_spaces.counts import macs
from search_spaces.lowering import lower
from search_spaces.precision import QuantizationPlan

_X86 = ("x86_64", "amd64", "i686", "i386")
_ARM = ("aarch64", "arm64", "armv7l", "armv8l")
_VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")

U8S8 = QuantizationPlan(activation="uint8")
U8S7 = QuantizationPlan(activation="uint8", reduce_range=True)
S8S8 = QuantizationPlan(activation="int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The 8-bit scheme of a device and why it is that.

    Attributes:
        plan: The scheme.
        reason: One sentence.
    """

    plan: QuantizationPlan
    reason: str


def candidates(fingerprint: Mapping[str, str]) -> tuple[QuantizationPlan, ...]:
    """Return the schemes that may be the fastest on a device with that fingerprint, by instruction set.

    One where the instruction set decides, two where only a clock can; whether channels are padded is left to
    `choose_scheme`. A device that tells no machine (a table, a program) gets U8S8 alone; its description should say
    otherwise where that is wrong.
    """
    machine = _machine(fingerprint)
    if machine in _ARM:
        return (S8S8, U8S8)
    if machine in _X86:
        has_vnni = any(name in _VNNI for name in fingerprint.get("instruction_sets", "").split())
        return (U8S8,) if has_vnni else (U8S7,)
    return (U8S8,)


def _machine(fingerprint: Mapping[str, str]) -> str:
    return fingerprint.get("machine", "").split(" ")[0].lower()


def choose_scheme(
    device: Device,
    fingerprint: Mapping[str, str],
    architectures: Sequence[Architecture],
    graph_input: GraphInput,
    *,
    folder: Path,
) -> Scheme:
    """Return the scheme of a device; where two are possible, the one whose files it runs faster.

    Args:
        device: Where to time; a device that names its own `quantization` keeps it, less a padding that only x86 gains
            from.
        fingerprint: What its backend says about it.
        architectures: What to time, three of middling size are enough.
        graph_input: How files take their input.
        folder: Where files are written.

    Raises:
        MeasurementError: The device refuses files in every scheme, or never settles.
    """
    pads = device.plan.pad_depthwise and _machine(fingerprint) in ("", *_X86)
    if device.quantization is not None:
        named = replace(device.quantization, pad_depthwise=pads)
        return Scheme(plan=named, reason=f"{words(named)}, as the device's description says")
    plans = [replace(plan, pad_depthwise=pads) for plan in candidates(fingerprint)]
    if len(plans) > 1 and device.backend.live and "int8" in device.precisions and architectures:
        return _faster(device, plans, architectures, graph_input, folder)
    machine = fingerprint.get("machine", "")
    if not machine:
        return Scheme(plan=plans[0], reason=f"{words(plans[0])}, for a device that tells no instruction set")
    sets = [name for name in _VNNI if name in fingerprint.get("instruction_sets", "").split()]
    told = " ".join(sets) or "no VNNI"
    return Scheme(plan=plans[0], reason=f"{words(plans[0])}, for {machine} with {told}")


def _faster(
    device: Device,
    plans: Sequence[QuantizationPlan],
    architectures: Sequence[Architecture],
    graph_input: GraphInput,
    folder: Path,
) -> Scheme:
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(architectures, key=lambda known: macs(lower(known)))
    middle = ordered[len(ordered) // 4 :: max(1, len(ordered) // 3)][:3]
    files = []
    for plan in plans:
        for number, architecture in enumerate(middle):
            path = folder / f"scheme-{words(plan)}-{architecture.key}.onnx"
            write_probe(architecture, "int8", replace(device, quantization=plan), graph_input, path, seed=number)
            files.append(path)
    outcomes = measured(device.backend, files, [files[0], files[-1]])
    levels = np.array([_level(outcomes[start : start + len(middle)]) for start in range(0, len(outcomes), len(middle))])
    best, worst = int(levels.argmin()), int(levels.argmax())
    if np.isinf(levels[best]):
        raise next(outcome for outcome in outcomes if isinstance(outcome, FileFailure))
    if np.isinf(levels[worst]):
        return Scheme(
            plan=plans[best], reason=f"{words(plans[best])}, since the device refuses files in {words(plans[worst])}"
        )
    ratio = float(np.exp(levels[worst] - levels[best]))
    return Scheme(
        plan=plans[best],
        reason=f"{words(plans[best])}, measured {ratio:.2f} times as fast as {words(plans[worst])} on {len(middle)} "
        "networks",
    )


def _level(outcomes: Sequence[Outcome]) -> float:
    """Return the mean logarithm of the latencies of one scheme's files; infinite where one of them has none."""
    logs = [np.inf if isinstance(outcome, FileFailure) else np.log(outcome.latency_ms) for outcome in outcomes]
    return float(np.mean(logs))


def words(plan: QuantizationPlan) -> str:
    """Return a scheme's name in the field: activations, then weights, such as U8S8."""
    letter = "U8" if plan.activation == "uint8" else "S8"
    return f"{letter}S{'7' if plan.reduce_range else '8'}"


def suited(device: Device, fingerprint: Mapping[str, str], scheme: Scheme) -> Device:
    """Return the device with its scheme, and with file versions no newer than its runtime opens."""
    opset, ir_version = (int(fingerprint.get(name, 10**6)) for name in ("opset", "ir_version"))
    return replace(
        device,
        quantization=scheme.plan,
        opset=min(device.opset, opset),
        ir_version=min(device.ir_version, ir_version),
    )
