import pytest
import torch

from nas.train.augment import AUGMENTATIONS, augmentation, find_augmentations
from search_spaces.errors import ConfigError, PluginError

EVERY = sorted(AUGMENTATIONS)


@pytest.fixture
def pixels():
    raw = torch.randint(0, 256, (16, 24, 20, 3), generator=torch.Generator().manual_seed(0))
    return raw.permute(0, 3, 1, 2).float()


def applied(name, pixels, seed=0):
    return AUGMENTATIONS[name](pixels, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EVERY)
def test_shape_range_and_argument_stay_and_images_change(name, pixels):
    before = pixels.clone()
    after = applied(name, pixels)
    assert after.shape == pixels.shape
    assert after.min() >= 0
    assert after.max() <= 255.001
    assert torch.equal(pixels, before)
    changed = (after != pixels).flatten(1).any(1)
    assert changed.sum() >= 4


@pytest.mark.parametrize("name", EVERY)
def test_same_generator_same_result_other_generator_another(name, pixels):
    assert torch.equal(applied(name, pixels), applied(name, pixels))
    assert not torch.equal(applied(name, pixels), applied(name, pixels, seed=1))


@pytest.mark.parametrize("name", EVERY)
def test_images_of_one_batch_are_changed_differently(name):
    one = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(2)) * 255
    after = applied(name, one.expand(16, -1, -1, -1).clone())
    assert len({image.numpy().tobytes() for image in after}) >= 2


def test_shift_moves_by_an_eighth_at_most_and_repeats_the_edge():
    ramp = torch.arange(24.0).view(1, 1, 24, 1).expand(64, 1, 24, 16).clone()
    moved = applied("shift", ramp) - ramp
    inner = moved[:, 0, 3:-3, 0]
    assert torch.equal(inner.amin(1), inner.amax(1))
    assert set(inner[:, 0].tolist()) == set(range(-3, 4))
    assert applied("shift", ramp).max() == 23


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_flips_mirror_about_half_of_the_images(name, axis, pixels):
    after = applied(name, pixels.repeat(8, 1, 1, 1))
    mirrored = [torch.equal(new, old.flip(axis - 1)) for new, old in zip(after, pixels.repeat(8, 1, 1, 1), strict=True)]
    same = [torch.equal(new, old) for new, old in zip(after, pixels.repeat(8, 1, 1, 1), strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 40 <= sum(mirrored) <= 88  # 64 expected, 4 standard deviations


def test_rotation_of_a_wide_image_keeps_a_round_spot_round():
    rows, columns = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(65.0) - 32, indexing="ij")
    spot = (255 * torch.exp(-(rows**2 + columns**2) / 50)).expand(8, 1, -1, -1).clone()
    stripe = (255 * torch.exp(-(rows**2) / 50)).expand(8, 1, -1, -1).clone()
    assert (applied("rotate", spot) - spot).abs().max() < 3
    assert (applied("rotate", stripe) - stripe).abs().max() > 30


def test_cutout_fills_one_square_with_the_mean():
    images = torch.rand(64, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 255
    changed = applied("cutout", images) != images
    sizes = changed.flatten(1).sum(1)
    assert sizes.max() <= 64
    assert (sizes == 64).sum() > 20


def test_names_are_applied_in_order_and_unknown_ones_named():
    assert find_augmentations(("cutout", "shift")) == (AUGMENTATIONS["cutout"], AUGMENTATIONS["shift"])
    with pytest.raises(ConfigError, match="unknown augmentation 'rotat': did you mean 'rotate'"):
        find_augmentations(("shift", "rotat"))


def test_plug_in_cannot_take_a_name():
    def mine(pixels, generator):
        return pixels

    with pytest.raises(PluginError, match=r"'shift'; nas\.train\.augment has the name"):
        augmentation("shift")(mine)
    assert AUGMENTATIONS["shift"] is not mine
