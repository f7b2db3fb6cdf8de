"""Where: the site whose new neurons take most loss off held-out images, for what they cost.

Sites are compared by TINY's neurons, whatever method then adds some. All are ranked by the fall of
the loss that their singular values predict, to first order; the gain of the best few is measured.
"""

from collections.abc import Sequence

from tinygrow.growth.plan.facts import Evidence
from tinygrow.growth.schedule import Visit


def best_value(visits: Sequence[Visit], evidence: Evidence, candidates: int) -> Visit:
    """Return the visit with the largest measured gain for its cost.

    Args:
        visits: at most one a site, at least one in all.
        evidence: measures.
        candidates: visits whose gain is measured; 0: all.
    """
    if len(visits) == 1:
        return visits[0]
    found = evidence.study(visits)
    costs = {visit.index: evidence.cost(visit) for visit in visits}

    def predicted(visit: Visit) -> float:
        return found[visit.index].predicted / costs[visit.index]

    def measured(visit: Visit) -> float:
        return found[visit.index].gain() / costs[visit.index]

    ranked = sorted(visits, key=predicted, reverse=True)
    return max(ranked[: candidates or None], key=measured)
