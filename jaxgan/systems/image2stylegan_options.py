"""The choices of an embedding: every one that the papers leave open is a field here, and is recorded with each code."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jaxgan.configure import nearest
from jaxgan.data.framing import check_framing

METHODS = ("image2stylegan", "projector", "image2stylegan++")
SPACES = ("z", "w", "w+")
SCHEDULES = ("constant", "cosine", "ramps")
OPTIMISERS = ("adam", "lbfgs")
CROPS = ("center", "none", "pad")
LAYERS = tuple(f"conv{block}_{i}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1))

_DEFAULTS: dict[str, dict[str, Any]] = {
    # Abdal, Qin, Wonka, ICCV 2019, section 3: W+, Adam 0.01, 5000 steps, four maps of VGG-16.
    "image2stylegan": {
        "space": "w+", "steps": 5000, "learning_rate": 0.01, "schedule": "constant", "mse_weight": 1.0, "noise_steps": 0,
        "taps": ("conv1_1", "conv1_2", "conv3_2", "conv4_2"),
    },
    # The projector published with StyleGAN2-ADA: W, 1000 steps of Adam 0.1 with ramps, LPIPS, noise maps as variables.
    "projector": {
        "space": "w", "steps": 1000, "learning_rate": 0.1, "schedule": "ramps", "mse_weight": 0.0, "noise_steps": 0, "taps": (),
    },
    # Abdal, Qin, Wonka, CVPR 2020 (arXiv:1911.11544): W+ first, then the noise maps on the mean squared error alone.
    "image2stylegan++": {
        "space": "w+", "steps": 5000, "learning_rate": 0.01, "schedule": "constant", "mse_weight": 1.0, "noise_steps": 3000,
        "taps": ("conv1_1", "conv1_2", "conv2_2", "conv3_3"),
    },
}  # fmt: skip

_USED_BY = {
    **dict.fromkeys(("taps", "pre_relu", "normalisation", "pixel_steps"), ("image2stylegan", "image2stylegan++")),
    **dict.fromkeys(("noise_weight", "code_noise"), ("projector",)),
    **dict.fromkeys(("noise_steps", "noise_learning_rate", "outside_weight", "style_weight", "style_tap"), ("image2stylegan++",)),
}
"""Options that not every method reads; with another method they must be the defaults."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How images are embedded; None and () stand for what the method's authors used, see ``resolved``."""

    method: str = "image2stylegan"
    """One of ``METHODS``."""
    space: str | None = None
    """'z', 'w' (one row for all layers) or 'w+' (a row for each)."""
    start: str | None = None
    """'mean' (the mean w; default in w and w+), 'random' (uniform in [-1, 1]), 'z-random' (a random z, mapped; default in z), 'codes:PATH'
    (a code file, or a folder of them by the photos' names) or 'run:DIR' (an earlier output). The last two bring their noise maps along."""
    steps: int | None = None
    pixel_steps: int = 0
    """image2stylegan, image2stylegan++: steps before the others that compare pixels alone. From the mean face a photo unlike the
    generator's own images otherwise goes through a flat one: maps of VGG-16 first fall fastest where all detail is lost."""
    learning_rate: float | None = None
    schedule: str | None = None
    """'constant', 'cosine' (down to 0), or 'ramps' (up over the first 5 %, a cosine down over the last 25 %)."""
    optimiser: str = "adam"
    """'adam' (0.9, 0.999, 1e-8) or 'lbfgs' (with a line search; learning_rate and schedule stay None)."""
    batch: int = 4
    """Images optimised at once; no image's code depends on the others."""
    resolution: int | None = None
    """Side at which image and photo are compared, by the mean over squares of pixels; None: the generator's own."""
    taps: tuple[str, ...] = ()
    """Layers of VGG-16 whose maps are compared."""
    pre_relu: bool = False
    """Compare the maps before their ReLU."""
    mse_range: str = "signed"
    """Range of the images in the mean squared error: 'signed' [-1, 1], or 'unit' [0, 1] (a quarter of the value)."""
    normalisation: str | None = None
    """What VGG-16 is given: 'torchvision', 'caffe', 'unit' or 'signed'; None: what its weights expect."""
    resize_kernel: str = "area"
    """To the side of the maps: 'area', 'bilinear' or 'bilinear_antialias'."""
    perceptual_size: int = 256
    """Side at which VGG-16 looks; a smaller image is not enlarged."""
    mse_weight: float | None = None
    perceptual_weight: float = 1.0
    """Of VGG-16's maps; of LPIPS for the projector."""
    mean_weight: float = 0.0
    """Of the mean squared distance of the code to the mean w."""
    noise_weight: float = 1e5
    """projector: of the noise maps' regulariser."""
    code_noise: float = 0.05
    """projector: deviation of the noise on w at the start, in units of the deviation of w."""
    noise_steps: int | None = None
    """image2stylegan++: steps of the second stage."""
    noise_learning_rate: float = 5.0
    """image2stylegan++: of the second stage."""
    outside_weight: float = 0.0
    """image2stylegan++: of the mean squared error to the other image outside the mask."""
    style_weight: float = 0.0
    """image2stylegan++: of the distance of Gram matrices to the other image outside the mask."""
    style_tap: str = "conv3_3"
    """image2stylegan++: the map of which Gram matrices are made."""
    crop: str = "center"
    """'center' (the largest square in the middle), 'none' (all, squeezed into a square), 'pad' (all, with grey bars)."""
    filter: str = "lanczos"
    """Resize filter of the photos, as in `jaxgan data import`."""
    tolerance: float = 0.0
    """An image is done when its loss has not fallen by this share within ``patience`` steps; 0: never before the last step."""
    patience: int = 250
    seed: int = 0
    film: bool = False
    """Also make a film of the optimisation."""

    def resolved(self) -> Options:
        """With the method's defaults in the place of None, everything checked.

        Raises:
          ValueError: a value that does not exist, is out of range, or does not go with the method.
        """
        _choice("method", self.method, METHODS)
        defaults = dict(_DEFAULTS[self.method])
        if self.optimiser == "lbfgs":
            defaults |= {"learning_rate": None, "schedule": None}
        given = {key: value for key in defaults if (value := getattr(self, key)) is not None and value != ()}
        found = dataclasses.replace(self, **{**defaults, **given})
        if found.start is None:
            found = dataclasses.replace(found, start="z-random" if found.space == "z" else "mean")
        found._check()
        return found

    def _check(self) -> None:
        choices = {
            "space": SPACES, "schedule": SCHEDULES, "optimiser": OPTIMISERS, "mse_range": ("signed", "unit"), "crop": CROPS,
            "resize_kernel": ("area", "bilinear", "bilinear_antialias"),
        }  # fmt: skip
        for name, values in choices.items():
            if name != "schedule" or self.optimiser != "lbfgs":
                _choice(name, getattr(self, name), values)
        if self.normalisation is not None:
            _choice("normalisation", self.normalisation, ("torchvision", "caffe", "unit", "signed"))
        for tap in (*self.taps, self.style_tap):
            _choice("taps" if tap in self.taps else "style_tap", tap, LAYERS)
        kind, _, path = self.start.partition(":")
        if (kind not in ("codes", "run") or not path) and self.start not in ("mean", "random", "z-random"):
            raise ValueError(f"start is {self.start!r}; use mean, random, z-random, codes:PATH or run:DIR")
        for name in ("batch", "patience", "perceptual_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("noise_steps", "pixel_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"resolution is {self.resolution}; it must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must be in 0 .. 4294967295")
        weights = [field.name for field in dataclasses.fields(self) if field.name.endswith("_weight")]
        for name in (*weights, "tolerance", "code_noise"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be a finite number of at least 0")
        for name in ("learning_rate", "noise_learning_rate"):
            if (value := getattr(self, name)) is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a finite number above 0")
        check_framing("none", self.filter)
        self._check_method()

    def _check_method(self) -> None:
        if self.mse_weight == 0 and self.perceptual_weight == 0:
            raise ValueError("mse_weight and perceptual_weight are both 0: nothing says what the image shall look like, so give one")
        if self.method == "projector" and self.space == "z":
            raise ValueError("the projector adds noise to w and looks for it in W or W+: use --space w or w+, or --method image2stylegan")
        if self.method == "projector" and self.optimiser == "lbfgs":
            raise ValueError("the projector draws noise at every step, which a line search cannot follow: use --optimiser adam")
        for name, methods in _USED_BY.items():
            value, default = getattr(self, name), _DEFAULTS[self.method].get(name, getattr(Options, name))
            if self.method not in methods and value != default:
                raise ValueError(f"{name} is {value!r}, but belongs to --method {' or '.join(methods)}, not to {self.method}: leave it out")
        for name in ("learning_rate", "schedule"):
            if self.optimiser == "lbfgs" and (value := getattr(self, name)) is not None:
                raise ValueError(f"{name} is {value!r}, but lbfgs finds its steps by a line search: leave it out, or use --optimiser adam")
        if self.space == "z" and self.start != "z-random":
            raise ValueError(f"start {self.start!r} is a w, and no z is known for it: use --start z-random, or --space w or w+")

    def as_json(self) -> dict[str, Any]:
        """Every field as plain JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()}


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; use one of {', '.join(choices)}{nearest(str(value), list(choices)).split('; there')[0]}")


def learning_rates(options: Options, steps: int) -> Any:
    """The step size as an optax schedule, ``step -> rate``; 'ramps' is ``invert.ramp``, the published projector's."""
    import optax

    from jaxgan import invert

    if options.schedule == "constant":
        return optax.constant_schedule(options.learning_rate)
    if options.schedule == "cosine":
        return optax.cosine_decay_schedule(options.learning_rate, steps)
    return invert.ramp(options.learning_rate, steps)
