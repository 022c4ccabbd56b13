"""Reference networks against published figures and against fvcore's count of the built module.

Parameter figures: torchvision's model documentation (MobileNetV2, MobileNetV3, ShuffleNetV2, SqueezeNet, ResNet,
DenseNet, EfficientNet, RegNet), timm 1.0.31 (MobileNetV1, MobileNetV4, GhostNet, EfficientNet-lite, MobileOne, RepVGG
and DeiT-tiny), pytorchcv's tests (ShuffleNetV1), each counted by `sum(p.numel() for p in model.parameters())`.
MACs in millions: the papers' tables or torchvision's documentation, in their own rounding.
"""

import pytest
import torch

from search_spaces import counts
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.densenet import densenet
from search_spaces.efficientnet import efficientnet
from search_spaces.ghostnet import ghostnet
from search_spaces.lowering import lower
from search_spaces.mcunet import NETWORKS, mcunet
from search_spaces.mobilenet_v1 import mobilenet_v1
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.mobilenet_v4 import mobilenet_v4_conv_small
from search_spaces.reparametrize import training_form
from search_spaces.repvgg import mobileone_s0, repvgg_a0
from search_spaces.resnet import regnet_y_400mf, resnet18, resnet50
from search_spaces.shufflenet_v1 import shufflenet_v1
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.squeezenet import squeezenet
from search_spaces.vit import vit
from tests.search_spaces.test_lowering import conv_and_linear

NETS = {
    "mobilenet_v1": (mobilenet_v1(), 4_231_976, 569),
    "mobilenet_v2": (mobilenet_v2(), 3_504_872, 301),
    "mobilenet_v3_small": (mobilenet_v3("small"), 2_542_856, 57),
    "mobilenet_v3_large": (mobilenet_v3("large"), 5_483_032, 217),
    "mobilenet_v4_conv_small": (mobilenet_v4_conv_small(), 3_774_024, 186),
    "shufflenet_v2_x0.5": (shufflenet_v2(width=0.5), 1_366_792, 40),
    "shufflenet_v2_x1.0": (shufflenet_v2(width=1.0), 2_278_604, 145),
    "shufflenet_v2_x1.5": (shufflenet_v2(width=1.5), 3_503_624, 296),
    "shufflenet_v2_x2.0": (shufflenet_v2(width=2.0), 7_393_996, 583),
    "squeezenet_1.1": (squeezenet(), 1_235_496, 349),
    "ghostnet": (ghostnet(), 5_182_508, 141),
    "resnet18": (resnet18(), 11_689_512, 1814),
    "resnet50": (resnet50(), 25_557_032, 4089),
    "regnet_y_400mf": (regnet_y_400mf(), 4_344_144, 402),
    "densenet121": (densenet(), 7_978_856, 2834),
    "efficientnet_b0": (efficientnet("b0"), 5_288_548, 386),
    "efficientnet_b1": (efficientnet("b1"), 7_794_184, 687),
    "repvgg_a0": (repvgg_a0(), 8_309_384, 1361),
    "mobileone_s0": (mobileone_s0(), 2_078_504, 275),
}
CASES = [pytest.param(*row, id=name) for name, row in NETS.items()]


@pytest.mark.parametrize(("architecture", "parameters", "million_macs"), CASES)
def test_counts_equal_the_published_ones(architecture, parameters, million_macs):
    workload = lower(architecture)
    assert counts.parameters(workload) == parameters
    assert round(counts.macs(workload) / 1e6) == million_macs


@pytest.mark.parametrize(("architecture", "parameters", "million_macs"), CASES)
def test_counts_equal_those_of_the_built_module(architecture, parameters, million_macs):
    network = build(architecture).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert conv_and_linear(network, architecture.input_shape) == counts.macs(lower(architecture))


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        *((shufflenet_v1(groups=groups), found) for groups, found in (
            (1, 1_531_936), (2, 1_733_848), (3, 1_865_728), (4, 1_968_344), (8, 2_434_768)
        )),
        *((shufflenet_v1(groups=groups, width=width), found) for groups, width, found in (
            (1, 0.75, 975_214), (3, 0.75, 1_238_266), (1, 0.5, 534_484), (3, 0.5, 718_324),
            (1, 0.25, 209_746), (3, 0.25, 305_902),
        )),
        *((efficientnet(variant), found) for variant, found in (
            ("b2", 9_109_994), ("b3", 12_233_232), ("b4", 19_341_616), ("b5", 30_389_784), ("b6", 43_040_704),
            ("b7", 66_347_960), ("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072), ("lite3", 8_197_096),
            ("lite4", 13_006_568),
        )),
        (training_form(repvgg_a0()), 9_108_968),
        (training_form(mobileone_s0()), 5_293_272),
        (vit(), 5_717_416),
    ],
)  # fmt: skip
def test_parameters_of_scaled_networks_equal_the_published_ones(architecture, parameters):
    assert counts.parameters(lower(architecture)) == parameters


@pytest.mark.parametrize(("groups", "million_macs"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_shufflenet_v1_has_the_papers_complexity_which_leaves_out_the_classifier(groups, million_macs):
    workload = lower(shufflenet_v1(groups=groups))
    classifier = counts.segment_macs(workload.segments[-1])
    assert round((counts.macs(workload) - classifier) / 1e6) == million_macs


def test_transformer_counts_fvcores_linear_layers_and_the_products_it_leaves_out():
    architecture = vit()
    tokens, width, depth = 197, 192, 12
    attention = depth * 2 * tokens * tokens * width
    expected = conv_and_linear(build(architecture).eval(), architecture.input_shape) + attention
    assert counts.macs(lower(architecture)) == expected


@pytest.mark.parametrize(
    ("variant", "million_macs", "million_parameters"),
    [("in0", 6.4, 0.75), ("in1", 12.8, 0.64), ("in2", 67.3, 0.73), ("in3", 81.8, 0.74), ("in4", 125.9, 1.73)],
)
def test_mcunet_has_the_figures_of_its_model_zoo(variant, million_macs, million_parameters):
    architecture = mcunet(variant)
    workload = lower(architecture)
    assert architecture.input_shape[1] == NETWORKS[variant][0]
    assert round(counts.macs(workload) / 1e6, 1) == million_macs
    assert round(counts.parameters(workload) / 1e6, 2) == million_parameters
    assert conv_and_linear(build(architecture).eval(), architecture.input_shape) == counts.macs(workload)


SCALABLE = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "mobilenet_v4": mobilenet_v4_conv_small,
    "shufflenet_v1": shufflenet_v1,
    "shufflenet_v2": shufflenet_v2,
    "ghostnet": ghostnet,
    "resnet18": resnet18,
}


@pytest.mark.parametrize("make", SCALABLE.values(), ids=SCALABLE)
def test_narrow_networks_for_small_grey_images_run(make):
    architecture = make(width=0.35, classes=7, input_shape=(1, 32, 32), stem_stride=1)
    assert isinstance(architecture, Architecture)
    assert counts.parameters(lower(architecture)) < counts.parameters(lower(make(width=0.5, classes=7)))
    with torch.no_grad():
        assert build(architecture).eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: efficientnet("b9"), "variant must be one of b0, .*got 'b9'"),
        (lambda: mcunet("in9"), "variant must be one of in0, .*got 'in9'"),
        (lambda: shufflenet_v1(groups=5), "groups must be one of 1, 2, 3, 4, 8, got groups=5"),
    ],
    ids=["efficientnet", "mcunet", "shufflenet"],
)
def test_unknown_variants_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
