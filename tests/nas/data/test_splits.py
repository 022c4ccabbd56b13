from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.data.splits import divide, joined_groups, proportional, ranks
from search_spaces.errors import DataError

SHARES = {"test": 0.2, "validation": 0.1}
CLASSES = [f"class{number}" for number in range(10)]


def names(count: int) -> list[str]:
    return [f"image{number}" for number in range(count)]


def alone(count: int) -> np.ndarray:
    return np.arange(count)


def test_every_class_keeps_its_share_without_groups():
    labels = np.repeat(np.arange(4), (100, 50, 20, 10))
    split = divide(labels, alone(180), ranks(names(180), 0), SHARES, classes=CLASSES)
    assert np.bincount(labels[split.members["test"]]).tolist() == [20, 10, 4, 2]
    assert np.bincount(labels[split.members["validation"]]).tolist() == [10, 5, 2, 1]
    assert np.bincount(labels[split.members["train"]]).tolist() == [70, 35, 14, 7]
    assert split.missed == ()


def test_a_class_of_as_many_images_as_splits_has_one_in_each():
    labels = np.array([0] * 50 + [1] * 3)
    split = divide(labels, alone(53), ranks(names(53), 0), SHARES, classes=CLASSES)
    assert [int((labels[split.members[role]] == 1).sum()) for role in ("train", "validation", "test")] == [
        1,
        1,
        1,
    ]


def test_large_shares_leave_training_an_image_of_every_class():
    labels = np.array([0] * 50 + [1] * 3)
    shares = {"test": 0.6, "validation": 0.3}
    split = divide(labels, alone(53), ranks(names(53), 0), shares, classes=CLASSES)
    assert [int((labels[split.members[role]] == 1).sum()) for role in ("train", "validation", "test")] == [
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [
        (
            (10, 1),
            SHARES,
            "class 'class1' has 1 image, but at least 3 are needed, one for each of train and validation",
        ),
        ((10, 2), SHARES, "class 'class1' has 2 images, but at least 3"),
        ((10, 1), {}, "class 'class1' has 1 image, but at least 2 are needed: add images"),
    ],
    ids=["one", "two", "one-without-splits"],
)
def test_a_class_with_too_few_images_is_named(counts, shares, message):
    labels = np.repeat(np.arange(2), counts)
    with pytest.raises(DataError, match=message):
        divide(labels, alone(len(labels)), ranks(names(len(labels)), 0), shares, classes=CLASSES)


def test_a_class_whose_images_are_one_group_is_named():
    labels = np.repeat(np.arange(2), 20)
    groups = np.concatenate([np.arange(20), np.full(20, 99)])
    with pytest.raises(DataError, match="class 'class1' has 20 images in 1 groups that stay together"):
        divide(labels, groups, ranks(names(40), 0), SHARES, classes=CLASSES)


def test_the_seed_and_the_names_decide_and_nothing_else(rng):
    labels = np.arange(300) % 3
    first = divide(labels, alone(300), ranks(names(300), 5), SHARES, classes=CLASSES).members
    turn = rng.permutation(300)
    second = divide(labels[turn], alone(300), ranks([names(300)[n] for n in turn], 5), SHARES, classes=CLASSES).members
    third = divide(labels, alone(300), ranks(names(300), 6), SHARES, classes=CLASSES).members
    for role in first:
        assert sorted(turn[second[role]].tolist()) == first[role].tolist()
        assert third[role].tolist() != first[role].tolist()


def test_most_images_stay_where_they_are_when_others_are_added():
    labels = np.arange(1_100) % 2
    before = divide(labels[:1_000], alone(1_000), ranks(names(1_000), 0), SHARES, classes=CLASSES).members
    after = divide(labels, alone(1_100), ranks(names(1_100), 0), SHARES, classes=CLASSES).members
    # A new draw would keep 20 % of the test images.
    assert len(np.intersect1d(before["test"], after["test"])) >= 0.9 * len(before["test"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=40, max_size=120),
    seed=st.integers(0, 1000),
    mixed=st.booleans(),
)
def test_groups_stay_whole_and_every_class_is_everywhere(sizes, seed, mixed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(0, 3, len(groups)) if mixed else groups % 3
    order = ranks(names(len(groups)), seed)
    split = divide(labels, groups, order, SHARES, classes=CLASSES)
    sides = [set(groups[split.members[role]].tolist()) for role in ("train", "validation", "test")]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    assert sum(len(members) for members in split.members.values()) == len(groups)
    totals = np.bincount(labels, minlength=3)
    for role, share in SHARES.items():
        held = np.bincount(labels[split.members[role]], minlength=3)
        assert (held > 0).all()
        # A group stays in training where it would bring no side nearer to what is wanted, then or later: sides grow.
        for group in sides[0]:
            more = np.bincount(labels[groups == group], minlength=3)
            assert (more * (2 * (held - share * totals) + more) / totals).sum() >= -1e-9
        # So groups of one class stop within the largest of them; mixed ones may overshoot in one class for another.
        assert mixed or (np.abs(held - share * totals) <= max(sizes)).all()
    reported = {(role, label) for role, label, _, _ in split.missed}
    for role, share in SHARES.items():
        held = np.bincount(labels[split.members[role]], minlength=3)
        assert {label for r, label in reported if r == role} == {
            label for label in range(3) if abs(held[label] - share * totals[label]) > 1
        }


def test_images_that_share_any_key_are_one_group():
    scenes = ["a", "a", "b", "b", "", "", ""]
    contents = [1, 2, 2, 3, 4, 4, 5]
    numbers = joined_groups(scenes, contents).tolist()
    assert numbers[0] == numbers[1] == numbers[2] == numbers[3]
    assert numbers[4] == numbers[5]
    assert len(set(numbers)) == 3


def test_no_key_joins_nothing():
    assert len(set(joined_groups(["", "", ""], [None, None, None]).tolist())) == 3


@pytest.mark.parametrize("count", [3, 7, 20, 59, 60, 100])
def test_a_part_has_every_class_in_proportion(count):
    labels = np.repeat(np.arange(3), (45, 12, 3))
    chosen = proportional(labels, ranks(names(60), 0), count)
    held = Counter(labels[chosen].tolist())
    assert len(set(chosen.tolist())) == min(count, 60)
    for label, size in enumerate((45, 12, 3)):
        assert held[label] >= 1
        assert abs(held[label] - min(count, 60) * size / 60) <= 1.5


def test_fewer_images_than_classes_take_the_largest():
    labels = np.repeat(np.arange(3), (45, 12, 3))
    assert labels[proportional(labels, ranks(names(60), 0), 2)].tolist() == [0, 1]
    assert labels[proportional(labels, ranks(names(60), 0), 1)].tolist() == [0]
