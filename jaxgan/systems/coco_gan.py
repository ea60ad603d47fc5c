"""COCO-GAN: Generation by Parts via Conditional Coordinating (Lin et al., ICCV 2019).

The generator makes one micro patch from a latent and a coordinate. Neighbouring micro patches with the same latent form a macro patch,
and only macro patches are shown to the discriminator. No network ever sees a full image; sampling puts full images together.

Players, in the order in which they move in a step:
  D         discriminator and coordinate head: -E D(real) + E D(fake) + penalty + coordinate error (+ latent error)
  G         generator and coordinate head: -E D(fake) + coordinate error (+ latent error)
  D_beyond, G_beyond   post-training beyond the border only: as D and G, the fakes at positions past it; G_beyond moves two blocks
  Q         content head, for patch-guided generation only: latent error
The order, the latents shared by D and G, the fresh reals of every player and the two owners of the coordinate head are those of the
published code.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import coords, losses, parallel
from jaxgan.nets.coco_gan import Discriminator, Generator, Head, discriminator_widths, generator_widths
from jaxgan.nets.layers import spectral_normalise
from jaxgan.play import average, draw, follow, half_life_decay, init_opt, move, play
from jaxgan.system import Player, State, System, Tree


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are CelebA 64x64, N2M2S32. Sizes are (height, width) in pixels."""

    full: tuple[int, int] = (64, 64)
    """The full image."""
    macro: tuple[int, int] = (32, 32)
    """What the discriminator sees."""
    micro: tuple[int, int] = (16, 16)
    """What one call of the generator makes."""
    channels: int = 3
    latent: int = 128
    """Size of the latent vector, uniform in (-1, 1)."""
    g_width: int = 64
    """Base width of the generator."""
    d_width: int = 64
    """Base width of the discriminator."""
    aux_width: int = 128
    """Hidden width of the heads."""
    g_extra_blocks: int = 0
    """Generator blocks after the ones that double the size."""
    d_extra_blocks: int = 0
    """Discriminator blocks that don't halve the size."""
    coordinates: Literal["euclidean", "cylindrical"] = "euclidean"
    """'cylindrical': the images are panoramas whose left and right edges meet."""
    sampling: Literal["discrete", "continuous"] = "discrete"
    """Macro positions in training: a micro patch apart, or any pixel."""
    cbn_norm: Literal["var", "std"] = "var"
    """What conditional batch norm divides by: 'var' is the published code's, 'std' the textbook's."""
    gp_mode: Literal["reference", "textbook"] = "reference"
    """Gradient penalty: the published code's (slopes over the height, one interpolation factor for each value, a critic without
    coordinates) or the textbook's (over the whole patch, one factor for each sample, the critic with coordinates)."""
    sn_stop_gradient: bool = False
    """Hold the singular vectors of spectral normalisation fixed in the gradient."""
    gp_weight: float = 10.0
    spatial_weight: float = 100.0
    """Weight of the coordinate error."""
    content_weight: float = 0.0
    """Weight of the latent error; above 0 there is a content head, for patch-guided generation."""
    extrapolate: int = 0
    """Post-training: micro patches beyond the border at which fakes are drawn too."""
    g_lr: float = 1e-4
    d_lr: float = 4e-4
    q_lr: float = 1e-4
    anneal: tuple[int, int] = (0, 0)
    """Learning rates fall linearly to 0 between these two steps; (0, 0): constant, as published."""
    ema: float = 0.0
    """Half-life in kimg of the averaged generator that sampling then uses; 0: none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and activations compute in; parameters, sums and losses stay float32."""
    shared_forward: bool = True
    """Run the generator once for the D and the G update (the result is the same, and faster)."""

    def __post_init__(self):
        self.geometry()
        generator_widths(self.micro, self.g_extra_blocks)
        discriminator_widths(self.macro, self.d_extra_blocks)
        if self.extrapolate < 0:
            raise ValueError(f"extrapolate {self.extrapolate} must be 0 or more micro patches")
        if self.anneal != (0, 0) and not 0 <= self.anneal[0] < self.anneal[1]:
            raise ValueError(f"anneal {self.anneal}: the first step must come before the second; (0, 0) keeps the learning rates")
        if self.channels < 1 or self.latent < 1:
            raise ValueError(f"channels {self.channels} and latent {self.latent} must be positive")

    def geometry(self) -> coords.Geometry:
        return coords.Geometry(self.full, self.macro, self.micro, self.coordinates == "cylindrical")

    def system(self) -> System:
        return system(self)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The four networks with spectral normalisation applied, as pure functions of (params, model)."""

    config: Config
    axis_name: str | None = None
    dtype: Any = None
    """Computes in another type than ``config.dtype``, for instance float64 to check against."""

    @functools.cached_property
    def modules(self) -> dict[str, Any]:
        c, dtype = self.config, jnp.dtype(self.dtype or self.config.dtype)
        modules = {
            "G": Generator(c.micro, c.channels, c.g_width, c.g_extra_blocks, c.cbn_norm, dtype, self.axis_name),
            "D": Discriminator(c.macro, c.d_width, c.d_extra_blocks, dtype),
            "A": Head(c.geometry().coordinate_size, c.aux_width, self.axis_name),
        }
        if c.content_weight > 0:
            modules["Q"] = Head(c.latent, c.aux_width, self.axis_name)
        return modules

    def init(self, key: jax.Array) -> tuple[dict, dict]:
        """(params, model) by network name."""
        c = self.config
        latents, at = jnp.zeros((1, c.latent)), jnp.zeros((1, c.geometry().coordinate_size))
        features = jnp.zeros((1, 8 * c.d_width))
        arguments = {
            "G": (latents, at, True),
            "D": (jnp.zeros((1, *c.macro, c.channels)), at),
            "A": (features, True),
            "Q": (features, True),
        }
        params, model = {}, {}
        for number, (name, module) in enumerate(self.modules.items()):
            variables = module.init(jax.random.fold_in(key, number), *arguments[name])
            params[name] = variables["params"]
            model[name] = {kind: variables[kind] for kind in ("spectral", "stats") if kind in variables}
        return params, model

    def normalise(self, name: str, params: Tree, model: Tree) -> tuple[Tree, Tree]:
        """Spectrally normalised parameters of one network, and its iterated vectors."""
        return spectral_normalise(params, model["spectral"], self.config.sn_stop_gradient)

    def run(self, name: str, normalised: Tree, model: Tree, *inputs, train: bool = True) -> tuple[Any, Tree]:
        """Applies a network with its normalised parameters; returns (outputs, running statistics after)."""
        variables = {"params": normalised, "stats": model.get("stats", {})}
        if name == "D":
            return self.modules[name].apply({"params": normalised}, *inputs), {}
        if not train:
            return self.modules[name].apply(variables, *inputs, False), variables["stats"]
        outputs, changed = self.modules[name].apply(variables, *inputs, True, mutable=["stats"])
        return outputs, changed["stats"]

    def generate(self, params: Tree, model: Tree, latents: jax.Array, corner: jax.Array) -> tuple[jax.Array, Tree]:
        """Macro patches [B, S, S, C] in training mode from latents [B, z] and macro corners [B, 2]; and G's model after it."""
        geometry = self.config.geometry()
        count = geometry.per_macro
        at = coords.coordinates(geometry, coords.corners_inside(geometry, corner), geometry.micro)
        patches = count[0] * count[1]
        at = parallel.constrain(at.reshape(-1, at.shape[-1]), "data", "patch")
        repeated = parallel.constrain(jnp.repeat(latents, patches, 0), "data", "patch")
        normalised, spectral = self.normalise("G", params, model)
        micro, stats = self.run("G", normalised, model, repeated, at)
        micro = parallel.constrain(micro, "data", "patch")
        macro = coords.assemble(micro.reshape(-1, patches, *micro.shape[1:]), count)
        return parallel.constrain(macro, "data", "patch"), {"spectral": spectral, "stats": stats}


def system(config: Config, axis_name: str | None = None) -> System:
    """COCO-GAN as a ``System``.

    ``axis_name``: for use under ``jax.pmap``: gradients, batch statistics and info are averaged over this axis, and latents are this
    device's share of the whole batch's, so that the step equals the one on a mesh.
    """
    from jaxgan.systems import coco_gan_sample  # which imports this file

    networks = Networks(config, axis_name)
    players = make_players(networks)
    prepare = functools.partial(draw_step, config, axis_name)

    def init(key):
        params, model = networks.init(key)
        ema = {"G": params["G"]} if config.ema > 0 else {}
        # the copy keeps a donated state from holding one buffer twice
        return State(jnp.zeros((), jnp.int32), params, init_opt(players, params), model, jax.tree.map(jnp.copy, ema), {})

    def step(state, batch, key):
        size = batch["corner"].shape[0] * (1 if axis_name is None else jax.lax.psum(1, axis_name))
        decay = half_life_decay(size, config.ema) if config.ema > 0 else 0.0
        if config.shared_forward:
            return shared_step(networks, players, prepare, decay, state, batch, key)
        return play(players, prepare=prepare, ema_decay=decay, axis_name=axis_name)(state, batch, key)

    def sample(state, key, n):
        latents = draw_latents(key, (n, config.latent))
        return coco_gan_sample.full_images(config, coco_gan_sample.generator_of(state), latents)

    return System(
        init=init,
        step=step,
        sample=sample,
        probes={"seam": coco_gan_sample.seam_probe(config)} if config.micro != config.full else {},
        image=(*config.full, config.channels),
        records=4 if config.extrapolate else 2,
        prepare=functools.partial(crop_batch, config),
        owns={name: player.owns for name, player in players.items()},
    )


# -- what a step starts from -------------------------------------------------------------------------------------------------------


def crop_batch(config: Config, batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """On the host: cuts a macro patch from each image, so that full images never travel to a device.

    Args:
      batch: 'image' uint8 [B * K, H, W, C], K images for each sample: one for every update that sees reals.

    Returns:
      'image' uint8 [B, K, S, S, C], cut at one position for each sample, and 'corner' int32 [B, 2], the top left pixel of that position.
      Panoramas are first rolled by one random shift for the whole batch, as in the published code.
    """
    images, records = batch["image"], 4 if config.extrapolate else 2
    samples, geometry = len(images) // records, config.geometry()
    if config.sampling == "discrete":
        corner = np.stack([rng.integers(0, n, samples) for n in geometry.macro_positions], -1) * np.asarray(config.micro)
    else:
        width = config.full[1] if geometry.cylindrical else config.full[1] - config.macro[1] + 1
        corner = np.stack([rng.integers(0, config.full[0] - config.macro[0] + 1, samples), rng.integers(0, width, samples)], -1)
    at = corner.copy()
    if geometry.cylindrical:
        at[:, 1] += rng.integers(0, config.full[1])
    patches = coords.crop_on_host(images, np.repeat(at, records, 0), config.macro, geometry.cylindrical)
    return {"image": patches.reshape(samples, records, *patches.shape[1:]), "corner": corner.astype(np.int32)}


def draw_latents(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Latents, uniform in (-1, 1)."""
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0)


def draw_step(config: Config, axis_name: str | None, batch: dict, key: jax.Array) -> dict[str, Any]:
    """What all players of a step share: reals as float, latents, coordinates of reals and fakes, interpolation factors."""
    geometry = config.geometry()
    corner = batch["corner"]
    samples = corner.shape[0]
    image = batch["image"]
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 127.5 - 1.0
    drawn = {
        "real": image,
        "latents": draw(draw_latents, jax.random.fold_in(key, 0), (samples, config.latent), axis_name),
        "corner": corner,
        "coordinate": jnp.clip(coords.coordinates(geometry, corner, config.macro), -1.0, 1.0),
    }
    factors = (samples, *config.macro, config.channels) if config.gp_mode == "reference" else (samples, 1, 1, 1)
    drawn["alpha"] = draw(jax.random.uniform, jax.random.fold_in(key, 1), factors, axis_name)
    if config.extrapolate:
        drawn["alpha_beyond"] = draw(jax.random.uniform, jax.random.fold_in(key, 2), factors, axis_name)
        table = jnp.asarray(coords.macro_corners(geometry, config.extrapolate))
        pick = draw(lambda k, s: jax.random.randint(k, s, 0, len(table)), jax.random.fold_in(key, 3), (samples,), axis_name)
        drawn["corner_beyond"] = table[pick]
        drawn["coordinate_beyond"] = coords.coordinates(geometry, table[pick], config.macro)
    return drawn


# -- the game ----------------------------------------------------------------------------------------------------------------------


def head_error(networks, name, params, model, features, target, trusted=None) -> tuple[jax.Array, Tree, jax.Array]:
    """Error of one head on one set of features in training mode: (error, the head's model after it, prediction)."""
    normalised, spectral = networks.normalise(name, params, model)
    prediction, stats = networks.run(name, normalised, model, features)
    error = losses.coordinate_error(prediction, target, trusted) if name == "A" else losses.absolute_error(prediction, target)
    return error, {"spectral": spectral, "stats": stats}, prediction


def discriminator_loss(networks, beyond, own, params, model, drawn, fake):
    """D's objective on given fakes: adversarial + penalty + coordinate error of both halves (+ latent error)."""
    config, params = networks.config, {**params, **own}
    suffix = "_beyond" if beyond else ""
    real = drawn["real"][:, 2 if beyond else 0]
    at_real, at_fake = drawn["coordinate"], drawn["coordinate" + suffix]
    trusted = jnp.all(jnp.abs(at_fake) <= 1 + 1e-4, -1)

    normalised, spectral = networks.normalise("D", params["D"], model["D"])
    # reals and fakes side by side: one pass with twice the batch; D has no batch statistics, so nothing mixes. Interleaved, because a
    # concatenation would move samples between devices.
    both = jnp.stack([real, fake], 1).reshape(-1, *real.shape[1:])
    at_both = jnp.stack([at_real, at_fake], 1).reshape(-1, at_real.shape[-1])
    (features, logits), _ = networks.run("D", normalised, model["D"], both, at_both)
    features, logits = features.reshape(-1, 2, features.shape[-1]), logits.reshape(-1, 2)

    alpha = drawn["alpha" + suffix]
    mixed = losses.interpolate(real, fake, alpha)
    # the published code leaves the coordinate out of the penalised critic, which leaves the projection unbounded by the penalty
    at_mixed = losses.interpolate(at_real, at_fake, alpha[:, :, 0, 0]) if config.gp_mode == "textbook" else None
    slopes = losses.gradient_slopes(lambda x: networks.run("D", normalised, model["D"], x, at_mixed)[0][1], mixed, config.gp_mode)
    penalty = config.gp_weight * losses.gradient_penalty(slopes)

    # the two halves have their own batch statistics; both move the running ones, one power iteration serves both
    error_real, head, _ = head_error(networks, "A", params["A"], model["A"], features[:, 0], at_real)
    after_real = {"spectral": model["A"]["spectral"], "stats": head["stats"]}
    error_fake, head, _ = head_error(networks, "A", params["A"], after_real, features[:, 1], at_fake, trusted)
    model = {**model, "D": {"spectral": spectral}, "A": head}

    adversarial = losses.wasserstein_discriminator(logits[:, 0], logits[:, 1])
    total = adversarial + penalty + config.spatial_weight * (error_real + error_fake)
    info = {"wasserstein": -adversarial, "penalty": penalty, "slope": slopes.mean(), "spatial/real": error_real, "spatial/fake": error_fake}
    if "Q" in networks.modules:
        content, _, _ = head_error(networks, "Q", params["Q"], model["Q"], features[:, 1], drawn["latents"])
        total = total + config.content_weight * content
        info["content"] = content
    info = {name + suffix: value for name, value in info.items()}
    return total, (model, info)


def generator_loss(networks, beyond, own, params, model, drawn, fake):
    """G's objective on given fakes; the reals reach the coordinate head only."""
    config, params = networks.config, {**params, **own}
    real = drawn["real"][:, 3 if beyond else 1]
    at_real, at_fake = drawn["coordinate"], drawn["coordinate_beyond" if beyond else "coordinate"]
    trusted = jnp.all(jnp.abs(at_fake) <= 1 + 1e-4, -1)

    normalised, _ = networks.normalise("D", params["D"], model["D"])
    (features, logits), _ = networks.run("D", normalised, model["D"], fake, at_fake)
    (features_real, _), _ = networks.run("D", normalised, model["D"], real, None)
    error_real, head, _ = head_error(networks, "A", params["A"], model["A"], features_real, at_real)
    after_real = {"spectral": model["A"]["spectral"], "stats": head["stats"]}
    error_fake, head, _ = head_error(networks, "A", params["A"], after_real, features, at_fake, trusted)
    model = {**model, "A": head}

    total = losses.wasserstein_generator(logits) + config.spatial_weight * (error_real + error_fake)
    if "Q" in networks.modules:
        content, _, _ = head_error(networks, "Q", params["Q"], model["Q"], features, drawn["latents"])
        total = total + config.content_weight * content
    return total, (model, {})


def content_loss(networks, own, params, model, drawn, fake):
    """Q's objective: the adversarial term has no gradient for the content head and is kept for the reported value."""
    params = {**params, **own}
    normalised, _ = networks.normalise("D", params["D"], model["D"])
    (features, logits), _ = networks.run("D", normalised, model["D"], fake, drawn["coordinate"])
    content, head, _ = head_error(networks, "Q", params["Q"], model["Q"], features, drawn["latents"])
    return losses.wasserstein_generator(logits) + networks.config.content_weight * content, ({**model, "Q": head}, {})


def adam(learning_rate: float, anneal: tuple[int, int] = (0, 0)) -> optax.GradientTransformation:
    """Adam with beta1 = 0, beta2 = 0.999, epsilon = 1e-8: with no momentum it needs no first moment, only the corrected second.

    ``anneal``: the rate falls linearly to 0 between these two of its updates; (0, 0) keeps it.
    """
    begin, end = anneal
    rate = optax.linear_schedule(learning_rate, 0.0, end - begin, begin) if end else learning_rate
    second_moment = optax.scale_by_rms(0.999, 1e-8, eps_in_sqrt=False, bias_correction=True)
    return optax.chain(second_moment, optax.scale_by_learning_rate(rate))


def make_players(networks: Networks) -> dict[str, Player]:
    """The players in their order of play; each loss runs the generator itself (``shared_step`` spares the second run)."""
    config = networks.config

    def with_fakes(objective, corner, moves_generator):
        def loss(own, params, model, drawn, key):
            generator = {**params, **own}["G"]
            generator = hold_later_blocks(generator) if corner == "corner_beyond" else generator
            fake, after = networks.generate(generator, model["G"], drawn["latents"], drawn[corner])
            value, (model, info) = objective(own, params, model, drawn, fake)
            return value, ({**model, "G": after} if moves_generator else model, info)

        return loss

    discriminate, generate = functools.partial(discriminator_loss, networks), functools.partial(generator_loss, networks)
    players = {
        "D": Player(("D", "A"), with_fakes(functools.partial(discriminate, False), "corner", False), adam(config.d_lr, config.anneal)),
        "G": Player(("G", "A"), with_fakes(functools.partial(generate, False), "corner", True), adam(config.g_lr, config.anneal)),
    }
    if config.extrapolate:
        first_blocks = optax.partition({"move": adam(config.g_lr, config.anneal), "hold": optax.set_to_zero()}, label_first_blocks)
        beyond_d, beyond_g = functools.partial(discriminate, True), functools.partial(generate, True)
        players["D_beyond"] = Player(("D", "A"), with_fakes(beyond_d, "corner_beyond", False), adam(config.d_lr, config.anneal))
        players["G_beyond"] = Player(("G",), with_fakes(beyond_g, "corner_beyond", True), first_blocks)
    if "Q" in networks.modules:
        players["Q"] = Player(
            ("Q",), with_fakes(functools.partial(content_loss, networks), "corner", False), adam(config.q_lr, config.anneal)
        )
    return players


def label_first_blocks(own: Tree) -> Tree:
    """'move' for the generator's residual blocks 0 and 1, 'hold' for the rest: what post-training beyond the border adapts."""

    def label(path, _):
        return "move" if any(getattr(entry, "key", None) in ("block_0", "block_1") for entry in path) else "hold"

    return jax.tree_util.tree_map_with_path(label, own)


def hold_later_blocks(generator: Tree) -> Tree:
    """The generator's parameters, those that post-training leaves alone without gradient."""
    labels = label_first_blocks(generator)
    return jax.tree.map(lambda leaf, label: leaf if label == "move" else jax.lax.stop_gradient(leaf), generator, labels)


def shared_step(networks, players, prepare, ema_decay, state: State, batch, key) -> tuple[State, dict[str, Any]]:
    """The same step as ``play(players)``, with one run of the generator for each D and G pair.

    Nothing between the D and the G update changes the generator, so its output is computed once; the G update pulls the gradient of its
    loss with respect to that output back through the same run.
    """
    axis_name = networks.axis_name
    params, opt, model = dict(state.params), dict(state.opt), state.model
    drawn = prepare(batch, jax.random.fold_in(key, 0))
    info: dict[str, Any] = {"finite": {}}

    def record(name, loss, moved, extra):
        params.update(moved.own)
        opt[name] = moved.opt
        info.update(average({**extra, f"loss/{name}": loss, f"gradient/{name}": moved.norm}, axis_name))
        info["finite"][name] = moved.finite

    for beyond in (False, True) if "D_beyond" in players else (False,):
        first, second = ("D_beyond", "G_beyond") if beyond else ("D", "G")
        corner = drawn["corner_beyond" if beyond else "corner"]
        generate = functools.partial(networks.generate, model=model["G"], latents=drawn["latents"], corner=corner)
        moving = hold_later_blocks if beyond else lambda generator: generator
        fake, pull, after = jax.vjp(lambda g, generate=generate, moving=moving: generate(moving(g)), params["G"], has_aux=True)

        own = {name: params[name] for name in players[first].owns}
        objective = functools.partial(discriminator_loss, networks, beyond)
        (loss, (model, extra)), gradients = jax.value_and_grad(objective, has_aux=True)(own, params, model, drawn, fake)
        record(first, loss, move(players[first], own, opt[first], loss, gradients, axis_name), extra)

        own = {name: params[name] for name in players[second].owns}
        others = {name: own[name] for name in own if name != "G"}
        objective = functools.partial(generator_loss, networks, beyond)
        (loss, (model, extra)), (gradients, to_fake) = jax.value_and_grad(objective, (0, 4), has_aux=True)(
            others, params, model, drawn, fake
        )
        gradients = {**gradients, "G": pull(to_fake)[0]}
        model = average({**model, "G": after}, axis_name)
        record(second, loss, move(players[second], own, opt[second], loss, gradients, axis_name), extra)

    if "Q" in players:
        own = {"Q": params["Q"]}
        player_loss = jax.value_and_grad(players["Q"].loss, has_aux=True)
        (loss, (model, extra)), gradients = player_loss(own, params, model, drawn, jax.random.fold_in(key, len(players)))
        model = average(model, axis_name)
        record("Q", loss, move(players["Q"], own, opt["Q"], loss, gradients, axis_name), extra)

    ema = follow(state.ema, params, ema_decay) if state.ema else state.ema
    return State(state.step + 1, params, opt, model, ema, state.frozen), info
