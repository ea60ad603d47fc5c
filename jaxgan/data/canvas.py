"""A painter that knows what it paints: one canvas of inks gives both the anti-aliased image and its crisp label map.

Every ink is a class and a vertical gradient. Shapes are drawn once, as ink numbers, on a supersampled canvas; the image is the
inks' colours averaged over each pixel, the label map is the class of the ink at each pixel's centre. The two cannot disagree.

Lengths are in units of the image height: x runs from 0 to ``width / height``, y from 0 (top) to 1 (bottom). All corners are rounded to
whole subpixels before anything is drawn, so that a periodic canvas shifted by whole pixels gives exactly the shifted image.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue in 0..255."""


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


class Canvas:
    """`height` x `width` pixels to paint on; later shapes cover earlier ones. `periodic`: what leaves on one side enters on the other.

    `hidden`: labels whose inks leave no trace.
    """

    def __init__(self, height: int, width: int, *, periodic: bool = False, hidden: Collection[int] = ()):
        from PIL import Image, ImageDraw

        self.height, self.width, self.periodic, self._hidden = height, width, periodic, hidden
        # Odd, so that one subpixel lies on the pixel's centre. 25 grey steps on an edge where pixels are few and large, 9 elsewhere.
        self.factor = 5 if height * width <= 64 * 64 else 3
        self.unit = height * self.factor
        self.span = width * self.factor
        self._inks = Image.new("I", (self.span, self.unit))  # 32-bit numbers: a panorama has more inks than a byte can tell apart
        self._pen = ImageDraw.Draw(self._inks)
        self._gradients: list[tuple[float, ...]] = []
        self._labels: list[int] = []

    @property
    def aspect(self) -> float:
        """Width in units of the height."""
        return self.width / self.height

    def ink(self, label: int, top: Colour, bottom: Colour | None = None, span: tuple[float, float] = (0.0, 1.0)) -> int:
        """A new ink of class `label`: colour `top` above y = span[0], `bottom` (default: `top`) below span[1], linear in between."""
        self._gradients.append((*top, *(bottom or top), *span))
        self._labels.append(label)
        return len(self._labels) - 1

    def _offsets(self, left: int, right: int) -> Sequence[int]:
        if not self.periodic:
            return (0,)
        return range(-(right // self.span) * self.span, -(left // self.span) * self.span + 1, self.span)

    def polygon(self, ink: int, points: Sequence[tuple[float, float]]) -> None:
        """A filled polygon with corners (x, y)."""
        if self._labels[ink] in self._hidden:
            return
        unit = self.unit
        corners = [(round(x * unit), round(y * unit)) for x, y in points]
        if not self.periodic:
            self._pen.polygon(corners, fill=ink)
            return
        # PIL's edges round differently at different x. Rasterised at its own origin and then pasted, a shape is the same wherever it is,
        # and its two parts on either side of the seam fit.
        from PIL import Image, ImageDraw

        across, down = [x for x, _ in corners], [y for _, y in corners]
        left, right, top, bottom = min(across), max(across), min(down), max(down)
        stencil = Image.new("1", (right - left + 1, bottom - top + 1))
        ImageDraw.Draw(stencil).polygon([(x - left, y - top) for x, y in corners], fill=1)
        for offset in self._offsets(left, right):
            self._inks.paste(ink, (left + offset, top), stencil)

    def rectangle(self, ink: int, left: float, top: float, right: float, bottom: float) -> None:
        """A filled upright rectangle, at least one subpixel wide and high."""
        if self._labels[ink] in self._hidden:
            return
        unit = self.unit
        x0, y0 = round(left * unit), round(top * unit)
        x1, y1 = max(round(right * unit) - 1, x0), max(round(bottom * unit) - 1, y0)
        for offset in self._offsets(x0, x1):
            self._pen.rectangle((x0 + offset, y0, x1 + offset, y1), fill=ink)

    def ellipse(self, ink: int, x: float, y: float, across: float, down: float) -> None:
        """A filled ellipse with centre (x, y) and half axes `across` and `down`."""
        if self._labels[ink] in self._hidden:
            return
        unit = self.unit
        x0, y0 = round((x - across) * unit), round((y - down) * unit)
        x1, y1 = max(x0 + round(2 * across * unit), x0), max(y0 + round(2 * down * unit), y0)
        for offset in self._offsets(x0, x1):
            self._pen.ellipse((x0 + offset, y0, x1 + offset, y1), fill=ink)

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """The image uint8 [height, width, 3] and the labels uint8 [height, width]."""
        from PIL import Image

        gradients = np.asarray(self._gradients, np.float32)
        rows = (np.arange(self.unit, dtype=np.float32) + 0.5) / self.unit
        start, end = gradients[:, 6:7], gradients[:, 7:8]
        share = np.clip((rows - start) / np.maximum(end - start, 1e-6), 0, 1)
        # One little-endian word R, G, B, 0 for each ink and row: gathering 160x160 words takes 38 us, as many triples 138 us.
        words = np.zeros(share.shape, "<u4")
        for band in range(3):
            top, bottom = gradients[:, band : band + 1], gradients[:, band + 3 : band + 4]
            words |= (top + 0.5 + (bottom - top) * share).astype(np.uint32) << np.uint32(8 * band)
        inks = np.asarray(self._inks)
        fine = words.reshape(-1).take(inks * self.unit + np.arange(self.unit, dtype=np.int32)[:, None])
        image = Image.frombuffer("RGBX", (self.span, self.unit), fine, "raw", "RGBX", 0, 1).reduce(self.factor)
        half = self.factor // 2
        labels = np.asarray(self._labels, np.uint8)[inks[half :: self.factor, half :: self.factor]]
        return np.ascontiguousarray(np.asarray(image)[..., :3]), labels
