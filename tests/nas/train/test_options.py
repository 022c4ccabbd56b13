import itertools
import math

import pytest
from pydantic import TypeAdapter, ValidationError

from nas.train.options import TrainOptions


@pytest.mark.parametrize(
    ("images", "batch", "rate"), [(1_000, 32, 0.1), (8_000, 64, 0.2 / math.sqrt(2)), (60_000, 128, 0.2)]
)
def test_batch_and_rate_follow_the_number_of_images(images, batch, rate):
    resolved = TrainOptions().resolved(images)
    assert resolved.batch_size == batch
    assert resolved.learning_rate == pytest.approx(rate)
    assert resolved.weight_decay == 5e-4


def test_given_values_are_not_resolved_away():
    options = TrainOptions(batch_size=10, learning_rate=1.0, weight_decay=0.0)
    assert options.resolved(1000) == options


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rate_rises_to_its_peak_and_falls_towards_zero(schedule):
    options = TrainOptions(learning_rate=0.5, schedule=schedule, warmup=0.1)
    rates = [options.learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.5 / 11)
    assert max(rates) == rates[10] == 0.5
    assert rates[55] == pytest.approx(0.25)
    assert all(before > after > 0 for before, after in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 1), ("optimizer", "adam"), ("learning_rate", 0.0), ("momentum", 1.0),
     ("weight_decay", -1.0), ("schedule", "step"), ("warmup", 1.0), ("label_smoothing", 1.0), ("ema", 1.0),
     ("clip_norm", -1.0), ("threads", 0), ("validate_every", 0), ("max_hours", -1.0)],
)  # fmt: skip
def test_values_out_of_range_name_their_field(field, value):
    with pytest.raises(ValueError, match=f"^{field} "):
        TrainOptions(**{field: value})


def test_pydantic_reads_them_and_refuses_unknown_keys():
    adapter = TypeAdapter(TrainOptions)
    assert adapter.validate_json('{"epochs": 3, "optimizer": "adamw"}') == TrainOptions(epochs=3, optimizer="adamw")
    with pytest.raises(ValidationError, match="learning_rat"):
        adapter.validate_json('{"learning_rat": 0.1}')
    with pytest.raises(ValidationError, match="epochs must be at least 1"):
        adapter.validate_json('{"epochs": 0}')


def test_continued_training_has_its_own_schedule_and_a_smaller_rate():
    continued = TrainOptions(learning_rate=0.4).continued(1000, epochs=3, factor=0.25)
    assert (continued.epochs, continued.learning_rate, continued.batch_size) == (3, 0.1, 32)
