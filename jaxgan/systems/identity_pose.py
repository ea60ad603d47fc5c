"""Identity from here, pose from there: learned from unlabelled clips, with double duty of the codes and pixel verification.

Xiao, Liu, Lee (ICCV 2019) learn from triplets: two frames of a clip, one for the identity and one as the target, and a frame of another
clip that looks like the target in pose. The generator's result for identity and pose is compared with the target. The code of the pose
image must also give the pose image itself with that one's identity, so that it cannot hold an identity; the code of the identity image must
give that image with its own pose, so that it cannot hold a pose; and generated pixels should be traceable to the identity image. The
paper's layers, weights and training are not known here: what is written below is chosen, and no number of the paper is reproduced.

A step moves the embedding of pixel verification ('phi'), the discriminator ('D'), and the generator with both encoders ('G').
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxgan import parallel, perceptual, retrieval, swap_progress
from jaxgan.data.triplets import Triplets, open_triplets, renewed
from jaxgan.nets import identity_pose as nets
from jaxgan.nets import pixel_verification as pvm
from jaxgan.nets import vgg
from jaxgan.nets.layers import spectral_normalise
from jaxgan.play import init_opt, play
from jaxgan.stages import unchanged
from jaxgan.swapping import Swapper
from jaxgan.system import Player, Reads, Stage, State, System, Tree
from jaxgan.systems import identity_pose_losses as terms

MOVED = ("G", "E_id", "E_pose")
"""Networks of the player 'G'; their averages are in ``State.ema``."""
VGG_MAPS = tuple(f"relu{block}_2" for block in range(1, 6))


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are the size 'base'."""

    side: int = 64
    """Of the images in pixels: 4 * 2^(number of widths)."""
    widths: tuple[int, ...] = (64, 128, 256, 256)
    """Channels at each halving of the identity encoder, and of the generator the other way round; the pose encoder has half of them."""
    identity: int = 256
    """Numbers of the identity code."""
    tokens: int = 128
    """Channels of the map from which the generator reads."""
    reader: bool = True
    """The generator reads from the identity's map; False: it has the identity's code alone."""
    read: int = 64
    """Channels of the reading, over all heads."""
    heads: int = 4
    judge: tuple[int, ...] = (64, 128, 256)
    """Channels of the discriminator's halvings."""
    scales: int = 2
    """Sizes at which it judges: the image's, and half of it."""
    embedding: tuple[int, int] = (32, 64)
    """Channels of the embedding of pixel verification."""
    grid: int = 2
    """Pixels along each side of its squares: 2, or 4 for large images."""
    self_decode: bool = True
    """Double duty: the codes of the pose image, and those of the identity image, must also give the image itself."""
    hinge: bool = True
    """Pixel verification asks for no more than real targets reach; False: for residual 0 and score 1."""
    augment: bool = True
    """The pose encoder sees images in other colours while it learns, and grey ones afterwards."""
    perceptual: Literal["disc", "vgg", "none"] = "disc"
    """Maps that results and targets are compared by: the discriminator's, VGG-16's (the named weights 'vgg16'), or none."""
    w_rec: float = 10.0
    """Weight of mean |result - target|, also of an image's own codes."""
    w_perc: float = 10.0
    """Weight of the maps' differences."""
    w_adv: float = 1.0
    """Weight of the discriminator's judgement."""
    w_pv: float = 5.0
    """Weight of pixel verification at the end of its ramp."""
    pv_ramp: tuple[int, int] = (2000, 6000)
    """Steps between which that weight rises from 0: the embedding must have learned first."""
    w_dis: float = 1.0
    """Weight of both margins between the codes of a triplet."""
    w_back: float = 1.0
    """Weight of the codes that a result is read back as."""
    margin: float = 0.3
    r1: float = 0.0
    """Weight gamma of the discriminator's R1 penalty."""
    lr: float = 2e-4
    """Of generator and encoders."""
    d_lr: float = 2e-4
    phi_lr: float = 1e-3
    """Of the embedding of pixel verification."""
    steps: int = 60_000
    """Length of the run, run.kimg * 1000 / run.batch: the rates fall to 0 over its second half, as half a cosine. 0: they stay."""
    clip: float = 5.0
    """Largest norm of the gradient of generator and encoders."""
    ema: float = 0.999
    """Decay per step of the averaged generator and encoders, reached from 0.1 as (1 + step) / (10 + step): a short run's average would
    otherwise hold much of its random beginning."""
    triplets: Triplets = Triplets()
    """How pose images are found."""

    def __post_init__(self):
        if self.side != nets.COARSE * 2 ** len(self.widths) or len(self.widths) < 2:
            raise ValueError(
                f"side {self.side} with {len(self.widths)} widths: the side is 4 * 2^(number of widths), with 2 widths or more; "
                f"{nets.COARSE * 2 ** max(len(self.widths), 2)} for {max(len(self.widths), 2)}"
            )
        if self.grid not in (2, 4):
            raise ValueError(f"grid is {self.grid}: give 2 or 4")
        if self.heads < 1 or self.read % self.heads:
            raise ValueError(f"read {self.read} does not divide into {self.heads} heads")
        if self.scales not in (1, 2) or self.side >> (self.scales - 1 + len(self.judge)) < 1:
            raise ValueError(
                f"scales {self.scales} and {len(self.judge)} halvings of {self.side} pixels: give 1 or 2 scales, fewer halvings"
            )
        if not 0 <= self.pv_ramp[0] < self.pv_ramp[1]:
            raise ValueError(f"pv_ramp is {self.pv_ramp}: give the first and the last step of the rise, the last one later")
        for name in ("w_rec", "w_perc", "w_adv", "w_pv", "w_dis", "w_back", "r1", "steps", "margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 0")
        if self.triplets.features == "encoder" and self.steps <= self.triplets.renew:
            raise ValueError(
                f"triplets.features 'encoder' is first used after {self.triplets.renew} steps (triplets.renew), and the run has "
                f"{self.steps} (steps): give triplets.renew below steps, or triplets.features {self.triplets.begin!r}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, but must be at least 0 and below 1")

    def system(self) -> System:
        return system(self)


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"side": 32, "widths": (32, 64, 128), "scales": 1, "steps": 4000, "pv_ramp": (133, 400)},
    "base": {},
    "large": {"side": 128, "widths": (64, 128, 256, 256, 256), "grid": 4},
}
"""What differs from ``Config()``. The ramp of 'tiny' takes the same part of its steps."""


def sized(name: Literal["tiny", "base", "large"], **changes: Any) -> Config:
    """The configuration of images of 32, 64 or 128 pixels, with other fields as given. Raises ValueError for another name."""
    if name not in SIZES:
        raise ValueError(f"size {name!r} is none of {', '.join(SIZES)}")
    return Config(**(SIZES[name] | changes))


def system(config: Config) -> System:
    """The game as a ``System``; its grids show identity image, pose image, result and target of each row.

    Raises:
      FileNotFoundError: ``perceptual`` is 'vgg' and VGG-16 is not on this machine.
    """
    vgg_params, normalisation = read_vgg() if config.perceptual == "vgg" else ({}, "signed")
    side, networks = config.side, make_networks(config)

    def init(key: jax.Array) -> State:
        keys = jax.random.split(key, 5)
        images = jnp.zeros((1, side, side, 3))
        params = {name: networks[name].init(keys[i], images)["params"] for i, name in enumerate(("E_id", "E_pose"))}
        identity = nets.Identity(jnp.zeros((1, (side // 4) ** 2, config.tokens)), jnp.zeros((1, config.identity)))
        pose = jnp.zeros((1, nets.COARSE, nets.COARSE, nets.POSE_CHANNELS))
        params["G"] = networks["G"].init(keys[2], identity, pose)["params"]
        judge = networks["D"].init(keys[3], images, identity.code)
        params |= {"D": judge["params"], "phi": pvm.init(keys[4], config.embedding)}
        model = {"phi": {"rho": jnp.zeros(()), "v": jnp.ones(())}, "D": {"spectral": judge["spectral"]}, **{name: {} for name in MOVED}}
        ema = {name: jax.tree.map(jnp.copy, params[name]) for name in MOVED}
        frozen = {"vgg": vgg_params} if vgg_params else {}
        return State(jnp.zeros((), jnp.int32), params, init_opt(make_players(config, 0.0), params), model, ema, frozen)

    def step(state: State, batch: Any, key: jax.Array) -> tuple[State, dict[str, Any]]:
        players = make_players(config, ramp(config, state.step), normalisation, state.step)
        done = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.ema, (1.0 + done) / (10.0 + done))
        return play(players, prepare=lambda batch, key: on_device(config, batch, key), ema_decay=decay)(state, batch, key)

    def prepare(stacked: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": stacked["image"], "gap": stacked["gap"]}

    def translate(state: State, images: jax.Array) -> jax.Array:
        params, images = {**state.params, **state.ema}, to_float(images)
        parts = swapper(config)
        made = parts.decode(params, parts.identity(params, images[:, 0]), parts.pose(params, images[:, 1]))
        return jnp.concatenate([images[:, 0], images[:, 1], made, images[:, 2]], 2)

    return System(
        init=init,
        step=step,
        sample=None,
        probes={"swap": swap_progress.probe(swapper(config))},
        image=(side, side, 3),
        records=1,
        prepare=prepare,
        owns={name: player.owns for name, player in make_players(config, 0.0).items()},
        translate=translate,
        check=check_batch,
        falls=config.steps,
        stages=make_stages(config, step, prepare),
        reads=Reads(lambda data: open_source(config, data), lambda n: blank(side, n), swap_progress.held(side)),
    )


def make_stages(config: Config, step: Callable[..., Any], prepare: Callable[..., Any]) -> tuple[Stage, ...]:
    """The parts of a run between two searches of its neighbours, where these are found by its own pose encoder; else none."""
    if config.triplets.features != "encoder":
        return ()

    def reading(first: int) -> Callable[[Any, State | None, Any], Any]:
        def reads(source: Any, state: State | None, folder: Any) -> Any:
            describe = None if state is None else retrieval.pose_codes(swapper(config), {**state.params, **state.ema})
            return renewed(source, describe, folder / f"{first:08d}.npz", f"the encoder at step {first:,}", parallel.is_main())

        return reads

    firsts = range(config.triplets.renew, config.steps, config.triplets.renew)
    later = [Stage(f"by the encoder at step {first:,}", first, 0, step, prepare, unchanged, reading(first)) for first in firsts]
    return (Stage(f"by {config.triplets.begin}", 0, 0, step, prepare, unchanged), *later)


def open_source(config: Config, data: Any) -> Any:
    """The triplets of a set of clips (``jaxgan.data.triplets``)."""
    return open_triplets(data, (config.side, config.side, 3), config.triplets)


def blank(side: int, n: int) -> dict[str, np.ndarray]:
    """n triplets without content: images uint8 [n, 3, S, S, 3] in the order identity, pose, target."""
    numbers = {name: np.zeros(n, np.int32) for name in ("clip", "gap", "pose_clip")}
    return {"image": np.zeros((n, 3, side, side, 3), np.uint8), **numbers}


def read_vgg() -> tuple[dict[str, Any], str]:
    """VGG-16's parameters and what they expect, a key of ``perceptual.NORMALISATIONS``. Raises FileNotFoundError."""
    from jaxgan import weights

    return vgg.params(weights.load("vgg16")), weights.about("vgg16")["preprocessing"]


def check_batch(batch: int) -> None:
    """Raises ValueError for a batch in which no triplet has another's pose image beside it."""
    if batch < 2:
        raise ValueError(f"run.batch = {batch}: each identity is also judged in the pose of another triplet; use at least 2")


def to_float(images: jax.Array) -> jax.Array:
    """uint8 as float32 in [-1, 1]."""
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def on_device(config: Config, batch: Any, key: jax.Array) -> dict[str, Any]:
    """The images of a batch of triplets by name, float32 [B, S, S, 3] in [-1, 1], and the disguise that the pose encoder sees them in."""
    identity, pose, target = jnp.moveaxis(to_float(batch["image"]), 1, 0)
    ready = {"identity": identity, "pose": pose, "target": target, "gap": batch["gap"]}
    return ready | {"disguise": nets.draw_disguise(key, identity.shape[0], config.side) if config.augment else None}


def ramp(config: Config, step: jax.Array) -> jax.Array:
    """Part of the weight of pixel verification at a step, from 0 to 1."""
    first, last = config.pv_ramp
    return jnp.clip((step.astype(jnp.float32) - first) / (last - first), 0.0, 1.0)


def make_networks(config: Config) -> dict[str, Any]:
    """The flax modules by network name; 'phi' is no module."""
    return {
        "E_id": nets.IdentityEncoder(config.widths, config.identity, config.tokens),
        "E_pose": nets.PoseEncoder(config.widths),
        "G": nets.Generator(config.widths, config.reader, config.read, config.heads),
        "D": nets.Discriminator(config.judge, config.scales),
    }


def optimiser(rate: float, steps: int, clip: float = 0.0) -> optax.GradientTransformation:
    """Adam with betas 0.5 and 0.999, the rate constant and then falling to 0 over the second half; ``clip``: of the gradient's norm."""
    half = steps // 2
    falling = optax.cosine_decay_schedule(rate, max(steps - half, 1))
    adam = optax.adam(optax.join_schedules([optax.constant_schedule(rate), falling], [half]) if steps else rate, b1=0.5, b2=0.999)
    return optax.chain(optax.clip_by_global_norm(clip), adam) if clip else adam


def make_parts(config: Config, normalisation: str = "signed") -> terms.Parts:
    """The networks as functions; ``normalisation``: what VGG-16 expects, where results are compared by its maps."""
    networks = make_networks(config)

    def pose(params: Tree, images: jax.Array, disguise: nets.Disguise | None) -> jax.Array:
        return networks["E_pose"].apply({"params": params}, images if disguise is None else nets.disguise(images, disguise))

    def maps(params: Tree, images: jax.Array) -> list[jax.Array]:
        found = vgg.features(params["vgg"], perceptual.normalise(images, normalisation), VGG_MAPS, precision="default")
        return [found[name] for name in VGG_MAPS]

    return terms.Parts(
        identity=lambda params, images: networks["E_id"].apply({"params": params}, images),
        pose=pose,
        decode=lambda params, identity, pose: networks["G"].apply({"params": params}, identity, pose),
        judge=lambda params, images, code: networks["D"].apply({"params": params}, images, code),
        maps=maps if config.perceptual == "vgg" else None,
    )


def make_players(config: Config, rising: jax.Array | float, normalisation: str = "signed", done: jax.Array | int = 0) -> dict[str, Player]:
    """'phi', 'D' and 'G', in the order in which they move; ``rising``: the present part of the weight of pixel verification; ``done``: the
    steps so far. The averages of what real targets reach are means of the first hundred steps, and decay by 0.99 from then on."""
    newest = 1.0 / jnp.minimum(jnp.asarray(done, jnp.float32) + 1.0, 100.0)
    parts = make_parts(config, normalisation)
    weights = {"rec": config.w_rec, "perc": config.w_perc, "self_rec": config.w_rec, "self_perc": config.w_perc, "adv": config.w_adv}
    weights |= {"pv": config.w_pv * rising, "dis_pose": config.w_dis, "dis_id": config.w_dis, "back": config.w_back}

    def phi_loss(own, params, model, batch, key):
        value, right = pvm.embedding_loss(own["phi"], batch["target"], batch["identity"], batch["pose"], factor=config.grid)
        now = {"rho": right.residual.mean(), "v": right.score.mean()}
        moved = {name: model["phi"][name] + newest * (lax.stop_gradient(now[name]) - model["phi"][name]) for name in now}
        return value, ({**model, "phi": moved}, {f"real/{name}": now[name] for name in now})

    def d_loss(own, params, model, batch, key):
        normal, spectral = spectral_normalise(own["D"], model["D"]["spectral"], stop_gradient=True)
        value = terms.discriminator_loss(parts, normal, params, batch, config.r1)
        return value, ({**model, "D": {"spectral": spectral}}, {})

    def g_loss(own, params, model, batch, key):
        normal, _ = spectral_normalise(params["D"], model["D"]["spectral"], stop_gradient=True)
        found, seen = terms.generator_terms(config, parts, own, params, normal, model["phi"], batch)
        value = sum(weights[name] * term for name, term in found.items())
        return value, (model, {f"term/{name}": term for name, term in found.items()} | seen)

    return {
        "phi": Player(("phi",), phi_loss, optimiser(config.phi_lr, config.steps)),
        "D": Player(("D",), d_loss, optimiser(config.d_lr, config.steps)),
        "G": Player(MOVED, g_loss, optimiser(config.lr, config.steps, config.clip)),
    }


def swapper(config: Config) -> Swapper:
    """Encoders, generator and pixel verification for images of any number; the pose encoder sees grey where it learned in disguise."""
    parts = make_parts(config)

    def trace(params: Tree, images: jax.Array, reference: jax.Array) -> dict[str, jax.Array]:
        out = pvm.pvm_apply(params["phi"], images, reference, factor=config.grid, attention=False)
        return {"score": out.score, "residual": out.residual}

    return Swapper(
        size=config.side,
        identity=lambda params, images: parts.identity(params["E_id"], images),
        pose=lambda params, images: parts.pose(params["E_pose"], nets.grey(images) if config.augment else images, None),
        decode=lambda params, identity, pose: parts.decode(params["G"], identity, pose),
        identity_vector=lambda code: code.code,
        pose_vector=lambda code: code.reshape(code.shape[0], -1),
        trace=trace,
    )
