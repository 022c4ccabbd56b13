import numpy as np
import pytest

from nas.train.order import class_weights, derived_seed, epoch_batches, num_batches


@pytest.mark.parametrize("images", [2, 3, 31, 32, 33, 65, 1000])
@pytest.mark.parametrize("batch_size", [2, 3, 32])
def test_every_image_comes_once_and_no_batch_holds_one(images, batch_size):
    batches = epoch_batches(np.zeros(images, np.int64), batch_size, seed=0, epoch=0)
    sizes = [len(batch) for batch in batches]
    assert sorted(np.concatenate(batches)) == list(range(images))
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)
    assert len(batches) == num_batches(images, batch_size)


def test_order_depends_on_seed_and_epoch_alone():
    labels = np.arange(100)
    first, again, epoch, seed = (
        np.concatenate(epoch_batches(labels, 10, seed=seed, epoch=epoch))
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, epoch)
    assert not np.array_equal(first, seed)


def test_balanced_epoch_shows_classes_equally_often_and_all_of_a_class_before_repeating():
    labels = np.repeat([0, 1, 2], [90, 8, 2])
    drawn = np.concatenate(epoch_batches(labels, 10, seed=0, epoch=0, balanced=True))
    assert sorted(np.bincount(labels[drawn])) == [33, 33, 34]
    times = np.bincount(drawn, minlength=100)
    assert times[labels == 0].max() == 1
    assert set(times[labels == 1]) <= {4, 5}
    assert set(times[labels == 2]) <= {16, 17}


def test_class_weights_are_inverse_to_counts_with_mean_one():
    labels = np.repeat([0, 1, 3], [6, 3, 1])
    weights = class_weights(labels, 4)
    assert weights[2] == 0
    assert weights[1] == pytest.approx(2 * weights[0])
    assert weights[3] == pytest.approx(6 * weights[0])
    assert weights[labels].mean() == pytest.approx(1)


def test_derived_seeds_differ_by_purpose():
    seeds = {
        derived_seed(seed, part, epoch) for seed in range(5) for part in ("order", "augment") for epoch in range(5)
    }
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
