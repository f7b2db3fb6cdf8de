"""One image file to uint8 (C, H, W): the same for training and for prediction. Torch-free.

What is done, in this order:

1. A JPEG far larger than needed is decoded at a half, a quarter or an eighth of its size, but at
   no less than twice the side asked for.
2. 16-bit grey values are divided by 257 and rounded; of 16-bit colour Pillow keeps the high byte.
3. Transparency (alpha, a transparent palette entry or colour) is composited on white.
4. Palettes, 1-bit, CMYK and the like become RGB; grey is ITU-R 601 luma. Colour profiles are not
   applied. Of an animation or a multi-page file the first picture counts.
5. The EXIF orientation is applied.
6. The central square is cut out and resized, antialiased, with Pillow's bilinear filter.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tinygrow.errors import TinygrowError

RESAMPLING = Image.Resampling.BILINEAR
MAX_PIXELS = 89_478_485  # where Pillow warns of a decompression bomb: 256 MiB of RGB
MAX_FILE_BYTES = 2**30
SUFFIXES = {
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jfif": "JPEG",
    ".jp2": "JPEG 2000",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pbm": "PNM",
    ".pgm": "PNM",
    ".png": "PNG",
    ".pnm": "PNM",
    ".ppm": "PNM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}

# Not all that Pillow knows: EPS, for one, would start another program on an untrusted file.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path, *, size: int, channels: int) -> np.ndarray:
    """Read one image file.

    Args:
        path: of the file.
        size: side of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 (channels, size, size).

    Raises:
        TinygrowError: the file is missing, unreadable, damaged, too large or no image.
    """
    return decode_image(read_image_file(path), name=str(path), size=size, channels=channels)


def read_image_file(path: Path, *, name: str = "") -> bytes:
    """Read the bytes of an image file of at most `MAX_FILE_BYTES`.

    Args:
        path: of the file.
        name: what an error calls it, where that is not its path.

    Raises:
        TinygrowError: it is missing, unreadable, not a regular file, or larger.
    """
    path = Path(path)
    name = name or str(path)
    try:
        if not path.exists():
            raise TinygrowError(f"{name} does not exist; check the path of the image")
        if not path.is_file():
            raise TinygrowError(f"{name} is not a file; name an image file")
        check_file_size(name, path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise TinygrowError(
            f"cannot read {name}: {error.strerror or error}; check its permissions"
        ) from error


def check_file_size(name: str, size: int) -> None:
    """Raise a `TinygrowError` if a file of `size` bytes is too large to be an honest image."""
    if size > MAX_FILE_BYTES:
        raise TinygrowError(
            f"{name} has {size:,} bytes; an image may have {MAX_FILE_BYTES:,}: scale it down"
        )


def decode_image(content: bytes, *, name: str, size: int, channels: int) -> np.ndarray:
    """Decode the bytes of an image file; `name` is what an error calls it.

    Returns:
        uint8 (channels, size, size).

    Raises:
        TinygrowError: the bytes are damaged, too large, or no image.
    """
    if not content:
        raise TinygrowError(f"{name} is empty (0 bytes); replace or delete it")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise TinygrowError(
                    f"{name} has {width} x {height} pixels, more than {MAX_PIXELS:,};"
                    " scale it down or delete it"
                )
            image.draft(None, (2 * size, 2 * size))
            return to_uint8(image, size=size, channels=channels, name=name)
    except TinygrowError:
        raise
    except Image.UnidentifiedImageError as error:
        raise TinygrowError(
            f"{name} is not an image that can be read; replace it with a PNG or JPEG, or delete it"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TinygrowError(
            f"{name} has more than {MAX_PIXELS:,} pixels; scale it down or delete it"
        ) from error
    except Exception as error:  # Pillow's decoders raise anything on a damaged file
        raise TinygrowError(
            f"{name} is damaged or of an unknown kind ({error}); replace or delete it"
        ) from error


def to_uint8(image: Image.Image, *, size: int, channels: int, name: str = "image") -> np.ndarray:
    """Prepare an image in memory as a file of it would be.

    Returns:
        uint8 (channels, size, size).

    Raises:
        TinygrowError: it holds 32-bit values.
    """
    image.load()
    turn = _ORIENTATIONS.get(_orientation(image))
    flat = _flat(image, name, channels)
    return _square(flat if turn is None else flat.transpose(turn), size, channels)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF data around a sound picture
        return 1


def _flat(image: Image.Image, name: str, channels: int) -> Image.Image:
    """Convert to mode L or RGB, composited on white."""
    # Pillow before 10.3 opens 16-bit PNGs, and any version 16-bit PGMs, as 32-bit integers.
    sixteen_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if sixteen_bits:
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise TinygrowError(
            f"{name} holds 32-bit values (mode {image.mode}), which have no agreed range;"
            " convert it to 8 or 16 bits a channel"
        )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode not in ("L", "RGB", "1"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    scaled = ((np.minimum(values, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled)


def _square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if image.size != (size, size):
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), RESAMPLING, box=box)
    pixels = np.asarray(image).reshape(size, size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
