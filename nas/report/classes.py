"""The section on classes: which are found, which are mistaken for which, in the int8 file where there is one."""

from collections.abc import Sequence

from nas.report import numbers
from nas.report.elements import Child, Markup, bar, element, folded, section, table
from nas.report.figures import confusion, embedded
from nas.results import DeliveredFile, RunResults

_MOST_CELLS = 20
_MOST_CONFUSED = 10

Matrix = Sequence[Sequence[int]]


def classes(results: RunResults) -> Markup:
    """Return recall and confusion of the winner's int8 file on the test split, else of its float file."""
    winner = results.contender(results.winner)
    file = next((it for it in sorted(winner.files, key=lambda it: it.precision != "int8") if it.recalls), None)
    if file is None:
        note = "No file was run over the test split, so nothing is known of single classes."
        return section("classes", "Classes", element("p", note, class_="note"))
    lead = f"{winner.name}, {file.file} ({file.precision}), measured on the test split, which was read once."
    return section(
        "classes",
        "Classes",
        element("p", lead),
        _confusion(file.confusion, results.classes) if file.confusion else None,
        element(
            "div",
            _recalls(file, results.classes),
            _most_confused(file.confusion, results.classes) if file.confusion else None,
            class_="columns",
        ),
    )


def _confusion(matrix: Matrix, names: Sequence[str]) -> Markup:
    if len(names) <= _MOST_CELLS:
        return _cells(matrix, names)
    caption = (
        "Share of each true class's images by predicted class: found in blue, mistaken in orange, each against its "
        "largest. The tables below name the classes."
    )
    label = f"Confusion matrix of {len(names)} classes"
    return embedded(confusion(matrix, names), "plot-confusion", label=label, caption=caption)


def _cells(matrix: Matrix, names: Sequence[str]) -> Markup:
    """Return the matrix as a table: few enough classes to read every count."""
    head: list[Child] = ["true \\ predicted", *(element("span", name, class_="upright", title=name) for name in names)]
    worst = max((cell for i, row in enumerate(matrix) for j, cell in enumerate(row) if i != j), default=0)
    rows: list[Sequence[Child]] = [
        [name, *(_cell(cell, sum(row), worst, found=i == j) for j, cell in enumerate(row))]
        for i, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
    caption = "Test images by true class (rows) and predicted class (columns)"
    return table(caption, head, rows, align="l" + "r" * len(names), kind="confusion")


def _cell(images: int, of: int, worst: int, *, found: bool) -> Markup:
    if not images:
        return element("span", "0", class_="zero")
    share = images / max(1, of if found else worst)
    return element("span", numbers.count(images), class_="found" if found else "mistaken", style=f"--share:{share:.3f}")


def _most_confused(matrix: Matrix, names: Sequence[str]) -> Markup | None:
    pairs = [(cell, i, j) for i, row in enumerate(matrix) for j, cell in enumerate(row) if i != j and cell]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    if not pairs:
        return None
    shown = pairs[:_MOST_CONFUSED]
    rows = [[names[i], names[j], numbers.count(cell), _of(cell, sum(matrix[i]))] for cell, i, j in shown]
    caption = (
        f"The {len(shown)} most frequent of {len(pairs)} confusions" if len(shown) < len(pairs) else "Every confusion"
    )
    head = ["True class", "Taken for", "Images", "Of the true class"]
    return table(caption, head, rows, align="llrr", kind="compact")


def _recalls(file: DeliveredFile, names: Sequence[str]) -> Markup:
    """Return the recall of every class; of many classes the worst, and the rest on request."""
    order = sorted(range(len(names)), key=lambda at: (file.recalls[at] < 0, file.recalls[at], at))
    if len(order) <= _MOST_CELLS:
        return _recall_table("Recall of every class, worst first", file, names, order)
    worst = _recall_table(f"The {_MOST_CONFUSED} classes of least recall", file, names, order[:_MOST_CONFUSED])
    everything = _recall_table("Recall of every class, worst first", file, names, order)
    return element("div", worst, folded(f"Recall of all {len(names)} classes", everything))


def _recall_table(caption: str, file: DeliveredFile, names: Sequence[str], order: Sequence[int]) -> Markup:
    rows = [_recall_row(file, names[at], at) for at in order]
    return table(caption, ["Class", "Images", "Found", "Recall", ""], rows, align="lrrrl", kind="compact")


def _recall_row(file: DeliveredFile, name: str, at: int) -> Sequence[Child]:
    recall = file.recalls[at]
    if recall < 0:
        return [name, "0", numbers.UNKNOWN, "no test image", None]
    if not file.confusion:
        return [name, numbers.UNKNOWN, numbers.UNKNOWN, numbers.percent(recall), bar(recall)]
    images = sum(file.confusion[at])
    found = numbers.count(file.confusion[at][at])
    return [name, numbers.count(images), found, _percent(recall, images), bar(recall)]


def _of(images: int, total: int) -> str:
    return f"{_percent(images / total, total)} of {numbers.count(total)}"


def _percent(share: float, n: int) -> str:
    """Return a share of n images with no digit that one image could not have made."""
    return numbers.percent(share, 0 if n < 200 else 1)
