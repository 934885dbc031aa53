"""Numbers as text."""

_MAX_MORE_DIGITS = 6


def format_beside_limit(value: float, limit: float, spec: str = ".1%") -> str:
    """Format a value with as many digits as tell it from a limit: 5.04%, not 5.0%, beside 5.0%.

    Args:
        value: The value.
        limit: What it is compared with.
        spec: Format with the least number of digits, such as ``.1%`` or ``,.3g``.
    """
    flags, _, rest = spec.partition(".")
    least, kind = int(rest[:-1]), rest[-1]
    for digits in range(least, least + _MAX_MORE_DIGITS):
        text = format(value, f"{flags}.{digits}{kind}")
        if value == limit or text != format(limit, f"{flags}.{digits}{kind}"):
            break
    return text


def format_share(limit: float) -> str:
    """Format a share as a percentage without a digit too many or too few: 0.05% and 5%."""
    return f"{100 * limit:.10g}%"


def format_count(n: int, noun: str) -> str:
    """Return a count with its noun in the right number: ``1 class``, ``1,204 classes``."""
    ending = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{ending}"
