import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tinygrow.deploy.predictor import Prediction, Predictor, softmax
from tinygrow.errors import TinygrowError

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


@pytest.fixture
def predictor(write_model: Write) -> Predictor:
    return Predictor(write_model(), "cpu")


def test_contract_comes_from_the_file(predictor: Predictor) -> None:
    assert (predictor.provider, predictor.precision) == ("cpu", "fp32")
    assert predictor.contract.classes == ("dark", "grey", "bright")
    assert predictor.contract.shape == (3, 8, 8)


def test_every_kind_of_image(predictor: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (250, 250, 250)).save(tmp_path / "bright.png")
    Image.new("L", (9, 9), 10).save(tmp_path / "dark.jpg")
    images = [
        tmp_path / "bright.png",
        str(tmp_path / "dark.jpg"),
        Image.new("RGB", (50, 40), (130, 130, 130)),
        np.full((3, 8, 8), 20, np.uint8),
        np.full((17, 23, 3), 240, np.uint8),
        np.full((12, 12), 5, np.uint8),
        (tmp_path / "bright.png").read_bytes(),
    ]
    found = predictor.predict(images, batch_size=4)
    labels = [prediction.label for prediction in found]
    assert labels == ["bright", "dark", "grey", "dark", "bright", "dark", "bright"]
    alone = [predictor.predict(image)[0].label for image in images]
    assert alone == labels


def test_arrays_of_the_models_shape_go_in_as_they_are(predictor: Predictor) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), np.uint8)
    means = images.reshape(5, -1).mean(1)
    right = np.stack([100 - means, 0 * means, means - 155], axis=1)
    np.testing.assert_allclose(predictor.logits(images), right, atol=1e-3)
    assert len(predictor.predict(images)) == 5
    assert len(predictor.predict(images[0])) == 1


def test_probabilities(predictor: Predictor) -> None:
    (found,) = predictor.predict(np.full((3, 8, 8), 99, np.uint8), top=2)
    assert (found.label, found.probability) == found.top[0]
    assert [name for name, _ in found.top] == ["dark", "grey"]
    assert found.probability == pytest.approx(np.e / (np.e + 1), rel=1e-4)
    (everything,) = predictor.predict(np.full((3, 8, 8), 99, np.uint8), top=9)
    assert sum(p for _, p in everything.top) == pytest.approx(1)


def test_softmax_of_large_logits() -> None:
    found = softmax(np.array([[1000.0, 1000.0], [-1000.0, 1000.0]], np.float32))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0, 1]])


def test_no_images(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 8, 8), np.float32), "an array of float32; give uint8 values"),
        (np.zeros((3, 9, 9), np.uint8), r"has shape \[3, 9, 9\]; give \[3, 8, 8\]"),
        (np.zeros(5, np.uint8), r"has shape \[5\]"),
        (Path("gone.png"), "gone.png does not exist"),
        (17, "an image is a int; give a path"),
        (b"no image", "image is not an image that can be read"),
        (Image.new("F", (8, 8)), "holds 32-bit values"),
        (np.zeros((0, 5), np.uint8), r"has shape \[0, 5\], without a pixel; leave it out"),
        (np.zeros((4, 0, 3), np.uint8), r"has shape \[4, 0, 3\], without a pixel"),
        (Image.new("RGB", (0, 5)), "has 0 x 5 pixels, which is none"),
    ],
)
def test_images_it_cannot_take(predictor: Predictor, image: object, words: str) -> None:
    with pytest.raises(TinygrowError, match=words):
        predictor.predict([image])


def test_a_picture_that_turns_out_damaged_when_it_is_decoded(
    predictor: Predictor, tmp_path: Path
) -> None:
    Image.effect_noise((64, 64), 90).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(TinygrowError, match="an image is damaged"),
    ):
        predictor.predict(opened)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ([], {"top": 0}, "top is 0; it must be at least 1"),
        ([], {"batch_size": -1}, "batch_size is -1"),
        (None, {}, "images is a NoneType; give an image, or several in a list"),
        (bytearray(b"no image"), {}, "image is not an image that can be read"),
    ],
)
def test_wrong_calls(
    predictor: Predictor, images: object, options: dict[str, int], words: str
) -> None:
    with pytest.raises(TinygrowError, match=words):
        predictor.predict(images, **options)  # type: ignore[arg-type]


def test_threads_share_a_predictor(predictor: Predictor) -> None:
    batches = np.random.default_rng(0).integers(0, 256, (40, 7, 3, 8, 8), np.uint8)
    right = [predictor.predict(batch, batch_size=3) for batch in batches]
    assert len({answer for answers in right for answer in answers}) > 250
    start = threading.Barrier(8)

    def work(first: int) -> list[list[Prediction]]:
        start.wait()
        return [predictor.predict(batch, batch_size=3) for batch in np.roll(batches, -first, 0)]

    with ThreadPoolExecutor(8) as pool:
        for first, found in enumerate(pool.map(work, range(8))):
            assert found == right[first:] + right[:first]


def test_logits_of_a_wrong_shape(predictor: Predictor) -> None:
    with pytest.raises(TinygrowError, match=r"uint8\[2, 3, 7, 8\]; the model takes uint8\[N, 3, 8"):
        predictor.logits(np.zeros((2, 3, 7, 8), np.uint8))


def test_image_files_need_a_square_model(write_model: Write, tmp_path: Path) -> None:
    predictor = Predictor(write_model((3, 8, 6)), "cpu")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(TinygrowError, match=r"shape \[3, 8, 6\], which no image file fits"):
        predictor.predict(tmp_path / "a.png")
    assert predictor.predict(np.zeros((3, 8, 6), np.uint8))[0].label == "dark"


def test_a_model_of_another_maker(write_model: Write) -> None:
    def strip(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]

    with pytest.raises(TinygrowError, match="the model's metadata is not that of tinygrow"):
        Predictor(write_model(change=strip), "cpu")


def test_torch_stays_out(write_model: Write, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.png")
    script = (
        "import sys\n"
        "from tinygrow.deploy.predictor import Predictor\n"
        "print(Predictor(sys.argv[1], 'cpu').predict(sys.argv[2])[0].label)\n"
        "print(sorted({'torch', 'onnx', 'click', 'dvc', 'pipeline'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, write_model(), tmp_path / "a.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("bright\n[]\n", "", 0)
