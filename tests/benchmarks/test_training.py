import json

import pytest
import torch

from benchmarks import extension, training
from benchmarks.plain import Pictures
from tinygrow.settings.training import AugmentationSettings, TrainingSettings

SMALL = ["--base-width", "2", "--batch-size", "10", "--steps", "1", "--repeats", "2"]
SMALL += ["--images", "40", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (extension, training):
        monkeypatch.setattr(module, "SHAPE", (3, 8, 8))


def test_all_sides_are_timed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    status = training.main([*SMALL, "--epochs", "2", "--profile"])
    *text, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result["benchmark"] == "training" and result["device"] == "cpu"
    rates = result["images_per_second"]
    assert set(rates) == {training.OURS, training.PLAIN, training.COARSE}
    assert all(rate["n"] == 2 and 0 < rate["min"] <= rate["max"] for rate in rates.values())
    ours, plain = rates[training.OURS], rates[training.PLAIN]
    ratio = result["ratios"][training.PLAIN]
    assert ours["min"] / plain["max"] * 0.99 <= ratio["min"] <= ratio["max"]
    assert ratio["max"] <= ours["max"] / plain["min"] * 1.01
    (target,) = result["targets"]
    assert target["wanted"] == 1.0 and target["found"] == pytest.approx(ratio["median"], rel=1e-3)
    assert result["holds"] is target["holds"] is (ratio["median"] >= 1.0)
    assert status == (0 if result["holds"] else 1)
    epochs = result["epochs"]
    assert result["projected"] and epochs["epochs"] == 2
    assert epochs["all"] == pytest.approx(epochs["first"] + 249 * epochs["each"] + epochs["test"])
    assert len(result["profile"]["percent"]) == 10 and result["profile"]["busy_percent"] is None
    assert 0 < result["share_of_matrix_rate_percent"] < 100
    assert sum("SKIPPED: the device is cpu" in line for line in text) == 2


def small_bench() -> training.Bench:
    return training.Bench(
        base_width=2,
        images=40,
        settings=training._settings(
            training._parser().parse_args([*SMALL, "--precision", "float32"])
        ),
        device=torch.device("cpu"),
        workers=0,
    )


def test_given_the_same_batches_the_plain_loop_moves_as_our_engine_does() -> None:
    bench, other = small_bench(), small_bench()
    ours, plain = bench.ours(), bench.plain(coarse=False)
    for _ in range(3):
        ours.train(0.25)
        plain._step(list(other.stream.next(10)))
    found = ours.network.state_dict()
    for name, value in plain.network.state_dict().items():
        # Rounding differs by layout, and eighteen BatchNorms of ten images magnify it.
        torch.testing.assert_close(value, found[name], rtol=1e-2, atol=5e-3)
    for one, two in zip(ours.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        assert len(one["params"]) == len(two["params"])
        for key in ("lr", "momentum", "nesterov", "dampening", "weight_decay"):
            assert one[key] == two[key]


def test_the_plain_loops_pictures_are_our_images_or_mirrored() -> None:
    images = small_bench().stream.images
    settings = TrainingSettings(augmentation=AugmentationSettings(crop_padding=0))
    pictures = Pictures(images, settings, (0.5,) * 3, (0.25,) * 3)
    expected, labels = next(images.batches(40))
    assert len(pictures) == 40
    sides = set()
    for i, (image, label) in enumerate(zip(expected, labels.tolist(), strict=True)):
        picture, told = pictures[i]
        as_is = torch.allclose(picture, image, atol=1e-5)
        assert told == label and (as_is or torch.allclose(picture, image.flip(2), atol=1e-5))
        sides.add(as_is)
    assert sides == {True, False}


@pytest.mark.parametrize(
    ("ratio", "width", "holds"),
    [(1.7, 64, False), (1.8, 64, True), (0.9, 8, False), (1.0, 8, True)],
)
def test_what_is_wanted_of_a_cpu(ratio: float, width: int, holds: bool) -> None:
    class Fake:
        base_width = width
        device = torch.device("cpu")

    (target,) = training.targets(Fake(), ratio, 1.0, None)  # type: ignore[arg-type]
    assert target.holds is holds


def test_what_is_wanted_of_an_h200(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        base_width = 64
        device = torch.device("cuda")

    def judged(card: str, speed: float, seconds: float) -> list[bool]:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: card)
        found = training.targets(Fake(), 2.0, speed, {"all": seconds})  # type: ignore[arg-type]
        return [target.holds for target in found]

    assert judged("NVIDIA H200", 30_000, 480) == [True, True, True]
    assert judged("NVIDIA H200", 29_999, 481) == [True, False, False]
    assert judged("NVIDIA T4", 1_000, 9_999) == [True]


def test_expected_failures_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main([*SMALL, "--precision", "float8"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: precision is 'float8'") and error.count("\n") == 1
