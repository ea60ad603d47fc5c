"""The official network pickles of StyleGAN (2019): generator, discriminator and the generator's running average, read without running them.

Such a file is a tuple of three objects ``dnnlib.tflib.network.Network``. Each carries its options, its variables, its parts, and the Python
source that the official loader executes. Here a network is an inert record, and of the source only its sha256 is kept.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.arrays import MAX_ARRAYS, MAX_BYTES
from jaxgan.weights.contents import kind
from jaxgan.weights.numpy_pickles import Numbers, NumpyPickles
from jaxgan.weights.pickles import Refused, unpickle

MAX_OPTIONS = 10_000
"""Values in the options of all networks of a file; the published ones have below 100."""
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,100}(/[A-Za-z0-9_.\-]{1,100}){0,8}")
_OTHERS = {
    "torch": "a pickle of PyTorch, as StyleGAN2-ADA and StyleGAN3 write them",
    "tfutil.": "a pickle of Progressive GAN (2018), the network before StyleGAN",
    "tensorflow": "a pickle with TensorFlow objects",
    "jax": "a pickle with JAX objects",
}
WANTED = "only pickles of StyleGAN (2019) are read, such as karras2019stylegan-ffhq-1024x1024.pkl"


class Pickled(NamedTuple):
    """One network as it was saved."""

    name: str
    """The name it was given, as 'G' or 'Gs'; says nothing about what it is."""
    function: str
    """The function that built it: 'G_style', 'G_mapping', 'G_synthesis', 'D_basic'."""
    version: int
    """Of the format: 2 or 3 for StyleGAN, 4 and above for StyleGAN2."""
    static_kwargs: dict[str, Any]
    """Options that are not the function's defaults: numbers, text, None, and tuples, lists and dicts of them."""
    variables: dict[str, np.ndarray]
    """Its own arrays by local name, in the file's order; not those of its components. Read-only."""
    components: dict[str, Pickled]
    """'mapping' and 'synthesis' of a generator."""
    source_sha256: str
    """Of the Python source it carries, in UTF-8; the source itself was not kept."""

    def all_variables(self) -> dict[str, np.ndarray]:
        """All arrays; those of components after the component's name, as 'G_synthesis/4x4/Conv/weight'. Their numbers are not judged."""
        found = dict(self.variables)
        for part in self.components.values():
            found |= {f"{part.name}/{name}": array for name, array in part.all_variables().items()}
        return found


class Networks(NamedTuple):
    """The three networks of a file, by their place in it."""

    G: Pickled
    D: Pickled
    Gs: Pickled
    """Running average of G's variables: the one to draw images with."""


def read_stylegan(path: str | Path) -> Networks:
    """The networks of a StyleGAN pickle of format 2 or 3, any pickle protocol from 2 on.

    Raises:
      ValueError: another file (it says which: HTML page, StyleGAN2, PyTorch ...), a name outside the few that are needed (the name is told;
        nothing of it is imported or called), a damaged file, or more than ``jaxgan.arrays`` allows. FileNotFoundError: no such file.
    """
    networks = read_networks(path)
    for place, network in zip(Networks._fields, networks, strict=True):
        if network.version > 3:
            raise ValueError(
                f"{path} holds networks of StyleGAN2 (format {network.version}; {place} is built by {network.function}), which has other "
                f"layers; {WANTED}"
            )
        built = "D_basic" if place == "D" else "G_style"
        if network.function != built:
            raise ValueError(f"{path}: {place} is built by {network.function}, that of StyleGAN by {built}; {WANTED}")
        if place != "D" and network.version == 3 and set(network.components) != {"mapping", "synthesis"}:
            raise ValueError(f"{path}: {place} has the components {sorted(network.components)}, not mapping and synthesis")
    return networks


def read_networks(path: str | Path) -> Networks:
    """As ``read_stylegan``, whatever the networks are: also those of StyleGAN2 and StyleGAN2-ADA for TensorFlow (format 4 and above)."""
    path = Path(path).expanduser()
    with open_pickle(path, WANTED) as view:
        return networks_in(view, path, WANTED)


@contextmanager
def open_pickle(path: Path, wanted: str) -> Iterator[mmap.mmap]:
    """A file that begins like a pickle; ValueError that says what it is where it does not, and then what is `wanted`."""
    what = kind(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(2048)
        if "pickle" not in what or head[:1] != b"\x80":
            page = "an HTML page (a site's page was saved in place of the file: download the file itself)"
            raise ValueError(f"{path} is {page if head.lstrip().startswith(b'<') else what}, not a StyleGAN pickle; {wanted}")
        if size > MAX_BYTES:
            raise ValueError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read")
        # Mapped, a length that the file does not have is cut to what is there, instead of asking for memory.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            yield view


class _Network:
    """Stands for an instance of the official class; only its state is kept."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: dict[Any, Any] | None = None


def networks_in(view: mmap.mmap, path: Path, wanted: str) -> Networks:
    """The three networks of the pickle in `view`; `wanted` ends the errors about other files."""
    size = len(view)
    numpy = NumpyPickles(size)

    def build(value: Any, state: Any) -> Any:
        if not isinstance(value, _Network):
            return numpy.build(value, state)
        if type(state) is not dict or value.state is not None:
            raise ValueError("the pickle is damaged: a network has two states, or one that is no dict")
        value.state = state
        return value

    try:
        value = unpickle(view, numpy.calls() | {"dnnlib.tflib.network.Network": _Network}, build=build)
        rest = size - view.tell()
        if rest:
            raise ValueError(f"{rest:,} bytes follow the end of its pickle")
        if isinstance(value, _Network):
            raise ValueError(f"it holds one network, {Reading(size).network(value).name}, and not three (G, D, Gs); {wanted}")
        if type(value) not in (tuple, list) or len(value) != 3 or not all(isinstance(part, _Network) for part in value):
            raise ValueError(f"it holds {describe(value)}, not three networks (G, D, Gs); {wanted}")
        reading = Reading(size)
        return Networks(*(reading.network(part) for part in value))
    except Refused as error:
        other = next((words for start, words in _OTHERS.items() if error.name.startswith(start)), "")
        raise ValueError(f"{path}: {error}" + (f" ({other}; {wanted})" if other else "")) from error
    except ValueError as error:
        raise ValueError(f"{path} is not an intact StyleGAN pickle: {error}") from error


class Reading:
    """Networks from their states, within the limits of one file."""

    def __init__(self, size: int) -> None:
        self.options_left, self.arrays_left, self.networks_left = MAX_OPTIONS, MAX_ARRAYS, 64
        # One array may be named by several networks, which would let a small file ask for much memory.
        self.bytes_left = min(MAX_BYTES, 4 * size + 2**26)

    def network(self, value: Any, depth: int = 0) -> Pickled:
        if not isinstance(value, _Network) or value.state is None:
            raise ValueError(f"{describe(value)} where a network should be")
        self.networks_left -= 1
        if depth > 3 or self.networks_left < 0:
            raise ValueError("its networks contain each other, or are more than 64")
        state = value.state
        version = state.get("version")
        if type(version) is not int or not 2 <= version <= 99:
            raise ValueError(f"a network of format {version if type(version) is int and abs(version) < 2**31 else describe(version)}")
        source = state.get("build_module_src")
        if type(source) is not str:
            raise ValueError("a network without the text of its source")
        options, parts = state.get("static_kwargs"), state.get("components", {})
        if type(options) is not dict or type(parts) is not dict:
            raise ValueError("a network whose options or components are no dict")
        return Pickled(
            name=name_of(state.get("name")),
            function=name_of(state.get("build_func_name")),
            version=version,
            static_kwargs=self.plain(options),
            variables=self.variables(state.get("variables")),
            components={name_of(key): self.network(part, depth + 1) for key, part in parts.items()},
            source_sha256=digest(source),
        )

    def variables(self, pairs: Any) -> dict[str, np.ndarray]:
        if type(pairs) is not list:
            raise ValueError("a network without a list of variables")
        found: dict[str, np.ndarray] = {}
        for pair in pairs:
            if type(pair) not in (tuple, list) or len(pair) != 2 or not isinstance(pair[1], Numbers) or pair[1].value is None:
                raise ValueError("a variable that is not a name and an array")
            self.add(found, name_of(pair[0]), pair[1].value)
        return found

    def add(self, found: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
        self.arrays_left -= 1
        self.bytes_left -= array.nbytes
        if self.arrays_left < 0 or self.bytes_left < 0:
            raise ValueError(f"its variables are more than {MAX_ARRAYS:,}, or of more than four times the bytes of the file")
        if name in found:
            raise ValueError(f"two variables are named {name}")
        found[name] = array

    def plain(self, value: Any, depth: int = 0) -> Any:
        """An option's value: plain Python, with the numbers of NumPy scalars."""
        self.options_left -= 1
        if self.options_left < 0 or depth > 8:
            raise ValueError(f"its options have more than {MAX_OPTIONS:,} values, or are nested more than 8 deep")
        if isinstance(value, Numbers) and value.value is not None and value.value.shape == ():
            return value.value.item()
        if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63):
            return value
        if type(value) is str and len(value) <= 10_000:
            return value
        if type(value) in (tuple, list):
            return type(value)(self.plain(part, depth + 1) for part in value)
        if type(value) is dict:
            return {name_of(key): self.plain(part, depth + 1) for key, part in value.items()}
        raise ValueError(f"{describe(value)} among its options")


def digest(source: str) -> str:
    """sha256 of a network's source, all that is kept of it."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def name_of(value: Any) -> str:
    if type(value) is not str or not _NAME.fullmatch(value) or ".." in value:
        raise ValueError(f"{ascii(value[:80]) if type(value) is str else describe(value)} where a name should be")
    return value


def describe(value: Any) -> str:
    """Words for a value; its own text might be endless."""
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value):,} values"
    words = {_Network: "a network without a state", Numbers: "an array", type(None): "nothing"}
    return words.get(type(value), f"a value of the kind {type(value).__name__}")
