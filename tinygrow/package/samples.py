"""Test images that travel with a package, and what its products say of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygrow.deploy.predictor import Predictor
from tinygrow.deploy.published import Published
from tinygrow.files import write_bytes, write_json
from tinygrow.report.samples import Sample, choose_samples

MOST_CLASSES = 20
TOLERANCES = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.1}
"""How far a probability may lie from the expected one: processors round differently, and those
without VNNI add 8-bit products in another way."""


def write_samples(
    folder: Path,
    products: Sequence[Published],
    images: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Write PNG files, named by index and class, and `expected.json`.

    Args:
        folder: to write to.
        products: each answers on the CPU, image by image.
        images: uint8 (N, C, H, W), the test split.
        labels: int (N,).
        classes: names in the order of the labels.
    """
    predictors = {p.precision: Predictor(p.path, "cpu") for p in products}
    first = next(iter(predictors.values()))
    chosen = _spread(choose_samples(images, labels, classes, first.logits, 0).of_classes)
    expected: dict[str, Any] = {
        "tolerance": {precision: TOLERANCES[precision] for precision in predictors},
        "classes": {sample.file_name: sample.label for sample in chosen},
    }
    for precision, predictor in predictors.items():
        expected[precision] = {}
        for sample in chosen:
            (answer,) = predictor.predict(images[sample.index], top=1)
            expected[precision][sample.file_name] = {
                "label": answer.label,
                "probability": round(answer.probability, 6),
            }
    for sample in chosen:
        write_bytes(folder / sample.file_name, sample.png)
    write_json(folder / "expected.json", expected)


def _spread(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return an even choice of the classes where there are many."""
    return samples[:: -(-len(samples) // MOST_CLASSES)]
