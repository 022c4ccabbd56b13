"""Which image is in which split: what the source says, else a division of its training images."""

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.data.identical import stored_keys
from nas.data.notes import listed, some
from nas.data.options import DataOptions
from nas.data.source import ROLES, Part, Role, Source
from nas.data.splits import Division, Indices, divide, joined_groups, proportional, ranks
from search_spaces.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which images each split has, as numbers into `Source.flat()`, in the seeded random order of the split.

    Attributes:
        members: By split, all three.
        keys: Of every image of `Source.flat()`; equal exactly when the stored bytes are.
        notes: Sentences about how the splits came about.
    """

    members: Mapping[Role, Indices]
    keys: Sequence[Hashable]
    notes: tuple[str, ...]


def plan_splits(source: Source, flat: Part, options: DataOptions) -> Plan:
    """Decide on the splits of a source, of which no image is decoded for it.

    Images whose stored bytes are the same never come to two sides of a split made here.

    Raises:
        DataError: A class has too few images or groups, or the group pattern fits no name.
    """
    order = ranks(flat.names, options.split_seed)
    groups, notes = _groups(flat, options)
    members: dict[Role, Indices] = {}
    start = 0
    for role, part in source.parts():
        members[role] = np.arange(start, start + len(part.labels))
        start += len(part.labels)
    notes += _straddling(groups, members)

    pool = members["train"]
    wanted: dict[Role, float] = {"test": options.test, "validation": options.validation}
    shares = {role: share for role, share in wanted.items() if role not in members}
    keys = stored_keys(flat.images)
    division = divide(
        flat.labels[pool],
        joined_groups(groups[: len(pool)], keys[: len(pool)]),
        order[pool],
        shares,
        classes=source.classes,
    )
    members |= division.members
    notes += [
        f"The source has no {role} split: {len(members[role])} of its {len(pool)} training images (asked "
        f"for: {share:.0%} of every class, seed {options.split_seed}) became one."
        for role, share in reversed(shares.items())
    ]
    notes += _missed(division, source.classes)
    if options.limit is not None:
        members = _limited(members, flat, order, options.limit, len(source.classes))
        notes.append(f"Every split was limited to {options.limit} images.")
    shuffled = {role: members[role][np.argsort(order[members[role]])] for role in ROLES}
    return Plan(shuffled, keys, tuple(notes))


def _groups(flat: Part, options: DataOptions) -> tuple[list[str], list[str]]:
    """Return the group key of every image, "" for none, and notes about them."""
    own = list(flat.groups)
    if any(own) or not options.group_pattern:
        return own, []
    pattern = re.compile(options.group_pattern)
    found = [pattern.search(name) for name in flat.names]
    unmatched = [name for name, match in zip(flat.names, found, strict=True) if match is None]
    if len(unmatched) == len(found):
        raise DataError(
            f"group_pattern {options.group_pattern!r} fits no image's name, such as {some(unmatched[:2])}: "
            "mend the pattern, or leave it out"
        )
    groups = ["" if match is None else match[1 if pattern.groups else 0] or "" for match in found]
    notes = [f"Groups of images found by {options.group_pattern!r}: {len(set(groups) - {''})}."]
    if unmatched:
        notes.append(listed("Images of no group, since the pattern does not fit", unmatched))
    return groups, notes


def _straddling(groups: Sequence[str], members: Mapping[Role, Indices]) -> list[str]:
    """Return a note about groups that the source itself has put into several splits."""
    splits: dict[str, set[Role]] = defaultdict(set)
    for role, numbers in members.items():
        for number in numbers.tolist():
            if groups[number]:
                splits[groups[number]].add(role)
    both = sorted(group for group, roles in splits.items() if len(roles) > 1)
    if not both:
        return []
    return [listed("Groups with images in more than one split of the source", both)]


def _missed(division: Division, classes: Sequence[str]) -> list[str]:
    """Return a note a split whose class counts groups have kept from being what was wanted."""
    notes = []
    for role in division.members:
        missed = [entry for entry in division.missed if entry[0] == role]
        if missed:
            counts = [f"{classes[label]} {held} (wanted {wanted:.0f})" for _, label, held, wanted in missed]
            notes.append(f"Groups stay together, so the {role} split strays from its share: {some(counts)}.")
    return notes


def _limited(
    members: Mapping[Role, Indices], flat: Part, order: Indices, limit: int, num_classes: int
) -> dict[Role, Indices]:
    if limit < num_classes:
        raise DataError(f"limit = {limit} leaves some of the {num_classes} classes without an image: raise it")
    return {
        role: numbers[proportional(flat.labels[numbers], order[numbers], limit)] for role, numbers in members.items()
    }
