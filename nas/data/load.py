"""From a source and options to a task."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nas.data.decode import RULES_VERSION
from nas.data.entries import SEEN, DataCache
from nas.data.identical import overlaps, pixel_digests
from nas.data.notes import listed
from nas.data.options import DataOptions
from nas.data.source import TaskSource, about
from nas.data.splits import proportional
from nas.data.store import Entry, Report
from nas.task import Preprocessing, Split, Task


def load_task(
    source: TaskSource,
    options: DataOptions,
    *,
    cache_dir: Path,
    workers: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Task:
    """Return the task that a source and options make; decoded the first time, mapped from the cache later.

    The test split is not decoded before `Task.open_test` is called, unless `duplicates` is "drop" or "error",
    which compare its pixels, and do nothing else with them, before anything is trained. With "warn" its
    stored bytes are compared here and its pixels by `open_test`, in the notes of the split. An image that
    differs in one pixel is another image: groups are the means against near-duplicates.

    The cache is keyed by the options, Pillow's version and what identifies the images: of files name, size
    and time of change, else their content. A file rewritten within its size and time of change is not
    noticed.

    Args:
        source: The plug-in.
        options: How its images become a task.
        cache_dir: Folder of the cache; made if missing, shared by any number of processes.
        workers: Threads that decode; 0 for one a core this process may use. The result does not depend on it.
        progress: Told what is done and the share of it, 0 to 1.

    Raises:
        DataError: The images, labels or splits cannot be used.
        RunError: The cache cannot be written.
    """
    request = _Request(
        source=source,
        options=options,
        cache_dir=cache_dir,
        workers=workers or len(os.sched_getaffinity(0)),
    )
    return _task(request, options.height, options.width, report=progress or _silent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What `load_task` was asked for; small, so that a task can keep it to go back to the originals."""

    source: TaskSource
    options: DataOptions
    cache_dir: Path
    workers: int

    def cache(self, report: Report) -> DataCache:
        return DataCache.of(
            self.source.read(), self.options, folder=self.cache_dir, workers=self.workers, report=report
        )


def _silent(label: str, share: float) -> None:
    """Report progress to nobody."""


def _task(request: _Request, height: int, width: int, *, report: Report = _silent) -> Task:
    options, cache = request.options, request.cache(report)
    with about(cache.source.name):
        base = cache.base()
        entry = cache.sized(base, height, width)
    preprocessing = dataclasses.replace(options.preprocessing(), height=height, width=width)
    if options.normalize == "train":
        mean, std = tuple(base.facts["mean"]), tuple(base.facts["std"])
        preprocessing = dataclasses.replace(preprocessing, mean=mean, std=std)
    train, validation = (Split(role, entry.array(role), np.array(base.array(f"{role}_labels"))) for role in SEEN)
    chosen = proportional(train.labels, np.arange(len(train)), options.calibration_images)
    return Task(
        name=cache.source.name,
        classes=cache.source.classes,
        preprocessing=preprocessing,
        train=train,
        validation=validation,
        calibration=Split("calibration", train.images[chosen], train.labels[chosen]),
        open_test=partial(_open_test, request, height, width),
        metric=options.metric,
        balance=options.balance,
        augment=options.augment,
        data_hash=_data_hash(cache.source.classes, preprocessing, base, entry),
        notes=(*cache.source.notes, *base.facts["notes"]),
        resized=partial(_task, request),
    )


def _open_test(request: _Request, height: int, width: int) -> Split:
    """Decode or map the test images, and say which of them the other splits have, too."""
    cache = request.cache(_silent)
    with about(cache.source.name):
        base = cache.base()
        numbers = np.array(base.array("test_index"))
        entry = cache.test(numbers, height, width)
        seen = cache.sized(base, height, width)
    images, numbers = entry.array("test"), np.array(entry.array("test_index"))
    digests = pixel_digests(images, range(len(images)))
    unreadable = entry.facts["unreadable"]
    notes = [listed("Unreadable test images", unreadable, of=entry.facts["decoded"])] if unreadable else []
    for role in SEEN:
        others = seen.array(role)
        found = overlaps(digests, pixel_digests(others, range(len(others))))
        if found:
            notes.append(cache.identical("test", numbers, role, np.array(base.array(f"{role}_index")), found))
    return Split("test", images, np.array(entry.array("test_labels")), tuple(notes))


def _data_hash(classes: tuple[str, ...], preprocessing: Preprocessing, base: Entry, entry: Entry) -> str:
    """Return a hash of seen pixels, stored test images, labels, classes and preprocessing."""
    arrays = [base.digests[f"{role}_labels.npy"] for role in (*SEEN, "test")]
    arrays += [entry.digests[f"{role}.npy"] for role in SEEN] + [base.digests["test_content.npy"]]
    record = [RULES_VERSION, classes, dataclasses.asdict(preprocessing), arrays]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
