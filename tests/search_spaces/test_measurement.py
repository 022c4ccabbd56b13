import math

import pytest

from search_spaces.measurement import Measurement


def test_json_round_trip():
    measured = Measurement(value=1.5, unit="ms", origin="measured", lower=1.4, upper=1.7, source="this CPU")
    assert Measurement.from_dict(measured.to_dict()) == measured
    bare = Measurement(value=3, unit="MAC", origin="counted")
    assert bare.to_dict() == {"value": 3, "unit": "MAC", "origin": "counted"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": math.nan}, "finite"),
        ({"origin": "guessed"}, "origin must be one of"),
        ({"lower": 1.0}, "two ends"),
        ({"lower": 2.0, "upper": 3.0}, "must lie within"),
    ],
    ids=["nan", "origin", "half", "outside"],
)
def test_nonsense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Measurement(**({"value": 1.0, "unit": "ms", "origin": "measured"} | fields))
