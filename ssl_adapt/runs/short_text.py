"""Times, counts and courses in a few characters."""

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def short_time(seconds: float) -> str:
    """Seconds as 45 s, 3 min 20 s, 2 h 5 min or 3 d 4 h."""
    seconds = math.ceil(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def rough_time(seconds: float) -> str:
    """Seconds in the largest unit that they fill: 45 s, 3 min, 2 h, 5 d."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{int(seconds)} s"


def short_count(count: float) -> str:
    """A count with three digits: 950, 82.5k, 3.07M, 1.20G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return f"{count:.0f}"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values as bars, from the lowest to the highest of those shown; at most `width` characters."""
    shown = values[-width:] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    steps = len(BARS) - 1
    return "".join(BARS[round((value - low) / (high - low) * steps) if high > low else steps // 2] for value in shown)
