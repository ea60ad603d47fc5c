"""An experiment as typed frozen dataclasses: from a config file, from the command line, and as config.json in a workdir.

Everything that comes from outside is checked field by field against the dataclasses: an unknown key is an error that names the nearest
known one, a value of another type is an error that names the field and the type, and nothing is written before all of it is right.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import importlib.util
import json
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images come from."""

    source: str = "scenes"
    """'scenes' (made by code), 'tfds:NAME[/CONFIG]' (a catalogue set), or the folder that `jaxgan data import` made."""
    split: str = "train"
    """Which part of the source."""
    root: str = ""
    """Folder of prepared sets; empty: $JAXGAN_DATA, else the user's cache folder."""
    periodic: bool = False
    """scenes only: left and right edges meet."""
    count: int = 50_000
    """scenes: number of distinct images. figures: number of clips to train on; 0 or the default: 2,400."""
    ground: Literal["plain", "dark", "clip", "frame"] = "plain"
    """figures only: one grey behind them; one that all bodies are brighter than; a texture of each clip, a shortcut to who it is; or one of
    each frame."""
    without: tuple[str, ...] = ()
    """scenes only: classes that are not drawn, of person, car, fence, boat and sign."""
    crop: str = "center"
    """catalogue sets only: how the image is cut to the aspect wanted ('center', 'none', 'celeba')."""
    filter: str = "lanczos"
    """catalogue sets only: resize filter ('lanczos', 'bicubic', 'bilinear', 'box', 'nearest')."""
    workers: int = 0
    """Loader processes; 0 reads in threads. Part of the saved position: keep it for the length of a run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """How long, how often, on what."""

    batch: int = 64
    """Global batch size in samples."""
    kimg: float = 1000.0
    """Length in thousands of samples."""
    seed: int = 0
    """Root of all randomness: initial values, latents, data order."""
    mesh: tuple[int, int] = (0, 1)
    """Devices along ('data', 'patch'); 0: all that are left."""
    log_every: int = 50
    """Steps between status lines."""
    save_every: int = 1000
    """Steps between checkpoints."""
    sample_every: int = 1000
    """Steps between sample grids."""
    samples: int = 16
    """Images in a sample grid."""
    keep: int = 3
    """Checkpoints kept."""
    probes: tuple[str, ...] = ()
    """Scores to log beside those that the system itself offers: 'fid', 'kid', 'prdc', 'fsd'. They change nothing of what is learned."""
    probe_every: int = 0
    """Steps between probes; 0: never. The first and the last step are probed too."""
    probe_images: int = 1000
    """Fakes, and reals spread over the source, that a probe compares; scores of different numbers do not compare."""
    probe_segmenter: str = ""
    """For 'fsd': a segmenter as in `jaxgan seeing`, for instance unet:WORKDIR."""
    start: str = ""
    """A workdir whose networks this run begins from (post-training); its optimisers start anew."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config file's `config()` and `tiny()` return one of these."""

    model: Any
    """A system's own frozen dataclass, for instance `coco_gan.Config`; it has a method `system() -> System`."""
    data: Data = Data()
    run: Run = Run()


def load_config(path: str | Path, variant: Literal["config", "tiny"] = "config") -> Experiment:
    """Runs the config file at `path` and returns what its function `variant` returns.

    FileNotFoundError where there is no such file; ValueError where it fails to run, has no such function, or returns something else
    than an `Experiment` whose fields hold what their types say.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise FileNotFoundError(f"config file {path} does not exist{near}")
    if path.suffix != ".py":
        raise ValueError(f"config file {path} is not a Python file (.py)")
    name = f"jaxgan_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses defined in the file look their module up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"config file {path} does not run: {type(error).__name__}: {error}") from error
    function = getattr(module, variant, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if isinstance(value, types.FunctionType) and value.__module__ == name]
        raise ValueError(f"config file {path} has no function {variant}(){nearest(variant, there)}")
    try:
        experiment = function()
    except Exception as error:
        raise ValueError(f"{variant}() of config file {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{variant}() of config file {path} returns {type(experiment).__name__}, not a jaxgan.configure.Experiment")
    return check(experiment)


def check(experiment: Experiment) -> Experiment:
    """The experiment with each field checked against its type (whole numbers in float fields become floats); ValueError names the field."""
    if not dataclasses.is_dataclass(experiment.model) or isinstance(experiment.model, type):
        raise ValueError(f"model is {experiment.model!r}, not an instance of a system's Config dataclass")
    return Experiment(
        model=_checked(type(experiment.model), experiment.model, "model"),
        data=_checked(Data, experiment.data, "data"),
        run=_checked(Run, experiment.run, "run"),
    )


def parse(
    path: str | Path, argv: Sequence[str] = (), variant: Literal["config", "tiny"] = "config", prog: str = "jaxgan train"
) -> Experiment:
    """The experiment of the config file with the fields named in `argv` replaced: ``--model.g_width 16 --run.kimg 10``.

    Booleans are written out (``--model.shared_forward False``), tuples as several words (``--run.mesh 4 2``). ValueError names an unknown
    field with the nearest known one, and a value that is not of the field's type.
    """
    return override(load_config(path, variant), argv, prog=prog)


def override(experiment: Experiment, argv: Sequence[str], prog: str = "jaxgan train", options: Sequence[str] = ()) -> Experiment:
    """The second half of `parse`. `options`: the command's own options, to be named when one of them was misspelt."""
    # The model's class is known only now, and tyro reads classes: the same three fields with the type of the model filled in.
    parts = {f.name: getattr(experiment, f.name) for f in dataclasses.fields(experiment)}
    fields = [(name, type(part), dataclasses.field(default=part)) for name, part in parts.items()]
    shape = dataclasses.make_dataclass("Experiment", fields, frozen=True)
    parsed = parse_fields(shape, argv, prog, [*options, *field_names(experiment)])
    return check(Experiment(model=parsed.model, data=parsed.data, run=parsed.run))


def parse_fields(shape: type, argv: Sequence[str], prog: str, known: Sequence[str]) -> Any:
    """An instance of the dataclass `shape` from ``--field value`` words, with its defaults for the rest.

    Raises:
      ValueError: one line that names the word that is wrong; for an unknown option also the nearest of `known`.
    """
    import contextlib
    import io

    import tyro

    for word in argv:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and flag[2:].replace("-", "_") not in [*known, "help"]:
            raise ValueError(f"unknown option {flag}{nearest(flag[2:].replace('-', '_'), known, '--')}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(shape, args=list(argv), prog=prog, use_underscores=True, config=(tyro.conf.FlagConversionOff,))
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            raise
        raise ValueError(_plain(errors.getvalue())) from None


def _plain(box: str) -> str:
    """The first paragraph inside tyro's framed message, as one line."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╭╮╰╯─ ")
        if not text:
            break
        words.append(text)
    return " ".join(words) or box.strip()


def field_names(experiment: Experiment) -> list[str]:
    """Dotted names of all fields that hold a value: 'model.latent', 'run.kimg', ..."""

    def below(value: Any, name: str) -> Iterable[str]:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from below(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
        else:
            yield name

    return list(below(experiment, ""))


def differences(a: Experiment, b: Experiment) -> list[tuple[str, Any, Any]]:
    """(dotted field, value in a, value in b) of each field that differs; ('system', ..., ...) first where the models are of two systems."""
    found: list[tuple[str, Any, Any]] = []
    if type(a.model) is not type(b.model):
        found.append(("system", _class_name(a.model), _class_name(b.model)))

    def walk(x: Any, y: Any, name: str) -> None:
        if dataclasses.is_dataclass(x) and type(x) is type(y):
            for field in dataclasses.fields(x):
                walk(getattr(x, field.name), getattr(y, field.name), f"{name}.{field.name}")
        elif type(x) is not type(y) or x != y:
            found.append((name, x, y))

    for field in dataclasses.fields(Experiment):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if type(x) is type(y):
            walk(x, y, field.name)
    return found


def system_name(model: Any) -> str:
    """The module below `jaxgan.systems` that defines the model's class; ValueError where it is defined elsewhere or is not its `Config`."""
    package, _, name = type(model).__module__.rpartition(".")
    if package != "jaxgan.systems" or type(model).__name__ != "Config":
        raise ValueError(f"model is a {_class_name(model)}: only jaxgan.systems.<name>.Config can be written to config.json")
    return name


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain JSON values: {'jaxgan': version, 'system': name, 'model': {...}, 'data': {...}, 'run': {...}}."""
    from jaxgan import __version__

    experiment = check(experiment)
    parts = {f.name: _plain_value(getattr(experiment, f.name)) for f in dataclasses.fields(experiment)}
    return {"jaxgan": __version__, "system": system_name(experiment.model), **parts}


def from_json(tree: Mapping[str, Any]) -> Experiment:
    """The inverse of `to_json`, exact. A missing field takes its default; ValueError for anything unknown or of another type."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"an experiment is a JSON object, not {type(tree).__name__}")
    sections = ["jaxgan", "system", *(f.name for f in dataclasses.fields(Experiment))]
    for key in tree:
        if key not in sections:
            raise ValueError(f"unknown key {key!r}{nearest(str(key), sections)}")
    for key in ("system", "model"):
        if key not in tree:
            raise ValueError(f"key {key!r} is missing")
    return Experiment(
        model=model_from_json(tree["system"], tree["model"]),
        data=_checked(Data, tree.get("data", {}), "data"),
        run=_checked(Run, tree.get("run", {}), "run"),
    )


def model_from_json(system: str, tree: Mapping[str, Any]) -> Any:
    """The `Config` of the module `system` below jaxgan.systems with these fields; ValueError as in `from_json`."""
    return _checked(_config_class(system), tree, "model")


def write(experiment: Experiment, path: Any) -> None:
    """Writes config.json at `path` (local or gs://): whole or not at all."""
    from jaxgan.files import write_atomic

    write_atomic(path, (json.dumps(to_json(experiment), indent=2, allow_nan=False) + "\n").encode())


def read(path: Any) -> Experiment:
    """Reads what `write` wrote; FileNotFoundError, or ValueError naming the file and the field."""
    from etils import epath

    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: is {path.parent} a workdir of `jaxgan train`?")
    try:
        return from_json(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _config_class(name: Any) -> type:
    """`Config` of the module `name` below jaxgan.systems; the name comes from a file, so it must be one plain identifier."""
    import pkgutil

    import jaxgan.systems

    known = [m.name for m in pkgutil.iter_modules(jaxgan.systems.__path__)]
    if not isinstance(name, str) or not name.isidentifier() or (name not in known and f"jaxgan.systems.{name}" not in sys.modules):
        raise ValueError(f"system {name!r} is not a module of jaxgan.systems{nearest(str(name), known)}")
    config = getattr(importlib.import_module(f"jaxgan.systems.{name}"), "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config) and config.__module__ == f"jaxgan.systems.{name}"):
        raise ValueError(f"module jaxgan.systems.{name} is no system: it defines no dataclass Config")
    return config


def _checked(hint: Any, value: Any, name: str) -> Any:
    """`value` (plain JSON or already typed) as the type `hint`; ValueError names the field, the value and the type wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = ValueError(f"{name} is {value!r}; it must be {_describe(hint)}")
    if dataclasses.is_dataclass(hint):
        return _checked_dataclass(hint, value, name)
    if hint is Any:
        return value
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise ValueError(f"{wrong}{nearest(str(value), [str(a) for a in arguments])}")
        return value
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            try:
                return _checked(choice, value, name)
            except ValueError:
                continue
        raise wrong
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise wrong
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(each) != len(value):
            raise wrong
        return tuple(_checked(h, v, f"{name}[{i}]") for i, (h, v) in enumerate(zip(each, value, strict=True)))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not (type(None) if hint in (None, type(None)) else hint) or (hint is float and not math.isfinite(value)):
        raise wrong
    return value


def _checked_dataclass(hint: type, value: Any, name: str) -> Any:
    hints = _hints(hint)
    if isinstance(value, hint):
        given = {key: getattr(value, key) for key in hints}
    elif isinstance(value, Mapping):
        given = value
    else:
        raise ValueError(f"{name} is {value!r}; it must hold the fields of {hint.__module__}.{hint.__name__}")
    for key in given:
        if key not in hints:
            raise ValueError(f"unknown key {name}.{key}{nearest(str(key), list(hints), name + '.')}")
    try:
        return hint(**{key: _checked(hints[key], item, f"{name}.{key}") for key, item in given.items()})
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"{name}: {error}") from error


@functools.cache
def _hints(hint: type) -> dict[str, Any]:
    resolved = typing.get_type_hints(hint)
    return {field.name: resolved[field.name] for field in dataclasses.fields(hint)}


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain_value(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain_value(item) for item in value] if isinstance(value, tuple) else value


def _describe(hint: Any) -> str:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    names = {int: "a whole number", float: "a finite number", str: "a string", bool: "true or false"}
    return names.get(hint, str(hint).replace("typing.", ""))


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    """'; nearest: NAME' of the known name that is most like the word, or the known names where none is like it."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"; nearest: {prefix}{close[0]}"
    # '--kimg' for '--run.kimg': the last part alone.
    tails = {name.rpartition(".")[2]: name for name in known}
    close = difflib.get_close_matches(word.rpartition(".")[2], list(tails), n=1, cutoff=0.5)
    if close:
        return f"; nearest: {prefix}{tails[close[0]]}"
    return f"; there are: {', '.join(known)}" if 0 < len(known) <= 12 else ""
