"""Conformance: what every search space and block must fulfil, as a report and as test classes to inherit.

`nas check --space NAME` calls `check_space`. In a plug-in's own tests, one fixture is enough:

    class TestMySpace(SpaceContract):
        @pytest.fixture
        def space(self):
            return MySpace()

Every check raises ContractError with the first sample that fails, as JSON.
"""

import inspect
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from latency_models.graph import GraphInput, float_model
from search_spaces import counts, memory
from search_spaces.architecture import Architecture, Block, Shape, block_from_dict, block_to_dict
from search_spaces.build import build
from search_spaces.lowering import lower, lower_block, record
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.space import Row, Rows, SearchSpace, crossover, decode, mutate, num_options, sample, values
from search_spaces.workload import Workload

ONNX_TOLERANCE = 1e-5
"""Greatest difference of the written network from torch, as a share of the largest output."""

_DRAWS = 4
"""Draws of parameters with a zero gradient; by chance a live layer of 8 ReLUs is off in all of them once in 10^9."""

_ROUNDING = 1e-6
"""Greatest difference between outputs that count as equal, as a share of the largest."""


class ContractError(AssertionError):
    """A plug-in does not do what every one of its kind must; `sample` is the JSON of what showed it."""

    def __init__(self, reason: str, sample: str = "") -> None:
        super().__init__(f"{reason}; sample: {sample}" if sample else reason)
        self.reason, self.sample = reason, sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformance:
    """What a conformance check found.

    Attributes:
        subject: What was checked.
        samples: Networks decoded.
        built: Of those, networks built, trained one step and written as ONNX.
        passed: Names of the checks that held, in order; checking ends with the first that does not.
        failed: Name of the check that did not hold; empty where all did.
        reason: Why.
        sample: JSON of the first sample that failed.
    """

    subject: str
    samples: int
    built: int
    passed: tuple[str, ...]
    failed: str = ""
    reason: str = ""
    sample: str = ""

    def __str__(self) -> str:
        """Return the report: one line a check, and the failing sample."""
        lines = [f"  pass  {name}" for name in self.passed]
        if self.failed:
            lines += [f"  FAIL  {self.failed}: {self.reason}", f"  sample {self.sample}" if self.sample else ""]
        verdict = "fails" if self.failed else "passes"
        head = f"{self.subject} {verdict} ({self.samples} networks decoded, {self.built} built)"
        return "\n".join([head, *filter(None, lines)])


def check_space(
    space: SearchSpace, *, name: str = "", samples: int = 100, built: int = 5, seed: int = 0
) -> Conformance:
    """Run every check of a search space and return what it found.

    Args:
        space: What is checked.
        name: For the report; the class's by default.
        samples: Random networks that are decoded and priced, besides extreme rows and mutants.
        built: Of those, networks that are built, trained one step and written as ONNX.
        seed: Of the samples.
    """
    rows = sample(space, max(samples, built), np.random.default_rng(seed)) if space.choices else _one_row()
    passed: list[str] = []
    broken: ContractError | None = None
    failed = ""
    for label, check in SPACE_CHECKS.items():
        try:
            check(space, rows if check in _CHEAP else rows[:built])
        except ContractError as error:
            broken, failed = error, label
            break
        passed.append(label)
    return Conformance(
        subject=f"space {name or type(space).__name__}",
        samples=len(rows),
        built=built,
        passed=tuple(passed),
        failed=failed,
        reason=broken.reason if broken else "",
        sample=broken.sample if broken else "",
    )


# -- checks of a space


def choices_are_fixed(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless the space is a value: hashable, equal to itself, with fixed, distinct choices."""
    with _told("the space cannot be hashed; make it a frozen dataclass of hashable fields"):
        hash(space)
    if not (space.choices == space.choices and space == space):
        raise ContractError("`choices` differs from one call to the next")
    names = [choice.name for choice in space.choices]
    if len(set(names)) != len(names):
        raise ContractError(f"two choices share a name: {sorted(names)}")
    if rows.shape[1] != len(names):
        raise ContractError(f"rows have {rows.shape[1]} numbers, there are {len(names)} choices")


def decode_is_total(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless random rows, both extreme rows and every option by itself decode."""
    sizes = num_options(space)
    every = [np.zeros(len(sizes), dtype=np.int64), sizes - 1]
    for column, size in enumerate(sizes):
        alone = np.arange(len(sizes)) == column
        every += [np.where(alone, number, 0) for number in range(1, int(size))]
    for row in [*every, *rows]:
        architecture = _decoded(space, row)
        if not isinstance(architecture, Architecture):
            raise ContractError(f"decode gives a {type(architecture).__name__}, no Architecture", _json(space, row))


def architectures_survive_json(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless JSON gives an equal network with an equal key, and decoding is repeatable."""
    for row in rows:
        architecture = _decoded(space, row)
        with _told("the network has no JSON form", _json(space, row)):
            again = Architecture.from_json(architecture.to_json())
        if again != architecture or again.key != architecture.key:
            raise ContractError("JSON gives another network back", _json(space, row))
        if _decoded(space, row).key != architecture.key:
            raise ContractError("decoding the same row twice gives two networks", _json(space, row))


def keys_are_stable(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless another process, with other hashes, decodes the same keys."""
    from pydantic import TypeAdapter

    cls = type(space)
    if "<locals>" in cls.__qualname__:
        raise ContractError(f"{cls.__qualname__} stands within a function; other processes cannot import it")
    asked = {
        "module": cls.__module__,
        "file": inspect.getfile(cls),
        "class": cls.__qualname__,
        "space": TypeAdapter(cls).dump_python(space, mode="json"),
        "rows": rows.tolist(),
    }
    hash_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(  # noqa: S603 - this interpreter, our own script
        [sys.executable, "-c", _OTHER_PROCESS], input=json.dumps(asked), capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise ContractError(f"another process cannot decode: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    for row, key in zip(rows, json.loads(done.stdout), strict=True):
        if _decoded(space, row).key != key:
            raise ContractError("another process decodes another network", _json(space, row))


def costs_are_finite(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless every network lowers, in both precisions, to finite costs above zero."""
    for row in rows:
        with _told("the network cannot be lowered", _json(space, row)):
            raw = lower(_decoded(space, row))
            shipped = [with_precision(raw, plan) for plan in (None, QuantizationPlan())]
        figures = {"MACs": counts.macs(raw), "parameters": counts.parameters(raw)}
        for workload in shipped:
            figures["weight bytes"] = counts.weight_bytes(workload)
            figures["traffic"] = counts.activation_traffic_bytes(workload)
            figures["peak memory"] = memory.peak_bytes(workload)
            for name, figure in figures.items():
                if not math.isfinite(figure) or figure <= 0:
                    raise ContractError(f"{name} {figure}, expected a finite number above 0", _json(space, row))
        classes = getattr(space, "classes", None)
        if classes is not None and raw.output.shape != (1, classes):
            raise ContractError(f"the network gives {raw.output.shape}, the space has {classes=}", _json(space, row))


def mutation_stays_inside(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless mutants and children are rows of the space, and decode."""
    rng, sizes = np.random.default_rng(0), num_options(space)
    mutants = mutate(space, rows, rng)
    children = crossover(rows, mutants, rng)
    for changed in (mutants, children):
        outside = ((changed < 0) | (changed >= sizes)).any(axis=1)
        if outside.any():
            raise ContractError(f"a mutant leaves the space: {changed[outside][0].tolist()}")
        for row in changed:
            _decoded(space, row)
    if (sizes > 1).any() and not (mutants != rows).any(axis=1).all():
        raise ContractError("a mutant equals its parent")


def modules_match_their_lowering(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless the built network executes just the operators and parameters that were priced."""
    for row in rows:
        architecture, raw = _built(space, row)
        with _told("the network cannot be built", _json(space, row)):
            network = build(architecture).eval()
            with torch.no_grad():
                y = network(_images(architecture.input_shape, 2))
        with _sampled(_json(space, row)):
            _same_as_lowered(
                network, raw, architecture.input_shape, tuple(y.shape), finite=bool(torch.isfinite(y).all())
            )


def onnx_equals_torch(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless the lowering, written to ONNX with real weights, computes what torch computes."""
    for row in rows:
        architecture, raw = _built(space, row)
        with _sampled(_json(space, row)):
            _onnx_equals(build(architecture), raw, architecture.input_shape)


def gradients_reach_every_parameter(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless one step of training gives every parameter a finite gradient that is not all zero."""
    for row in rows:
        architecture, _ = _built(space, row)
        with _sampled(_json(space, row)):
            check_gradients(build(architecture), architecture.input_shape)


SPACE_CHECKS: dict[str, Callable[[SearchSpace, Rows], None]] = {
    "choices are fixed": choices_are_fixed,
    "decode is total": decode_is_total,
    "JSON round trip": architectures_survive_json,
    "keys are stable across processes": keys_are_stable,
    "costs are finite": costs_are_finite,
    "mutation stays inside": mutation_stays_inside,
    "built modules match their lowering": modules_match_their_lowering,
    "written ONNX equals torch": onnx_equals_torch,
    "gradients reach every parameter": gradients_reach_every_parameter,
}
"""Every check of a space by what it promises, in the order in which they run."""

_CHEAP = frozenset(
    {choices_are_fixed, decode_is_total, architectures_survive_json, keys_are_stable, costs_are_finite,
     mutation_stays_inside}
)  # fmt: skip


# -- checks of a block


def check_block(block: Block, input_shape: Shape) -> None:
    """Raise ContractError unless a block is a value that builds what it lowers to, trains, and can be written."""
    text = json.dumps(_block_json(block))
    with _sampled(text):
        if block_from_dict(block_to_dict(block)) != block:
            raise ContractError("JSON gives another block back")
        with _told("the block cannot be lowered"):
            raw = Workload((lower_block(block, input_shape),), ("",))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = block.build(input_shape)
        with torch.no_grad():
            y = module.eval()(_images(input_shape, 2))
        _same_as_lowered(module, raw, input_shape, tuple(y.shape), finite=bool(torch.isfinite(y).all()))
        _onnx_equals(module, raw, input_shape)
        check_gradients(module, input_shape)


def check_gradients(module: nn.Module, input_shape: Shape) -> None:
    """Raise ContractError for a parameter without a finite gradient, or one whose gradient is always zero.

    Parameters that start as zeros hide what stands before them, and a ReLU may happen to be off for every image:
    both are drawn anew before a zero counts, so the module's weights change. A network that gives one output for
    every input, such as NAS-Bench-201's of nothing but "none", is exempt from zeros.

    Args:
        module: What is trained one step, or a few where gradients are zero.
        input_shape: Shape of one input, without the batch axis.
    """
    generator = torch.Generator().manual_seed(2)
    silent = [parameter for parameter in module.parameters() if not parameter.any()]
    module.train()
    for layer in module.modules():
        if isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.eval()  # or outputs of a constant network would differ
    for _ in range(_DRAWS):
        _redraw(silent, generator)
        module.zero_grad()
        y = module(_images(input_shape, 4))
        (y * torch.randn(y.shape, generator=generator)).sum().backward()
        for name, parameter in module.named_parameters():
            if parameter.grad is None:
                raise ContractError(f"no gradient reaches {name}")
            if not bool(torch.isfinite(parameter.grad).all()):
                raise ContractError(f"the gradient of {name} is not finite")
        if _is_constant(y.detach()):
            return
        zero = {name: parameter for name, parameter in module.named_parameters() if not _any(parameter.grad)}
        if not zero:
            return
        silent = list(zero.values())
    raise ContractError(f"the gradient of {next(iter(zero))} is always zero: nothing it computes reaches the output")


# -- test classes


class SpaceContract:
    """Tests every search space passes; a subclass defines the fixture `space`."""

    rows = 20

    def test_choices_are_fixed(self, space: SearchSpace) -> None:
        """The space is a value with fixed choices."""
        choices_are_fixed(space, self._rows(space))

    def test_decode_is_total(self, space: SearchSpace) -> None:
        """Every row is a network."""
        decode_is_total(space, self._rows(space))

    def test_architectures_survive_json(self, space: SearchSpace) -> None:
        """Networks can be written down and read back."""
        architectures_survive_json(space, self._rows(space))

    def test_keys_are_stable(self, space: SearchSpace) -> None:
        """Another process gives networks the same keys."""
        keys_are_stable(space, self._rows(space))

    def test_costs_are_finite(self, space: SearchSpace) -> None:
        """Every network has a price."""
        costs_are_finite(space, self._rows(space))

    def test_mutation_stays_inside(self, space: SearchSpace) -> None:
        """Mutants and children are rows."""
        mutation_stays_inside(space, self._rows(space))

    def test_modules_match_their_lowering(self, space: SearchSpace) -> None:
        """What is priced is what is built."""
        modules_match_their_lowering(space, self._rows(space)[:3])

    def test_onnx_equals_torch(self, space: SearchSpace) -> None:
        """What is written computes what torch computes."""
        onnx_equals_torch(space, self._rows(space)[:3])

    def test_gradients_reach_every_parameter(self, space: SearchSpace) -> None:
        """Networks can be trained."""
        gradients_reach_every_parameter(space, self._rows(space)[:3])

    def _rows(self, space: SearchSpace) -> Rows:
        return sample(space, self.rows, np.random.default_rng(0)) if space.choices else _one_row()


class BlockContract:
    """Tests every block passes; a subclass defines the fixture `example`: a block and an input shape it takes."""

    def test_block_is_a_hashable_value(self, example: tuple[Block, Shape]) -> None:
        """Blocks are compared and used as keys."""
        block, _ = example
        if hash(block) != hash(block_from_dict(block_to_dict(block))):
            raise ContractError("equal blocks have unequal hashes", json.dumps(_block_json(block)))

    def test_block_fulfils_the_contract(self, example: tuple[Block, Shape]) -> None:
        """A block builds what it lowers to, trains, and can be written as ONNX."""
        check_block(*example)


# -- what checks of spaces and blocks share


def _same_as_lowered(module: nn.Module, raw: Workload, shape: Shape, given: Shape, *, finite: bool) -> None:
    if given[1:] != raw.output.shape[1:]:
        raise ContractError(f"the module gives {given[1:]}, its lowering {raw.output.shape[1:]}")
    if not finite:
        raise ContractError("a fresh module gives values that are not finite")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if counts.parameters(raw) != parameters:
        raise ContractError(
            f"the module has {parameters} parameters, its lowering {counts.parameters(raw)}: one is never used"
        )
    executed, lowered = [op.kind for op in record(module, shape)], [op.kind for op in raw]
    if executed != lowered:
        raise ContractError(f"the module executes {executed}, its lowering has {lowered}")


def _onnx_equals(module: nn.Module, raw: Workload, shape: Shape) -> None:
    import onnxruntime

    module.train()
    with torch.no_grad():  # statistics of batches: with those of a fresh network signals die within a few layers
        for _ in range(3):
            module(_images(shape, 8))
        expected = module.eval()(_images(shape, 2)).numpy()
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    with _told("the network has no ONNX form"):
        model = float_model(raw, weights=weights, graph_input=GraphInput(dtype="float32", layout="nchw"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with _told("onnxruntime refuses the file"):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    given = np.concatenate([session.run(None, {name: image[None]})[0] for image in _images(shape, 2).numpy()])
    share = float(np.abs(given - expected).max() / max(float(np.abs(expected).max()), 1e-30))
    if not share <= ONNX_TOLERANCE:
        raise ContractError(f"the written network differs from torch by {share:.2g} of its largest output")


def _any(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and bool(tensor.any())


def _redraw(parameters: Iterable[nn.Parameter], generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            fan_in = math.prod(parameter.shape[1:])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))


def _is_constant(y: torch.Tensor) -> bool:
    """Tell whether all images of a batch gave one output, but for rounding."""
    return float((y - y[:1]).abs().max()) <= _ROUNDING * float(y.abs().max())


def _images(shape: Shape, count: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def _one_row() -> Rows:
    return np.zeros((1, 0), dtype=np.int64)


def _decoded(space: SearchSpace, row: Row) -> Architecture:
    with _told("decode raises", _json(space, row)):
        return decode(space, row)


def _built(space: SearchSpace, row: Row) -> tuple[Architecture, Workload]:
    architecture = _decoded(space, row)
    return architecture, lower(architecture)


def _json(space: SearchSpace, row: Row) -> str:
    return json.dumps(values(space, row), sort_keys=True)


def _block_json(block: Block) -> object:
    with _told("the block has no JSON form"):
        return block_to_dict(block)


@contextmanager
def _told(what: str, sample: str = "") -> Iterator[None]:
    """Turn whatever a plug-in raises into ContractError: it is somebody else's code, and this is its report."""
    try:
        yield
    except ContractError:
        raise
    except Exception as error:
        raise ContractError(f"{what}: {type(error).__name__}: {error}", sample) from error


@contextmanager
def _sampled(sample: str) -> Iterator[None]:
    """Add the sample to what is broken within, and report whatever else a plug-in raises."""
    try:
        yield
    except ContractError as error:
        raise ContractError(error.reason, error.sample or sample) from error
    except Exception as error:
        raise ContractError(f"{type(error).__name__}: {error}", sample) from error


_OTHER_PROCESS = """
import importlib, json, sys
from operator import attrgetter

import numpy as np
from pydantic import TypeAdapter

from search_spaces.registry import load_plugin_file
from search_spaces.space import decode

asked = json.load(sys.stdin)
try:
    module = importlib.import_module(asked["module"])
except ModuleNotFoundError:
    load_plugin_file(asked["file"])
    module = sys.modules[asked["module"]]
cls = attrgetter(asked["class"])(module)
space = TypeAdapter(cls).validate_json(json.dumps(asked["space"]))
print(json.dumps([decode(space, np.array(row, dtype=np.int64)).key for row in asked["rows"]]))
"""
