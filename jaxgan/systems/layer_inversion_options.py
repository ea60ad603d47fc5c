"""The choices of `jaxgan invert`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jaxgan.data.framing import FILTERS
from jaxgan.photos import CROPS

METHODS = ("a", "b", "c", "d", "e", "f")
LAYERED, END_TO_END = ("d", "e"), ("b", "c")
"""Methods that begin with the layered encoder, and with the one trained end to end; f does with the layered one where there is one."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is missing from these photos when the generator draws them again (Bau et al., ICCV 2019). OUT/report.html shows it."""

    generator: str
    """Generator folder or workdir: progan, stylegan, mobile_stylegan, coco_gan."""
    segmenter: str
    """bisenetv2, unet:RUN, upernet:FOLDER, onnx:FILE, MODULE:FUNCTION."""
    out: str
    """A new folder; the same command again goes on where it was stopped."""
    images: tuple[str, ...] = ()
    """Photos: files and folders."""
    generated: int = 0
    """In the place of photos, so many images of the generator itself: how much of the latent and of the layers comes back is then known."""
    encoder: str = "none"
    """Workdir of the layered encoder of this generator; none: the search begins with the mean latent, or at --start."""
    end_to_end: str = "none"
    """Workdir of an encoder trained end to end, for the methods b and c."""
    method: tuple[str, ...] = ("f",)
    """a search of the latent; b encoder trained end to end; c b, then a search of the latent; d layered encoder; e d, then a search of the
    latent; f d, then corrections of layers (the paper's). Several are compared in one table; all: a b c d e f."""
    start: str = ""
    """f begins: search, with a search of the latent from the encoder's or the mean one; codes:PATH, with codes of `jaxgan embed` (a file or
    a folder by the photos' names); none given, with the encoder's or the mean latent itself."""
    layers: tuple[str, ...] = ()
    """f: layers that are corrected, z for the latent; none given: all before the target layer."""
    steps: int = 3000
    """f: of Adam."""
    learning_rate: float = 0.01
    """f: falls to a half, a quarter and an eighth on the way."""
    perceptual_distance: str = "absolute"
    """f: of VGG-16's maps, absolute or squared."""
    perceptual_weight: float = 1.0
    """f: of VGG-16's maps (conv4_2); 0 needs no VGG-16."""
    correction_weight: float = 1.0
    """f: of the corrections' mean squares."""
    latent_steps: int = 3000
    """a, c, e, --start search: of the search of the latent."""
    latent_optimiser: str = "lbfgs"
    """Of that search: lbfgs or adam."""
    latent_learning_rate: float = 0.1
    """Of that search: of adam."""
    latent_perceptual_weight: float = 0.0
    """Of that search: of VGG-16's maps; the published ones compare pixels (and c and e the encoder's estimates)."""
    resolution: int | None = None
    """Side at which photo and image are compared in a search, by means over pixels; none given: the generator's own."""
    crop: str = "exact"
    """exact (a photo of another size than the generator's is an error), center (its middle, resized), none (squeezed), pad (grey bars)."""
    filter: str = "lanczos"
    """Of the resize: nearest, box, bilinear, hamming, bicubic, lanczos."""
    rank: tuple[str, ...] = ()
    """Classes whose lost area ranks the photos; none given: those that were lost."""
    batch: int = 8
    """Photos searched at once; changes no result."""
    seed: int = 0
    """Of random starts and of generated images."""
    vgg: str = ""
    """File of VGG-16 in any layout that `weights import vgg16` reads; none given: the named weights."""
    skip_bad: bool = False
    """Leave out photos that cannot be used, instead of an error."""
    shown: int = 60
    """Most photos on the page; the tables have all."""

    def resolved(self) -> Options:
        """With the methods in order, everything checked that needs no file.

        Raises:
          ValueError: a value out of range, or options that do not go together.
        """
        wanted = METHODS if "all" in self.method else self.method
        if unknown := [name for name in wanted if name not in METHODS]:
            raise ValueError(f"--method {unknown[0]!r} is not one of {', '.join(METHODS)}, all")
        found = dataclasses.replace(self, method=tuple(name for name in METHODS if name in wanted))
        found._check()
        return found

    def _check(self) -> None:
        for name, values in (
            ("crop", CROPS),
            ("filter", FILTERS),
            ("latent_optimiser", ("lbfgs", "adam")),
            ("perceptual_distance", ("absolute", "squared")),
        ):
            if getattr(self, name) not in values:
                raise ValueError(f"--{name} is {getattr(self, name)!r}; use one of {', '.join(values)}")
        for name in ("steps", "latent_steps", "batch", "shown"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        for name, least in (
            ("learning_rate", 1e-12),
            ("latent_learning_rate", 1e-12),
            ("perceptual_weight", 0),
            ("correction_weight", 0),
            ("latent_perceptual_weight", 0),
        ):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= least):
                rule = "above 0" if least else "of at least 0"
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be a finite number {rule}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}; it must be in 0 .. 4294967295")
        if not self.method:
            raise ValueError(f"--method names none: give some of {', '.join(METHODS)}")
        if bool(self.images) == bool(self.generated) or self.generated < 0:
            raise ValueError("give photos with --images, or a number of the generator's own images with --generated")
        for option, methods in (("encoder", LAYERED), ("end_to_end", END_TO_END)):
            needing = [name for name in self.method if name in methods]
            if needing and getattr(self, option) == "none":
                raise ValueError(f"method {needing[0]} begins with an encoder: name its workdir with --{option}, or leave the method out")
        if self.end_to_end != "none" and not set(self.method) & set(END_TO_END):
            raise ValueError("--end_to_end belongs to the methods b and c: name one of them, or leave it out")
        if self.start not in ("", "search") and (not self.start.startswith("codes:") or self.start == "codes:"):
            raise ValueError(f"--start is {self.start!r}; use search or codes:PATH, or leave it out")
        if self.start and "f" not in self.method:
            raise ValueError("--start belongs to the method f: name it, or leave the start out")
        if self.start.startswith("codes:") and self.generated:
            raise ValueError("--start names codes of photos; generated images have none: leave it out")
        if self.resolution is not None and set(self.method) & {"c", "e"}:
            raise ValueError("methods c and e compare what an encoder says of whole images: leave --resolution out, or these methods")

    def as_json(self) -> dict[str, Any]:
        """What a result hangs on, as plain JSON; the photos, the networks and the segmenter are recorded by themselves."""
        own = ("generator", "segmenter", "out", "images", "encoder", "end_to_end", "vgg", "skip_bad")
        fields = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if key not in own}
