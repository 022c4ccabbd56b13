"""A small mixed space on a device whose latency is a formula, and a training that is one too: no clocks, no torch."""

import hashlib
import math

import numpy as np

from latency_models.additive import Additive
from latency_models.device import Device
from latency_models.features import kernel_kind
from latency_models.prediction import Sample
from latency_models.timing import Timing
from nas.search.objectives import Budget, RowCosts
from nas.search.study import Trained
from search_spaces.counts import op_macs
from search_spaces.lowering import lower
from search_spaces.measurement import Measurement
from search_spaces.mixed import MixedSpace
from search_spaces.precision import with_precision
from search_spaces.space import decode, sample

SPACE = MixedSpace(
    classes=4,
    widths=((8, 16), (16, 24), (24, 32)),
    depths=(1, 2),
    expansions=(2, 4),
    activations=("relu",),
    head_widths=(32, 64),
)


class Formula:
    """A backend that computes what another would time."""

    def __init__(self, per_op=0.002, per_mac=2e-9, per_depthwise_mac=1.5e-8):
        self.per_op, self.per_mac, self.per_depthwise_mac = per_op, per_mac, per_depthwise_mac

    def fingerprint(self):
        return {"backend": "formula"}

    def measure(self, artefacts, reference):
        return [Timing(path.name, (np.ones(1),)) for path in artefacts]

    def milliseconds(self, workload) -> float:
        total = 0.01
        for op in workload:
            rate = self.per_depthwise_mac if kernel_kind(op) == "depthwise" else self.per_mac
            total += self.per_op + op_macs(op) * rate * (0.5 if op.dtype == "int8" else 1.0)
        return total


def device(name="formula", **rates):
    return Device(name=name, backend=Formula(**rates))


def predictors(target):
    rows = sample(SPACE, 60, np.random.default_rng(5))
    workloads = [lower(decode(SPACE, row)) for row in rows]
    fitted = {}
    for precision, plan in (("float32", None), ("int8", target.quantization)):
        shipped = [with_precision(workload, plan) for workload in workloads]
        samples = [Sample(workload, target.backend.milliseconds(workload)) for workload in shipped]
        fitted[precision] = Additive().fit(target, samples)
    return fitted


def costs(budget=None, target=None, **options):
    target = target or device()
    return RowCosts(SPACE, target, predictors(target), budget or Budget(latency_ms=0.08), **options)


def accuracy(architecture, epochs) -> float:
    """More channels and larger kernels help, later and with a little luck."""
    blocks = [block for block in architecture.blocks if hasattr(block, "kernel") and hasattr(block, "hidden")]
    size = sum(math.log(block.hidden * block.width) + 0.3 * (block.kernel == 5) for block in blocks)
    luck = int(hashlib.sha256(architecture.key.encode()).hexdigest()[:8], 16) / 2**32
    return (1.0 - math.exp(-size / 30.0) + 0.02 * luck) * (1.0 - 0.3 / epochs)


def train(work):
    for item in work:
        yield Trained(
            key=item.key,
            metric=Measurement(value=accuracy(item.architecture, item.until_epoch), unit="1", origin="measured"),
            seconds=1.0,
        )
