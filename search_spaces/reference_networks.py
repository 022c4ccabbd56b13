"""Networks of the field with the figures that others publish for them, at 1000 classes and 224 pixels.

What is built here from blocks is held against these figures to the unit: parameters as torchvision, timm or pytorchcv
count them, MACs as their documentation or the paper rounds them. The figures are constants of the public networks and
never come from this library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from search_spaces.architecture import Architecture
from search_spaces.densenet import densenet
from search_spaces.efficientnet import efficientnet
from search_spaces.ghostnet import ghostnet
from search_spaces.mcunet import mcunet
from search_spaces.mobilenet_v1 import mobilenet_v1
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.mobilenet_v4 import mobilenet_v4_conv_small
from search_spaces.repvgg import mobileone_s0, repvgg_a0
from search_spaces.resnet import regnet_y_400mf, resnet18, resnet50
from search_spaces.shufflenet_v1 import shufflenet_v1
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.squeezenet import squeezenet


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A public network and what is published of it.

    Attributes:
        name: As the paper calls it.
        make: Builds it from blocks.
        parameters: As published; exact unless `digits` says otherwise.
        million_macs: As published, rounded to `macs_digits` places.
        source: Who publishes the parameters.
        digits: Places of a figure published in millions of parameters; None for one to the unit.
        macs_digits: Places of `million_macs`.
        without_classifier: Whether the published MACs leave the classifier out.
    """

    name: str
    make: Callable[[], Architecture]
    parameters: float
    million_macs: float
    source: str
    digits: int | None = None
    macs_digits: int = 0
    without_classifier: bool = False


def _torchvision(name: str, make: Callable[[], Architecture], parameters: int, million_macs: float) -> Reference:
    return Reference(name=name, make=make, parameters=parameters, million_macs=million_macs, source="torchvision")


def _timm(name: str, make: Callable[[], Architecture], parameters: int, million_macs: float) -> Reference:
    return Reference(name=name, make=make, parameters=parameters, million_macs=million_macs, source="timm 1.0.31")


def _shufflenet_v1(groups: int, parameters: int, million_macs: float) -> Reference:
    return Reference(
        name=f"ShuffleNetV1 g{groups}", make=partial(shufflenet_v1, groups=groups), parameters=parameters,
        million_macs=million_macs, source="pytorchcv", without_classifier=True,
    )  # fmt: skip


def _mcunet(variant: str, million_parameters: float, million_macs: float) -> Reference:
    return Reference(
        name=f"MCUNet-{variant}", make=partial(mcunet, variant), parameters=million_parameters * 1e6,
        million_macs=million_macs, source="MCUNet's model zoo", digits=2, macs_digits=1,
    )  # fmt: skip


REFERENCES = (
    _timm("MobileNetV1", mobilenet_v1, 4_231_976, 569),
    _torchvision("MobileNetV2", mobilenet_v2, 3_504_872, 301),
    _torchvision("MobileNetV3-small", partial(mobilenet_v3, "small"), 2_542_856, 57),
    _torchvision("MobileNetV3-large", partial(mobilenet_v3, "large"), 5_483_032, 217),
    _timm("MobileNetV4-conv-small", mobilenet_v4_conv_small, 3_774_024, 186),
    _shufflenet_v1(1, 1_531_936, 143),
    _shufflenet_v1(2, 1_733_848, 140),
    _shufflenet_v1(3, 1_865_728, 137),
    _shufflenet_v1(4, 1_968_344, 133),
    _shufflenet_v1(8, 2_434_768, 137),
    _torchvision("ShuffleNetV2 x0.5", partial(shufflenet_v2, width=0.5), 1_366_792, 40),
    _torchvision("ShuffleNetV2 x1.0", partial(shufflenet_v2, width=1.0), 2_278_604, 145),
    _torchvision("ShuffleNetV2 x1.5", partial(shufflenet_v2, width=1.5), 3_503_624, 296),
    _torchvision("ShuffleNetV2 x2.0", partial(shufflenet_v2, width=2.0), 7_393_996, 583),
    _torchvision("SqueezeNet 1.1", squeezenet, 1_235_496, 349),
    _timm("GhostNet", ghostnet, 5_182_508, 141),
    _torchvision("ResNet-18", resnet18, 11_689_512, 1814),
    _torchvision("ResNet-50", resnet50, 25_557_032, 4089),
    _torchvision("RegNetY-400MF", regnet_y_400mf, 4_344_144, 402),
    _torchvision("DenseNet-121", densenet, 7_978_856, 2834),
    _torchvision("EfficientNet-B0", partial(efficientnet, "b0"), 5_288_548, 386),
    _torchvision("EfficientNet-B1", partial(efficientnet, "b1"), 7_794_184, 687),
    _timm("RepVGG-A0", repvgg_a0, 8_309_384, 1361),
    _timm("MobileOne-S0", mobileone_s0, 2_078_504, 275),
    _mcunet("in0", 0.75, 6.4),
    _mcunet("in1", 0.64, 12.8),
    _mcunet("in2", 0.73, 67.3),
    _mcunet("in3", 0.74, 81.8),
    _mcunet("in4", 1.73, 125.9),
)
"""MobileNets, ShuffleNets and their contemporaries; `Reference.make` takes no arguments."""
