"""The network behind raw pixels: what an exported file computes, as a torch module."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from latency_models.graph import GraphInput
from nas.task import Preprocessing

Dtype = Literal["uint8", "float32"]
Layout = Literal["nhwc", "nchw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputForm:
    """How a file takes images.

    Attributes:
        dtype: "uint8": raw pixels, normalized inside; "float32": images normalized by whoever calls.
        layout: "nhwc": batch x height x width x channels, as cameras and decoders give them; "nchw" as torch.
        batch: Images of one run; None for any number.
    """

    dtype: Dtype = "uint8"
    layout: Layout = "nhwc"
    batch: int | None = 1

    def shape(self, preprocessing: Preprocessing, batch: int) -> tuple[int, ...]:
        """Return the shape of the input of `batch` images."""
        channels, height, width = preprocessing.input_shape
        sides = (height, width, channels) if self.layout == "nhwc" else (channels, height, width)
        return (batch, *sides)

    def graph_input(self, preprocessing: Preprocessing) -> GraphInput:
        """Return the same as the direct writer of graphs takes it."""
        return GraphInput(
            dtype=self.dtype,
            layout=self.layout,
            mean=preprocessing.mean,
            std=preprocessing.std,
            batch=self.batch,
        )


class PixelNetwork(nn.Module):
    """A network that takes images in the form of a file.

    Its result is the network's on `Preprocessing.normalize` of the same pixels: the same operations in the same order
    and precision.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, form: InputForm) -> None:
        super().__init__()
        self.network = network
        self.form = form
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32)
            self.register_buffer(name, values[:, None, None])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits, `batch x classes`."""
        x_NCHW = image.permute(0, 3, 1, 2) if self.form.layout == "nhwc" else image
        if self.form.dtype == "uint8":
            x_NCHW = (x_NCHW.to(torch.float32) - self.mean) / self.std
        logits: torch.Tensor = self.network(x_NCHW)
        return logits
