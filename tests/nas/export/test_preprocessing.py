import numpy as np
import pytest
import torch
from torch import nn

from nas.export.preprocessing import InputForm, PixelNetwork
from nas.task import Preprocessing
from tests.nas.export.networks import PER_CHANNEL, PREPROCESSING

GREY = Preprocessing(height=16, width=24, color="grey", mean=(100.5,), std=(51.3,))


def fed(form, preprocessing, pixels):
    images = pixels[..., : preprocessing.channels]
    if form.dtype == "float32":
        NCHW = preprocessing.normalize(images)
        return torch.from_numpy(NCHW if form.layout == "nchw" else NCHW.transpose(0, 2, 3, 1))
    return torch.from_numpy(images.transpose(0, 3, 1, 2) if form.layout == "nchw" else images)


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, PER_CHANNEL, GREY], ids=["default", "per channel", "grey"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_pixel_network_equals_the_network_on_normalized_images(images, preprocessing, dtype, layout):
    torch.manual_seed(0)
    network = nn.Conv2d(preprocessing.channels, 5, 3, padding=1).eval()
    form = InputForm(dtype=dtype, layout=layout)
    given = fed(form, preprocessing, images)
    assert tuple(given.shape) == form.shape(preprocessing, len(images))
    with torch.no_grad():
        found = PixelNetwork(network, preprocessing, form)(given)
        expected = network(torch.from_numpy(preprocessing.normalize(images[..., : preprocessing.channels])))
    assert np.array_equal(found.numpy(), expected.numpy())


def test_direct_writer_gets_the_same_form():
    given = InputForm(dtype="float32", layout="nchw", batch=None).graph_input(PER_CHANNEL)
    assert (given.dtype, given.layout, given.batch) == ("float32", "nchw", None)
    assert (given.mean, given.std) == (PER_CHANNEL.mean, PER_CHANNEL.std)
