"""What a choice between sites costs, in the terms of `tinygrow.growth.cost`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tinygrow.growth.schedule import Visit

if TYPE_CHECKING:  # which counts whole plans by means of this
    from tinygrow.growth.cost import CostModel, ExtensionCost


def with_choice(
    extension: "ExtensionCost",
    model: "CostModel",
    widths: Sequence[int],
    targets: Sequence[int],
    looks: int,
) -> "ExtensionCost":
    """Add to an extension what the looks at all sites before it cost, at most.

    A look is counted as the moments and linear algebra of an extension of each site, and the
    search of as many as `where.candidates` leaves; budgets are counted as nothing.

    Args:
        extension: itself.
        model: of the method that sites are compared by.
        widths: before the extension.
        targets: of all sites; those that are reached are not looked at.
        looks: before one extension.
    """
    settings, gaps = model.settings, [b - a for a, b in zip(widths, targets, strict=True)]
    sites = [model.extension(i, widths, gap) for i, gap in enumerate(gaps) if gap > 0]
    greedy = settings.where.order == "greedy" and len(sites) > 1
    significant = settings.when.trigger == "significant" or settings.until.no_significant_gain
    if not sites or not (greedy or significant):
        return extension
    searched = len(sites) if greedy else 0
    if settings.where.candidates:
        searched = min(searched, settings.where.candidates)
    share = looks * searched / len(sites)
    normalised = looks if significant else share
    return replace(
        extension,
        statistics_images=extension.statistics_images
        + looks * max(site.statistics_images for site in sites),
        statistics=extension.statistics + looks * sum(site.statistics for site in sites),
        solve=extension.solve + looks * sum(site.solve for site in sites),
        first_looks=extension.first_looks + normalised * sum(site.first_looks for site in sites),
        search=extension.search + share * sum(site.search for site in sites),
    )


def next_targets(left: Sequence[Visit], widths: Sequence[int]) -> list[int]:
    """Return the target of every site's next visit; its width where there is none left.

    Args:
        left: visits, in order.
        widths: as they are.
    """
    targets = list(widths)
    for visit in reversed(left):
        targets[visit.index] = max(visit.target, widths[visit.index])
    return targets
