import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.train.batch_norm import recalibrate_batch_norm
from nas.train.evaluate import predict, predictions
from nas.train.feed import Feed, Normalize
from search_spaces.build import build
from tests.nas.train.tiny import GREY, digits, state, tiny


@pytest.fixture(scope="module")
def task():
    return digits()


def test_logits_are_those_of_the_network_for_normalized_images(task):
    network = build(tiny(), seed=0).eval()
    images = task.validation.images
    with torch.no_grad():
        expected = network(torch.from_numpy(task.preprocessing.normalize(images))).numpy()
    logits = predict(network, images, task.preprocessing, batch=50)
    assert logits.shape == (128, 10)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.array_equal(predictions(network, images, task.preprocessing), expected.argmax(1))
    assert np.array_equal(logits, predict(network, images, task.preprocessing, batch=50))


def test_prediction_puts_modes_back_and_changes_no_weight(task):
    network = build(tiny(dropout=0.2), seed=0).train()
    network.stages[0].eval()
    before = state(network)
    predict(network, task.validation.images, task.preprocessing)
    assert network.training
    assert not network.stages[0].training
    assert not network.stages[0][0].norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_no_images_are_refused(task):
    with pytest.raises(ValueError, match="no images"):
        predict(build(tiny()), task.validation.images[:0], task.preprocessing)


def test_read_only_images_are_taken(task):
    images = task.validation.images.copy()
    images.flags.writeable = False
    feed = Feed(images, torch.device("cpu"))
    chosen = np.array([5, 1])
    expected = torch.from_numpy(images[chosen].astype(np.float32)).permute(0, 3, 1, 2)
    assert torch.equal(feed.pixels(chosen), expected)
    assert torch.equal(feed.pixels(slice(0, 4))[1], expected[1])


def test_pixels_of_another_size_are_resized_for_a_larger_network():
    pixels = torch.rand(2, 1, 8, 8) * 255
    inputs = Normalize(GREY, torch.device("cpu"))(pixels)
    expected = F.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)
    assert torch.allclose(inputs, (expected - 128) / 128)


def test_recalibrated_statistics_are_the_averages_over_training_images(task):
    network = build(tiny(), seed=0)
    network.stages[0][0].norm.running_mean.fill_(100.0)
    before = state(network)
    recalibrate_batch_norm(network, task, images=256, batch=64)
    with torch.no_grad():
        inputs = torch.from_numpy(task.preprocessing.normalize(task.train.images))
        outputs = network.stages[0][0].conv(inputs)
    norm = network.stages[0][0].norm
    assert torch.allclose(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-5)
    assert norm.momentum == 0.1
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == {name for name in before if "running" in name or "num_batches" in name}
