"""Where labels stand beside their points, so that few of them cover one another."""

from collections.abc import Sequence

_PLACES = {
    "top center": (0.0, -1.0),
    "bottom center": (0.0, 1.0),
    "middle left": (-1.0, 0.0),
    "middle right": (1.0, 0.0),
    "top left": (-1.0, -1.0),
    "bottom left": (-1.0, 1.0),
    "top right": (1.0, -1.0),
    "bottom right": (1.0, 1.0),
}
"""Plotly's positions, the preferred first, as directions to the right and down."""

_LETTER, _LINE, _MARK = 6.6, 15.0, 8.0
"""Pixels: mean width of a letter and height of a line at 12 px, half the width of a mark."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""


def label_places(
    points: Sequence[tuple[float, float]], labels: Sequence[str], *, width: float, height: float
) -> list[str]:
    """Return a position for each label, as plotly names them.

    Every label takes the first place where it stays in the plot and covers no mark and no label before it; failing
    that, the one it covers least from.

    Args:
        points: Of the marks, right and down in pixels.
        labels: Their texts.
        width: Of the plot in pixels.
        height: Likewise.
    """
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in points]
    places = []
    for point, label in zip(points, labels, strict=True):
        boxes = {place: _box(point, label, place) for place in _PLACES}
        costs = {
            place: _outside(box, width, height) + sum(_overlap(box, other) for other in taken)
            for place, box in boxes.items()
        }
        best = min(costs, key=lambda place: costs[place])
        taken.append(boxes[best])
        places.append(best)
    return places


def _box(point: tuple[float, float], label: str, place: str) -> Box:
    right, down = _PLACES[place]
    width = _LETTER * len(label)
    beside = _MARK if not down else 0.0
    x = point[0] + right * (width / 2 + beside)
    y = point[1] + down * (_LINE / 2 + _MARK)
    return x - width / 2, y - _LINE / 2, x + width / 2, y + _LINE / 2


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    along = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, along)


def _outside(box: Box, width: float, height: float) -> float:
    """Return the area of a box that lies outside the plot."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, (0.0, 0.0, width, height))
