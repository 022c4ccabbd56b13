import pytest

from nas.report.placement import label_places


def test_a_lonely_label_stands_above_its_mark():
    assert label_places([(500, 150)], ["search 1"], width=1000, height=300) == ["top center"]


@pytest.mark.parametrize(
    ("point", "places"),
    [
        ((500, 2), {"bottom center"}),
        ((2, 150), {"middle right", "top right"}),
        ((998, 150), {"middle left", "top left"}),
    ],
)
def test_labels_stay_in_the_plot(point, places):
    assert label_places([point], ["MobileNetV2 x0.35"], width=1000, height=300)[0] in places


def test_labels_of_close_marks_do_not_cover_one_another():
    points = [(500, 100), (505, 110), (510, 95), (515, 120)]
    labels = ["MobileNetV2", "ShuffleNetV2", "MobileNetV3", "search 1"]
    assert len(set(label_places(points, labels, width=1000, height=300))) == 4


def test_no_label_needs_no_place():
    assert label_places([], [], width=1000, height=300) == []
