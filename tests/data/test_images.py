import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.data.pictures import encoded, noise
from tinygrow.data import images
from tinygrow.data.images import decode_image, read_image, to_uint8
from tinygrow.errors import TinygrowError


def pixel(content: bytes, channels: int = 3) -> list[int]:
    """The one colour of a picture, decoded to 4 x 4."""
    pixels = decode_image(content, name="picture", size=4, channels=channels)
    assert pixels.shape == (channels, 4, 4) and pixels.dtype == np.uint8
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def plain(mode: str, colour: object, size: int = 4) -> Image.Image:
    return Image.new(mode, (size, size), colour)


def palette(**options: object) -> bytes:
    image = plain("P", 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    return encoded(image, **options)


def sixteen_bits(value: int, form: str = "PNG", **options: object) -> bytes:
    return encoded(Image.fromarray(np.full((4, 4), value, np.uint16)), form, **options)


@pytest.mark.parametrize(
    ("content", "colour", "grey"),
    [
        (encoded(plain("RGB", (10, 20, 30))), [10, 20, 30], 18),
        (encoded(plain("L", 77)), [77, 77, 77], 77),
        (encoded(plain("1", 1)), [255, 255, 255], 255),
        (encoded(plain("1", 0)), [0, 0, 0], 0),
        (palette(), [10, 20, 30], 18),
        (palette(transparency=1), [255, 255, 255], 255),
        (palette(transparency=0), [10, 20, 30], 18),
        (palette(transparency=bytes([255, 51])), [206, 208, 210], 208),
        (encoded(plain("RGBA", (10, 20, 30, 0))), [255, 255, 255], 255),
        (encoded(plain("RGBA", (10, 20, 30, 255))), [10, 20, 30], 18),
        (encoded(plain("RGBA", (10, 20, 30, 51))), [206, 208, 210], 208),
        (encoded(plain("LA", (100, 51))), [224, 224, 224], 224),
        (encoded(plain("RGB", (10, 20, 30)), transparency=(10, 20, 30)), [255, 255, 255], 255),
        (encoded(plain("L", 77), transparency=77), [255, 255, 255], 255),
        (encoded(plain("L", 77), transparency=78), [77, 77, 77], 77),
        (sixteen_bits(65535), [255, 255, 255], 255),
        (sixteen_bits(257 * 100 + 128), [100, 100, 100], 100),
        (sixteen_bits(257 * 100 + 129), [101, 101, 101], 101),
        (sixteen_bits(1000, transparency=1000), [255, 255, 255], 255),
        (sixteen_bits(257 * 100, "TIFF"), [100, 100, 100], 100),
        (sixteen_bits(257 * 100, "PPM"), [100, 100, 100], 100),
        (encoded(plain("CMYK", (255, 0, 0, 0)), "TIFF"), [0, 255, 255], 179),
        (encoded(plain("L", 77), "GIF"), [77, 77, 77], 77),
        (encoded(plain("RGB", (10, 20, 30)), "BMP"), [10, 20, 30], 18),
        (encoded(plain("RGB", (10, 20, 30)), "WEBP", lossless=True), [10, 20, 30], 18),
    ],
)
def test_every_kind_of_pixel(content, colour, grey):
    assert pixel(content, 3) == colour
    assert pixel(content, 1) == [grey]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_near_its_colour(mode):
    colour = {"L": 90, "RGB": (90, 90, 90), "CMYK": (165, 165, 165, 0)}[mode]
    got = pixel(encoded(plain(mode, colour, 32), "JPEG", quality=95))
    assert np.abs(np.array(got) - 90).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, form):
    upright = np.array([[0, 255], [100, 200]], np.uint8)
    upright = upright.repeat(16, 0).repeat(16, 1)
    # What a camera stores so that the tag turns it back.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif)
    got = decode_image(content, name="picture", size=32, channels=1)[0]
    assert np.abs(got[4::16, 4::16].astype(int) - upright[4::16, 4::16]).max() <= 4


def test_an_image_in_memory_is_prepared_as_its_file_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(noise(5, 12), exif=exif))
    with Image.open(path) as image:
        got = to_uint8(image, size=7, channels=3)
    assert (got == read_image(path, size=7, channels=3)).all()


def test_damaged_exif_does_not_spoil_the_picture():
    assert pixel(encoded(plain("RGB", (1, 2, 3)), exif=b"Exif\0\0nonsense")) == [1, 2, 3]


def test_size_asked_for_keeps_pixels():
    image = noise(3, size=9)
    got = decode_image(encoded(image), name="picture", size=9, channels=3)
    assert (got == np.asarray(image).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("turned", [False, True])
def test_the_central_square_is_kept(turned):
    pixels = np.zeros((4, 11), np.uint8)
    pixels[:, 3:7] = np.arange(16).reshape(4, 4)
    pixels = pixels.T if turned else pixels
    got = decode_image(encoded(Image.fromarray(pixels)), name="p", size=4, channels=1)[0]
    assert ((got.T if turned else got) == np.arange(16).reshape(4, 4)).all()


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    got = to_uint8(Image.fromarray(stripes), size=8, channels=1)
    assert np.abs(got.astype(int) - 127).max() <= 8


def test_large_jpeg_decoded_small_agrees_with_the_whole():
    gradient = np.add.outer(np.arange(512), np.arange(640)) * 255 // 1150
    image = Image.fromarray(gradient.astype(np.uint8))
    small = decode_image(encoded(image, "JPEG", quality=95), name="p", size=16, channels=1)
    whole = to_uint8(image, size=16, channels=1)
    assert np.abs(small.astype(int) - whole).max() <= 3


def test_first_picture_of_an_animation_counts():
    frames = [plain("L", 10), plain("L", 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(content, 1) == [10]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_an_agreed_range_are_refused(mode):
    with pytest.raises(TinygrowError, match=f"picture holds 32-bit values .mode {mode}"):
        pixel(encoded(plain(mode, 5), "TIFF"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "photo.png is empty"),
        (b"no image at all", "photo.png is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "photo.png is not an image"),
        (encoded(noise(0, 64))[:2000], "photo.png is damaged"),
        (encoded(noise(0, 64), "JPEG")[:900], "photo.png is damaged"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, message):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(TinygrowError, match=message) as caught:
        read_image(path, size=8, channels=3)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(TinygrowError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png", size=8, channels=3)
    with pytest.raises(TinygrowError, match="is not a file"):
        read_image(tmp_path, size=8, channels=3)


def test_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 63)
    with pytest.raises(TinygrowError, match="bomb has 8 x 8 pixels, more than 63"):
        decode_image(encoded(noise(0)), name="bomb", size=4, channels=3)


def test_pillows_own_limit_is_told_alike(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(TinygrowError, match="bomb has more than"):
        decode_image(encoded(noise(0)), name="bomb", size=4, channels=3)


def test_file_too_large_to_be_an_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    path = tmp_path / "large.png"
    path.write_bytes(b"x" * 101)
    with pytest.raises(TinygrowError, match="has 101 bytes"):
        read_image(path, size=4, channels=3)


@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.data(), st.integers(0, 255)
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_changed_byte_is_an_image_or_one_error(form, data, value):
    content = bytearray(encoded(noise(1), form))
    content[data.draw(st.integers(0, len(content) - 1))] = value
    try:
        assert decode_image(bytes(content), name="p", size=4, channels=3).shape == (3, 4, 4)
    except TinygrowError as error:
        assert str(error).startswith("p ")


def test_importing_it_leaves_torch_alone():
    code = "import sys, tinygrow.data.images; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
