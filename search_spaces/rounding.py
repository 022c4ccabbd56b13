"""Channel counts that hardware likes."""


def multiple_of_8(channels: float, *, divisor: int = 8) -> int:
    """Return the nearest multiple of `divisor`, at least one of it and at least 90 % of `channels`.

    This is the rule of MobileNetV2's reference implementation, which every later mobile family shares.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
