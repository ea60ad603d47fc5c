"""`scenes`: landscapes drawn by code, each with its label map; nothing to download.

Sky with sun, moon and clouds over mountains and hills; below, grass and fields with houses, trees and a road, lake or sea. Person, car,
fence, boat and sign are small and rare on purpose: they are what generators leave out. Every image is a function of its index alone, and
the same index at another size of the same aspect is the same landscape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxgan.data.canvas import Canvas, Colour, mix
from jaxgan.data.scene_classes import (
    BOAT,
    CAR,
    CLOUD,
    FENCE,
    FIELD,
    GRASS,
    HILL,
    HOUSE,
    MOON,
    MOUNTAIN,
    PERSON,
    ROAD,
    SIGN,
    SKY,
    SUN,
    TREE,
    WATER,
    WINDOW,
    withheld,
)
from jaxgan.data.scene_classes import CLASSES as CLASSES
from jaxgan.data.scene_classes import RARE as RARE

# Hour of the day in [0, 1]: (hour, sky at the top, sky at the horizon, light on everything else).
_HOURS = (
    (0.00, (118, 150, 225), (255, 196, 186), (1.00, 0.88, 0.88)),
    (0.10, (62, 142, 236), (190, 226, 252), (1.00, 1.00, 1.00)),
    (0.40, (30, 110, 226), (160, 212, 252), (1.00, 1.00, 1.00)),
    (0.62, (44, 120, 228), (184, 222, 250), (1.00, 1.00, 0.97)),
    (0.72, (96, 84, 178), (255, 168, 84), (1.00, 0.82, 0.70)),
    (0.80, (52, 36, 108), (246, 104, 82), (0.80, 0.62, 0.66)),
    (0.86, (10, 14, 52), (44, 58, 122), (0.42, 0.48, 0.70)),
    (1.00, (6, 10, 40), (34, 50, 116), (0.36, 0.44, 0.68)),
)
_WALLS = ((250, 244, 228), (238, 200, 92), (222, 92, 72), (122, 176, 222), (246, 176, 140), (206, 216, 222), (186, 126, 196))
_ROOFS = ((176, 52, 40), (120, 62, 44), (72, 76, 92), (200, 92, 44), (52, 88, 122))
_PAINTS = ((226, 36, 40), (28, 92, 214), (250, 200, 24), (244, 244, 246), (24, 150, 92), (240, 120, 20))
_SHIRTS = ((232, 40, 48), (250, 210, 30), (30, 110, 230), (240, 90, 170), (250, 250, 250), (250, 130, 20))


class _Scene:
    """One landscape in the making: its canvas, its random numbers, its light and the lie of its land."""

    def __init__(self, canvas: Canvas, random: Callable[[], float]):
        self.canvas, self.random, self.aspect = canvas, random, canvas.aspect
        self.hour = random()
        i = max(k for k, entry in enumerate(_HOURS[:-1]) if entry[0] <= self.hour)
        (h0, top0, low0, light0), (h1, top1, low1, light1) = _HOURS[i : i + 2]
        share = (self.hour - h0) / (h1 - h0)
        self.sky_top, self.sky_low, self.light = mix(top0, top1, share), mix(low0, low1, share), mix(light0, light1, share)
        self.horizon = self.between(0.44, 0.58)
        self.first, self.last = self.horizon + 0.03, 0.97  # heights between which things stand
        self.lane: tuple[float, float] | None = None  # top and depth of a road across
        self.path: Callable[[float], tuple[float, float]] | None = None  # height -> middle and half width of a road away
        self.shore: tuple[float, float] | None = None  # top and bottom of water

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def pick(self, options: tuple) -> Colour:
        return options[int(self.random() * len(options))]

    def often(self, rate: float) -> int:
        """How many, for a mean of `rate` per square of the image: the whole part always, the rest by chance."""
        return int(rate * self.aspect + self.random())

    def lit(self, colour: Colour, haze: float = 0.0) -> Colour:
        """A colour under this hour's light, `haze` of the way to the sky's."""
        light = self.light
        return mix((colour[0] * light[0], colour[1] * light[1], colour[2] * light[2]), self.sky_low, haze)

    def ink(self, label: int, top: Colour, bottom: Colour | None = None, span: tuple[float, float] = (0.0, 1.0), haze: float = 0.0) -> int:
        """An ink under this hour's light: see `Canvas.ink`."""
        return self.canvas.ink(label, self.lit(top, haze), bottom and self.lit(bottom, haze), span)

    def scale(self, y: float) -> float:
        """Size of things that stand at height y: 0.5 on the horizon, 1.2 at the lower edge."""
        return 0.5 + 0.7 * (y - self.horizon) / (1 - self.horizon)

    def ridge(self, base: float, height: float, waves: int) -> list[tuple[float, float]]:
        """Corners of a rolling skyline above y = base, closed below; it meets itself on periodic canvases."""
        aspect = self.aspect
        x = np.linspace(0, aspect, max(8, int(16 * aspect)) + 1)
        y = np.zeros_like(x)
        for wave in range(1, waves + 1):
            cycles = wave if not self.canvas.periodic else max(1, round(wave * aspect)) / aspect
            y += np.sin(2 * math.pi * (cycles * x + self.random())) * self.between(0.3, 1.0) / wave
        y = base - height * (0.55 + 0.28 * y)
        return [*zip(x.tolist(), y.tolist(), strict=True), (aspect, 1.0), (0.0, 1.0)]


def _sky(s: _Scene) -> None:
    canvas, horizon = s.canvas, s.horizon
    canvas.rectangle(canvas.ink(SKY, s.sky_top, s.sky_low, (0.0, horizon)), 0, 0, s.aspect, 1)
    x = s.between(0.1, 0.9) * s.aspect
    if s.hour < 0.81:
        height = math.sin(math.pi * min(1.0, s.hour / 0.81)) * s.between(0.75, 1.0)
        y, radius = horizon * (0.78 - 0.56 * height), s.between(0.075, 0.105)
        low = 1 - height
        colour = mix((255, 236, 60), (255, 120, 40), low * low)
        glow = canvas.ink(SKY, mix(s.sky_top, (255, 244, 190), 0.45), mix(s.sky_low, (255, 236, 170), 0.45), (0, horizon))
        canvas.ellipse(glow, x, y, radius * 1.45, radius * 1.45)
        canvas.ellipse(canvas.ink(SUN, colour), x, y, radius, radius)
    else:
        star = canvas.ink(SKY, (236, 240, 255))
        for _ in range(s.often(14)):
            canvas.rectangle(star, a := s.random() * s.aspect, b := s.random() * horizon * 0.8, a + 0.012, b + 0.012)
        y, radius = horizon * s.between(0.2, 0.45), s.between(0.07, 0.09)
        canvas.ellipse(canvas.ink(MOON, (246, 244, 214)), x, y, radius, radius)
        canvas.ellipse(canvas.ink(MOON, (214, 212, 190)), x - 0.3 * radius, y + 0.2 * radius, 0.3 * radius, 0.3 * radius)
    for _ in range(s.often(s.between(0.0, 2.6))):
        x, y, size = s.random() * s.aspect, horizon * s.between(0.12, 0.6), s.between(0.055, 0.10)
        white = mix((255, 255, 255), s.sky_low, 0.12) if s.hour < 0.62 else mix(s.sky_low, (255, 236, 232), 0.42)
        ink = canvas.ink(CLOUD, white, mix(white, s.sky_top, 0.3), (y - size, y + size * 0.6))
        for dx, dy, part in ((-1.3, 0.25, 0.62), (-0.5, -0.15, 0.9), (0.5, -0.25, 0.95), (1.35, 0.25, 0.62), (0.0, 0.3, 0.7)):
            canvas.ellipse(ink, x + dx * size, y + dy * size * 0.8, part * size * 1.1, part * size * s.between(0.7, 0.9))


def _mountains(s: _Scene) -> None:
    base = s.horizon + 0.03
    for _ in range(s.often(2.4)):
        x, height, half = s.random() * s.aspect, s.between(0.16, 0.34), s.between(0.26, 0.42)
        lean, top, snow = s.between(-0.05, 0.05), base - height, s.between(0.25, 0.4)
        shade = mix((96, 108, 150), (136, 124, 140), s.random())
        dim, lit = s.ink(MOUNTAIN, shade, haze=0.15), s.ink(MOUNTAIN, mix(shade, (255, 255, 255), 0.25), haze=0.15)
        peak = x + lean
        s.canvas.polygon(dim, ((x - half, base), (peak, top), (x + half, base)))
        s.canvas.polygon(lit, ((x - half, base), (peak, top), (x - 0.1 * half, base)))
        left, right = peak + (x - half - peak) * snow, peak + (x + half - peak) * snow
        low = top + height * snow
        cap = ((peak, top), (right, low), (peak + 0.02, low - 0.03), (peak - 0.03, low + 0.02), (left, low))
        s.canvas.polygon(s.ink(MOUNTAIN, (250, 252, 255)), cap)


def _land(s: _Scene) -> None:
    """Hills and ground, then a road, a lake or the sea; settles where things may stand."""
    canvas, horizon, aspect = s.canvas, s.horizon, s.aspect
    warm = s.random()
    green = mix((58, 150, 64), (124, 176, 50), warm)
    for layer in range(1 + (s.random() < 0.5)):
        colour = mix(green, (40, 120, 104), 0.75 - 0.4 * layer)
        height = s.between(0.07, 0.2) * (1 - 0.4 * layer)
        ink = s.ink(HILL, mix(colour, (255, 255, 200), 0.15), colour, (horizon - height, horizon), haze=0.22 - 0.12 * layer)
        canvas.polygon(ink, s.ridge(horizon + 0.02, height, 2 + layer))
    near = mix((78, 176, 58), (150, 190, 52), warm)
    canvas.rectangle(s.ink(GRASS, mix(near, (250, 250, 160), 0.2), mix(near, (20, 96, 40), 0.35), (horizon, 1)), 0, horizon, aspect, 1)
    for _ in range(s.often(s.between(0, 1.6))):
        x, y, half, deep = s.random() * aspect, horizon + s.between(0.01, 0.12), s.between(0.15, 0.3), s.between(0.06, 0.12)
        crop = s.pick(((240, 204, 72), (226, 174, 60), (196, 132, 206), (170, 206, 70)))
        lean = s.between(-0.2, 0.2)
        corners = ((x - half * 0.7, y), (x + half * 0.7, y), (x + half + lean, y + deep), (x - half + lean, y + deep))
        canvas.polygon(s.ink(FIELD, crop, mix(crop, (120, 90, 30), 0.25), (y, y + deep)), corners)
    kind = s.random()
    if kind < 0.26:
        _road_across(s)
    elif kind < 0.50 and not canvas.periodic:
        _road_away(s)
    elif kind < 0.80:
        _water(s, sea=kind > 0.68)


def _road_across(s: _Scene) -> None:
    top, deep = s.between(0.74, 0.84), s.between(0.13, 0.16)
    s.canvas.rectangle(s.ink(ROAD, (150, 146, 146)), 0, top - 0.012, s.aspect, top + deep + 0.012)
    s.canvas.rectangle(s.ink(ROAD, (92, 92, 100), (76, 76, 84), (top, top + deep)), 0, top, s.aspect, top + deep)
    dash, count = s.ink(ROAD, (250, 246, 220)), max(1, round(4 * s.aspect))
    start = s.random()
    for i in range(count if s.canvas.periodic else count + 2):
        x = (i + start - 1) * s.aspect / count
        s.canvas.rectangle(dash, x, top + deep * 0.47, x + 0.13, top + deep * 0.47 + 0.028)
    s.lane, s.last = (top, deep), top - 0.01


def _road_away(s: _Scene) -> None:
    far, near, bend, half = s.between(0.2, 0.8) * s.aspect, s.between(0.3, 0.7) * s.aspect, s.between(-0.16, 0.16), s.between(0.2, 0.28)
    start = s.horizon + 0.005

    def path(y: float) -> tuple[float, float]:
        t = (y - start) / (1 - start)
        return far + (near - far) * t + bend * math.sin(math.pi * t), 0.012 + (half - 0.012) * t

    def strip(share: float, y0: float, y1: float, steps: int) -> list[tuple[float, float]]:
        ys = [y0 + (y1 - y0) * i / steps for i in range(steps + 1)]
        sides = [(*path(y), y) for y in ys]
        return [(x - share * w, y) for x, w, y in sides] + [(x + share * w, y) for x, w, y in reversed(sides)]

    s.canvas.polygon(s.ink(ROAD, (164, 158, 150)), strip(1.12, start, 1, 8))
    s.canvas.polygon(s.ink(ROAD, (118, 116, 122), (78, 78, 86), (start, 1)), strip(1.0, start, 1, 8))
    dash = s.ink(ROAD, (250, 246, 220))
    for t0, t1 in ((0.14, 0.22), (0.32, 0.46), (0.6, 0.82)):
        s.canvas.polygon(dash, strip(0.09, start + (1 - start) * t0, start + (1 - start) * t1, 2))
    s.path = path


def _water(s: _Scene, *, sea: bool) -> None:
    canvas, aspect = s.canvas, s.aspect
    top, bottom = (s.horizon, s.horizon + s.between(0.2, 0.28)) if sea else (s.between(0.72, 0.80), 1.0)
    blue = mix((34, 116, 206), (28, 158, 190), s.random())
    ink = s.ink(WATER, mix(blue, s.sky_low, 0.35), blue, (top, bottom))
    if sea:
        canvas.rectangle(ink, 0, top, aspect, bottom)
        shore = s.ridge(bottom, 0.05, 2)
        canvas.polygon(s.ink(GRASS, (240, 216, 150)), shore)  # a strip of sand in front of the meadow
        canvas.polygon(s.ink(GRASS, (110, 184, 62), (52, 136, 48), (bottom, 1)), [(x, y + 0.05 if y < 1 else y) for x, y in shore])
        s.first = bottom + 0.06
    else:
        canvas.polygon(s.ink(GRASS, (214, 190, 120)), s.ridge(top + 0.01, 0.05, 2))
        canvas.polygon(ink, [(x, y + 0.025 if y < 1 else y) for x, y in s.ridge(top + 0.01, 0.05, 2)])
        s.last = top - 0.03
    streak = s.ink(WATER, mix(blue, (255, 255, 255), 0.45))
    for _ in range(s.often(5)):
        x, y = s.random() * aspect, s.between(top + 0.05, bottom - 0.05)
        canvas.rectangle(streak, x, y, x + s.between(0.06, 0.14), y + 0.014)
    s.shore = (top, bottom)


def _house(s: _Scene, x: float, y: float, size: float) -> None:
    canvas = s.canvas
    half, wall, rise = size * s.between(0.19, 0.26), size * s.between(0.2, 0.26), size * s.between(0.14, 0.2)
    paint, roof = s.pick(_WALLS), s.pick(_ROOFS)
    canvas.rectangle(s.ink(HOUSE, paint, mix(paint, (60, 50, 60), 0.12), (y - wall, y)), x - half, y - wall, x + half, y)
    smoke = x + half * (0.5 if s.random() < 0.5 else -0.65)
    canvas.rectangle(s.ink(HOUSE, mix(roof, (30, 20, 20), 0.3)), smoke, y - wall - rise, smoke + 0.05 * size, y - wall - 0.3 * rise)
    over, inset = half * 1.16, half * s.between(0.0, 0.5)
    edge, ridge = y - wall, y - wall - rise
    tiles = s.ink(HOUSE, mix(roof, (255, 200, 160), 0.12), roof, (ridge, edge))
    canvas.polygon(tiles, ((x - over, edge), (x - inset, ridge), (x + inset, ridge), (x + over, edge)))
    if s.hour > 0.74:  # lamps are on, whatever the light outside
        glass = canvas.ink(WINDOW, (255, 216, 92), (255, 190, 70), (y - wall, y))
    else:
        glass = s.ink(WINDOW, (60, 104, 150), (112, 168, 206), (y - wall, y))
    pane, left = half * 0.24, s.random() < 0.5
    door_x = x + (-0.5 if left else 0.5) * half
    canvas.rectangle(s.ink(HOUSE, (104, 60, 34)), door_x - 0.16 * half, y - 0.58 * wall, door_x + 0.16 * half, y)
    for at in (0.05, 0.62) if left else (-0.62, -0.05):
        canvas.rectangle(glass, x + at * half - pane * 0.8, y - 0.76 * wall, x + at * half + pane * 0.8, y - 0.36 * wall)


def _tree(s: _Scene, x: float, y: float, size: float) -> None:
    canvas = s.canvas
    tall = size * s.between(0.3, 0.44)
    canvas.rectangle(s.ink(TREE, (110, 70, 40)), x - 0.026 * size, y - 0.4 * tall, x + 0.026 * size, y)
    if s.random() < 0.45:
        leaf = mix((16, 92, 62), (34, 120, 58), s.random())
        ink, lit = s.ink(TREE, leaf), s.ink(TREE, mix(leaf, (190, 230, 120), 0.22))
        for low, high, half in ((0.18, 0.62, 0.34), (0.4, 0.84, 0.27), (0.62, 1.0, 0.2)):
            half *= tall * 0.9
            canvas.polygon(ink, ((x - half, y - low * tall), (x, y - high * tall), (x + half, y - low * tall)))
            canvas.polygon(lit, ((x - half, y - low * tall), (x, y - high * tall), (x - 0.25 * half, y - low * tall)))
    else:
        leaf = s.pick(((34, 124, 40), (52, 142, 44), (86, 150, 40), (40, 112, 60), (222, 122, 36), (204, 66, 46)))
        r = tall * s.between(0.27, 0.33)
        ink, lit = s.ink(TREE, mix(leaf, (10, 40, 30), 0.15)), s.ink(TREE, mix(leaf, (240, 250, 140), 0.2))
        top = y - tall + r
        canvas.ellipse(ink, x - 0.55 * r, top + 0.45 * r, 0.75 * r, 0.7 * r)
        canvas.ellipse(ink, x + 0.55 * r, top + 0.45 * r, 0.75 * r, 0.7 * r)
        canvas.ellipse(ink, x, top, r, r)
        canvas.ellipse(lit, x - 0.25 * r, top - 0.22 * r, 0.6 * r, 0.55 * r)


def _person(s: _Scene, x: float, y: float, size: float) -> None:
    canvas, tall = s.canvas, size * s.between(0.2, 0.25)
    shirt, skin = s.pick(_SHIRTS), mix((252, 214, 176), (124, 78, 52), s.random())
    half = tall * 0.15
    legs = s.ink(PERSON, s.pick(((30, 36, 80), (70, 50, 40), (40, 40, 46))))
    canvas.rectangle(legs, x - half, y - 0.4 * tall, x - 0.15 * half, y)
    canvas.rectangle(legs, x + 0.15 * half, y - 0.4 * tall, x + half, y)
    canvas.rectangle(s.ink(PERSON, shirt), x - 1.15 * half, y - 0.76 * tall, x + 1.15 * half, y - 0.38 * tall)
    arm = s.ink(PERSON, mix(shirt, (0, 0, 0), 0.2))
    canvas.rectangle(arm, x - 1.75 * half, y - 0.74 * tall, x - 1.15 * half, y - 0.42 * tall)
    canvas.rectangle(arm, x + 1.15 * half, y - 0.74 * tall, x + 1.75 * half, y - 0.42 * tall)
    canvas.ellipse(s.ink(PERSON, skin), x, y - 0.87 * tall, 0.13 * tall, 0.14 * tall)
    canvas.ellipse(s.ink(PERSON, (56, 34, 22)), x, y - 0.95 * tall, 0.12 * tall, 0.06 * tall)


def _car(s: _Scene, x: float, y: float, size: float) -> None:
    canvas, paint, way = s.canvas, s.pick(_PAINTS), 1 if s.random() < 0.5 else -1
    long, tall = size * s.between(0.27, 0.32), size * s.between(0.125, 0.145)
    body = s.ink(CAR, mix(paint, (255, 255, 255), 0.12), mix(paint, (0, 0, 0), 0.15), (y - tall, y))
    half = long / 2
    cabin = ((-0.36, 0.55), (-0.22, 1.0), (0.10, 1.0), (0.26, 0.55))
    canvas.polygon(body, [(x + way * along * long, y - up * tall) for along, up in cabin])
    canvas.rectangle(body, x - half, y - 0.6 * tall, x + half, y - 0.14 * tall)
    glass = s.ink(CAR, (190, 226, 246))
    pane = ((-0.28, 0.58), (-0.19, 0.9), (0.08, 0.9), (0.19, 0.58))
    canvas.polygon(glass, [(x + way * along * long, y - up * tall) for along, up in pane])
    tyre, hub = s.ink(CAR, (20, 20, 24)), s.ink(CAR, (180, 180, 186))
    for at in (-0.28, 0.28):
        canvas.ellipse(tyre, x + at * long, y - 0.16 * tall, 0.24 * tall, 0.24 * tall)
        canvas.ellipse(hub, x + at * long, y - 0.16 * tall, 0.09 * tall, 0.09 * tall)
    front = x + way * (half - 0.03 * long)
    canvas.rectangle(canvas.ink(CAR, (255, 240, 150)), front - 0.03 * long, y - 0.52 * tall, front + 0.03 * long, y - 0.36 * tall)


def _fence(s: _Scene, x: float, y: float, size: float) -> None:
    canvas, posts = s.canvas, 3 + int(s.random() * 4)
    wood = s.ink(FENCE, s.pick(((248, 244, 236), (166, 110, 62), (120, 78, 48))))
    tall, gap, thick = 0.12 * size, 0.11 * size, max(0.034 * size, 0.02)
    for i in range(posts):
        canvas.rectangle(wood, x + i * gap - thick / 2, y - tall, x + i * gap + thick / 2, y)
    for at in (0.8, 0.4):
        canvas.rectangle(wood, x - 0.4 * gap, y - at * tall, x + (posts - 0.6) * gap, y - at * tall + 0.8 * thick)


def _boat(s: _Scene, x: float, y: float, size: float) -> None:
    canvas, half, tall = s.canvas, size * s.between(0.13, 0.16), size * s.between(0.24, 0.3)
    hull, deck = s.pick(((214, 44, 40), (112, 62, 36), (250, 250, 250), (30, 60, 120))), y - 0.07 * size
    canvas.polygon(s.ink(BOAT, hull), ((x - half, deck), (x + half, deck), (x + 0.65 * half, y), (x - 0.65 * half, y)))
    canvas.rectangle(s.ink(BOAT, (80, 54, 36)), x - 0.012, deck - tall, x + 0.012, deck)
    sail = s.pick(((255, 255, 255), (255, 240, 200), (250, 96, 70)))
    canvas.polygon(s.ink(BOAT, sail), ((x + 0.02, deck - tall), (x + 0.02, deck - 0.02), (x + 0.9 * half, deck - 0.02)))
    jib = s.ink(BOAT, mix(sail, (120, 130, 160), 0.25))
    canvas.polygon(jib, ((x - 0.02, deck - 0.85 * tall), (x - 0.02, deck - 0.02), (x - 0.7 * half, deck - 0.02)))


def _sign(s: _Scene, x: float, y: float, size: float) -> None:
    canvas, r, tall = s.canvas, 0.06 * size, size * s.between(0.2, 0.24)
    canvas.rectangle(s.ink(SIGN, (150, 152, 160)), x - max(0.013 * size, 0.01), y - tall, x + max(0.013 * size, 0.01), y)
    top, kind = y - tall, s.random()
    if kind < 0.4:
        canvas.ellipse(s.ink(SIGN, (222, 24, 36)), x, top, r, r)
        canvas.rectangle(s.ink(SIGN, (255, 255, 255)), x - 0.62 * r, top - 0.22 * r, x + 0.62 * r, top + 0.22 * r)
    elif kind < 0.7:
        canvas.polygon(s.ink(SIGN, (222, 24, 36)), ((x - 1.2 * r, top + 0.9 * r), (x, top - 1.2 * r), (x + 1.2 * r, top + 0.9 * r)))
        canvas.polygon(s.ink(SIGN, (255, 255, 255)), ((x - 0.6 * r, top + 0.55 * r), (x, top - 0.5 * r), (x + 0.6 * r, top + 0.55 * r)))
    else:
        canvas.rectangle(s.ink(SIGN, (20, 84, 200)), x - r, top - r, x + r, top + r)
        canvas.rectangle(s.ink(SIGN, (255, 255, 255)), x - 0.35 * r, top - 0.55 * r, x + 0.35 * r, top + 0.55 * r)


def _objects(s: _Scene) -> None:
    """Puts things on the land from far to near."""
    standing: list[tuple[float, Callable[..., None], float]] = []

    def place(what: Callable[..., None], first: float, last: float, clear: float) -> None:
        y, x = s.between(first, last), s.random() * s.aspect
        if s.path is not None:
            middle, half = s.path(y)
            margin = half * 1.15 + clear * s.scale(y)
            if abs(x - middle) < margin:
                x = middle + (margin if x > middle else -margin)
        standing.append((y, what, x))

    depth = s.last - s.first
    for _ in range(s.often(s.between(0.3, 1.9))):
        place(_house, s.first + 0.02, s.first + min(depth, 0.2), 0.28)
    for _ in range(s.often(s.between(0.6, 4.0))):
        place(_tree, s.first, s.last, 0.14)
    if s.lane is not None:
        for _ in range(s.often(0.4 * s.random())):
            place(_tree, 0.985, 1.06, 0.0)
    for what, rate, clear in ((_person, 0.11, 0.05), (_fence, 0.09, 0.3), (_sign, 0.09, 0.08)):
        for _ in range(s.often(rate)):
            place(what, s.first + 0.4 * depth, s.last, clear)
    if s.lane is not None:
        for _ in range(s.often(0.26)):
            standing.append((s.lane[0] + s.lane[1] * s.between(0.45, 0.85), _car, s.random() * s.aspect))
    if s.path is not None and s.random() < 0.14:
        y = s.between(0.78, 0.92)
        standing.append((y, _car, s.path(y)[0]))
    if s.shore is not None:
        top, bottom = s.shore
        for _ in range(s.often(0.27)):
            standing.append((s.between(top + 0.06, min(bottom - 0.02, 0.96)), _boat, s.random() * s.aspect))
    for y, what, x in sorted(standing, key=lambda entry: entry[0]):
        what(s, x, y, s.scale(y))


def check_size(height: int, width: int) -> None:
    """Raises ValueError for sides outside 16..1024."""
    if not (16 <= height <= 1024 and 16 <= width <= 1024):
        raise ValueError(f"scenes are drawn at 16 to 1024 pixels a side, not {height}x{width}")


def draw_scene(
    index: int, height: int, width: int, *, periodic: bool = False, seed: int = 0, without: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Landscape number `index` (>= 0) of the world `seed`: image uint8 [height, width, 3] and labels uint8 [height, width] into `CLASSES`.

    `periodic`: the left and right edges meet, so that the image tiles sideways. `without`: some of `RARE`; the landscape is the same but
    for these, behind which one sees what they would hide. Raises ValueError for sides outside 16..1024 and for other classes in `without`.
    """
    check_size(height, width)
    if index < 0:
        raise ValueError(f"scenes are numbered from 0, not {index}")
    canvas = Canvas(height, width, periodic=periodic, hidden=withheld(without))
    numbers = iter(np.random.default_rng((seed, index)).random(256 + int(256 * canvas.aspect)).tolist())
    scene = _Scene(canvas, numbers.__next__)
    _sky(scene)
    if scene.random() < 0.5:
        _mountains(scene)
    _land(scene)
    _objects(scene)
    return canvas.render()
