import numpy as np
import pytest

from nas.data.source import Part, Source
from search_spaces.errors import DataError


def part(labels: list[int], **options) -> Part:
    return Part(
        **{
            "images": np.zeros((len(labels), 2, 2), np.uint8),
            "labels": np.array(labels, np.int64),
            "names": [f"image{number}" for number in range(len(labels))],
        }
        | options
    )


def source(train: Part, classes: tuple[str, ...] = ("cat", "dog"), **parts) -> Source:
    return Source(name="pets", classes=classes, train=train, **parts)


def test_flat_joins_the_parts_in_order(rng):
    pixels = rng.integers(0, 256, (3, 2, 2), np.uint8)
    joined = source(
        part([0, 1], images=pixels[:2], groups=["a", "b"]),
        test=part([1], images=[b"encoded"]),
        validation=part([0], images=pixels[2:]),
    ).flat()
    assert joined.labels.tolist() == [0, 1, 0, 1]
    assert list(joined.groups) == ["a", "b", "", ""]
    assert np.array_equal(joined.images[2], pixels[2])
    assert joined.images[3] == b"encoded"
    assert len(joined.images) == 4
    with pytest.raises(IndexError):
        _ = joined.images[4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: source(part([0, 1, 2])), "pets: 1 labels of the train split lie outside.*image2: 2"),
        (lambda: source(part([0, -1])), r"image1: -1, expected 0 to 1"),
        (lambda: source(part([0, 0])), "the training split has no image of 'dog': add some"),
        (
            lambda: source(part([0, 0]), test=part([1])),
            "the training split has no image of 'dog', though the test split has",
        ),
        (lambda: source(part([0, 1]), validation=part([])), "the validation split has no image"),
        (lambda: source(part([0, 1], names=["one"])), "2 images, 2 labels, 1 names and 0 groups"),
        (lambda: source(part([0, 1], groups=["one"])), "1 groups"),
        (lambda: source(part([0, 1]), classes=("cat", "cat ")), "names must differ, but 'cat' stands"),
        (lambda: source(part([0, 1]), classes=("cat", " ")), "blank"),
        (lambda: source(part([0]), classes=("cat",)), "at least two classes, got 'cat'"),
    ],
    ids=[
        "label-too-large", "negative-label", "class-without-images", "class-only-in-test", "empty-split",
        "names", "groups", "duplicate-class", "blank-class", "one-class",
    ],
)  # fmt: skip
def test_contradictions_are_named(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_letters_in_both_cases_are_different_classes():
    assert source(part([0, 1]), classes=("a", "A")).classes == ("a", "A")
