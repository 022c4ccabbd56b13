import numpy as np
import pytest

from search_spaces import space as rows_of
from search_spaces.architecture import Architecture
from search_spaces.blocks import Classifier, Conv
from search_spaces.errors import SpaceError
from search_spaces.mixed import MixedSpace
from search_spaces.space import Chain, ChainSpace, Choice, Position
from search_spaces.stages import default_strides


class Tiny(ChainSpace):
    """Four rows, three networks: the kernel is ignored at width 8."""

    @property
    def chain(self):
        kernel, width = Choice("kernel", (3, 5)), Choice("width", (8, 16))

        def stem(shape, values):
            used = 3 if values["width"] == 8 else values["kernel"]
            return (Conv(width=values["width"], kernel=used),)

        head = Position((), lambda shape, values: (Classifier(classes=2),))
        return Chain(((3, 8, 8),), (Position((kernel, width), stem), head))


def test_size_counts_rows_and_num_architectures_counts_networks():
    assert rows_of.size(Tiny()) == 4
    assert rows_of.num_architectures(Tiny()) == 3
    assert rows_of.size(MixedSpace()) > 10**15


def test_counting_too_many_networks_is_refused():
    with pytest.raises(SpaceError, match="the limit is 200000"):
        rows_of.num_architectures(MixedSpace())


def test_values_and_rows_are_inverse(rng):
    space = MixedSpace()
    for row in rows_of.sample(space, 20, rng):
        assert np.array_equal(rows_of.row(space, rows_of.values(space, row)), row)


def test_mutants_differ_and_stay_inside(rng):
    space = MixedSpace(families=("mobilenet",))
    rows = rows_of.sample(space, 500, rng)
    mutants = rows_of.mutate(space, rows, rng)
    assert (mutants != rows).any(axis=1).all()
    assert (mutants >= 0).all()
    assert (mutants < rows_of.num_options(space)).all()
    assert (mutants[:, rows_of.num_options(space) == 1] == 0).all()


def test_mutation_changes_one_choice_in_expectation(rng):
    space = MixedSpace()
    rows = rows_of.sample(space, 4000, rng)
    changed = (rows_of.mutate(space, rows, rng) != rows).sum(axis=1)
    assert 1.2 < changed.mean() < 1.6  # binomial with mean 1, where zero is lifted to one: 1 + exp(-1)


def test_children_take_every_choice_from_a_parent(rng):
    space = MixedSpace()
    first, second = rows_of.sample(space, 100, rng), rows_of.sample(space, 100, rng)
    child = rows_of.crossover(first, second, rng)
    assert ((child == first) | (child == second)).all()
    assert (child != first).any()
    assert (child != second).any()


def test_neighbours_are_all_rows_at_distance_one():
    row = np.array([0, 1])
    assert rows_of.neighbours(Tiny(), row).tolist() == [[1, 1], [0, 0]]


def test_enumeration_is_complete_and_ordered():
    assert [row.tolist() for row in rows_of.enumerate_rows(Tiny())] == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_encoding_has_one_hot_groups(rng):
    space = MixedSpace()
    rows = rows_of.sample(space, 10, rng)
    encoded = rows_of.encode(space, rows)
    assert encoded.shape == (10, rows_of.num_options(space).sum())
    assert (encoded.sum(axis=1) == len(space.choices)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel": 3}, "'width' has no value"),
        ({"kernel": 7, "width": 8}, r"'kernel' must be one of \(3, 5\), got 7"),
    ],
    ids=["missing", "foreign"],
)
def test_values_outside_the_space_are_refused(values, message):
    with pytest.raises(SpaceError, match=message):
        Tiny().decode(values)


def test_one_choice_name_cannot_mean_two_things():
    class Clash(ChainSpace):
        @property
        def chain(self):
            def conv(shape, values):
                return (Conv(width=8),)

            return Chain(((3, 8, 8),), (Position((Choice("a", (1, 2)),), conv), Position((Choice("a", (1, 3)),), conv)))

    with pytest.raises(SpaceError, match="other options in another position"):
        _ = Clash().choices


def test_repeated_options_are_refused():
    with pytest.raises(SpaceError, match="distinct options"):
        Choice("width", (8, 8))


def test_both_families_and_every_resolution_occur(rng):
    space = MixedSpace(resolutions=(24, 48), classes=7, channels=1)
    found = [rows_of.decode(space, row) for row in rows_of.sample(space, 40, rng)]
    types = {type(block).__name__ for architecture in found for block in architecture.blocks}
    assert {"InvertedResidual", "ShuffleUnit"} <= types
    assert {architecture.input_shape for architecture in found} == {(1, 24, 24), (1, 48, 48)}
    assert all(isinstance(architecture, Architecture) for architecture in found)
    assert all(architecture.blocks[-1].classes == 7 for architecture in found)


@pytest.mark.parametrize(("side", "left"), [(16, 4), (24, 6), (28, 7), (32, 4), (64, 4), (96, 6), (128, 4), (224, 7)])
def test_default_strides_leave_four_to_seven_pixels(side, left):
    for stride in default_strides(side, 5):
        side = -(-side // stride)
    assert 4 <= side <= 7
    assert side == left


def test_strides_of_the_wrong_length_are_refused():
    with pytest.raises(SpaceError, match="one for the stem and one for each of 5 stages"):
        MixedSpace(strides=(2, 2))
