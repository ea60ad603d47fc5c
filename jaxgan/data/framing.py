"""Named crops and resize filters: how an image of any size becomes one of the size wanted."""

from __future__ import annotations

import numpy as np

CROPS = ("none", "center", "celeba")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def check_framing(crop: str, filter: str) -> None:
    """Raises ValueError for a crop or a filter that does not exist, naming those that do."""
    if crop not in CROPS:
        raise ValueError(f"there is no crop {crop!r}; use one of {', '.join(CROPS)}")
    if filter not in FILTERS:
        raise ValueError(f"there is no resize filter {filter!r}; use one of {', '.join(FILTERS)}")


def crop_box(width: int, height: int, size: tuple[int, int], crop: str) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part of a width x height image that `crop` keeps for `size` = (H, W).

    'none': all of it (the resize then changes its proportions); 'center': the largest centred box of the proportions of `size`; 'celeba':
    rows 50..177 and columns 25..152 of aligned CelebA photographs (178x218), as COCO-GAN's authors cut them. Raises ValueError where the
    crop does not apply.
    """
    if crop == "none":
        return 0, 0, width, height
    if crop == "celeba":
        if (width, height) != (178, 218):
            raise ValueError(f"the celeba crop is for images 178 wide and 218 high, this one is {width}x{height}; use crop center")
        return 25, 50, 153, 178
    if crop != "center":
        check_framing(crop, "lanczos")
    rows, columns = size
    if width * rows > height * columns:
        kept = max(1, round(height * columns / rows))
        left = (width - kept) // 2
        return left, 0, left + kept, height
    kept = max(1, round(width * rows / columns))
    top = (height - kept) // 2
    return 0, top, width, top + kept


def frame(image, size: tuple[int, int], crop: str, filter: str) -> np.ndarray:
    """A PIL image (mode L, RGB or RGBA), cropped and resized to `size` = (H, W): uint8 [H, W, C]. Of the right size already: untouched."""
    from PIL import Image

    box = crop_box(*image.size, size, crop)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), getattr(Image.Resampling, filter.upper()))
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
