"""Unsupervised Robust Disentangling of Latent Characteristics for Image Synthesis (Esser, Haux, Ommer; ICCV 2019, arXiv 1910.10223).

From pairs of images of the same identity a pose code pi and an identity code alpha are learned, with no label of either: the decoder
makes the first image of a pair from its own pose code and the second's identity code. Two things keep the identity out of pi. A
constraint holds the mutual information that a classifier T reads below epsilon; the encoder can meet it by fooling T. A bottleneck, the
KL divergence of pi's posterior, grows by what a second classifier T' reads beyond T; T' gives the encoder no gradient.

Networks, each with an optimiser of its own and moved in every step:
  D         decoder: reconstruction
  E_pi      pose encoder: reconstruction + gamma KL + constraint
  E_alpha   identity encoder: reconstruction (+ what A_alpha loses)
  T, T_prime   the two classifiers: logistic loss
  A_pi, A_alpha   decoders of one code alone, which show what it holds
All gradients are taken at the same parameters, then the multiplier, gamma and the averages move: the order of the published code.
``robust_disentangling_terms`` holds the terms of the losses and says which of them moves which network.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import swap_progress
from jaxgan.nets import disentangling
from jaxgan.nets.disentangling import SIZES
from jaxgan.play import follow, half_life_decay, init_opt, move
from jaxgan.swapping import Swapper
from jaxgan.system import Player, Reads, State, System, Tree
from jaxgan.systems.robust_disentangling_terms import CROP, Networks, advance, terms, to_float

LOSSES = {
    "D": ("reconstruction",),
    "E_pi": ("reconstruction", "bottleneck", "constraint"),
    "E_alpha": ("reconstruction", "identity_picture"),
    "T": ("T",),
    "T_prime": ("T_prime",),
    "A_pi": ("pose_picture",),
    "A_alpha": ("identity_picture",),
}
"""The terms of each player's loss."""
AVERAGED = ("D", "E_pi", "E_alpha")


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices. ``Config(**SIZES['base']._asdict())`` sets the sizes by name ('tiny', 'base', 'large')."""

    side: int = SIZES["base"].side
    """Side of the images in pixels."""
    widths: tuple[int, ...] = SIZES["base"].widths
    """Channels at the image's size, at half of it, and so on down to 4x4."""
    code: int = SIZES["base"].code
    """Dimensions of the pose code, and of the identity code."""
    estimator: int = SIZES["base"].estimator
    """Width of the classifiers."""
    blocks: int = 4
    """Residual blocks at 4x4."""
    posterior: Literal["diag", "full"] = "diag"
    """Covariance of the pose code."""
    epsilon: float = 0.125
    """Mutual information of the codes that is allowed, nats."""
    mu: float = 0.1
    """Step of the multiplier, and weight of the square in the constraint."""
    warmup: int = 1000
    """Steps before the constraint is in force and gamma moves."""
    constraint: bool = True
    """False: the bottleneck alone (the variational ablation); it is then 'fixed'."""
    deterministic: bool = False
    """The pose code is the posterior's mean and there is no bottleneck (the adversarial ablation)."""
    bottleneck: Literal["adaptive", "fixed"] = "adaptive"
    """Whether gamma follows what T' reads beyond T."""
    gamma: float | None = None
    """Weight of the KL divergence at the start; None: 7.5 with VGG and 1 with pixels, as published."""
    leak: bool = False
    """T' gives the encoder a gradient too. Broken on purpose: the encoder then fools both classifiers and gamma falls."""
    auxiliary: bool = True
    """Decoders of one code alone."""
    maxinfo_alpha: bool = True
    """The identity decoder also moves the identity encoder, and its target is the first image; False: neither, and the second."""
    e_alpha: Literal["joint", "frozen"] = "joint"
    """'frozen': the identity encoder of ``e_alpha_from``, which is not moved; a new run begins with it (``System.begin``)."""
    e_alpha_from: str = ""
    """For 'frozen': a workdir of this system with networks of the same sizes."""
    perceptual: Literal["none", "vgg"] = "none"
    """What the reconstruction is compared by: pixels, or maps of VGG-16 (published: VGG-19)."""
    vgg_weights: str = ""
    """For 'vgg': the file; empty: the named weights 'vgg16'."""
    vgg_input: Literal["torchvision", "caffe"] = "torchvision"
    """For 'vgg': what these weights expect."""
    vgg_size: int = 0
    """For 'vgg': side to which images are resized first; 0: none. Published: 256."""
    pairs: Literal["clip", "group"] = "clip"
    """The two images of a pair are of one clip, or of any two clips of one group (the same figure, the same character) where a set has
    such. What the frames of a clip share beside the identity, such as about where it stands, is otherwise learned as the identity."""
    same_image: bool = False
    """The two images of a pair may be one and the same, as for the published sets of images; False: for clips."""
    flip: bool = False
    """Mirror every second image sideways, each of a pair for itself; for sets whose poses are as likely mirrored."""
    lr: float = 2e-4
    """Of Adam (0.5, 0.9)."""
    t_lr_factor: float = 2.0
    """Learning rate of the classifiers over that of the other networks."""
    steps: int = 0
    """Steps over which the learning rates fall linearly to 0; 0: they stay."""
    ema: float = 0.0
    """Half-life in kimg of averaged networks, which are then used for pictures and swaps; 0: none (as published)."""

    def __post_init__(self):
        disentangling.check_widths(self.side, self.widths)
        for name, least in (("code", 1), ("estimator", 1), ("blocks", 0), ("warmup", 0), ("steps", 0), ("vgg_size", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least {least}")
        for name in ("mu", "lr", "t_lr_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number above 0")
        if self.gamma is not None and self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}: give 0 or more, or leave it out for the published one")
        if not self.constraint and not self.deterministic and self.bottleneck == "adaptive":
            raise ValueError("without the constraint T is never fooled and an adaptive bottleneck only falls: use bottleneck 'fixed'")
        if self.leak and not self.constraint:
            raise ValueError("leak sends the gradient of the constraint through T' too, so it needs constraint")
        if (self.e_alpha == "frozen") != bool(self.e_alpha_from):
            raise ValueError(f"e_alpha is {self.e_alpha!r} and e_alpha_from {self.e_alpha_from!r}: 'frozen' needs a workdir, 'joint' none")
        seen = int((self.vgg_size or self.side) * CROP)
        if self.perceptual == "vgg" and seen < 16:
            raise ValueError(f"VGG would see {seen} px, and its last maps need 16: set vgg_size to at least 19 or perceptual to 'none'")

    def first_gamma(self) -> float:
        """The weight of the KL divergence at the start."""
        if self.gamma is not None:
            return self.gamma
        return 7.5 if self.perceptual == "vgg" else 1.0

    def system(self) -> System:
        return system(self)


def system(config: Config) -> System:
    """Robust disentangling as a ``System``; its grids show pictures of both codes, a reconstruction and a swap (``rows``)."""
    networks = Networks(config)
    players = make_players(networks)

    def init(key):
        params = networks.init(key)
        ema = {name: params[name] for name in AVERAGED} if config.ema > 0 else {}
        model = {name: {} for name in params} | {
            "T": {"multiplier": jnp.zeros(()), "average": jnp.zeros(()), "updates": jnp.zeros((), jnp.int32)},
            "T_prime": {"gamma": jnp.asarray(config.first_gamma(), jnp.float32), "average": jnp.zeros(())},
        }
        frozen = {"vgg": given_vgg(config)} if config.perceptual == "vgg" else {}
        # the copy keeps a donated state from holding one buffer twice
        return State(jnp.zeros((), jnp.int32), params, init_opt(players, params), model, jax.tree.map(jnp.copy, ema), frozen)

    def begin(state):
        given = {"E_alpha": given_encoder(config, state.params["E_alpha"])}
        # the copy keeps a donated state from holding one buffer twice
        return state._replace(params=state.params | given, ema=state.ema and state.ema | jax.tree.map(jnp.copy, given))

    def step(state, batch, key):
        return simultaneous_step(networks, players, state, batch, key)

    return System(
        init=init,
        step=step,
        sample=None,
        probes={"swap": swap_progress.probe(swapper(config))},
        image=(config.side, config.side, 3),
        records=1,
        prepare=lambda batch, rng: flip_images(batch, rng) if config.flip else batch,
        owns={name: player.owns for name, player in players.items()},
        translate=lambda state, images: rows(networks, {**state.params, **state.ema}, images),
        check=check_batch,
        falls=config.steps,
        begin=begin if config.e_alpha == "frozen" else None,
        reads=Reads(lambda data: open_source(config, data), lambda n: blank(config, n), swap_progress.held(config.side)),
    )


def make_players(networks: Networks) -> dict[str, Player]:
    """One player for each network that is moved. Their losses are those of ``simultaneous_step``, which runs the networks once for all."""
    c = networks.config
    rate = optax.linear_schedule(c.lr, 0.0, c.steps) if c.steps else c.lr
    fast = optax.linear_schedule(c.lr * c.t_lr_factor, 0.0, c.steps) if c.steps else c.lr * c.t_lr_factor

    def player(name):
        def loss(own, params, model, batch, key):
            found, read = terms(networks, {**params, **own}, params, model, batch, key)
            return player_loss(name, found), (model, read)

        return Player((name,), loss, optax.adam(fast if name in ("T", "T_prime") else rate, 0.5, 0.9))

    return {name: player(name) for name in networks.modules if not (name == "E_alpha" and c.e_alpha == "frozen")}


def player_loss(name: str, found: dict[str, jax.Array]) -> jax.Array:
    """The sum of the terms of one player's loss, as far as the configuration has them."""
    return sum(found[term] for term in LOSSES[name] if term in found)


def simultaneous_step(networks: Networks, players: dict[str, Player], state: State, batch, key) -> tuple[State, dict[str, Any]]:
    """All gradients at the same parameters, one update of each network, then multiplier, gamma and averages.

    Each term has its gradient stopped where it moves nothing, so the gradient of the sum of all terms holds every player's own.
    """

    def total(moved):
        found, read = terms(networks, {**state.params, **moved}, state.frozen, state.model, batch, key)
        return sum(found.values()), (found, read)

    own = {name: state.params[name] for name in players}
    (_, (found, read)), gradients = jax.value_and_grad(total, has_aux=True)(own)
    params, opt = dict(state.params), dict(state.opt)
    info: dict[str, Any] = {"finite": {}, **found, **read}
    for name, player in players.items():
        loss = player_loss(name, found)
        moved = move(player, {name: own[name]}, opt[name], loss, {name: gradients[name]})
        params[name], opt[name] = moved.own[name], moved.opt
        info["finite"][name] = moved.finite
        info |= {f"loss/{name}": loss, f"gradient/{name}": moved.norm}
    changed, log = advance(networks.config, state.model, read)
    ema = state.ema
    if ema:
        ema = follow(ema, params, half_life_decay(batch["group"].shape[0], networks.config.ema))
    return State(state.step + 1, params, opt, {**state.model, **changed}, ema, state.frozen), info | log


def rows(networks: Networks, params: Tree, images: Any) -> jax.Array:
    """Pairs uint8 [n, 2, S, S, 3] -> rows [n, S, m S, 3] in [-1, 1] for people, the pose code's mean throughout.

    From the left: the second image, whose identity is read; the first, whose pose is read; the reconstruction of the first; the second
    image of the next pair; the first image with that identity; and what the pose code and the identity code show alone, where there are
    decoders for them.
    """
    images = to_float(jnp.asarray(images))
    first, second = images[:, 0], images[:, 1]
    pose, identity = networks.pose(params, first).mean, networks.apply("E_alpha", params, second)
    parts = [second, first, networks.apply("D", params, pose, identity), jnp.roll(second, -1, 0)]
    parts.append(networks.apply("D", params, pose, jnp.roll(identity, -1, 0)))
    if networks.config.auxiliary:
        parts += [networks.apply("A_pi", params, pose), networks.apply("A_alpha", params, identity)]
    return jnp.clip(jnp.concatenate(parts, 2), -1.0, 1.0)


def swapper(config: Config) -> Swapper:
    """Encoders and decoder for swaps and their measures; the pose code is the posterior's mean."""
    networks = Networks(config)
    return Swapper(
        size=config.side,
        identity=lambda params, images: networks.apply("E_alpha", params, images),
        pose=lambda params, images: networks.pose(params, images).mean,
        decode=lambda params, identity, pose: jnp.clip(networks.apply("D", params, pose, identity), -1.0, 1.0),
        identity_vector=lambda code: code,
        pose_vector=lambda code: code,
        drawn=None if config.deterministic else lambda params, images, noise: disentangling.draw(networks.pose(params, images), noise),
    )


# -- what a run is given ------------------------------------------------------------------------------------------------------------


def open_source(config: Config, data: Any) -> Any:
    """Pairs of frames of one clip, of this configuration's size."""
    from jaxgan.data import clips

    return clips.open_pairs(data, (config.side, config.side, 3), same=config.same_image, within=config.pairs)


def blank(config: Config, n: int) -> dict[str, np.ndarray]:
    """n pairs of no content; every one of another group."""
    return {"image": np.zeros((n, 2, config.side, config.side, 3), np.uint8), "group": np.arange(n, dtype=np.int32)}


def flip_images(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """On the host: about every second image mirrored sideways."""
    mirrored = rng.random(batch["image"].shape[:2]) < 0.5
    image = np.where(mirrored[..., None, None, None], batch["image"][..., ::-1, :], batch["image"])
    return {**batch, "image": image}


def check_batch(batch: int) -> None:
    """Raises ValueError for a batch in which no image has another identity beside it."""
    if batch < 2:
        raise ValueError(f"run.batch = {batch}: the classifiers compare with the identities of other samples; use at least 2")


def given_encoder(config: Config, like: Tree) -> Tree:
    """The identity encoder of ``config.e_alpha_from``, the averaged one where there is one.

    Raises:
      FileNotFoundError: no such workdir. ValueError: it has no such encoder, or one of other sizes.
    """
    from jaxgan.generators import nested, open_generator

    arrays = open_generator(config.e_alpha_from).arrays
    found = nested(arrays, "ema").get("E_alpha") or nested(arrays, "params").get("E_alpha")
    if found is None:
        raise ValueError(f"{config.e_alpha_from} has no network E_alpha: name a workdir of robust_disentangling")
    shapes = [jax.tree.map(lambda leaf: tuple(leaf.shape), tree) for tree in (found, like)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"E_alpha of {config.e_alpha_from} has other sizes than this model: use that run's side, widths, code and blocks")
    return jax.tree.map(jnp.asarray, found)


def given_vgg(config: Config) -> Tree:
    """VGG-16's parameters; ValueError where the weights expect another input than ``vgg_input``."""
    from jaxgan import weights
    from jaxgan.nets import vgg

    path = config.vgg_weights or None
    expected = weights.about("vgg16", path)["preprocessing"]
    if expected != config.vgg_input:
        raise ValueError(f"these VGG weights expect input as {expected!r}, not {config.vgg_input!r}: set vgg_input to {expected!r}")
    return vgg.params(weights.load("vgg16", path))
