"""Which published network a file's weights are of: told from their names and shapes alone."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from search_spaces.architecture import Architecture
from search_spaces.efficientnet import efficientnet
from search_spaces.errors import SpaceError
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.published import MISSING, Layout, load_published, misfits, names_known
from search_spaces.resnet import resnet18
from search_spaces.shufflenet_v2 import shufflenet_v2

SHAPE = (3, 224, 224)
ALIKE = 0.8
"""Share of names in common from which a file that does not load counts as a damaged one of a published network."""

_CLASSIFIERS = ("classifier.bias", "classifier.1.bias", "classifier.3.bias", "fc.bias", "head.fc.bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognized:
    """A published network, and its weights under our names.

    Attributes:
        name: Of the network.
        layout: Whose names the file used.
        architecture: The network, for images of 224 x 224.
        weights: For `build(architecture).load_state_dict`; shared with the file's, not copied.
    """

    name: str
    layout: Layout
    architecture: Architecture
    weights: Mapping[str, torch.Tensor]

    def at(self, height: int, width: int) -> Architecture:
        """Return the network for images of another size; weights stay the same."""
        return replace(self.architecture, input_shape=(self.architecture.input_shape[0], height, width))


def recognize(state_dict: Mapping[str, torch.Tensor]) -> Recognized | None:
    """Return the published network whose weights these are; None where they are of none that we know.

    Known are MobileNetV2 (0.5, 1.0, 1.4), MobileNetV3, ShuffleNetV2, EfficientNet-B0 to B4 and ResNet-18, under the
    names of torchvision or timm, with any number of classes.
    """
    classes = _classes(state_dict)
    if not classes:
        return None
    for name, layout, architecture in _known(classes):
        try:
            weights = load_published(architecture, state_dict, layout=layout)
        except SpaceError:
            continue
        return Recognized(name=name, layout=layout, architecture=architecture, weights=weights)
    return None


def nearly(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Return of which published network these nearly are the weights, and what is amiss, as the end of a sentence.

    Empty where fewer than `ALIKE` of the names are those of any network that `recognize` knows, or fewer than that
    of a network's names are there, or where the file is whole.
    """
    classes = _classes(state_dict) or 1000
    found: list[tuple[int, str]] = []
    for name, layout, architecture in _known(classes):
        if names_known(architecture, state_dict, layout=layout) < ALIKE:
            continue
        amiss = misfits(architecture, state_dict, layout=layout)
        missing = sum(what == MISSING for _, what in amiss)
        if missing <= (1 - ALIKE) * (len(state_dict) + missing):
            found.append((len(amiss), _told(f"{layout}'s {name}", amiss, len(state_dict))))
    return min(found, key=lambda one: one[0], default=(0, ""))[1]


def _told(network: str, amiss: tuple[tuple[str, str], ...], size: int) -> str:
    if not amiss:
        return ""
    first = " ".join(amiss[0]) + (f", and {len(amiss) - 1} further tensors differ" if len(amiss) > 1 else "")
    if len(amiss) > (1 - ALIKE) * size:
        return f"has the names of {network}, the nearest variant that is known, but {first}"
    return f"looks like {network}, but {first}"


def _classes(state_dict: Mapping[str, torch.Tensor]) -> int:
    """Return the length of a classifier's bias; 0 where there is none."""
    return next((len(state_dict[name]) for name in _CLASSIFIERS if name in state_dict and state_dict[name].ndim), 0)


@functools.cache
def _known(classes: int) -> tuple[tuple[str, Layout, Architecture], ...]:
    return tuple(_published(classes))


def _published(classes: int) -> Iterator[tuple[str, Layout, Architecture]]:
    layouts: tuple[Layout, Layout] = ("torchvision", "timm")
    for layout in layouts:
        for width in (1.0, 0.5, 1.4):
            yield f"MobileNetV2 x{width:g}", layout, mobilenet_v2(width=width, classes=classes, input_shape=SHAPE)
        for variant in ("small", "large"):
            eps = 1e-3 if layout == "torchvision" else 1e-5
            network = mobilenet_v3(variant, classes=classes, input_shape=SHAPE, eps=eps)
            yield f"MobileNetV3-{variant}", layout, network
        for number in range(5):
            yield f"EfficientNet-B{number}", layout, efficientnet(f"b{number}", classes=classes, input_shape=SHAPE)
        yield "ResNet-18", layout, resnet18(classes=classes, input_shape=SHAPE)
    for width in (0.5, 1.0, 1.5, 2.0):
        yield f"ShuffleNetV2 x{width:g}", "torchvision", shufflenet_v2(width=width, classes=classes, input_shape=SHAPE)
