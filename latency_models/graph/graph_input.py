"""How a file takes an image: type, layout, normalization and batch of its input."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces.architecture import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInput:
    """How the file takes an image; the input is named "image".

    Attributes:
        dtype: "uint8": raw pixels, and the file computes (pixel - mean) / std. "float32": normalized images.
        layout: "nhwc": batch x height x width x channels, as decoders give them. "nchw": as torch has them.
        mean: Subtracted from pixels, in raw units (0 to 255); one for all channels or one per channel.
        std: What the difference is divided by, in the same units; one for all channels or one per channel.
        batch: Images of one run; None leaves the axis open.

    With "float32" mean and std only tell the int8 file which values a normalized image can take. A network that
    takes no image (tokens, say) has its own shape and "float32"; the layout is then without meaning.
    """

    dtype: Literal["uint8", "float32"] = "uint8"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    mean: tuple[float, ...] = (128.0,)
    std: tuple[float, ...] = (64.0,)
    batch: int | None = 1

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "float32") or self.layout not in ("nhwc", "nchw"):
            raise ValueError(
                f"dtype must be uint8 or float32 and layout nhwc or nchw, got {self.dtype=}, {self.layout=}"
            )
        if not self.mean or not self.std or min(self.std) <= 0.0:
            raise ValueError(f"mean and std need a value, and std is positive, got {self.mean=}, {self.std=}")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch must be at least 1, or None for any, got {self.batch}")

    def normalization(self, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and std of every channel; raises ValueError where their number does not fit."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"{name} needs 1 or {channels} values for {channels} channels, got {values}")
        mean, std = (np.broadcast_to(np.asarray(values, np.float64), (channels,)) for values in (self.mean, self.std))
        return mean, std

    def shape(self, network_input: Shape) -> tuple[int | None, ...]:
        """Return the shape of the file's input for a network whose own is `1 x channels x height x width`.

        Raises:
            ValueError: The network takes no image, and the file should.
        """
        if len(network_input) == 4:
            _, channels, height, width = network_input
            self.normalization(channels)
            sides = (height, width, channels) if self.layout == "nhwc" else (channels, height, width)
            return (self.batch, *sides)
        if self.dtype == "uint8":
            raise ValueError(
                f"a network with an input of {network_input[1:]} takes no image: pass GraphInput(dtype='float32')"
            )
        return (self.batch, *network_input[1:])
