"""A search that takes a while, to be killed: writes down each training it completes before it reports it."""

import sys
import time
from pathlib import Path

from nas.run import RunDirectory
from nas.search.feasible import survey
from nas.search.study import SearchOptions, search
from tests.nas.search import simulated


def main(path: Path) -> None:
    costs = simulated.costs()
    feasible = survey(simulated.SPACE, costs, seed=0, draws=256, generations=5).rows

    with RunDirectory.open(path, {}) as run:

        def train(work):
            for item, trained in zip(work, simulated.train(work), strict=True):
                time.sleep(0.05)
                with (path / "trainings.txt").open("a") as file:
                    file.write(f"{item.key}.{item.rung}\n")
                yield trained

        options = SearchOptions(trials=12, batch=4, startup=8)
        search(simulated.SPACE, costs, options, feasible=feasible, run=run, train=train, seed=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
