"""Progress bars on stderr, one for each thing that is going on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float], None]


@contextmanager
def bars() -> Iterator[Progress]:
    """Yield a progress function that draws; on a stderr that is no terminal it prints a line at each tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as drawn:
        tasks: dict[str, TaskID] = {}

        def show(label: str, share: float) -> None:
            if label not in tasks:
                tasks[label] = drawn.add_task(label, total=1.0)
            drawn.update(tasks[label], completed=share)

        yield show


def _lines(console: object) -> Progress:
    told: dict[str, int] = {}

    def show(label: str, share: float) -> None:
        tenth = int(10 * share + 1e-9)
        if told.get(label) != tenth:
            told[label] = tenth
            print(f"{label}: {10 * tenth} %", file=console.file, flush=True)  # type: ignore[attr-defined]

    return show
