"""What the cache holds of a data set: splits, the pixels a search may see, and apart the test images.

- `KEY/`: splits, labels, and the training and validation pixels of the configured size. Unreadable and identical
  images are settled here, so that all sizes have the same images in the same splits.
- `KEY-HxW/`: training and validation pixels of another size, decoded from the originals.
- `KEY-test/`, `KEY-test-HxW/`: test pixels, made when the report asks for them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import PIL

from nas.data.decode import RULES_VERSION
from nas.data.identical import conflicts, content_digest, overlaps, pixel_digests
from nas.data.notes import listed, some
from nas.data.options import DataOptions
from nas.data.pixels import keep_rows, write_pixels
from nas.data.plan import Plan, plan_splits
from nas.data.source import Images, Part, Pixels, Role, Source, StoredImage
from nas.data.splits import Indices
from nas.data.store import Entry, Facts, Report, open_entry
from nas.run import disk_errors
from search_spaces.errors import DataError

SEEN: tuple[Role, Role] = ("train", "validation")
"""The splits that a search may look at."""

# They change no pixel, label or split, so they do not ask for another entry.
_NOT_CACHED = ("normalize", "metric", "balance", "augment", "calibration_images", "max_corrupt")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataCache:
    """The entries of one source with one set of options.

    Attributes:
        source: As read.
        flat: All its images as one part.
        options: How they become a task.
        folder: Of the cache.
        workers: Threads that decode.
        report: Told about progress.
        key: Of the entries: a hash of what identifies the images, and of the options that change what is
            stored.
    """

    source: Source
    flat: Part
    options: DataOptions
    folder: Path
    workers: int
    report: Report
    key: str

    @classmethod
    def of(cls, source: Source, options: DataOptions, *, folder: Path, workers: int, report: Report) -> Self:
        """Return the cache of a source; nothing is decoded yet."""
        flat = source.flat()
        return cls(
            source=source,
            flat=flat,
            options=options,
            folder=folder,
            workers=workers,
            report=report,
            key=_key(source, flat, options),
        )

    def base(self) -> Entry:
        """Return the entry of the configured size, with the splits; DataError if too little is readable."""
        entry = open_entry(self.folder / self.key, self._build_base, self.report)
        self.refuse_unreadable(entry)
        return entry

    def sized(self, base: Entry, height: int, width: int) -> Entry:
        """Return the entry of a size: the pixels of the same images in the same splits."""
        if (height, width) == (self.options.height, self.options.width):
            return base

        def build(folder: Path) -> Facts:
            for role in SEEN:
                numbers = base.array(f"{role}_index")
                failures = self._decode(folder, role, numbers, height, width)
                if failures:
                    raise DataError(f"images could be read before and cannot now: {some(_named(failures))}")
                keep_rows(folder / f"{role}.npy", folder / f"{role}.all.npy", np.arange(len(numbers)))
            return {}

        return open_entry(self.folder / f"{self.key}-{height}x{width}", build, self.report)

    def test(self, numbers: Indices, height: int, width: int) -> Entry:
        """Return the entry of the test images of a size; raises DataError when too many are unreadable.

        Args:
            numbers: Of the test images in `flat`.
            height: In pixels.
            width: In pixels.
        """

        def build(folder: Path) -> Facts:
            failures = self._decode(folder, "test", numbers, height, width)
            rows = _readable(len(numbers), failures)
            keep_rows(folder / "test.npy", folder / "test.all.npy", rows)
            _save(folder, test_index=numbers[rows], test_labels=self.flat.labels[numbers[rows]])
            return {"decoded": len(numbers), "unreadable": _named(failures)}

        at_size = "" if (height, width) == (self.options.height, self.options.width) else f"-{height}x{width}"
        entry = open_entry(self.folder / f"{self.key}-test{at_size}", build, self.report)
        self.refuse_unreadable(entry)
        return entry

    def refuse_unreadable(self, entry: Entry) -> None:
        """Raise a DataError when more images than `max_corrupt` could not be decoded."""
        self._refuse(entry.facts["unreadable"], entry.facts["decoded"])

    def _refuse(self, unreadable: Sequence[str], decoded: int) -> None:
        if len(unreadable) > self.options.max_corrupt * decoded:
            raise DataError(
                f"{len(unreadable)} of {decoded} images cannot be read, more than max_corrupt = "
                f"{self.options.max_corrupt:.3g} allows: {some(unreadable)}. Mend or remove them, or raise it"
            )

    def _decode(
        self, folder: Path, role: Role, numbers: Indices, height: int, width: int
    ) -> dict[int, tuple[str, str]]:
        """Write images to `ROLE.all.npy`; return name and reason of each that cannot be read, by row."""
        preprocessing = dataclasses.replace(self.options.preprocessing(), height=height, width=width)
        failures = write_pixels(
            folder / f"{role}.all.npy",
            _Chosen(self.flat.images, numbers),
            preprocessing,
            workers=self.workers,
            report=self.report,
        )
        return {row: (self.flat.names[int(numbers[row])], reason) for row, reason in sorted(failures.items())}

    def _build_base(self, folder: Path) -> Facts:
        options = self.options
        plan = plan_splits(self.source, self.flat, options)
        failures = {
            role: self._decode(folder, role, plan.members[role], options.height, options.width) for role in SEEN
        }
        unreadable = [sentence for role in SEEN for sentence in _named(failures[role])]
        decoded = sum(len(plan.members[role]) for role in SEEN)
        self._refuse(unreadable, decoded)
        rows = {role: _readable(len(plan.members[role]), failures[role]) for role in SEEN}
        rows, notes = self._without_identical(folder, plan, rows)
        members = {role: plan.members[role][rows[role]] for role in SEEN} | {"test": plan.members["test"]}
        notes += self._absent(members)
        for role in SEEN:
            keep_rows(folder / f"{role}.npy", folder / f"{role}.all.npy", rows[role])
        self._save_splits(folder, members)
        if unreadable:
            notes = [listed("Unreadable images", unreadable, of=decoded), *notes]
        mean, std = _moments(np.load(folder / "train.npy", mmap_mode="r", allow_pickle=False))
        return {
            "decoded": decoded,
            "unreadable": unreadable,
            "notes": [*plan.notes, *notes],
            "mean": mean,
            "std": std,
        }

    def _save_splits(self, folder: Path, members: Mapping[Role, Indices]) -> None:
        _save(folder, **{f"{role}_index": numbers for role, numbers in members.items()})
        _save(folder, **{f"{role}_labels": self.flat.labels[numbers] for role, numbers in members.items()})
        stored = b"".join(content_digest(self.flat.images[number]) for number in members["test"].tolist())
        _save(folder, test_content=np.frombuffer(stored, np.uint8))

    def _without_identical(
        self, folder: Path, plan: Plan, rows: Mapping[Role, Indices]
    ) -> tuple[dict[Role, Indices], list[str]]:
        """Return the rows to keep and notes, after looking for images that are in two splits."""
        policy = self.options.duplicates
        pixels: dict[Role, list[bytes]] = {
            role: pixel_digests(_mapped(folder / f"{role}.all.npy"), rows[role]) for role in SEEN
        }
        numbers = {role: plan.members[role][rows[role]] for role in SEEN} | {"test": plan.members["test"]}
        stored = {role: [plan.keys[number] for number in found.tolist()] for role, found in numbers.items()}
        if policy != "warn":
            entry = self.test(plan.members["test"], self.options.height, self.options.width)
            numbers["test"] = np.array(entry.array("test_index"))
            pixels["test"] = pixel_digests(entry.array("test"), range(len(numbers["test"])))
        notes: list[str] = []
        kept = dict(rows)
        pairs: tuple[tuple[Role, Role], ...] = (
            ("train", "validation"),
            ("train", "test"),
            ("validation", "test"),
        )
        for these, others in pairs:
            compared = pixels if others in pixels else stored
            found = overlaps(compared[these], compared[others])
            if not found:
                continue
            notes.append(self.identical(these, numbers[these], others, numbers[others], found))
            if policy == "drop":
                kept[these] = np.setdiff1d(kept[these], rows[these][[number for number, _ in found]])
                notes[-1] += f" They were taken out of the {these} split."
        if notes and policy == "error":
            raise DataError(f"{' '.join(notes)} Remove them, or set duplicates to 'drop' or 'warn'")
        return kept, notes + self._conflicts(numbers, pixels)

    def identical(
        self,
        these: Role,
        numbers: Indices,
        others: Role,
        other_numbers: Indices,
        found: Sequence[tuple[int, int]],
    ) -> str:
        """Return a sentence about images of one split that are identical to one of another."""
        pairs = [
            f"{self.flat.names[int(numbers[one])]} = {self.flat.names[int(other_numbers[other])]}"
            for one, other in found
        ]
        return listed(f"Images of the {these} split identical to one of the {others} split", pairs)

    def _conflicts(self, numbers: Mapping[Role, Indices], pixels: Mapping[Role, Sequence[Hashable]]) -> list[str]:
        both = np.concatenate([numbers[role] for role in SEEN])
        labels = self.flat.labels[both]
        found = conflicts([key for role in SEEN for key in pixels[role]], labels)
        if not found:
            return []
        classes = self.source.classes
        pairs = [
            f"{self.flat.names[int(both[one])]} ({classes[labels[one]]}) = "
            f"{self.flat.names[int(both[other])]} ({classes[labels[other]]})"
            for one, other in found
        ]
        return [listed("Images identical to one of another class", pairs)]

    def _absent(self, members: Mapping[Role, Indices]) -> list[str]:
        """Return notes about classes without images; raises DataError when it is in training that they lack."""
        notes = []
        for role, numbers in members.items():
            present = set(self.flat.labels[numbers].tolist())
            absent = [repr(name) for label, name in enumerate(self.source.classes) if label not in present]
            if absent and role == "train":
                raise DataError(f"no training image of {some(absent)} is left without unreadable and identical images")
            if absent:
                notes.append(listed(f"Classes without an image in the {role} split", absent))
        return notes


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Some images of a sequence."""

    images: Images
    numbers: Indices

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> StoredImage:
        return self.images[int(self.numbers[index])]


def _key(source: Source, flat: Part, options: DataOptions) -> str:
    stored = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_CACHED}
    digest = hashlib.sha256()
    record = [
        RULES_VERSION,
        PIL.__version__,
        source.classes,
        [len(part.labels) for _, part in source.parts()],
        stored,
    ]
    digest.update(json.dumps(record, sort_keys=True).encode())
    digest.update(flat.labels.astype("<i8").tobytes())
    for texts in (flat.names, flat.groups):
        digest.update("\0".join(texts).encode("utf-8", "surrogateescape") + b"\0")
    digest.update((source.fingerprint or _fingerprint(flat.images)).encode())
    return digest.hexdigest()[:24]


def _fingerprint(images: Images) -> str:
    digest = hashlib.sha256()
    for number in range(len(images)):
        stored = images[number]
        if not isinstance(stored, Path):
            digest.update(content_digest(stored))
            continue
        try:
            status = stored.stat()
        except OSError:
            digest.update(b"missing\0")
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _readable(count: int, failures: Mapping[int, object]) -> Indices:
    return np.array([row for row in range(count) if row not in failures], np.int64)


def _named(failures: Mapping[int, tuple[str, str]]) -> list[str]:
    return [f"{name} ({reason})" for name, reason in failures.values()]


def _mapped(path: Path) -> Pixels:
    mapped: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _save(folder: Path, **arrays: npt.NDArray[np.int64] | Pixels) -> None:
    for name, array in arrays.items():
        with disk_errors(folder):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _moments(images: Pixels) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of every channel, the latter at least 1 grey level."""
    counts = np.zeros((images.shape[3], 256), np.int64)
    for start in range(0, len(images), 256):
        block = images[start : start + 256]
        for channel in range(images.shape[3]):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    levels = np.arange(256)
    total = counts.sum(1)
    mean = counts @ levels / total
    std = np.sqrt(counts @ levels**2 / total - mean**2)
    return mean.tolist(), np.maximum(std, 1.0).tolist()
