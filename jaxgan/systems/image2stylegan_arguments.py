"""The options of `jaxgan embed` on the command line."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from jaxgan.systems.image2stylegan_options import METHODS, OPTIMISERS, SCHEDULES, SPACES, Options

_HELP: dict[str, tuple[str, Any, str]] = {
    "method": ("NAME", str, f"{', '.join(METHODS)} (default the first)"),
    "space": ("NAME", str, f"{', '.join(SPACES)}; default w+, of the projector w"),
    "start": ("WHERE", str, "mean (default), random (uniform), z-random, codes:PATH (code files), run:DIR (an earlier output)"),
    "steps": ("N", int, "default 5000, of the projector 1000"),
    "pixel_steps": ("N", int, "before those, steps that compare pixels alone (default 0; 60 keep a photo from going flat at first)"),
    "learning_rate": ("RATE", float, "default 0.01, of the projector 0.1"),
    "schedule": ("NAME", str, f"{', '.join(SCHEDULES)}; default constant, of the projector ramps"),
    "optimiser": ("NAME", str, f"{', '.join(OPTIMISERS)} (default the first)"),
    "batch": ("N", int, "photos at once (default 4); changes no result"),
    "resolution": ("PIXELS", int, "side at which photo and image are compared, by means over pixels (default the generator's)"),
    "pre_relu": ("", bool, "compare VGG-16's maps before their ReLU"),
    "mse_range": ("NAME", str, "signed: images in [-1, 1] (default), unit: in [0, 1]"),
    "normalisation": ("NAME", str, "of VGG-16's input: torchvision, caffe, unit, signed; default what its weights expect"),
    "resize_kernel": ("NAME", str, "to the side of the maps: area (default), bilinear, bilinear_antialias"),
    "perceptual_size": ("PIXELS", int, "side at which VGG-16 looks at larger images (default 256)"),
    "mse_weight": ("X", float, "of the mean squared difference (default 1, of the projector 0)"),
    "perceptual_weight": ("X", float, "of VGG-16's maps, for the projector of LPIPS (default 1)"),
    "mean_weight": ("X", float, "of the mean squared distance of the code to the mean w (default 0)"),
    "noise_weight": ("X", float, "projector: of the noise maps' regulariser (default 1e5)"),
    "code_noise": ("X", float, "projector: noise on w at the start, in deviations of w (default 0.05)"),
    "noise_steps": ("N", int, "image2stylegan++: steps of the second stage, which moves the noise maps (default 3000)"),
    "noise_learning_rate": ("RATE", float, "image2stylegan++: of that stage (default 5)"),
    "outside_weight": ("X", float, "image2stylegan++: of the squared difference to the other image outside the mask (default 0)"),
    "style_weight": ("X", float, "image2stylegan++: of the difference of Gram matrices there (default 0)"),
    "style_tap": ("LAYER", str, "image2stylegan++: the layer of which they are made (default conv3_3)"),
    "crop": ("NAME", str, "center (default), none (squeezed into a square), pad (grey bars)"),
    "filter": ("NAME", str, "nearest, box, bilinear, hamming, bicubic, lanczos (default)"),
    "tolerance": ("X", float, "stop a photo whose loss has not fallen by this share within --patience steps (default 0: never)"),
    "patience": ("N", int, "default 250"),
    "seed": ("N", int, "of random starts and noise; each photo draws from it and its own content (default 0)"),
    "film": ("", bool, "also an mp4 of the optimisation for each photo"),
}
_FLAGS = {"mean_weight": "--towards-mean"}
RUN = ("generator", "images", "out", "vgg", "mask", "other", "skip_bad", "check_alignment")
"""What is not a field of ``Options``."""


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--generator", required=True, metavar="DIR", help="a generator folder or workdir with styles (StyleGAN)")
    parser.add_argument("--images", required=True, nargs="+", metavar="PATH", help="photos: files and folders of any sizes")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder; the same command again goes on where it was stopped")
    parser.add_argument("--vgg", metavar="FILE", help="VGG-16 in any layout that `weights import vgg16` reads; default the named weights")
    parser.add_argument("--taps", nargs="+", default=[], metavar="LAYER", help="VGG-16's layers, conv1_1 ... conv5_3 (default the paper's)")
    parser.add_argument("--mask", metavar="DIR", help="image2stylegan++: files of the photos' names; white is where the photo counts")
    parser.add_argument("--other", metavar="DIR", help="image2stylegan++: files of the photos' names; what counts outside the mask")
    parser.add_argument("--skip-bad", action="store_true", help="leave out photos that cannot be read, instead of an error")
    parser.add_argument("--check-alignment", action="store_true", help="warn of faces that do not lie as FFHQ's do (needs bisenetv2)")
    for name, (metavar, kind, text) in _HELP.items():
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        if kind is bool:
            parser.add_argument(flag, dest=name, action="store_true", help=text)
        else:
            parser.add_argument(flag, dest=name, type=kind, metavar=metavar, help=text)


def read(parsed: argparse.Namespace) -> tuple[Options, dict[str, Any]]:
    """(the options, what else ``image2stylegan_command.run`` takes)."""
    given = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Options)}
    options = Options(**{name: tuple(value) if name == "taps" else value for name, value in given.items() if value is not None})
    return options, {name: getattr(parsed, name) for name in RUN}
