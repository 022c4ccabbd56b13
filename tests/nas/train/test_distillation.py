import pytest
import torch
from torch.nn import functional as F

from nas.task import Preprocessing, Split
from nas.train.augment import AUGMENTATIONS
from nas.train.distillation import LOSSES, Teacher, decoupled, logit_mse, soft_targets
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.architecture import Architecture
from search_spaces.build import build
from tests.nas.train.tiny import GREY, digits, state, tiny

OPTIONS = TrainOptions(epochs=2, batch_size=32)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator) * 3


LABELS = torch.tensor([0, 1, 2, 3, 0, 2])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_equal_logits_cost_nothing_and_others_something(loss, logits):
    student, teacher = logits
    assert loss(teacher, teacher, LABELS, 3.0).abs() < 1e-6
    assert loss(teacher + 5.0, teacher, LABELS, 3.0).abs() < 1e-5
    assert loss(student, teacher, LABELS, 3.0) > 0.1


def test_soft_targets_by_hand(logits):
    student, teacher = logits
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * (p * (p.log() - q.log())).sum(1).mean()
    assert torch.allclose(soft_targets(student, teacher, LABELS, 2.0), expected, atol=1e-6)


def test_decoupled_parts_make_up_soft_targets_when_weighted_as_the_paper_shows(logits):
    """Equation 6: KD = target part + (1 - teacher's target probability) x the rest."""
    student, teacher = logits[0][:1], logits[1][:1]
    label = LABELS[:1]
    p = teacher.softmax(1)[0, label]
    q = student.softmax(1)[0, label]
    target = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    rest = (decoupled(student, teacher, label, 1.0) - target) / 2.0
    assert torch.allclose(target + (1 - p) * rest, soft_targets(student, teacher, label, 1.0), atol=1e-5)


def test_logit_mse_by_hand():
    student, teacher = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]])
    assert logit_mse(student, teacher, LABELS[:1], 9.0) == 1.0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_for_extreme_logits(loss):
    student = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)
    LOSSES[loss](student, torch.tensor([[-90.0, 90.0, 0.0]]), torch.tensor([1]), 1.0).backward()
    assert student.grad.isfinite().all()


def trained(folder, teacher, *, augment=()):
    network = build(tiny(), seed=0)
    return train(network, digits(augment=augment), OPTIONS, seed=1, folder=folder, teacher=teacher).module


def teacher_of(**options):
    return Teacher(module=build(tiny(width=16), seed=7), preprocessing=GREY, **options)


def test_weight_zero_is_training_without_teacher(tmp_path):
    alone = state(trained(tmp_path / "a", None))
    silent = state(trained(tmp_path / "b", teacher_of(weight=0.0)))
    heard = state(trained(tmp_path / "c", teacher_of(weight=0.5)))
    assert all(torch.equal(alone[name], silent[name]) for name in alone)
    assert any(not torch.equal(alone[name], heard[name]) for name in alone)


@pytest.mark.parametrize("augment", [(), ("shift",)], ids=["cached", "asked for each batch"])
def test_student_learns_what_the_teacher_says_and_the_teacher_stays(tmp_path, augment):
    task = digits()
    teacher = teacher_of(weight=1.0, loss="logit_mse")
    train(teacher.module, task, OPTIONS, seed=0, folder=tmp_path / "teacher").module.train()
    before = state(teacher.module)
    student = trained(tmp_path, teacher, augment=augment).eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.module.state_dict().items())
    assert teacher.module.training
    inputs = torch.from_numpy(task.preprocessing.normalize(task.train.images))
    with torch.no_grad():
        wanted = teacher.module.eval()(inputs)
        start = build(tiny(), seed=0).eval()(inputs)
        assert F.mse_loss(student(inputs), wanted) < 0.7 * F.mse_loss(start, wanted)


def test_labels_do_not_matter_when_only_the_teacher_counts(tmp_path):
    def with_labels(folder, labels):
        task = digits()
        split = Split("train", task.train.images, labels)
        network = build(tiny(), seed=0)
        teacher = teacher_of(weight=1.0, loss="soft_targets")
        task = task.replace(train=split)
        return state(train(network, task, OPTIONS, seed=1, folder=folder, teacher=teacher).module)

    labels = digits().train.labels
    one, other = with_labels(tmp_path / "a", labels), with_labels(tmp_path / "b", (labels + 1) % 10)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_cached_lessons_are_those_the_teacher_would_give(tmp_path, monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "nothing", lambda pixels, generator: pixels)
    cached = state(trained(tmp_path / "a", teacher_of(loss="logit_mse")))
    asked = state(trained(tmp_path / "b", teacher_of(loss="logit_mse"), augment=("nothing",)))
    assert all(torch.allclose(cached[name], asked[name], rtol=1e-3, atol=1e-4) for name in cached)


def test_teacher_may_see_larger_images(tmp_path):
    large = Preprocessing(height=32, width=32, color="grey", mean=(128.0,), std=(128.0,))
    module = build(Architecture((1, 32, 32), tiny().stages), seed=7)
    network = trained(tmp_path, Teacher(module=module, preprocessing=large), augment=("shift",))
    assert not network.training


def test_teacher_of_colour_images_is_refused_for_grey_ones(tmp_path):
    teacher = Teacher(module=build(tiny()), preprocessing=Preprocessing(height=16, width=16))
    with pytest.raises(ValueError, match="the teacher wants 3 channels, the task's images have 1"):
        trained(tmp_path, teacher)


@pytest.mark.parametrize(("field", "value"), [("loss", "hints"), ("weight", 1.5), ("temperature", 0.0)])
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        teacher_of(**{field: value})
