"""Results of a run as a pipeline would hand them over, written by hand so that the tests know every figure."""

import dataclasses

import numpy as np

from nas.candidate import Parity, StageRecord
from nas.results import Contender, DeliveredFile, LatencyFit, RunResults, SearchedNetwork, SearchSummary
from search_spaces.measurement import Measurement

CLASSES = tuple(str(digit) for digit in range(10))
BUDGET_MS = 0.25


def share(value, half=0.012, *, split="validation", n=360):
    lower, upper = max(0.0, value - half), min(1.0, value + half)
    return Measurement(
        value=value, unit="1", origin="measured", lower=lower, upper=upper, source=f"{split} split, {n} images"
    )


def ms(value, origin="measured", spread=0.01, source=""):
    return Measurement(
        value=value,
        unit="ms",
        origin=origin,
        lower=value * (1 - spread),
        upper=value * (1 + spread),
        source=source or "1 thread of this CPU",
    )


def counted(value, unit):
    return Measurement(value=float(value), unit=unit, origin="counted")


def parity(*, passed=True, agreement=0.997):
    return Parity(
        images=360,
        max_abs_difference=3.2e-6,
        max_abs_logit=11.4,
        relative_rms=2e-7,
        agreement=agreement,
        ties=1,
        passed=passed,
        reason="the file computes what the network computes" if passed else "top-1 differs on 12 images",
    )


def network(number, *, rung, metric, latency_ms, on_front=False, failed=""):
    return SearchedNetwork(
        key=f"{number:016x}",
        values={"stage1.family": "shuffle" if number % 3 else "inverted", "stage1.width": 16},
        metric=share(metric, 0.02),
        rung=rung,
        precision="int8" if number % 2 else "float32",
        figures={
            "latency_ms": ms(latency_ms, "predicted", 0.05),
            "macs": counted(400_000 + 31_000 * number, "MAC"),
            "parameters": counted(9_000 + 700 * number, "parameters"),
        },
        objective=latency_ms,
        on_front=on_front,
        failed=failed,
    )


def networks(seed, *, count=32, lift=0.0):
    """Return networks whose metric grows with latency, the front among them marked."""
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0.03, BUDGET_MS, count)
    metric = np.clip(0.80 + 0.12 * np.log(cost / 0.03) / 2 + lift + rng.normal(0, 0.025, count), 0, 0.985)
    rung = np.digitize(rng.random(count), [0.5, 0.8])
    front = [not ((cost <= cost[i]) & (metric > metric[i])).any() for i in range(count)]
    return tuple(
        network(i, rung=int(rung[i]), metric=float(metric[i]), latency_ms=float(cost[i]), on_front=front[i])
        for i in range(count)
    )


def summary(seed=1, *, sampler="guided", lift=0.01, hypervolume=0.1021, **changes):
    found = networks(seed, lift=lift)
    rng = np.random.default_rng(seed + 10)
    skipped = tuple(
        (float(cost), ("latency_ms",) if cost > BUDGET_MS else ("peak_memory_bytes",))
        for cost in rng.uniform(0.1, 0.6, 60)
    )
    told = {
        "sampler": sampler,
        "networks": found,
        "skipped": skipped,
        "duplicates": 7,
        "feasible_share": 0.184,
        "space_size": "48215040000000",
        "hypervolume": hypervolume,
        "reference_metric": 0.5,
        "reference_objective": BUDGET_MS,
        "complete": True,
        "seconds": 341.0,
        "rung_epochs": (2, 4, 8),
    }
    return SearchSummary(**told | changes)


def fit(precision, *, seed, networks=100, delivered=()):
    rng = np.random.default_rng(seed)
    known = rng.uniform(0.03, 0.5, networks)
    guess = known * (1 + rng.normal(0, 0.03, networks))
    error = np.abs(guess / known - 1)
    return LatencyFit(
        precision=precision,
        networks=networks,
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.1).mean()),
        mape=float(error.mean()),
        lanes=8 if precision == "float32" else 16,
        predicted_ms=tuple(guess.tolist()),
        measured_ms=tuple(known.tolist()),
        delivered_predicted_ms=tuple(guess for _, guess, _ in delivered),
        delivered_measured_ms=tuple(known for *_, known in delivered),
        delivered_files=tuple(name for name, *_ in delivered),
    )


def confusion(classes, *, images=36, seed=3):
    """Return a confusion matrix of equal classes in which every class loses a few images to others."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((classes, classes), dtype=int)
    for row in range(classes):
        lost = int(rng.integers(0, 5)) if classes > 1 else 0
        matrix[row, row] = images - lost
        for _ in range(lost):
            matrix[row, int((row + rng.integers(1, classes)) % classes)] += 1
    return tuple(tuple(row) for row in matrix.tolist())


def file(path, precision, *, metric, latency_ms, size, label="", classes=10, test=True, origin="measured"):
    matrix = confusion(classes)
    figures = {
        "metric": share(metric),
        "latency_ms": ms(latency_ms, origin, source=f"{path} on this CPU"),
        "file_bytes": Measurement(value=float(size), unit="bytes", origin="measured"),
        "weight_bytes": counted(size * 0.7 // 1, "bytes"),
        "peak_memory_bytes": counted(24_576, "bytes"),
        "macs": counted(1_482_240, "MAC"),
        "parameters": counted(41_226, "parameters"),
    }
    if origin == "measured":
        figures |= {
            "predicted_ms": ms(latency_ms * 1.03, "predicted", 0.06),
            "p50_ms": Measurement(value=latency_ms * 1.08, unit="ms", origin="measured"),
            "p95_ms": Measurement(value=latency_ms * 1.31, unit="ms", origin="measured"),
            "p99_ms": Measurement(value=latency_ms * 1.92, unit="ms", origin="measured"),
        }
    if test:
        figures["test_metric"] = share(metric - 0.006, split="test")
    return DeliveredFile(
        file=path,
        precision=precision,
        figures=figures,
        parity=parity(),
        label=label,
        recalls=tuple(row[i] / sum(row) for i, row in enumerate(matrix)) if test else (),
        confusion=matrix if test else (),
    )


def stage(name, verdict, *, metric, latency_ms, size, options=None, reason="", **changes):
    def figures(at):
        return {
            "accuracy": share(metric[at]),
            "latency_ms": ms(latency_ms[at]),
            "file_bytes": Measurement(value=float(size[at]), unit="bytes", origin="measured"),
        }

    points = 100 * (metric[1] - metric[0])
    told = {
        "stage": name,
        "options": options or {},
        "before": figures(0),
        "after": figures(1),
        "verdict": verdict,
        "reason": reason
        or f"accuracy changed by {points:+.2f} points, 90% interval [{points - 0.8:+.2f}, {points + 0.8:+.2f}] over "
        "360 images: within a drop of 1.00",
        "seconds": 21.4,
    }
    return StageRecord(**told | changes)


def stages(metric, latency_ms, size):
    pruned = (metric - 0.004, latency_ms * 0.82, int(size * 0.8))
    return (
        stage(
            "prune",
            "kept",
            metric=(metric, pruned[0]),
            latency_ms=(latency_ms, pruned[1]),
            size=(size, pruned[2]),
            options={"target": 0.8, "multiple": 8, "epochs": 3, "importance": "bn_scale"},
            notes=("hidden widths 96, 96, 144 became 64, 72, 112",),
        ),
        stage(
            "distill",
            "not worth it",
            metric=(pruned[0], pruned[0] + 0.001),
            latency_ms=(pruned[1], pruned[1]),
            size=(pruned[2], pruned[2]),
            figures={"accuracy_control": share(pruned[0] + 0.002), "accuracy_teacher": share(0.983)},
            notes=("training as long without the teacher was at least as good, so there was no gain",),
        ),
        stage(
            "quantize",
            "kept",
            metric=(pruned[0], pruned[0] - 0.002),
            latency_ms=(pruned[1], pruned[1] * 0.5),
            size=(pruned[2], pruned[2] // 3),
        ),
    )


def contender(name, family, *, folder, metric, latency_ms, size, meets=True, **changes):
    int8 = file(f"exports/{folder}/model.int8.onnx", "int8", metric=metric, latency_ms=latency_ms, size=size)
    plain = file(
        f"exports/{folder}/model.onnx",
        "float32",
        metric=metric + 0.002,
        latency_ms=2 * latency_ms,
        size=3 * size,
        test=False,
    )
    share_of = latency_ms / BUDGET_MS
    told = {
        "name": name,
        "family": family,
        "key": folder,
        "final_key": folder[::-1],
        "architecture": '{"format": 1, "input_shape": [1, 32, 32], "stages": []}',
        "stages": stages(metric + 0.006, 2.4 * latency_ms, 3 * size),
        "files": (int8, plain),
        "meets_budget": meets,
        "budget_reason": f"measured latency is {latency_ms:.3f} ms, {share_of:.0%} of the limit",
        "counted_by_fvcore": {"macs": counted(1_482_240, "MAC"), "parameters": counted(41_226, "parameters")},
        "seconds": 96.0,
    }
    return Contender(**told | changes)


def contenders():
    return (
        contender("search 1", "search", folder="3f9a11c2d07be654", metric=0.968, latency_ms=0.118, size=61_440),
        contender("search 2", "search", folder="a0c4e2f1b3d59687", metric=0.957, latency_ms=0.084, size=48_020),
        contender(
            "MobileNetV2 x0.35", "MobileNetV2", folder="77d2e1a09c3b4f58", metric=0.949, latency_ms=0.196, size=148_300
        ),
        contender(
            "MobileNetV3-small x0.5",
            "MobileNetV3-small",
            folder="5e6f7a8b9c0d1e2f",
            metric=0.941,
            latency_ms=0.223,
            size=211_870,
        ),
        contender(
            "ShuffleNetV2 x0.5",
            "ShuffleNetV2",
            folder="0123456789abcdef",
            metric=0.944,
            latency_ms=0.262,
            size=171_000,
            meets=False,
            budget_reason="measured latency is 0.262 ms, 5 % over the limit of 0.25 ms",
        ),
    )


def run_results(**changes):
    """Return the results of a run in which the search wins, with some fields replaced."""
    found = contenders()
    delivered = [(it.files[0].file, it.files[0].figures["latency_ms"].value) for it in found]
    told = {
        "name": "digits-demo",
        "task": "digits",
        "classes": CLASSES,
        "metric": "accuracy",
        "images": {"train": 1077, "validation": 360, "test": 360},
        "data_notes": (
            "Real images of handwritten digits from scikit-learn, enlarged from 8 to 32 px (stretch, bilinear).",
            "Split by seed 0, stratified by class: 60 % train, 20 % validation, 20 % test.",
            "No image of one split is identical to one of another.",
        ),
        "device": "this machine",
        "fingerprint": {
            "cpu": "Example CPU @ 2.10GHz",
            "runtime": "onnxruntime 1.31.1",
            "threads": "1",
            "core mask": "0",
            "governor": "unknown",
        },
        "live": True,
        "budget": {"latency_ms": BUDGET_MS, "peak_memory_bytes": 65_536.0},
        "level": 0.9,
        "fits": (
            fit("float32", seed=5),
            fit("int8", seed=6, delivered=[(path, known * 1.03, known) for path, known in delivered]),
        ),
        "search": summary(1),
        "control": summary(2, sampler="random", lift=-0.01, hypervolume=0.0958, seconds=322.0),
        "contenders": found,
        "winner": "search 1",
        "verdict": "The search wins: search 1 is 1.9 points more accurate on validation than MobileNetV2 x0.35, the "
        "best network made by hand within the budget, at 0.60 times its measured latency.",
        "seconds": {
            "data": 1.8,
            "probing": 44.0,
            "search": 341.0,
            "control": 322.0,
            "teacher": 61.0,
            "training": 118.0,
            "stages": 96.0,
            "export": 38.0,
        },
        "seeds": {"run": 0, "split": 0, "search": 1871, "training": 99183},
        "environment": {"python": "3.11.2", "torch": "2.13.0", "onnxruntime": "1.31.1", "machine": "x86_64"},
        "warnings": ("360 validation images cannot resolve changes below 0.83 points.",),
    }
    return RunResults(**told | changes)


def hand_made_wins():
    return run_results(
        winner="MobileNetV2 x0.35",
        verdict="The search does not win: MobileNetV2 x0.35 is as accurate and no slower.",
    )


def without_timing():
    """Return a run on a device that times nothing: MACs were minimized, nothing is in milliseconds."""

    def untimed(it):
        figures = {name: known for name, known in it.figures.items() if known.unit != "ms"}
        return dataclasses.replace(it, figures=figures)

    def counted_only(search):
        found = [dataclasses.replace(untimed(it), objective=it.figures["macs"].value) for it in search.networks]
        best = [all(other.metric.value < it.metric.value for other in found[:at]) for at, it in enumerate(found)]
        marked = tuple(dataclasses.replace(it, on_front=front) for it, front in zip(found, best, strict=True))
        return dataclasses.replace(search, networks=marked, reference_objective=2e6, skipped=((3e6, ("macs",)),))

    def bare(record):
        without = {"before": {"accuracy": record.before["accuracy"]}, "after": {"accuracy": record.after["accuracy"]}}
        return dataclasses.replace(record, **without)

    finished = tuple(
        dataclasses.replace(
            it,
            files=tuple(untimed(delivered) for delivered in it.files),
            stages=tuple(bare(record) for record in it.stages),
            budget_reason="1,482,240 MACs, 74 % of the limit",
        )
        for it in contenders()
    )
    return run_results(
        device="STM32H743",
        live=False,
        fits=(),
        budget={"macs": 2e6, "peak_memory_bytes": 65_536.0},
        search=counted_only(summary(1)),
        control=None,
        contenders=finished,
        verdict="The search wins at equal MACs.",
    )


def tabulated():
    """Return a run on a device known from a table: nothing of it was measured here."""
    made = contenders()[0]
    int8 = file("exports/a/model.int8.onnx", "int8", metric=0.95, latency_ms=0.2, size=50_000, origin="predicted")
    fits = (dataclasses.replace(fit("int8", seed=6), origin="tabulated"),)
    return run_results(
        device="phone table", live=False, fits=fits, contenders=(dataclasses.replace(made, files=(int8,)),)
    )


def many_classes(count=100):
    """Return a run whose classes have long names, one without a test image."""
    names = tuple(f"class {number:03d} with a rather long name" for number in range(count))
    made = contenders()[0]
    int8 = file("exports/a/model.int8.onnx", "int8", metric=0.7, latency_ms=0.2, size=50_000, classes=count)
    matrix = (*int8.confusion[:-1], (0,) * count)
    recalls = (*int8.recalls[:-1], -1.0)
    shipped = dataclasses.replace(int8, confusion=matrix, recalls=recalls)
    return run_results(classes=names, contenders=(dataclasses.replace(made, files=(shipped,)),))
