import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from nas.candidate import Candidate
from nas.compress.distill import Distill
from nas.protocols import STAGES, StageContext
from nas.task import Preprocessing
from nas.train.checkpoint import save_network
from nas.train.loop import train
from nas.train.options import TrainOptions
from nas.train.order import derived_seed
from search_spaces.architecture import Architecture
from search_spaces.build import build
from search_spaces.errors import ConfigError
from tests.nas.train.tiny import GREY, digits, state, tiny

OPTIONS = TrainOptions(epochs=2, batch_size=16)
QUICK = Distill(epochs=2)
OUTCOMES = ("as_it_came", "control", "distilled", "teacher")


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def task():
    return digits()


@pytest.fixture(scope="module")
def trained(task, tmp_path_factory):
    """A candidate after five epochs and a better, larger teacher."""

    def make(width, epochs):
        network = build(tiny(width=width), seed=0)
        options = OPTIONS.replace(epochs=epochs)
        train(network, task, options, seed=0, folder=tmp_path_factory.mktemp("trained"))
        return Candidate(architecture=tiny(width=width), module=network, preprocessing=GREY)

    return make(8, 5), make(16, 12)


def context(folder, teacher=None, **options):
    return StageContext(
        **{"train": OPTIONS, "seed": 1, "folder": folder, "predict_ms": float, "teacher": teacher, **options}
    )


def garbage():
    """A teacher that has learned nothing."""
    network = build(tiny(), seed=9).eval()
    with torch.no_grad():
        network.stages[2][1].linear.weight.mul_(100)
    return Candidate(architecture=tiny(), module=network, preprocessing=GREY)


def equal(module, other):
    one, two = state(module), state(other)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def values(candidate):
    return {name: candidate.figures[f"accuracy_{name}"].value for name in OUTCOMES}


def test_best_on_validation_is_handed_on_with_all_figures(trained, task, tmp_path):
    candidate, teacher = trained
    result = QUICK.apply(candidate, task, context(tmp_path, teacher))
    found = values(result)
    assert set(result.figures) == {f"accuracy_{name}" for name in OUTCOMES}
    best = max(found[name] for name in OUTCOMES[:3])
    chosen = result.notes[0].rsplit("handed on: ", 1)[1].replace(" ", "_")
    assert found[chosen] == best > found["as_it_came"]
    assert all(figure.source == "validation split, 128 images" for figure in result.figures.values())
    assert result.architecture == candidate.architecture


def test_control_is_plain_training_from_the_same_start(trained, task, tmp_path):
    candidate, teacher = trained
    result = Distill(epochs=2, keep="distilled").apply(candidate, task, context(tmp_path / "a", teacher))
    network = build(tiny(), seed=0)
    network.load_state_dict(candidate.module.state_dict())
    plain = train(
        network,
        task,
        OPTIONS.continued(len(task.train), epochs=2, factor=QUICK.learning_rate_factor),
        seed=derived_seed(1, "distill"),
        folder=tmp_path / "plain",
    )
    assert plain.metric.value == values(result)["control"]
    assert not equal(plain.module, result.module)


def test_a_harmful_teacher_never_hurts(trained, task, tmp_path):
    candidate, _ = trained
    stage = Distill(epochs=2, weight=1.0, loss="logit_mse")
    result = stage.apply(candidate, task, context(tmp_path, garbage()))
    found = values(result)
    assert found["distilled"] < found["control"]
    assert result.notes[0].endswith("handed on: control")
    assert "there was no gain" in result.notes[1]
    assert result.notes[2] == "the teacher is no better than its student was"
    logits = result.module(torch.from_numpy(GREY.normalize(task.validation.images)))
    assert (logits.argmax(1).numpy() == task.validation.labels).mean() == found["control"]


def test_candidate_comes_back_when_no_training_gains(trained, task, tmp_path):
    _, good = trained
    stage = Distill(epochs=1, weight=1.0, start="scratch")
    result = stage.apply(good, task, context(tmp_path, garbage()))
    assert result.notes[0].endswith("handed on: as it came")
    assert result.notes[1] == "neither training gained anything"
    assert equal(result.module, good.module)


def test_distilled_network_is_handed_on_when_asked_for(trained, task, tmp_path):
    candidate, _ = trained
    stage = Distill(epochs=1, weight=1.0, loss="logit_mse", keep="distilled")
    result = stage.apply(candidate, task, context(tmp_path, garbage()))
    assert result.notes[0].endswith("handed on: distilled")
    assert "not the best" in result.notes[1]


@pytest.mark.parametrize("loss", ["soft_targets", "decoupled", "logit_mse"])
def test_student_follows_its_teacher_with_every_loss(trained, task, tmp_path, loss):
    candidate, teacher = trained
    stage = Distill(epochs=8, weight=1.0, loss=loss, keep="distilled")
    result = stage.apply(candidate, task, context(tmp_path, teacher))
    inputs = torch.from_numpy(GREY.normalize(task.train.images))
    with torch.no_grad():
        wanted = teacher.module(inputs).argmax(1)
        before = (candidate.module(inputs).argmax(1) == wanted).float().mean()
        after = (result.module(inputs).argmax(1) == wanted).float().mean()
    assert after > before + 0.1


@pytest.mark.parametrize("outcome", ["control", "distilled"])
def test_killed_and_continued_equals_uninterrupted(trained, task, tmp_path, outcome):
    candidate, teacher = trained
    stage = Distill(epochs=2, keep="distilled")

    def kill(label, share):
        if label.startswith(f"distill, {outcome}, epoch 2"):
            raise Killed

    whole = stage.apply(candidate, task, context(tmp_path / "whole", teacher))
    with pytest.raises(Killed):
        stage.apply(candidate, task, context(tmp_path / "cut", teacher, progress=kill))
    again = stage.apply(candidate, task, context(tmp_path / "cut", teacher))
    assert equal(whole.module, again.module)
    assert whole.figures == again.figures


def test_candidate_and_teacher_stay_as_they_were(trained, task, tmp_path):
    candidate, teacher = trained
    before, taught = state(candidate.module), state(teacher.module)
    QUICK.apply(candidate, task, context(tmp_path, teacher))
    assert all(torch.equal(before[name], tensor) for name, tensor in candidate.module.state_dict().items())
    assert all(torch.equal(taught[name], tensor) for name, tensor in teacher.module.state_dict().items())
    assert not candidate.module.training


def test_teacher_comes_from_a_file_and_may_see_larger_images(trained, task, tmp_path):
    candidate, _ = trained
    large = Architecture((1, 32, 32), tiny().stages)
    save_network(tmp_path / "teacher.safetensors", large, build(large, seed=3))
    stage = Distill(epochs=1, teacher=str(tmp_path / "teacher.safetensors"))
    result = stage.apply(candidate, task, context(tmp_path / "stage"))
    assert result.figures["accuracy_teacher"].value < 0.5


def test_unsuitable_teachers_are_refused_before_anything_trains(trained, task, tmp_path):
    candidate, _ = trained
    with pytest.raises(ConfigError, match="distill needs a teacher"):
        QUICK.apply(candidate, task, context(tmp_path / "stage"))
    color = Architecture((3, 16, 16), tiny().stages)
    for name, architecture, message in (
        ("classes", tiny(classes=7), "tells 7 classes apart, task 'tiny digits' has 10"),
        ("color", color, "takes 3 channels, the task's images have 1"),
    ):
        file = tmp_path / f"{name}.safetensors"
        save_network(file, architecture, build(architecture))
        with pytest.raises(ConfigError, match=message):
            Distill(teacher=str(file)).apply(candidate, task, context(tmp_path / "stage"))
    teacher = candidate.replace(preprocessing=Preprocessing(height=16, width=16))
    with pytest.raises(ConfigError, match="the run's teacher takes 3 channels"):
        QUICK.apply(candidate, task, context(tmp_path / "stage", teacher))
    assert not (tmp_path / "stage").exists()


class Plain(nn.Module):
    """A network outside the block vocabulary."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.Tanh(), nn.Linear(16, 10))

    def forward(self, x):
        return self.layers(x)


def test_any_torch_network_can_be_distilled_from_its_weights(trained, task, tmp_path):
    _, teacher = trained
    candidate = Candidate(architecture=None, module=Plain().eval(), preprocessing=GREY)
    result = QUICK.apply(candidate, task, context(tmp_path, teacher))
    assert isinstance(result.module, Plain)
    with pytest.raises(ConfigError, match="cannot start a network from scratch that left the block vocabulary"):
        Distill(start="scratch").apply(candidate, task, context(tmp_path / "scratch", teacher))


def test_progress_rises_to_one(trained, task, tmp_path):
    candidate, teacher = trained
    shares = []
    QUICK.apply(candidate, task, context(tmp_path, teacher, progress=lambda label, share: shares.append(share)))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_stage_is_registered_and_read_strictly():
    assert STAGES.name_of(Distill) == "distill"
    adapter = TypeAdapter(Distill)
    assert adapter.validate_json('{"loss": "decoupled", "epochs": 3}') == Distill(loss="decoupled", epochs=3)
    with pytest.raises(ValidationError, match="alpha"):
        adapter.validate_json('{"alpha": 0.5}')


@pytest.mark.parametrize(
    ("field", "value"),
    [("loss", "hints"), ("weight", 0.0), ("temperature", 0.0), ("epochs", 0), ("start", "middle"),
     ("learning_rate_factor", 0.0), ("keep", "control")],
)  # fmt: skip
def test_values_out_of_range_name_their_field(field, value):
    with pytest.raises(ValueError, match=f"^{field} must"):
        Distill(**{field: value})
