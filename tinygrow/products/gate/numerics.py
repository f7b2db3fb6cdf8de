"""Does it compute what PyTorch computes, in one evaluator as in another, and twice the same?"""

import numpy as np
from onnx.reference import ReferenceEvaluator

from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.deploy.sessions import open_session
from tinygrow.products.gate.check import Check, Number, judge
from tinygrow.products.gate.subject import Images, Subject, relative_difference, run_session


def parity(subject: Subject) -> Check:
    """ONNX Runtime on the CPU agrees with PyTorch on test images, at several batch sizes.

    Of int8, whose logits differ by design, the shape alone is asked and that they are finite.
    """
    numbers: dict[str, Number] = {}
    for size in subject.settings.batch_sizes:
        images = subject.real(size)
        found = run_session(subject.session, images, batch_size=size)
        numbers[f"batch_{size}"] = relative_difference(found, subject.reference(images))
    return _within("parity", subject, numbers, exact=subject.precision != "int8")


def extremes(subject: Subject) -> Check:
    """They agree on images that no data set holds: black, white, noise, checkerboards.

    Of int8 again the shape alone is asked and finite logits: its ranges hold for real images.
    """
    numbers: dict[str, Number] = {}
    for name, images in extreme_images(subject.card.shape).items():
        found = run_session(subject.session, images)
        numbers[name] = relative_difference(found, subject.reference(images))
    return _within("extremes", subject, numbers, exact=subject.precision != "int8")


def reference(subject: Subject) -> Check:
    """ONNX's own reference evaluator, which shares no code with ONNX Runtime, agrees too.

    Of int8 it is compared with ONNX Runtime: the steps are in the file, and both must take them.
    """
    images = np.concatenate([subject.real(2), extreme_images(subject.card.shape)["noise"][:1]])
    (found,) = ReferenceEvaluator(subject.model).run([OUTPUT], {INPUT: images})
    if subject.precision == "int8":
        right = run_session(subject.session, images)
    else:
        right = subject.reference(images)
    difference = relative_difference(np.asarray(found, np.float32), right)
    return _within("reference", subject, {"relative_difference": difference})


def determinism(subject: Subject) -> Check:
    """Two runs of one session, and a run of another, give the same bytes."""
    images = subject.real(16)
    other = open_session(subject.content, "cpu")
    runs = [run_session(s, images) for s in (subject.session, subject.session, other)]
    same = [runs[0].tobytes() == run.tobytes() for run in runs[1:]]
    problems = [] if all(same) else [f"{same.count(False)} of 2 repeated runs differ"]
    return judge("determinism", problems, {"runs": len(runs), "images": len(images)})


def batch_invariance(subject: Subject) -> Check:
    """An image alone gets the logits that it gets among others."""
    images = subject.real(16)
    together = run_session(subject.session, images)
    alone = run_session(subject.session, images, batch_size=1)
    numbers: dict[str, Number] = {"relative_difference": relative_difference(alone, together)}
    return _within("batch_invariance", subject, numbers)


def extreme_images(shape: tuple[int, int, int]) -> dict[str, Images]:
    """Return uint8 images (N, C, H, W) far from any data set, by name.

    Args:
        shape: channels, height, width.
    """
    channels, height, width = shape
    noise = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    board = (np.indices((height, width)).sum(0) % 2 * 255).astype(np.uint8)
    boards = np.stack([board, 255 - board])[:, None].repeat(channels, axis=1)
    return {
        "black": np.zeros((1, *shape), np.uint8),
        "white": np.full((1, *shape), 255, np.uint8),
        "noise": noise,
        "checkerboard": boards,
    }


def _within(
    name: str, subject: Subject, numbers: dict[str, Number], *, exact: bool = True
) -> Check:
    """Judge relative differences against the tolerance, or ask only that they are finite."""
    limit = subject.budget.relative_tolerance if exact else np.finfo(np.float64).max
    problems = [
        f"{key.replace('_', ' ')}: {value:.3g} of the logits' scale, limit {limit:g}"
        for key, value in numbers.items()
        if not float(value) <= limit
    ]
    return judge(name, problems, {**numbers, "limit": limit if exact else "finite"})
