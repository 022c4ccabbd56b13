"""What every search space must fulfil: as a report, which `nas check --space NAME` prints, and as tests to inherit."""

import inspect
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nas.testing.blocks import block_text, builds_alike, fresh, runs_as_lowered
from nas.testing.contract import ContractError, sampled, told
from nas.testing.modules import check_gradients, images, onnx_equals, same_as_lowered
from search_spaces import counts, memory
from search_spaces.architecture import BLOCKS, Architecture, Block, Shape
from search_spaces.build import build
from search_spaces.errors import LoweringError
from search_spaces.lowering import lower
from search_spaces.precision import QuantizationPlan, with_precision
from search_spaces.space import Row, Rows, SearchSpace, crossover, decode, mutate, num_options, sample, values
from search_spaces.workload import Workload


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
    with told("the space cannot be hashed; make it a frozen dataclass of hashable fields"):
        hash(space)
    if not (space.choices == space.choices and space == space):
        raise ContractError("`choices` differs from one call to the next")
    names = [choice.name for choice in space.choices]
    if len(set(names)) != len(names):
        raise ContractError(f"two choices share a name: {sorted(names)}")
    if rows.shape[1] != len(names):
        raise ContractError(f"rows have {rows.shape[1]} numbers, there are {len(names)} choices")


def decode_is_total(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless random rows, both extreme rows and every option by itself decode.

    Some decoders lower the blocks that they make; what a block does wrong there is left to `blocks_lower`.
    """
    for row in _with_extremes(space, rows):
        try:
            architecture = _decoded(space, row)
        except ContractError as error:
            if _is_of_a_block(error.__cause__):
                continue
            raise
        if not isinstance(architecture, Architecture):
            raise ContractError(f"decode gives a {type(architecture).__name__}, no Architecture", _json(space, row))


def blocks_lower(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless the blocks of the same rows hash, build and lower."""
    for row in _with_extremes(space, rows):
        with told("decode made a block that cannot be used", _json(space, row)):
            architecture = decode(space, row)
            for block in architecture.blocks:
                hash(block)
            lower(architecture)


def blocks_build_alike(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless each block gives the same operators whenever it is built."""
    for row, found in _blocks(space, rows):
        with sampled(_json(space, row)):
            builds_alike(*found)


def architectures_survive_json(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless JSON gives an equal network with an equal key, and decoding is repeatable."""
    for row in rows:
        architecture = _decoded(space, row)
        with told("the network has no JSON form", _json(space, row)):
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
        with told("the network cannot be lowered", _json(space, row)):
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
    for row, found in _blocks(space, rows):
        with sampled(_json(space, row)):
            runs_as_lowered(*found)
    for row in rows:
        architecture, raw = _built(space, row)
        with told("the network cannot be built", _json(space, row)):
            network = build(architecture).eval()
            with torch.no_grad():
                y = network(images(architecture.input_shape, 2))
        with sampled(_json(space, row)):
            same_as_lowered(
                network, raw, architecture.input_shape, tuple(y.shape), finite=bool(torch.isfinite(y).all())
            )


def onnx_equals_torch(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless the lowering, written to ONNX with real weights, computes what torch computes."""
    for row in rows:
        architecture, raw = _built(space, row)
        with sampled(_json(space, row)):
            try:
                onnx_equals(build(architecture), raw, architecture.input_shape)
            except ContractError as error:
                raise _blamed(error, architecture, raw) from error


def gradients_reach_every_parameter(space: SearchSpace, rows: Rows) -> None:
    """Raise ContractError unless one step of training gives every parameter a finite gradient that is not all zero."""
    for row in rows:
        architecture, _ = _built(space, row)
        with sampled(_json(space, row)):
            check_gradients(build(architecture), architecture.input_shape)


SPACE_CHECKS: dict[str, Callable[[SearchSpace, Rows], None]] = {
    "choices are fixed": choices_are_fixed,
    "decode is total": decode_is_total,
    "blocks build and lower": blocks_lower,
    "blocks build alike every time": blocks_build_alike,
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
    {choices_are_fixed, decode_is_total, blocks_lower, architectures_survive_json, keys_are_stable, costs_are_finite,
     mutation_stays_inside}
)  # fmt: skip


class SpaceContract:
    """Tests every search space passes; a subclass defines the fixture `space`."""

    rows = 20

    def test_choices_are_fixed(self, space: SearchSpace) -> None:
        """The space is a value with fixed choices."""
        choices_are_fixed(space, self._rows(space))

    def test_decode_is_total(self, space: SearchSpace) -> None:
        """Every row is a network."""
        decode_is_total(space, self._rows(space))

    def test_blocks_lower(self, space: SearchSpace) -> None:
        """Every block builds and has a price."""
        blocks_lower(space, self._rows(space))

    def test_blocks_build_alike(self, space: SearchSpace) -> None:
        """A block is a value: it always builds the same."""
        blocks_build_alike(space, self._rows(space)[:3])

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


def _one_row() -> Rows:
    return np.zeros((1, 0), dtype=np.int64)


def _with_extremes(space: SearchSpace, rows: Rows) -> list[Row]:
    """Return the rows, after both extreme ones and every option by itself."""
    sizes = num_options(space)
    every = [np.zeros(len(sizes), dtype=np.int64), sizes - 1]
    for column, size in enumerate(sizes):
        alone = np.arange(len(sizes)) == column
        every += [np.where(alone, number, 0) for number in range(1, int(size))]
    return [*every, *rows]


def _blocks(space: SearchSpace, rows: Rows) -> Iterator[tuple[Row, tuple[Block, Shape]]]:
    """Yield every block of the rows' networks once for each shape it gets, with the first row that has it."""
    seen: set[tuple[Block, Shape]] = set()
    for row in rows:
        architecture, raw = _built(space, row)
        for block, segment in zip(architecture.blocks, raw.segments, strict=True):
            found = (block, segment.input.shape[1:])
            if found not in seen:
                seen.add(found)
                yield row, found


def _is_of_a_block(error: BaseException | None) -> bool:
    """Tell whether a decoder stumbled over a block that it made: one that does not lower, or does not hash."""
    if not isinstance(error, TypeError) or "unhashable type" not in str(error):
        return isinstance(error, LoweringError)
    kinds = tuple(BLOCKS.get(name) for name in BLOCKS.names())
    last = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return isinstance(last.f_locals.get("self"), kinds) or any(f"'{kind.__name__}'" in str(error) for kind in kinds)


def _blamed(error: ContractError, architecture: Architecture, raw: Workload) -> ContractError:
    """Return the error of the first block that by itself is not written as it computes, else the network's own."""
    for block, segment, scope in zip(architecture.blocks, raw.segments, raw.scopes, strict=True):
        shape = segment.input.shape[1:]
        try:
            onnx_equals(fresh(block, shape), Workload((segment,), ("",)), shape)
        except ContractError as of_block:
            return ContractError(f"{scope}, {block_text(block)}: {of_block.reason}")
    return error


def _decoded(space: SearchSpace, row: Row) -> Architecture:
    with told("decode raises", _json(space, row)):
        return decode(space, row)


def _built(space: SearchSpace, row: Row) -> tuple[Architecture, Workload]:
    architecture = _decoded(space, row)
    return architecture, lower(architecture)


def _json(space: SearchSpace, row: Row) -> str:
    return json.dumps(values(space, row), sort_keys=True)


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
