"""A device: how it is reached, what it can run, and how much memory it has."""

from dataclasses import dataclass, field

from latency_models.timing import Backend
from search_spaces.errors import DeviceError, near_matches
from search_spaces.precision import Precision, QuantizationPlan
from search_spaces.workload import KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRegion:
    """One contiguous stretch of memory that can hold the activation arena."""

    name: str
    num_bytes: int

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A target.

    Attributes:
        name: For reports and for the file its measurements are kept in.
        backend: How it is reached.
        quantization: The 8-bit scheme of its instruction set and runtime; never the host's.
        precisions: What it can run.
        allow_ops: Operator kinds it can run; empty for all.
        ram: Memory regions; the arena must fit the largest. Empty where memory is no concern.
        reserve_bytes: Of that region, taken by the runtime, camera and input buffers.
        flash_bytes: For weights and code; 0 where it is no concern.
        code_bytes: Of that, taken by program code.
        alignment: Channels that fill the lanes of its vector unit; narrower steps buy no time.
        opset: Highest ONNX opset of its runtime.
        ir_version: Highest ONNX IR version of its runtime.
    """

    name: str
    backend: Backend
    quantization: QuantizationPlan = field(default_factory=QuantizationPlan)
    precisions: tuple[Precision, ...] = ("float32", "int8")
    allow_ops: tuple[str, ...] = ()
    ram: tuple[MemoryRegion, ...] = ()
    reserve_bytes: int = 0
    flash_bytes: int = 0
    code_bytes: int = 0
    alignment: int = 8
    opset: int = 18
    ir_version: int = 8

    def __post_init__(self) -> None:
        for kind in self.allow_ops:
            if kind not in KINDS:
                raise DeviceError(
                    f"device {self.name!r}: allow_ops holds {kind!r}, no operator kind; {near_matches(kind, KINDS)}"
                )
        for precision in self.precisions:
            if precision not in ("float32", "int8"):
                raise DeviceError(f"device {self.name!r}: precisions holds {precision!r}, not float32 or int8")

    @property
    def arena_bytes(self) -> int | None:
        """Bytes the activation arena may take: the largest region less what is reserved; None for no limit."""
        if not self.ram:
            return None
        return max(region.num_bytes for region in self.ram) - self.reserve_bytes

    @property
    def weight_limit_bytes(self) -> int | None:
        """Bytes that weights, biases and quantization tables may take; None for no limit."""
        return self.flash_bytes - self.code_bytes if self.flash_bytes else None
