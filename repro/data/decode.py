"""Any image file to one square of uint8 RGB (section 2)."""

from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from repro.config import DataConfig, Exif, Transparency
from repro.data.sources import Files

DEEP = ("I", "F")  # first letters of Pillow's modes of more than 8 bits a channel
EXTREME = 128  # times longer than wide: of such an image only the middle is resized, the whole would take gigabytes


@dataclass(frozen=True)
class DecodedImage:
    """One image's pixels (S, S, 3) uint8, and what else its file holds.

    `oriented`: an EXIF orientation other than upright; `transparent`: pixels that are not opaque.
    """

    pixels: np.ndarray
    oriented: bool
    transparent: bool


def decode(files: Files, index: int, config: DataConfig) -> DecodedImage | str:
    """One image, or the reason why it cannot be read."""
    try:
        with files.open(index) as image:
            image.load()  # opening reads the header only
            oriented, transparent = _is_oriented(image), _is_transparent(image)
            upright = ImageOps.exif_transpose(image) if oriented and config.exif is Exif.rotate else image
            seen = config.transparency if transparent else Transparency.keep
            return DecodedImage(to_square(upright, config.image_size, seen), oriented, transparent)
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # Pillow's decoders raise what they meet in damaged bytes: OSError, SyntaxError, ...
        return str(error) or type(error).__name__


def _is_oriented(image: Image.Image) -> bool:
    """Tells whether EXIF says that the camera was turned, or a mirror was used: orientations 2 to 8."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # damaged EXIF raises what its decoder meets; the pixels are whole
        return False


def _is_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data or image.mode.startswith(DEEP):
        return False
    return image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def to_square(image: Image.Image, size: int, transparency: Transparency = Transparency.keep) -> np.ndarray:
    """Shorter side to `size`, then the centre square: (size, size, 3) uint8 RGB (section 2).

    The paper names no filter; this one is bilinear over the area that shrinks into a pixel (antialiased).
    Raises ValueError on pixels of more than 8 bits, which Pillow would clip.
    """
    image = _to_rgb(image, transparency)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    if max(image.size) > EXTREME * min(image.size):
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _to_rgb(image: Image.Image, transparency: Transparency) -> Image.Image:
    if image.mode.startswith(DEEP):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 bits a channel")
    if transparency is not Transparency.keep:
        return Image.alpha_composite(Image.new("RGBA", image.size, transparency.value), image.convert("RGBA")).convert(
            "RGB"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the way that Pillow advises
    return image.convert("RGB")
