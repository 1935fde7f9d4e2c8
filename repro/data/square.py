"""Any image file to one square of uint8 RGB (section 2)."""

import numpy as np
from PIL import Image, UnidentifiedImageError

from repro.data.sources import Files

EXTREME = 128  # times longer than wide: of such an image only the middle is resized, the whole would take gigabytes


def read_square(files: Files, index: int, size: int) -> np.ndarray | str:
    """One image (size, size, 3) uint8, or the reason why it cannot be read."""
    try:
        with files.open(index) as image:
            image.load()  # opening reads the header only
            return to_square(image, size)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # Pillow's decoders raise what they meet in damaged bytes: OSError, SyntaxError, ...
        return str(error) or type(error).__name__


def to_square(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to `size`, then the centre square: (size, size, 3) uint8 RGB (section 2).

    The paper names no filter; this one is bilinear over the area that shrinks into a pixel (antialiased).
    Raises ValueError on pixels of more than 8 bits, which Pillow would clip.
    """
    image = _to_rgb(image)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(image.size) > EXTREME * min(image.size):
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way that Pillow advises
    return image.convert("RGB")
