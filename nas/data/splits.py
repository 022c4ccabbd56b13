"""Seeded, stratified splits that keep groups of images together.

scikit-learn has stratified splits without groups (StratifiedShuffleSplit) and with groups but of 1/k each
(StratifiedGroupKFold); here shares are free, three sides are made at once, a rare class reaches every side,
and an image's place follows from the seed and its name, so that most images stay on their side when others
are added.

How it is done. Groups (an image without one is its own) stand in an order that a hash of seed and name gives.
First every class is brought to every side: for the rarest class first, the group that strays least from the
wanted class counts. Then each group in order goes to the first of test and validation whose sum over classes
of (images - wanted)^2 / (images of the class) it lowers, else to training. Without groups the counts of every
class are its share, rounded to the nearest image (a half down); with groups they come as near as whole groups
in that order allow, which `Division.missed` tells.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nas.data.source import Role
from search_spaces.errors import DataError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """Images divided among splits.

    Attributes:
        members: Numbers of the images of every split, "train" among them, ascending.
        missed: Classes a split holds more than one image too many or too few of: split, label, held, wanted.
    """

    members: Mapping[Role, Indices]
    missed: tuple[tuple[Role, int, int, float], ...]


def ranks(names: Sequence[str], seed: int) -> Indices:
    """Return the place of every name in an order that looks random and follows from seed and name alone."""
    key = str(seed).encode()
    digests = [
        hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=key, digest_size=8).digest() for name in names
    ]
    places = np.empty(len(names), np.int64)
    places[sorted(range(len(names)), key=lambda number: (digests[number], number))] = np.arange(len(names))
    return places


def joined_groups(*keys: Sequence[Hashable]) -> Indices:
    """Return a group number for every image, the same for images that share a key, directly or over others.

    Args:
        keys: Sequences of `n` keys each; None or "" is no key.
    """
    count = len(keys[0])
    rows: list[int] = []
    columns: list[int] = []
    nodes: dict[tuple[int, Hashable], int] = {}
    for kind, sequence in enumerate(keys):
        for image, key in enumerate(sequence):
            if key is not None and key != "":
                rows.append(image)
                columns.append(count + nodes.setdefault((kind, key), len(nodes)))
    total = count + len(nodes)
    links = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(total, total))
    _, numbers = connected_components(links, directed=False)
    return np.asarray(numbers[:count], np.int64)


def divide(
    labels: npt.NDArray[np.int64],
    groups: Indices,
    order: Indices,
    shares: dict[Role, float],
    *,
    classes: Sequence[str],
) -> Division:
    """Divide images among training and the splits of `shares`.

    Args:
        labels: Of the images, `n`.
        groups: Numbers of their groups, `n`; a group is never divided.
        order: Their ranks, `n`; a group stands where its first image does.
        shares: Share of the images wanted in each split besides training.
        classes: Names, for messages.

    Raises:
        DataError: A class has too few images, or too few groups, to be in every split.
    """
    _check_images(labels, shares, classes)
    divider = _Divider(labels, groups, order, shares)
    for label in sorted(divider.left, key=lambda label: (divider.left[label], label)):
        if divider.left[label] < len(shares) + 1:
            _refuse(labels, groups, label, shares, classes)
        for role in shares:
            if not divider.held[role][label] and not divider.bring(label, role):
                _refuse(labels, groups, label, shares, classes)
    divider.fill()
    return divider.division()


def proportional(labels: npt.NDArray[np.int64], order: Indices, count: int) -> Indices:
    """Return `count` images or all, ascending: every class in proportion, at least one of each.

    Within a class the first in order are taken. With fewer images than classes the largest classes have one
    each.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    present, sizes = np.unique(labels, return_counts=True)
    wanted = sizes * (count / len(labels))
    taken = np.maximum(np.floor(wanted).astype(np.int64), 1)
    while taken.sum() != count:
        step = 1 if taken.sum() < count else -1
        able = taken < sizes if step > 0 else taken > (1 if count >= len(present) else 0)
        taken[np.argmax(np.where(able, step * (wanted - taken), -np.inf))] += step
    chosen = []
    for label, number in zip(present, taken, strict=True):
        members = np.flatnonzero(labels == label)
        chosen.append(members[np.argsort(order[members])][:number])
    return np.sort(np.concatenate(chosen))


class _Divider:
    """The state of one division: which groups are still free, and what every side holds."""

    def __init__(
        self, labels: npt.NDArray[np.int64], groups: Indices, order: Indices, shares: dict[Role, float]
    ) -> None:
        self.labels, self.groups, self.shares = labels, groups, shares
        self.sizes = Counter(labels.tolist())
        self.counts: dict[int, Counter[int]] = defaultdict(Counter)
        for image in np.argsort(order).tolist():
            self.counts[int(groups[image])][int(labels[image])] += 1
        self.free = dict.fromkeys(self.counts)
        self.containing: dict[int, list[int]] = defaultdict(list)
        for group, counts in self.counts.items():
            for label in counts:
                self.containing[label].append(group)
        self.left = {label: len(found) for label, found in self.containing.items()}
        self.held: dict[Role, Counter[int]] = {role: Counter() for role in shares}
        self.taken: dict[int, Role] = {}

    def bring(self, label: int, role: Role) -> bool:
        """Bring a class to a side by the group that strays least; return whether there was one."""
        able = [group for group in self.containing[label] if group in self.free and self.spares(group, role)]
        if not able:
            return False
        self.take(min(able, key=lambda group: self.cost(group, role)), role)
        return True

    def fill(self) -> None:
        """Give every free group to the first side it brings nearer to what is wanted."""
        for group in list(self.free):
            for role in self.shares:
                if self.cost(group, role) < -1e-12 and self.spares(group, role):
                    self.take(group, role)
                    break

    def spares(self, group: int, role: Role) -> bool:
        """Tell whether training and the other sides can still get every class if `role` takes the group."""
        for label in self.counts[group]:
            lacking = sum(not held[label] for other, held in self.held.items() if other != role)
            if self.left[label] - 1 < 1 + lacking:
                return False
        return True

    def cost(self, group: int, role: Role) -> float:
        """Return by how much the side's squared deviation rises, in shares of the classes, with the group."""
        held, share = self.held[role], self.shares[role]
        return sum(
            count * (count + 2 * (held[label] - share * self.sizes[label])) / self.sizes[label]
            for label, count in self.counts[group].items()
        )

    def take(self, group: int, role: Role) -> None:
        del self.free[group]
        self.taken[group] = role
        self.held[role].update(self.counts[group])
        for label in self.counts[group]:
            self.left[label] -= 1

    def division(self) -> Division:
        roles = np.array([self.taken.get(int(group), "train") for group in self.groups])
        names: tuple[Role, ...] = ("train", *self.shares)
        missed = [
            (role, label, self.held[role][label], share * size)
            for role, share in self.shares.items()
            for label, size in sorted(self.sizes.items())
            if abs(self.held[role][label] - share * size) > 1
        ]
        return Division({name: np.flatnonzero(roles == name) for name in names}, tuple(missed))


def _check_images(labels: npt.NDArray[np.int64], shares: dict[Role, float], classes: Sequence[str]) -> None:
    needed = max(2, len(shares) + 1)
    few = [(label, count) for label, count in sorted(Counter(labels.tolist()).items()) if count < needed]
    if few:
        named = ", ".join(f"{classes[label]!r} has {_images(count)}" for label, count in few[:5])
        sides = " and ".join(("train", *reversed(shares)))
        raise DataError(
            f"class {named}, but at least {needed} are needed"
            + (f", one for each of {sides}" if shares else "")
            + ": add images, or take the class out"
        )


def _refuse(
    labels: npt.NDArray[np.int64],
    groups: Indices,
    label: int,
    shares: dict[Role, float],
    classes: Sequence[str],
) -> None:
    members = labels == label
    found = len(np.unique(groups[members]))
    sides = ("train", *reversed(shares))
    raise DataError(
        f"class {classes[label]!r} has {_images(int(members.sum()))} in {found} groups that stay "
        f"together, which cannot be divided so that each of {' and '.join(sides)} has some: use finer "
        "groups, bring splits of your own, or take the class out"
    )


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
