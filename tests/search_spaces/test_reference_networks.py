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
from search_spaces.efficientnet import efficientnet
from search_spaces.ghostnet import ghostnet
from search_spaces.lowering import lower
from search_spaces.mcunet import NETWORKS, mcunet
from search_spaces.mobilenet_v1 import mobilenet_v1
from search_spaces.mobilenet_v2 import mobilenet_v2
from search_spaces.mobilenet_v3 import mobilenet_v3
from search_spaces.mobilenet_v4 import mobilenet_v4_conv_small
from search_spaces.reference_networks import REFERENCES
from search_spaces.reparametrize import training_form
from search_spaces.repvgg import mobileone_s0, repvgg_a0
from search_spaces.resnet import resnet18
from search_spaces.shufflenet_v1 import shufflenet_v1
from search_spaces.shufflenet_v2 import shufflenet_v2
from search_spaces.vit import vit
from tests.search_spaces.test_lowering import conv_and_linear

PUBLISHED = [pytest.param(known, id=known.name.replace(" ", "-")) for known in REFERENCES]


@pytest.mark.parametrize("known", PUBLISHED)
def test_counts_equal_the_published_ones(known):
    workload = lower(known.make())
    found = counts.parameters(workload)
    macs = counts.macs(workload)
    if known.without_classifier:
        macs -= counts.segment_macs(workload.segments[-1])
    assert (found if known.digits is None else round(found / 1e6, known.digits) * 1e6) == known.parameters
    assert round(macs / 1e6, known.macs_digits) == known.million_macs


@pytest.mark.parametrize("known", PUBLISHED)
def test_counts_equal_those_of_the_built_module(known):
    architecture = known.make()
    network, workload = build(architecture).eval(), lower(architecture)
    assert sum(p.numel() for p in network.parameters()) == counts.parameters(workload)
    assert conv_and_linear(network, architecture.input_shape) == counts.macs(workload)


def test_figures_named_in_the_papers_are_among_the_published_ones():
    exact = {known.name: known.parameters for known in REFERENCES}
    assert exact["MobileNetV2"] == 3_504_872
    assert exact["SqueezeNet 1.1"] == 1_235_496
    assert exact["ResNet-18"] == 11_689_512
    assert exact["DenseNet-121"] == 7_978_856


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
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


def test_transformer_counts_fvcores_linear_layers_and_the_products_it_leaves_out():
    architecture = vit()
    tokens, width, depth = 197, 192, 12
    attention = depth * 2 * tokens * tokens * width
    expected = conv_and_linear(build(architecture).eval(), architecture.input_shape) + attention
    assert counts.macs(lower(architecture)) == expected


@pytest.mark.parametrize("variant", NETWORKS)
def test_mcunet_has_the_published_resolution(variant):
    assert mcunet(variant).input_shape[1] == NETWORKS[variant][0]


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
