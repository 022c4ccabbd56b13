"""A device: how it is reached, what it can run, and how much memory it has."""

from dataclasses import dataclass, replace

from latency_models.backends.memory import Memory
from latency_models.timing import Backend
from search_spaces.errors import ConfigError, near_matches
from search_spaces.precision import Precision, QuantizationPlan
from search_spaces.workload import KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRegion:
    """One contiguous stretch of memory that can hold the activation arena."""

    name: str
    num_bytes: int

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, never changed

    def __post_init__(self) -> None:
        if self.num_bytes < 1:
            raise ValueError(f"num_bytes of memory region {self.name!r} must be above 0, got {self.num_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A target.

    Attributes:
        name: For reports and for the file its measurements are kept in.
        backend: How it is reached.
        quantization: The 8-bit scheme; None for that of its own instruction set and runtime, found by
            `int8_scheme.choose_scheme`, never the host's.
        precisions: What it can run.
        allow_ops: Operator kinds it can run; empty for all.
        ram: Memory regions; the arena must fit the largest. Empty where memory is no concern.
        reserve_bytes: Of that region, taken by the runtime, camera and input buffers.
        flash_bytes: For weights and code; 0 where it is no concern.
        code_bytes: Of that, taken by program code.
        in_place: Whether its runtime lets a depthwise convolution overwrite its input, as MCUNet's TinyEngine does.
        patches: Whether its runtime computes the first blocks of a network that would not fit patch by patch, as
            MCUNetV2's TinyEngine does; memory and MACs are then those of `search_spaces.patches.patches_above`.
        alignment: Channels that fill the lanes of its vector unit; narrower steps buy no time.
        opset: Highest ONNX opset of its runtime.
        ir_version: Highest ONNX IR version of its runtime.
    """

    name: str
    backend: Backend
    quantization: QuantizationPlan | None = None
    precisions: tuple[Precision, ...] = ("float32", "int8")
    allow_ops: tuple[str, ...] = ()
    ram: tuple[MemoryRegion, ...] = ()
    reserve_bytes: int = 0
    flash_bytes: int = 0
    code_bytes: int = 0
    in_place: bool = False
    patches: bool = False
    alignment: int = 8
    opset: int = 18
    ir_version: int = 8

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"the name of a device names a file, so it needs letters and no slash, got {self.name!r}")
        for kind in self.allow_ops:
            if kind not in KINDS:
                raise ConfigError(
                    f"device {self.name!r}: allow_ops holds {kind!r}, no operator kind; {near_matches(kind, KINDS)}"
                )
        if not self.precisions:
            raise ConfigError(f"device {self.name!r}: precisions is empty, expected float32, int8 or both")
        for precision in self.precisions:
            if precision not in ("float32", "int8"):
                raise ConfigError(f"device {self.name!r}: precisions holds {precision!r}, not float32 or int8")
        self._check_memory()

    def _check_memory(self) -> None:
        for name in ("reserve_bytes", "flash_bytes", "code_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"device {self.name!r}: {name} must not be negative, got {getattr(self, name)}")
        if self.arena_bytes is not None and self.arena_bytes <= 0:
            raise ConfigError(
                f"device {self.name!r}: reserve_bytes is {self.reserve_bytes}, the largest of its memory regions has "
                f"{self.arena_bytes + self.reserve_bytes} bytes; nothing is left for activations"
            )
        if self.weight_limit_bytes is not None and self.weight_limit_bytes <= 0:
            raise ConfigError(
                f"device {self.name!r}: code_bytes is {self.code_bytes} of {self.flash_bytes} flash_bytes; nothing is "
                "left for weights"
            )
        if (self.reserve_bytes and not self.ram) or (self.code_bytes and not self.flash_bytes):
            lacking = "ram" if self.reserve_bytes and not self.ram else "flash_bytes"
            raise ConfigError(
                f"device {self.name!r}: a part of its memory is taken, but {lacking} says not of how much"
            )

    @property
    def plan(self) -> QuantizationPlan:
        """The 8-bit scheme; until one was chosen, unsigned activations with signed weights.

        Where nothing is timed, or patches are computed, no channel is padded for the sake of onnxruntime's kernels.
        """
        plan = self.quantization or QuantizationPlan()
        return replace(plan, pad_depthwise=plan.pad_depthwise and self.is_timed and not self.patches)

    @property
    def is_timed(self) -> bool:
        """Whether latency can be known at all; without it MACs are counted instead."""
        return not isinstance(self.backend, Memory)

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
