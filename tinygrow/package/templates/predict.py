"""Name the class of images. Needs onnxruntime, numpy and pillow; without images: a self-test."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
HERE = Path(__file__).resolve().parent
MODELS = [HERE / f"{p}.onnx" for p in ("fp32", "fp16", "int8") if (HERE / f"{p}.onnx").exists()]


def read(path: Path, channels: int, size: int) -> np.ndarray:
    """Return uint8 (channels, size, size): upright, on white, the central square, resized."""
    with Image.open(path, formats=FORMATS) as opened:
        opened.draft(None, (2 * size, 2 * size))
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16 bits of grey
        grey = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(grey.astype(np.uint8))
    if {"A", "a"} & {*image.getbands()} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode in ("1", "L") else image.convert("RGB")
    image = image.convert("L" if channels == 1 else "RGB")
    side = min(image.size)
    x, y = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    return np.ascontiguousarray(np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE")
parser.add_argument("--model", type=Path, default=MODELS[0], help="default: %(default)s")
options = parser.parse_args()
options.model.is_file() or parser.error(f"{options.model} does not exist")
session = ort.InferenceSession(options.model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
classes, (_, channels, size, _) = json.loads(facts["classes"]), json.loads(facts["input"])["shape"]
told = json.loads((HERE / "samples" / "expected.json").read_text(encoding="utf-8"))
expected, wrong = {} if options.images else told[options.model.stem], 0
for path in options.images or [HERE / "samples" / name for name in expected]:
    try:
        (logits,) = session.run(["logits"], {"images": read(path, channels, size)[None]})
    except Exception as error:  # Pillow's decoders raise anything on a damaged file
        sys.exit(f"Error: {path} gets no answer ({error})")
    shares = np.exp(logits[0] - logits[0].max()) / np.exp(logits[0] - logits[0].max()).sum()
    best = np.argsort(-shares, kind="stable")[:3]
    print(f"{path.name}: " + ", ".join(f"{classes[i]} {100 * shares[i]:.1f} %" for i in best))
    if right := expected.get(path.name):
        off = abs(right["probability"] - shares[best[0]]) > told["tolerance"][options.model.stem]
        wrong += bool(off or classes[best[0]] != right["label"])
if expected:
    print(f"{wrong} of {len(expected)} samples not as expected", file=sys.stderr)
sys.exit(wrong > 0)
