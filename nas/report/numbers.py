"""How figures are written: with their unit, and with as many digits as their interval supports."""

import math

from search_spaces.measurement import Measurement

UNKNOWN = "\N{EM DASH}"
"""Stands where a figure is not known."""

_MINUS = "\N{MINUS SIGN}"
_SIGNIFICANT = 3
_WIDE_LEAD = 3.55
"""Two digits of an uncertainty are worth writing below this leading part, one above (Particle Data Group,
Review of Particle Physics, section 5.3)."""

_UNIT_NAMES = {"MAC": "MACs"}


def figure(known: Measurement) -> str:
    """Return a value with its unit: "91.2 %", "0.312 ms", "84.3 kB", "5.41 M MACs"."""
    factor, unit = _scale(known.unit, known.value)
    return f"{_fixed(known.value * factor, _decimals(known, factor))} {unit}".strip()


def short(known: Measurement) -> str:
    """Return a figure for a row or column whose head names what is counted: "5.41 M" for MACs."""
    return figure(known).removesuffix(" MACs").removesuffix(" parameters")


def span(known: Measurement, *, between: str = " to ") -> str:
    """Return the two ends of the interval in the value's unit, "90.4 to 91.9"; empty where there is none."""
    if known.lower is None or known.upper is None:
        return ""
    factor, _ = _scale(known.unit, known.value)
    decimals = _decimals(known, factor)
    lower, upper = (_fixed(end * factor, decimals) for end in (known.lower, known.upper))
    return f"{lower}{between}{upper}"


def interval(known: Measurement) -> str:
    """Return the interval with its level, "90 % interval 90.4 to 91.9"; empty where there is none."""
    ends = span(known)
    return f"{percent(known.level, 0)} interval {ends}" if ends else ""


def exact(known: Measurement) -> str:
    """Return a counted figure to the unit: "5,412,864"."""
    return count(round(known.value))


def count(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}".replace("-", _MINUS)


def quantity(value: float, unit: str) -> str:
    """Return a limit or another given value in its unit, as round as it was given: "0.25 ms", "65.54 kB"."""
    factor, name = _scale(unit, value)
    text = significant(value * factor, 4)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {name}".strip()


def significant(value: float, digits: int = _SIGNIFICANT) -> str:
    """Return a value with so many significant digits, never in exponents; whole digits are all kept."""
    if value == 0:
        return "0"
    return _fixed(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def percent(share: float, decimals: int = 1) -> str:
    """Return a share in percent."""
    return f"{_fixed(100 * share, decimals)} %"


def change(before: Measurement, after: Measurement) -> str:
    """Return how a figure changed: shares in points, all else as a factor of what it was.

    Points have two decimals, as in the gates' sentences: a paired change is known better than either of its ends.
    """
    if after.unit == "1":
        return f"{_signed(100 * (after.value - before.value), 2)} points"
    if before.value == after.value:
        return "unchanged"
    if before.value <= 0:
        return ""
    return f"\N{MULTIPLICATION SIGN}{significant(after.value / before.value)}"


def difference(value: int) -> str:
    """Return a signed whole number."""
    return ("+" if value > 0 else "") + count(value)


def duration(seconds: float) -> str:
    """Return a time as a person says it: "4.2 s", "3 min 20 s", "1 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _scale(unit: str, value: float) -> tuple[float, str]:
    """Return what a value is multiplied by, and the unit it has then."""
    if unit == "1":
        return 100.0, "%"
    size = abs(value)
    name = _UNIT_NAMES.get(unit, unit)
    if unit == "bytes":
        for factor, prefixed in ((1e-9, "GB"), (1e-6, "MB"), (1e-3, "kB")):
            if size * factor >= 1:
                return factor, prefixed
        return 1.0, name
    if unit in ("MAC", "parameters"):
        for factor, prefix in ((1e-9, "G "), (1e-6, "M "), (1e-3, "k ")):
            if size * factor >= 1:
                return factor, prefix + name
    return 1.0, name


def _decimals(known: Measurement, factor: float) -> int:
    """Return how many decimals the interval supports; three significant digits where there is none."""
    half = 0.0 if known.lower is None or known.upper is None else factor * (known.upper - known.lower) / 2
    value = abs(factor * known.value)
    if half > 0:
        exponent = math.floor(math.log10(half))
        digits = 2 if half / 10.0**exponent < _WIDE_LEAD else 1
        return max(0, digits - 1 - exponent)
    if value == 0 or (factor == 1.0 and known.value == int(known.value)):
        return 0
    return max(0, _SIGNIFICANT - 1 - math.floor(math.log10(value)))


def _fixed(value: float, decimals: int) -> str:
    text = f"{value:,.{decimals}f}"
    if text.startswith("-"):
        text = text[1:] if float(text.replace(",", "")) == 0 else _MINUS + text[1:]
    return text


def _signed(value: float, decimals: int) -> str:
    text = _fixed(value, decimals)
    return f"+{text}" if value > 0 and text.strip("0.,") else text
