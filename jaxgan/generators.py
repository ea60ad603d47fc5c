"""A trained generator, wherever it is: the workdir of a run, or a generator folder (generator.json and params.safetensors)."""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgan import configure

DRAWN_AT_ONCE = 64
"""Images are drawn in blocks of this many, each with a key folded from the block's number: image i is the same however many are drawn."""


class Generator(NamedTuple):
    """What a family's own functions need to make images."""

    family: str
    """The module below `jaxgan.systems`."""
    config: Any
    """That module's Config."""
    arrays: dict[str, np.ndarray]
    """By flat name: 'params/G/output/kernel', 'model/G/stats/norm/mean', 'ema/G/output/kernel'."""
    step: int | None
    """Step of the checkpoint; None for a generator folder."""


def open_generator(path: Any) -> Generator:
    """Reads the newest intact checkpoint of a workdir, or a generator folder; local or gs://.

    Raises:
      FileNotFoundError: neither of the two is there. ValueError: it is damaged, or of a system that is not installed.
    """
    from etils import epath

    folder = epath.Path(path)
    if (folder / "generator.json").exists():
        from jaxgan.weights import load_generator

        family, config, arrays = load_generator(folder)
        return Generator(family, configure.model_from_json(family, config), arrays, None)
    if (folder / "config.json").exists():
        from jaxgan.checkpoint import load_networks

        experiment = configure.read(folder / "config.json")
        step, arrays = load_networks(folder / "checkpoints")
        return Generator(configure.system_name(experiment.model), experiment.model, arrays, step)
    what = "does not exist" if not folder.exists() else "is neither a workdir (config.json) nor a generator folder (generator.json)"
    raise FileNotFoundError(f"{folder} {what}")


def own_data(path: Any) -> configure.Data | None:
    """What the run at ``path`` learned from; None for a generator folder, which does not say."""
    from etils import epath

    config = epath.Path(path) / "config.json"
    return configure.read(config).data if config.exists() else None


def nested(arrays: dict[str, np.ndarray], part: str) -> dict[str, Any]:
    """The arrays of one part ('params', 'model', 'ema') as a tree of dicts."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        first, *path, leaf = name.split("/")
        if first == part:
            branch = tree
            for key in path:
                branch = branch.setdefault(key, {})
            branch[leaf] = array
    return tree


def digest(generator: Generator) -> str:
    """sha256 over the configuration and the arrays."""
    whole = hashlib.sha256(f"{generator.family} {generator.config!r}".encode())
    for name, array in sorted(generator.arrays.items()):
        whole.update(f"{name} {array.dtype} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


class Blocks:
    """Image i out of blocks of images that are made together; the last few blocks are kept, for readers go forwards."""

    def __init__(self, make: Callable[[int], np.ndarray], size: int, kept: int = 4):
        self._make, self._size, self._kept = make, size, kept
        self._blocks: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, i: int) -> np.ndarray:
        number, row = divmod(i, self._size)
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = self._make(number)
                while len(self._blocks) > self._kept:
                    self._blocks.popitem(last=False)
            return self._blocks[number][row]


def drawing(generator: Generator) -> Callable[[int, int], np.ndarray]:
    """``f(seed, block) -> uint8 [DRAWN_AT_ONCE, H, W, 3]`` from the averaged networks where there are any, on this process's devices."""
    import jax
    import jax.numpy as jnp

    from jaxgan import parallel
    from jaxgan.system import State

    system = generator.config.system()
    if system.sample is None:
        raise ValueError(f"a run of the family {generator.family} draws no images; name a generator's workdir")
    mesh = parallel.make_mesh((0, 1), jax.local_devices())
    root = jax.random.key(0)
    frozen = jax.eval_shape(system.init, root).frozen
    if frozen:
        frozen = jax.jit(lambda: system.init(root).frozen)()
    parts = {part: jax.tree.map(jnp.asarray, nested(generator.arrays, part)) for part in ("params", "model", "ema")}
    model = {name: {} for names in system.owns.values() for name in names} | parts["model"]
    state = averaged(State(jnp.zeros((), jnp.int32), parts["params"], {}, model, parts["ema"], frozen))

    @jax.jit
    def sample(state: State, seed, block):
        return system.sample(state, jax.random.fold_in(jax.random.key(seed), block), DRAWN_AT_ONCE)

    def draw(seed: int, block: int) -> np.ndarray:
        with jax.set_mesh(mesh):
            return quantise(jax.device_get(sample(state, np.uint32(seed), np.uint32(block))))

    return draw


def averaged(state):
    """The state with the averaged networks in the place of the last ones where there are any: what a score is computed of."""
    return state._replace(params={**state.params, **state.ema})


def quantise(images: Any) -> np.ndarray:
    """[n, H, W, C] in [-1, 1] -> uint8 [n, H, W, 3], rounded to the nearest of the 256 values and clipped; grey becomes three channels.

    Raises:
      ValueError: values that are not finite.
    """
    images = np.asarray(images, np.float32)
    if not np.isfinite(images).all():
        bad = int((~np.isfinite(images)).any((1, 2, 3)).sum())
        raise ValueError(f"{bad} of {len(images)} images drawn hold values that are not finite: the networks are broken")
    pixels = np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels[..., :3]
