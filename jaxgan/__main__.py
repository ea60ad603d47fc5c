"""The command line: `jaxgan COMMAND ...`, the same as `python -m jaxgan COMMAND ...`.

Each command imports what it needs when it runs, so that help and mistakes answer at once. What a person can mend (a value, a file, a
full disk) ends in one line on standard error and exit status 2; JAXGAN_TRACEBACK=1 shows where it was raised.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from jaxgan.arguments import Parser, configured
from jaxgan.configure import load_config, nearest, parse_fields

SUMMARY = {
    "train": "train CONFIG.py --workdir DIR [--field value ...]; the same command again resumes",
    "sample": "images, regions and larger canvases from a workdir or a generator folder",
    "evaluate": "FID, KID, precision and recall, FSD, LPIPS, ... of two sources: folders, sets, workdirs",
    "seeing": "what does a generator leave out? class statistics of real and fake images, FSD, and a report page",
    "segment": "label maps and overlays of a source's images; IoU where it has labels of its own",
    "embed": "photos as codes of a style-based generator (Image2StyleGAN), many at once; the same command again goes on",
    "invert": "photos in, what the generator cannot draw of them out: reconstructions, classes lost, a page (layer inversion)",
    "edit": "morph, cross over, transfer expressions, mix styles: pictures and films of codes that `embed` or `sample` wrote",
    "swap": "who from one image, how from another: grids, films, codes, the table of scores, ablations of two disentanglers",
    "data": "import a folder of images, or show what a source holds",
    "weights": "list, import and verify files of published networks",
    "doctor": "what is on this machine; does this config fit that topology",
}


def train(argv: Sequence[str]) -> int:
    parser = Parser(
        "jaxgan train",
        description=SUMMARY["train"],
        epilog="Any field of the config can be replaced: --run.kimg 10 --run.mesh 4 2 --model.dtype bfloat16 --data.source FOLDER.\n"
        "--dry-run prints all of them with their values.",
    )
    parser.add_argument("config", help="a config file, for instance configs/coco_gan_scenes.py")
    parser.add_argument("--workdir", help="folder of the run, local or gs://; made where it does not exist")
    parser.add_argument("--tiny", action="store_true", help="the config's tiny() instead of its config(): under a minute on two cores")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config, parameters, memory and FLOPs; write nothing")
    parser.add_argument("--stop-after-steps", type=int, metavar="N", help="save and leave after N more steps")
    parser.add_argument("--trace", type=int, nargs=2, metavar=("FIRST", "LAST"), help="profile these steps into WORKDIR/traces")
    parser.add_argument("--quiet", action="store_true", help="no status lines")
    options, fields = parser.parse_with_fields(argv)
    experiment = configured(options, fields, parser)
    if options.dry_run:
        from jaxgan.train import dry_run

        print(dry_run(experiment))
        return 0
    if not options.workdir:
        parser.error("--workdir is missing: name the folder that shall hold the run")
    from jaxgan import train as loop

    loop.train(
        experiment,
        options.workdir,
        stop_after_steps=options.stop_after_steps,
        quiet=options.quiet,
        trace=tuple(options.trace) if options.trace else None,
    )
    return 0


def sample(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        about = "usage: jaxgan sample WORKDIR_OR_GENERATOR --out PATH ...  (after such a folder, --help lists its own options)"
        if not argv or argv[0] not in ("-h", "--help"):
            raise ValueError(f"the workdir or generator folder comes first ({about})")
        print(about)
        return 0
    import importlib
    import importlib.util

    from jaxgan.generators import open_generator

    generator = open_generator(argv[0])
    name = f"jaxgan.systems.{generator.family}_command"
    instead = {"segmentation": "`jaxgan segment` writes its label maps", "layer_inversion": "`jaxgan invert` uses its encoders"}
    if generator.family in instead or (name not in sys.modules and importlib.util.find_spec(name) is None):
        hint = f"; {instead[generator.family]}" if generator.family in instead else ""
        raise ValueError(f"{argv[0]} is a run of the family {generator.family}, which draws no images{hint}")
    command = importlib.import_module(name)
    known = [field.name for field in dataclasses.fields(command.Options)]
    options = parse_fields(command.Options, argv[1:], f"jaxgan sample {argv[0]}", known)
    print(command.run(generator, options))
    return 0


def evaluate(argv: Sequence[str]) -> int:
    parser = Parser("jaxgan evaluate", description="scores of two sources of images, each with the protocol that it depends on")
    sources = "folder of images, imported set, scenes, tfds:NAME, workdir or generator folder"
    parser.add_argument("--real", help=sources)
    parser.add_argument("--fake", required=True, help="another one")
    parser.add_argument(
        "--metrics", default="fid", help="fid,kid,prdc,fsd,classes,lpips,psnr,ssim,ms_ssim,seam; lpips to ms_ssim pair by name"
    )
    parser.add_argument("--n", type=int, help="so many images of each (default all; 10,000 of a generator)")
    parser.add_argument("--split", help="of the reals, where they are a set (default train)")
    parser.add_argument("--fake-split", help="of the fakes, where they are a set (default train)")
    parser.add_argument("--seed", type=int, default=1, help="of latents, of the choice of n images, and of resampling")
    parser.add_argument("--resize", default="clean", help="to 299x299 for Inception: clean, tf-bilinear, bilinear, lanczos")
    parser.add_argument("--segmenter", help="for fsd and classes: bisenetv2, unet:WORKDIR, onnx:FILE, labels, ...")
    parser.add_argument("--batch", type=int, default=32, help="images computed at once")
    parser.add_argument("--resamples", type=int, default=0, help="bootstrap resamples for intervals (0: none)")
    parser.add_argument("--neighbours", type=int, default=5, help="k of precision, recall, density and coverage")
    parser.add_argument("--patch", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the patches, for seam")
    parser.add_argument("--reference", help="folder of reals' statistics that --save-reference wrote, in the place of --real")
    parser.add_argument("--save-reference", help="folder to write the reals' statistics to")
    parser.add_argument("--cache", help="folder of features computed before (default the user's cache)")
    parser.add_argument("--no-cache", action="store_true", help="compute everything anew and keep nothing")
    parser.add_argument("--out", help="JSON file of the scores with their protocols")
    options = vars(parser.parse(argv))
    from jaxgan import features, files, parallel, scores
    from jaxgan.evaluate import evaluate as compute

    parallel.start()
    out, cache, keep = options.pop("out"), options.pop("cache"), not options.pop("no_cache")
    options["metrics"] = tuple(word for word in options["metrics"].split(",") if word)
    found = compute(**options, cache=(cache or features.default_cache()) if keep else None, progress=True)
    if parallel.is_main():
        print(scores.to_text(found))
        if out:
            files.write_atomic(out, scores.to_json(found).encode())
    return 0


def seeing(argv: Sequence[str]) -> int:
    parser = Parser(
        "jaxgan seeing",
        description="Segments real and fake images, compares how much of the area each object class covers (Bau et al., ICCV 2019), and\n"
        "writes a report: report.html (one file, works from the disk), report.json, classes.csv, images.csv, figure.png, images/.",
        epilog="A source SRC is a folder of images, an imported set, a workdir or generator folder, scenes or scenes:SIZE, or tfds:NAME.\n"
        "Segmented images are remembered: the same sources are compared again at once, and an interrupted command goes on where it was.",
    )
    parser.add_argument("--real", required=True, metavar="SRC", help="what the generator learned from")
    parser.add_argument("--fake", required=True, metavar="SRC", help="what it made; the same source as --real shows the noise")
    pairing = "are files of equal name photo and reconstruction? yes, no, or auto (default): if all names match and do not only count "
    pairing += "(0001, img_0001, ...: two unrelated folders may have those; say yes where they belong together)"
    named = "bisenetv2, unet:RUN, upernet:FOLDER, onnx:FILE, labels (the sources' own label maps), MODULE:FUNCTION"
    parser.add_argument("--segmenter", required=True, metavar="NAME", help=named)
    parser.add_argument("--out", required=True, help="folder of the report; an earlier report there is replaced")
    parser.add_argument("--n", type=int, default=10_000, help="images of each source (default 10000; of a smaller source all)")
    parser.add_argument("--class", nargs="+", default=[], metavar="NAME", dest="classes", help="to show images of (default: what differs)")
    parser.add_argument("--images", type=int, default=6, help="images of each source, or pairs, shown of a class (default 6)")
    parser.add_argument("--paired", default="auto", help=pairing)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of images; a source against itself: this and the next one")
    parser.add_argument("--labelcount", type=int, default=30, help="classes in the figure (default 30)")
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals and tests (default 1000)")
    parser.add_argument("--batch", type=int, default=8, help="images segmented at a time (default 8)")
    parser.add_argument("--cache", default="", metavar="DIR", help="where segmented sources are remembered; 'none': nowhere")
    options = parser.parse(argv)
    from jaxgan import files
    from jaxgan.segmenters import open_segmenter
    from jaxgan.systems import seeing as system
    from jaxgan.systems.seeing_files import text
    from jaxgan.systems.seeing_tally import cache_folder

    given = {key: value for key, value in vars(options).items() if key not in ("real", "fake", "segmenter", "out", "classes", "cache")}
    cache = None if options.cache == "none" else options.cache or cache_folder()
    settings = system.Settings(**given, classes=tuple(options.classes), cache=cache)
    files.local_folder(options.out)  # said before a network is read
    segmenter = open_segmenter(options.segmenter)
    report = system.seeing(options.real, options.fake, segmenter, options.out, settings, say=lambda line: print(line, file=sys.stderr))
    print(f"{text(report)}\n\nreport: {os.path.join(options.out, 'report.html')}")
    return 0


def segment(argv: Sequence[str]) -> int:
    parser = Parser(
        "jaxgan segment",
        description="Writes label maps and overlays of a source's images as PNG files, and the area of each class. Where the source has\n"
        "labels of these classes it prints the intersection over union of each.",
    )
    parser.add_argument("segmenter", help="a U-Net's workdir, bisenetv2, onnx:FILE, upernet:FOLDER, labels, or package.module:function")
    parser.add_argument("--data", required=True, metavar="SOURCE", help="a folder of images, an imported set, scenes:SIZE, a workdir, ...")
    parser.add_argument("--split", help="of the source, for instance validation")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make: labels/, overlays/, scores.json")
    parser.add_argument("--n", type=int, help="so many images; default all")
    parser.add_argument("--seed", type=int, help="which n images; default the first")
    parser.add_argument("--pictures", default="both", help="labels, overlays, both or none")
    options = parser.parse(argv)
    from jaxgan.segment import report
    from jaxgan.segment import segment as run

    rest = {key: value for key, value in vars(options).items() if key not in ("segmenter", "data", "out")}
    print(report(run(options.segmenter, options.data, options.out, **rest)))
    return 0


def embed(argv: Sequence[str]) -> int:
    parser = Parser(
        "jaxgan embed",
        description="Finds a code for each photo with which a style-based generator draws it (Abdal et al., ICCV 2019), and writes\n"
        "OUT/NAME/code.safetensors, target.png, result.png, history.csv, and for all OUT/embed.json and OUT/sheet.png.",
        epilog="^C saves and leaves. A photo's code does not depend on the photos beside it.",
    )
    from jaxgan.systems import image2stylegan_arguments as arguments

    arguments.add(parser)
    options, rest = arguments.read(parser.parse(argv))
    options.resolved()  # said before anything is read
    from jaxgan.systems import image2stylegan_command as command
    from jaxgan.systems.image2stylegan import Interrupted

    out = rest["out"]
    try:
        found = command.run(**rest, options=options, say=lambda line: print(line, file=sys.stderr))
    except Interrupted as stopped:
        print(f"{out}: {stopped}; the same command goes on from there", file=sys.stderr)
        return 130
    print(command.report(found, out))
    return 0


def invert(argv: Sequence[str]) -> int:
    from jaxgan.systems.layer_inversion_options import Options

    options = parse_fields(Options, argv, "jaxgan invert", [field.name for field in dataclasses.fields(Options)]).resolved()
    from jaxgan.invert_files import Interrupted
    from jaxgan.systems import layer_inversion_command as command

    try:
        found = command.run(options, say=lambda line: print(line, file=sys.stderr))
    except Interrupted as stopped:
        print(f"{options.out}: {stopped}; the same command goes on from there", file=sys.stderr)
        return 130
    print(command.report(found, options.out))
    return 0


def edit(argv: Sequence[str]) -> int:
    command, argv = _choose("edit", argv, ("morph", "crossover", "transfer", "mixing", "truncation"))
    from jaxgan import edit as editing

    shape = editing.COMMANDS[command]
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    prog = f"jaxgan edit {command} {editing.CODES[command]}"
    options = parse_fields(shape, argv[count:], prog, [field.name for field in dataclasses.fields(shape)])
    print(editing.run(command, argv[:count], options))
    return 0


def swap(argv: Sequence[str]) -> int:
    command, argv = _choose("swap", argv, ("grid", "drive", "interpolate", "codes", "evaluate", "ablation"))
    if command == "ablation":
        from jaxgan import swap_ablation

        return swap_ablation.command(argv)
    from jaxgan import swap as swapping

    shape = swapping.COMMANDS[command]
    asked = argv and argv[0] in ("-h", "--help")
    if not asked and (not argv or argv[0].startswith("-")):
        raise ValueError(f"the run comes first (usage: jaxgan swap {command} RUN --data figures --out PATH ...)")
    path, words = ("RUN", argv) if asked else (argv[0], argv[1:])
    options = parse_fields(shape, words, f"jaxgan swap {command} {path}", [field.name for field in dataclasses.fields(shape)])
    print(swapping.run(command, path, options))
    return 0


def data(argv: Sequence[str]) -> int:
    command, argv = _choose("data", argv, ("import", "show"))
    from jaxgan.data import command as run

    return run.import_set(argv) if command == "import" else run.show_set(argv)


def doctor(argv: Sequence[str]) -> int:
    parser = Parser(
        "jaxgan doctor",
        description="Without a config: versions, devices, and whether this is a cluster. With one: compiles its training step and reports\n"
        "memory, FLOPs and traffic; for a TPU topology none has to be present (extra `tpu`).",
    )
    parser.add_argument("config", nargs="?", help="a config file")
    parser.add_argument("--tiny", action="store_true", help="the config's tiny() instead of its config()")
    parser.add_argument("--topology", default="", help="TPU slice to compile for, for instance v5e:4x4")
    parser.add_argument("--platform", default="", help="lower for this platform (cuda, tpu, cpu) without compiling")
    parser.add_argument("--batch", type=int, default=0, help="global batch size instead of the config's")
    parser.add_argument("--per-chip", type=int, default=0, help="batch size per chip instead of the config's")
    options, fields = parser.parse_with_fields(argv)
    if not options.config and any(value for key, value in vars(options).items() if key != "config"):
        parser.error("a config file is missing: the other options say what to do with one")
    if not options.config and fields:
        raise ValueError(f"unknown option {fields[0]}{nearest(fields[0].lstrip('-'), parser.words(), '--')}")
    experiment = configured(options, fields, parser) if options.config else None
    from jaxgan import doctor as examine

    chosen = {key: getattr(options, key) for key in ("topology", "platform", "batch", "per_chip")}
    print(examine.doctor(experiment, **chosen))
    return 0


def weights(argv: Sequence[str]) -> int:
    command, argv = _choose("weights", argv, ("list", "import", "verify"))
    if command == "list":
        Parser("jaxgan weights list", description="the networks that commands can use, and which of them are on this machine").parse(argv)
        from jaxgan.weights import list_weights

        print(list_weights())
    elif command == "import":
        parser = Parser("jaxgan weights import", description="checks a file of a published network and puts it where commands find it")
        families = "coco-gan, stylegan, mobile-stylegan, progan"
        parser.add_argument("name", help=f"a name of `jaxgan weights list`, or a family of generators: {families}")
        files = "safetensors, .npz, .pth, .h5 or .pkl (stylegan); for a name also a folder that holds it, or its https:// address"
        parser.add_argument("file", help=files)
        parser.add_argument("--out", help="generators only: folder to write generator.json and params.safetensors to")
        parser.add_argument("--config", help="coco-gan only: the config file whose sizes the file's variables have")
        options = parser.parse(argv)
        from jaxgan.weights import KNOWN, about, find, import_generator, import_weights
        from jaxgan.weights.generators import importable

        if not options.out and (options.config or options.name in importable()):
            parser.error("a generator needs --out, the folder to make")
        if options.out:
            experiment = load_config(options.config) if options.config else None
            print(import_generator(options.name, options.file, options.out, experiment))
        else:
            copy = import_weights(options.name, options.file)
            print(copy)
            for name in (name for name in KNOWN if copy.name == f"{name}_imported.safetensors"):
                print(*(f"  {key:15} {value}" for key, value in about(name, copy).items() if key != "file"), sep="\n")
                print(f"  for {name}, commands read {find(name)}")
    else:
        parser = Parser("jaxgan weights verify", description="checks files against their recorded checksums and shapes")
        parser.add_argument("name", nargs="?", help="a name or a file; without one: everything on this machine")
        options = parser.parse(argv)
        from jaxgan.weights import verify

        print(verify(options.name))
    return 0


def _choose(command: str, argv: Sequence[str], choices: Sequence[str]) -> tuple[str, Sequence[str]]:
    """(the sub-command, what follows it); its help where that is asked for."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: jaxgan {command} {{{','.join(choices)}}} ...  ({SUMMARY[command]})")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in choices:
        raise ValueError(f"unknown command {argv[0]!r}{nearest(argv[0], choices)}")
    return argv[0], argv[1:]


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "segment": segment,
    "seeing": seeing,
    "embed": embed,
    "invert": invert,
    "edit": edit,
    "swap": swap,
    "data": data,
    "weights": weights,
    "doctor": doctor,
}


def usage() -> str:
    lines = [f"  {name:<9}{SUMMARY[name]}" for name in COMMANDS]
    return "\n".join(["usage: jaxgan COMMAND ...", "", *lines, "", "jaxgan COMMAND --help says more; jaxgan --version."])


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0 done, 1 the run failed (non-finite values), 2 something to mend was named."""
    command = ""
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(usage())
            return 0 if argv else 2
        if argv[0] == "--version":
            from jaxgan import __version__

            print(f"jaxgan {__version__}")
            return 0
        if argv[0] not in COMMANDS:
            raise ValueError(f"unknown command {argv[0]!r}{nearest(argv[0], list(COMMANDS))}")
        command = " " + argv[0]
        return COMMANDS[argv[0]](argv[1:])
    except SystemExit as leave:  # --help
        return leave.code if isinstance(leave.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has left; what Python would flush at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("JAXGAN_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"jaxgan{command}: {_message(error)}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2


def _message(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = isinstance(error, OSError) or os.path.dirname(os.path.abspath(__file__)) in (frames[-1].filename if frames else "")
    return f"{error}" if ours else f"{error} (JAXGAN_TRACEBACK=1 shows where)"


def console() -> NoReturn:
    """The console script."""
    from jaxgan import terminal

    terminal.forgive(sys.stdout)
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console()
