"""Encoders that undo a generator's layers, for layer inversion: Bau et al., *Seeing what a GAN cannot generate* (ICCV 2019).

One run goes through the stages of ``layer_inversion_stages``: the encoder of each layer, the image encoder, and all of them together. Every
stage begins with a fresh optimiser. Images are drawn from the generator in each step, so that no data are read. The generator itself is
frozen and never saved; a checkpoint holds its digest, and an encoder is refused beside any other generator.

State: ``params['E']`` {'image': ..., 'layer4': ..., ..., 'layer1': ...}, ``model['E']`` {'stats': the same, 'generator': uint8 [32]}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import chains, inversion_losses
from jaxgan.chains import Chain
from jaxgan.nets import composed_encoder
from jaxgan.nets.composed_encoder import IMAGE, ComposedEncoder
from jaxgan.play import init_opt, play
from jaxgan.system import Player, Probe, Stage, State, System, Tree
from jaxgan.systems import layer_inversion_stages as stages

UNTRAINED = "untrained:"
"""Before the sizes of a progressive generator with its first random weights, in the place of a path: 'untrained:64-64-64-48-32'."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are the published code's. Tuples that go by stage are empty (published values) or name every stage."""

    generator: str = ""
    """A workdir or a generator folder of any family of ``jaxgan.chains``; or 'untrained:' and sizes, to try things."""
    target: str = ""
    """The activation r at which inversion ends; empty: the chain's own (ProGAN: layer4)."""
    stages: tuple[str, ...] = ()
    """In order, of: each layer's name, 'image', 'joint', 'bottom1', 'bottom2', ... Empty: the layers up to the target, image, joint."""
    steps: tuple[int, ...] = ()
    """Length of each stage; published: 10,000, and 100,000 of joint and bottom. The last ends where ``run.kimg`` does; its length here sets
    its schedule."""
    batch: int = 32
    """Samples in a step of every stage; ``run.batch`` must be the same."""
    rates: tuple[float, ...] = ()
    """Learning rate of each stage; published: layers 1e-4, image 0.01, joint 1e-5, bottom 1.5e-4."""
    milestones: tuple[float, ...] = ()
    """Shares of its length after which a stage's rate falls, the same in all stages; empty: published, each its own."""
    factor: float = 0.0
    """What the rate is then multiplied by; 0: published."""
    start: tuple[str, ...] = ()
    """Workdirs of this system, from which the run takes the encoders that it has in common with them; a later one counts more."""
    distance: Literal["cosine", "absolute"] = "cosine"
    """Of the layers' stages: 'cosine' as the published code, 'absolute' as the paper. Generators whose layers do not normalise what they
    are given need 'absolute': a cosine leaves the scale open."""
    regeneration_weight: float = inversion_losses.REGENERATION_WEIGHT
    """lambda_R."""
    estimate: tuple[str, ...] | None = None
    """joint: names whose estimates by the encoder count; None: the target."""
    recover: tuple[str, ...] | None = None
    """joint: what counts once generated again from the estimated z, of 'z', the layers and 'x'; None: z, the target and x."""
    accumulate: bool = False
    """Never clear gradients, as the published loops of the layers, joint and bottom do by oversight."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the image encoder's four stages."""

    def __post_init__(self):
        if not self.generator:
            raise ValueError("generator is empty: name the workdir or folder of the generator whose layers are to be undone")
        count = len(self.stages)
        for name in ("steps", "rates"):
            values = getattr(self, name)
            if values and count and len(values) != count:
                raise ValueError(f"{name} {values}: give one for each of the {count} stages {', '.join(self.stages)}, or none")
            if any(value <= 0 for value in values):
                raise ValueError(f"{name} {values} must be above 0")
        if any(not 0 < share < 1 for share in self.milestones) or list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must rise and lie between 0 and 1: they are shares of a stage's length")
        if self.batch < 1 or self.factor < 0 or self.regeneration_weight < 0:
            raise ValueError(
                f"batch {self.batch}, factor {self.factor}, regeneration_weight {self.regeneration_weight}: from 1, from 0 and from 0"
            )

    def composed(self, chain: Chain) -> ComposedEncoder:
        """The encoders of this generator up to the target."""
        target = chains.check_names(chain, (self.target or chain.target,))[0]
        if target == chains.OUTPUT:
            raise ValueError(f"target {target!r} is the image itself: name a layer before it")
        shapes = {name: chain.shapes[name] for name in chain.names[: chain.names.index(target) + 1]}
        unit = chain.family == "progan"  # its layers begin with pixel norm, the first one too, so that z has root mean square 1
        return composed_encoder.between(chain.latent, shapes, chain.image, widths=self.widths, pixel_norm=unit, unit_latent=unit)

    def system(self) -> System:
        return system(self)


def open_generator(generator: str) -> Chain:
    """The chain that ``Config.generator`` names.

    Raises:
      FileNotFoundError, ValueError: as ``chains.open_chain``; or sizes that are no numbers.
    """
    if not generator.startswith(UNTRAINED):
        return chains.open_chain(generator)
    from jaxgan.generators import Generator
    from jaxgan.nets import progan as networks
    from jaxgan.systems import progan

    try:
        sizes = tuple(int(word) for word in generator.removeprefix(UNTRAINED).split("-"))
    except ValueError:
        raise ValueError(f"generator {generator!r}: behind {UNTRAINED!r} stand sizes, for instance {UNTRAINED}64-64-64-48-32") from None
    config = progan.Config(sizes=sizes, start=2 ** len(sizes))
    params, stats = networks.init(config.generator(), jax.random.key(0))
    flat, _ = jax.tree_util.tree_flatten_with_path({"params": {"G": params}, "model": {"G": {"stats": stats}}})
    arrays = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}
    return chains.chain(Generator("progan", config, arrays, None), generator)


def system(config: Config, chain: Chain | None = None) -> System:
    """The encoders as a ``System`` without data, with the one player 'E'; ``chain``: the generator where it is open already.

    Grids show pairs: an image, and beside it what the generator makes of its code. Probe 'encoder': over fresh draws, the cosine error of
    every estimate by name, and 'x', the mean square of the pixels.
    """
    chain = open_generator(config.generator) if chain is None else chain
    composed = config.composed(chain)
    parts = stages.parts(config.stages, composed)
    for name in ("steps", "rates"):
        if len(getattr(config, name)) not in (0, len(parts)):
            listed = ", ".join(part.name for part in parts)
            raise ValueError(f"{name} {getattr(config, name)}: give one for each of the {len(parts)} stages {listed}, or none")
    trained = {name for part in parts for name in part.trained}
    identity = fingerprint(chain)
    begun = _begun(config, chain, trained)

    def init(key: jax.Array) -> State:
        made = {name: (of, statistics) for name, of, statistics in _named(*composed_encoder.init(composed, key)) if name in trained}
        made |= jax.tree.map(jnp.asarray, begun)
        params = {"E": {name: of for name, (of, _) in made.items()}}
        model = {"E": {"stats": {name: statistics for name, (_, statistics) in made.items()}, "generator": jnp.asarray(identity)}}
        opt = init_opt(players[-1], params)
        return State(jnp.zeros((), jnp.int32), params, opt, model, {}, {"generator": jax.tree.map(jnp.asarray, chain.arrays)})

    def rebuild(state: State, key: jax.Array, count: int):
        arrays, own = state.frozen["generator"], state.params["E"]
        latents = stages.draw_latents(chain, arrays, key, count)
        return stages.reconstruct(chain, composed, arrays, own, state.model["E"]["stats"], latents)

    def show(state: State, key: jax.Array, n: int) -> jax.Array:
        images, again, _ = rebuild(state, key, -(-n // 2))
        return jnp.stack([images, again], 1).reshape(-1, *images.shape[1:])[:n]

    def verify(state: State) -> None:
        there = np.asarray(jax.device_get(state.model["E"]["generator"]))
        check_generator(there, chain, "this run", config.generator)

    players = [
        {"E": Player(("E",), stages.loss(part, chain, composed, config), _optimiser(config, number, part))}
        for number, part in enumerate(parts)
    ]
    steps = [play(player) for player in players]
    firsts = np.cumsum([0, *(_length(config, number, part) for number, part in enumerate(parts))])
    listed = [
        Stage(part.name, int(first), config.batch, step, _as_given, _fresh_optimiser)
        for part, first, step in zip(parts, firsts, steps, strict=False)
    ]
    return System(
        init=init,
        step=steps[-1],
        sample=None,
        probes={"encoder": _probe(rebuild)},
        image=chain.image,
        records=0,
        prepare=_as_given,
        owns={"E": ("E",)},
        stages=listed,
        show=show,
        verify=verify,
    )


def _length(config: Config, number: int, part: stages.Part) -> int:
    return config.steps[number] if config.steps else part.published.steps


def _optimiser(config: Config, number: int, part: stages.Part):
    published, length = part.published, _length(config, number, part)
    rate = config.rates[number] if config.rates else published.rate
    milestones = [round(share * length) for share in config.milestones or published.milestones]
    accumulates = part.name != IMAGE if config.accumulate else None  # the published image encoder clears its gradients
    return stages.optimiser(rate, milestones, config.factor or published.factor, accumulates)


def _fresh_optimiser(state: State) -> State:
    return state._replace(opt=jax.tree.map(jnp.zeros_like, state.opt))


def _as_given(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return batch


def _named(params: Mapping[str, Tree], stats: Mapping[str, Tree]):
    return [(name, params[name], stats[name]) for name in params]


def _probe(rebuild: Callable[..., Any]) -> Probe:
    def add(sums: Tree, state: State, batch: Mapping[str, Any], key: jax.Array) -> Tree:
        count = batch["sample"].shape[0]
        images, again, found = rebuild(state, key, count)
        values = {"x": inversion_losses.mean_square(images, again)}
        values |= {name: inversion_losses.cosine_error(truth, estimate) for name, (truth, estimate) in found.items()}
        return {"batches": sums["batches"] + 1.0, **{name: sums.get(name, 0.0) + value for name, value in values.items()}}

    def merge(a: Tree, b: Tree) -> Tree:
        return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in {**a, **b}}

    def read(sums: Tree) -> dict[str, float]:
        return {name: float(total) / float(sums["batches"]) for name, total in sums.items() if name != "batches"}

    return Probe(zero=lambda: {"batches": jnp.zeros(())}, add=add, merge=merge, read=read)


# -- encoders and their generators -------------------------------------------------------------------------------------------------


def fingerprint(chain: Chain) -> np.ndarray:
    """The generator's digest as uint8 [32]."""
    return np.frombuffer(bytes.fromhex(chain.digest), np.uint8)


def check_generator(there: np.ndarray, chain: Chain, what: Any, generator: Any) -> None:
    """ValueError where an encoder with the fingerprint ``there`` is not this generator's; ``what`` and ``generator`` name the two."""
    here = fingerprint(chain)
    if not np.array_equal(there, here):
        raise ValueError(
            f"{what} holds encoders of another generator ({bytes(there).hex()[:12]}) than {generator} ({bytes(here).hex()[:12]}), or of "
            "the same before it was trained on: give the generator that they were trained for, or train them anew"
        )


class Encoder(NamedTuple):
    """Trained encoders of one generator."""

    arrays: Tree
    """An argument of ``encode``, so that a compiled program holds none of it."""
    encode: Callable[[Tree, jax.Array], dict[str, jax.Array]]
    """``encode(arrays, images [N, H, W, 3] in [-1, 1]) -> {'layer4': ..., ..., 'layer1': ..., 'z': ...}``, batch norms in evaluation mode;
    pure. What is not used is removed by the compiler."""
    names: tuple[str, ...]
    """What is estimated, from the target down to 'z'."""
    image: tuple[int, int, int]
    """(H, W, 3)."""
    step: int
    """Completed steps of the run that it comes from."""


def open_encoder(path: Any, chain: Chain) -> Encoder:
    """The encoders in the newest intact checkpoint of a workdir of this system, for the generator that they were trained for; or, of a
    progressive GAN, in a file with the state dict of published ones (``layer_inversion_import``).

    Raises:
      FileNotFoundError: no workdir. ValueError: it is damaged, of another system or another generator, or lacks some of the encoders.
    """
    if Path(path).expanduser().is_file():
        from jaxgan.systems.layer_inversion_import import open_file

        return open_file(path, chain)
    config, step, arrays = _read(path, chain)
    composed = config.composed(chain)
    missing = [name for name in (IMAGE, *composed.names[:-1]) if name not in arrays["params"]]
    if missing:
        raise ValueError(
            f"{path} lacks the encoders {', '.join(missing)}: it is a run of the stages {', '.join(config.stages)}. Train a run with the "
            "stage joint that starts from it (model.start)"
        )
    return as_encoder(composed, chain, arrays, step)


def as_encoder(composed: ComposedEncoder, chain: Chain, arrays: dict[str, Tree], step: int) -> Encoder:
    """The composition with its {'params', 'stats'}, for images of this generator."""

    def encode(arrays: Tree, images: jax.Array) -> dict[str, jax.Array]:
        if images.shape[1:] != chain.image:
            raise ValueError(f"images of shape {images.shape}: these encoders take [N, {', '.join(map(str, chain.image))}]")
        return composed_encoder.apply(composed, arrays["params"], arrays["stats"], images)[0]

    return Encoder(jax.tree.map(jnp.asarray, arrays), encode, composed.names, chain.image, step)


def _read(path: Any, chain: Chain) -> tuple[Config, int, dict[str, Tree]]:
    """(configuration, step, {'params', 'stats'} by encoder) of a workdir."""
    from jaxgan import generators

    found = generators.open_generator(path)
    if found.family != "layer_inversion" or found.step is None:
        raise ValueError(f"{path} is a {found.family}, not a run of encoders: train one with `jaxgan train configs/layer_inversion_....py`")
    params, model = (generators.nested(found.arrays, part)["E"] for part in ("params", "model"))
    check_generator(model["generator"], chain, path, "the one given")
    return found.config, found.step, {"params": params, "stats": model["stats"]}


def _begun(config: Config, chain: Chain, trained: set[str]) -> dict[str, tuple[Tree, Tree]]:
    """{encoder: (params, stats)} from the runs named in ``config.start``."""
    begun: dict[str, tuple[Tree, Tree]] = {}
    like = jax.eval_shape(lambda: composed_encoder.init(config.composed(chain), jax.random.key(0)))
    for path in config.start:
        _, _, arrays = _read(path, chain)
        common = [name for name in arrays["params"] if name in trained]
        if not common:
            raise ValueError(
                f"start: {path} holds the encoders {', '.join(arrays['params'])}; this run trains {', '.join(sorted(trained))}"
            )
        for name in common:
            there = (arrays["params"][name], arrays["stats"][name])
            wanted = jax.tree.map(lambda leaf: leaf.shape, (like[0][name], like[1][name]))
            if jax.tree.map(lambda leaf: leaf.shape, there) != wanted:
                raise ValueError(f"start: the encoder {name} in {path} has other sizes; use the settings of that run (model.widths)")
            begun[name] = there
    return begun
