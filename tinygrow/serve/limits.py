"""What a request may ask of the server, and how it is refused."""

import io
from dataclasses import dataclass

from PIL import Image

# The formats that are read belong to one place, and that one is an input of cached stages.
from tinygrow.data.images import FORMATS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on memory and time, however many ask and whatever they send.

    Attributes:
        bytes: of one image file.
        pixels: of one image. Decoding takes up to 16 bytes a pixel, in each thread that works.
        requests: for predictions at one time, those included whose image is still arriving.
        seconds: that an image may take to arrive.
    """

    bytes: int = 10 * 2**20
    pixels: int = 25_000_000
    requests: int = 16
    seconds: float = 30.0


class Refused(Exception):
    """A request that gets no answer.

    Args:
        status: of HTTP.
        reason: one line: what is wrong, the value, the remedy.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def check_pixels(content: bytes, limit: int) -> None:
    """Refuse an image of too many pixels by its header, before anything is decoded.

    What cannot be read at all passes: decoding tells better why.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Refused(
            413, f"the image has more than {limit:,} pixels, the limit; scale it down"
        ) from None
    except Exception:  # Pillow's parsers raise anything on a damaged file
        return
    if width * height > limit:
        raise Refused(
            413,
            f"the image has {width} x {height} pixels, more than the limit of {limit:,};"
            " scale it down",
        )
