"""Where: the paper's order, all sites by depth, again and again (Algorithm 1)."""

from collections.abc import Sequence

from tinygrow.growth.schedule import Visit


def first_of_sweep(visits: Sequence[Visit]) -> Visit:
    """Return the visit of the earliest sweep, and within that of the smallest depth."""
    return min(visits, key=lambda visit: (visit.sweep, visit.index))
