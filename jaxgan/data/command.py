"""`jaxgan data import` and `jaxgan data show`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from jaxgan.arguments import Parser
from jaxgan.configure import Data, load_config, nearest, override


def import_set(argv: Sequence[str]) -> int:
    """Images of a folder, with label maps of another where there are any, or clips, become a set."""
    about = "decodes, crops and resizes a folder of images (and one of label maps), or of clips, once; lists rejects and why"
    parser = Parser("jaxgan data import", description=about)
    parser.add_argument("folder", help="folder of PNG, JPEG or WebP files; with --clips also tfds:smallnorb, tfds:coil100, tfds:davis")
    parser.add_argument("out", help="folder to make: what `--data.source` takes")
    parser.add_argument("--size", type=int, nargs="+", required=True, metavar="PIXELS", help="height and width, or one number for both")
    parser.add_argument("--crop", default="center", help="none (aspect not kept), center, celeba (rows 50:178, columns 25:153)")
    parser.add_argument(
        "--filter", help="nearest, box, bilinear, hamming, bicubic, lanczos (lanczos; with --boxes and of tfds: box, the mean of areas)"
    )
    parser.add_argument("--channels", type=int, default=3, help="3: RGB, 1: grey")
    parser.add_argument("--alpha", default="white", help="transparent images: laid on white, on black, or reject")
    parser.add_argument("--upscale", action="store_true", help="take images smaller than the size too")
    parser.add_argument("--max-pixels", type=int, default=64_000_000, help="larger images are rejected before they are decoded")
    parser.add_argument("--test-share", type=float, default=0.0, help="share of the images kept for the split `test`")
    parser.add_argument("--labels", metavar="FOLDER", help="folder of label maps: PNG files of class numbers with the images' names")
    parser.add_argument("--classes", metavar="FILE", help="with --labels: class names, one a line, class 0 first")
    parser.add_argument("--void", type=int, metavar="ID", help="with --labels: the number of pixels whose class is not known")
    parser.add_argument("--clips", action="store_true", help="every folder of images and every video file below FOLDER is cut into clips")
    parser.add_argument("--length", type=int, help="with --clips: frames of a clip (16; of smallnorb and coil100 a whole turn)")
    parser.add_argument("--stride", type=int, help="with --clips: each how many-th frame is taken (1)")
    parser.add_argument(
        "--boxes", metavar="CSV", help="with --clips: a file, or a folder of VIDEO.csv, of frame,track,x,y,w,h: cuts tracks"
    )
    options = parser.parse(argv)
    own = ("folder", "out", "size", "filter", "labels", "classes", "void", "clips", "length", "stride", "boxes")
    rest = {key: value for key, value in vars(options).items() if key not in own}
    if options.clips:
        if options.labels or options.channels != 3:
            parser.error("--clips: frames have 3 channels and no label maps")
        return _import_clips(options, rest)
    if options.length is not None or options.stride is not None or options.boxes is not None:
        parser.error("--length, --stride and --boxes cut videos: add --clips")
    rest["filter"] = options.filter or "lanczos"
    if options.labels:
        return _import_pairs(options, rest)
    if options.classes or options.void is not None:
        parser.error("--classes and --void describe label maps: name their folder with --labels")
    from jaxgan.data.folders import import_folder

    report = import_folder(options.folder, options.out, size=_size(options.size), **rest)
    print(f"{report.folder}: {report.count} images of {'x'.join(map(str, report.size))}, {len(report.rejects)} rejected")
    return 0


def show_set(argv: Sequence[str]) -> int:
    """A contact sheet of a source, and its facts."""
    parser = Parser("jaxgan data show", description="writes a contact sheet of a source and prints what it holds")
    parser.add_argument(
        "source", help="a config file, or a source as in --data.source: scenes, an imported folder, tfds:NAME, figures, sprites:FOLDER"
    )
    parser.add_argument("--out", required=True, help="PNG file to write")
    parser.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="height and width, or one number for both")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--count", type=int, default=64, help="images on the sheet; of clips, one a row, frames")
    options, fields = parser.parse_with_fields(argv)
    if options.source.endswith(".py"):
        experiment = override(load_config(options.source), fields, prog=f"jaxgan data show {options.source}", options=parser.words())
        image, where = experiment.model.system().image, experiment.data
    elif fields:
        raise ValueError(f"unknown option {fields[0]}{nearest(fields[0].lstrip('-'), parser.words(), '--')}")
    else:
        image, where = _image_of(options.source, options.channels), Data(source=options.source)
    if options.size:
        image = (*_size(options.size), image[2])
    from jaxgan.data.show import show

    facts = show(where, image, options.out, n=options.count)
    for key, value in {**facts, "sheet": options.out}.items():
        print(f"{key}: {value}" if not isinstance(value, dict) else f"{key}:")
        for name, shares in value.items() if isinstance(value, dict) else ():
            print(f"  {name:<10}" + "  ".join(f"{share:7.2%} of {what}" for what, share in shares.items()))
    return 0


def _import_pairs(options: argparse.Namespace, rest: dict) -> int:
    from jaxgan.data.pairs import import_pairs, read_names

    classes = read_names(options.classes) if options.classes else ()
    size = _size(options.size)
    report = import_pairs(options.folder, options.out, options.labels, size=size, classes=classes, void=options.void, **rest)
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    print(f"{report.folder}: pairs of {'x'.join(map(str, report.size))}, {counts}; {len(report.rejects)} rejected")
    first = next(iter(report.pixels.values()))
    for number, (name, pixels) in enumerate(zip(report.classes, first, strict=True)):
        print(f"  {number:3}  {name:<20}{pixels:14,} pixels{'  (void)' if number == report.void else ''}")
    return 0


def _import_clips(options: argparse.Namespace, rest: dict) -> int:
    from jaxgan.data.clip_import import import_clips

    del rest["channels"]
    cut = {key: value for key in ("length", "stride", "filter", "boxes") if (value := getattr(options, key)) is not None}
    report = import_clips(options.folder, options.out, size=_size(options.size), **cut, **rest)
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    frames = "x".join(map(str, report.size))
    what = "videos" if options.boxes is None and not options.folder.startswith("tfds:") else "videos or tracks"
    print(f"{report.folder}: clips of {report.length} frames of {frames}, {counts}; {len(report.rejects)} {what} rejected")
    return 0


def _image_of(source: str, channels: int) -> tuple[int, int, int]:
    """(H, W, C) that an imported folder holds; 64x64 for a source that has no size of its own."""
    from etils import epath

    facts = epath.Path(source) / "facts.json"
    return tuple(json.loads(facts.read_text())["size"]) if facts.exists() else (64, 64, channels)


def _size(pixels: Sequence[int]) -> tuple[int, int]:
    if len(pixels) > 2 or min(pixels) < 1:
        raise ValueError(f"--size is {' '.join(map(str, pixels))}; it must be one or two positive numbers (height and width)")
    return pixels[0], pixels[-1]
