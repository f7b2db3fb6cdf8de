"""The comparison of new neurons: the tail of a network, and ratios with their intervals."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.neurons_summary import ratio, summarise
from benchmarks.neurons_tail import features, tail_of
from benchmarks.neurons_variants import VARIANTS, plain_settings
from tests.growth.scenes import random_units, resnet
from tinygrow.growth.sites import sites_of
from tinygrow.growth.statistics import batch_statistics
from tinygrow.growth.surgery import widen


@pytest.mark.parametrize("index", [0, 1])
def test_the_tail_on_features_is_the_network_on_images(index: int) -> None:
    network, architecture = resnet()
    site = sites_of(architecture)[index]
    batches = [(torch.randn(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)) for _ in range(2)]
    units = random_units(network, site, 2)
    tail, whole = tail_of(network, site), copy.deepcopy(network)
    widen(tail, site, units)
    widen(whole, site, units)
    for (x, _), (read, _) in zip(batches, features(network, site, batches), strict=True):
        with torch.no_grad(), batch_statistics(whole), batch_statistics(tail):
            torch.testing.assert_close(tail(read), whole(x))


def test_a_ratio_is_that_of_sums_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(1)
    plain = generator.uniform(1.0, 2.0, 36)
    found = ratio(1.5 * plain, plain)
    assert found == {"ratio": 1.5, "low": 1.5, "high": 1.5}
    noisy = ratio(1.5 * plain + generator.normal(0.0, 0.5, 36), plain)
    assert noisy["low"] < noisy["ratio"] < noisy["high"]


def test_the_aim_holds_where_the_interval_is_above_it() -> None:
    def rows(factor: float) -> list[dict]:  # type: ignore[type-arg]
        cells = [(s, e, d) for s in (0, 1) for e in (1, 4) for d in (2, 7)]
        values = [("plain", 1.0), ("sign", factor)]
        return [
            {
                "variant": name,
                "seed": s,
                "epochs": e,
                "depth": d,
                "neurons": 4 if name == "plain" else 3,
                "loss_fall": v * d,
                "evaluation_loss_fall": v,
                "bottleneck_fall": v,
            }
            for s, e, d in cells
            for name, v in values
        ]

    assert summarise(rows(1.4))["holds"] and summarise(rows(1.4))["best"] == "sign"
    assert not summarise(rows(1.2))["holds"]
    assert summarise(rows(1.2))["variants"]["sign"]["neurons"] == 0.75


def test_every_variant_has_valid_settings_and_differs_from_plain() -> None:
    plain = plain_settings()
    for name, variant in VARIANTS.items():
        assert (variant.change(plain) == plain) == (name == "plain")
