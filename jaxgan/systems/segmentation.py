"""Learning to name each pixel: a U-Net on images with label maps, one player with a cross-entropy.

The segmenter that `jaxgan seeing` needs where no pretrained one knows the classes at hand. Pixels of the void label are not learned from.
Images are flipped, cut, scaled and tinted on the host, in numpy and PIL, so that the step on the device is the network alone.
"""

from __future__ import annotations

import colorsys
import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import losses
from jaxgan.nets.unet import UNet
from jaxgan.play import half_life_decay, init_opt, play
from jaxgan.system import Player, State, System, Tree


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices. Sizes are (height, width) in pixels."""

    classes: tuple[str, ...]
    """Names of the class numbers 0, 1, ..."""
    size: tuple[int, int] = (64, 64)
    """The images that it trains on; it labels images of any size."""
    channels: int = 3
    void: int = -1
    """Label of pixels whose class is not known, also outside the classes; -1: there is none."""
    width: int = 32
    """Channels of the first level; they double at each level, up to eight times as many."""
    depth: int = 4
    """Times that the network halves the image."""
    patch: int = 1
    """2: the network works on squares of 2x2 pixels, at about a quarter of the cost."""
    lr: float = 1e-3
    schedule: Literal["constant", "cosine", "poly"] = "cosine"
    """How the learning rate falls to 0 over `steps`: half a cosine, or (1 - t)^0.9 (Chen et al., DeepLab, TPAMI 2018)."""
    steps: int = 0
    """Length of the run in steps, for the schedule; run.kimg * 1000 / run.batch."""
    warmup: int = 0
    """Steps over which the learning rate first rises from 0."""
    weight_decay: float = 1e-4
    """Of convolution kernels (AdamW)."""
    weighting: Literal["none", "median"] = "none"
    """'median': a pixel counts by median(frequency) / frequency[class] (Eigen and Fergus, ICCV 2015)."""
    frequency: tuple[float, ...] = ()
    """For 'median', of each class: its pixels over all pixels of the images that hold it; `jaxgan data import` writes it to facts.json.
    0: no image holds it, and its weight is 1."""
    most_weight: float = 10.0
    """For 'median': larger weights are cut to this."""
    flip: bool = True
    """Mirror every second image sideways."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of random enlargement, as large changes as small ones; a random part of the enlarged image is taken. Below 1 the image is
    continued by reflection."""
    jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor in 1 - jitter .. 1 + jitter each."""
    ema: float = 0.0
    """Half-life in kimg of the averaged network that then labels images; 0: none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and activations compute in; parameters, moments, logits and the loss stay float32."""

    def __post_init__(self):
        if not 2 <= len(self.classes) <= 256 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes holds {len(self.classes)} names, {len(set(self.classes))} different; give 2 to 256 different ones")
        for name, least in (("width", 1), ("depth", 1), ("patch", 1), ("channels", 1), ("steps", 0), ("warmup", 0), ("void", -1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least {least}")
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}: give a positive height and width")
        if self.schedule != "constant" and not self.steps:
            raise ValueError(f"schedule {self.schedule!r} needs steps, the length of the run in steps (run.kimg * 1000 / run.batch)")
        if self.schedule != "constant" and self.warmup >= self.steps:
            raise ValueError(f"warmup {self.warmup} must be shorter than steps {self.steps}")
        if not 0.5 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale is {self.scale}: give the smallest and the largest enlargement, at least 0.5")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is {self.jitter}, but must be at least 0 and below 1")
        if self.weighting == "median" and len(self.frequency) != len(self.classes):
            raise ValueError(
                f"weighting 'median' needs the frequency of all {len(self.classes)} classes, not of {len(self.frequency)}; "
                "`jaxgan data import` writes them to facts.json"
            )

    def network(self) -> UNet:
        return UNet(len(self.classes), self.width, self.depth, self.patch, jnp.dtype(self.dtype))

    def weights(self) -> np.ndarray | None:
        """float32 [K], or None where all classes count alike."""
        if self.weighting == "none":
            return None
        frequency = np.asarray(self.frequency, np.float64)
        there = frequency > 0
        weights = np.ones(len(frequency))
        weights[there] = np.minimum(np.median(frequency[there]) / frequency[there], self.most_weight)
        return weights.astype(np.float32)

    def system(self) -> System:
        return system(self)


def system(config: Config) -> System:
    """The segmenter as a ``System`` with the one player 'U'; its grids show the classes it finds in the preview images."""
    network, weights = config.network(), config.weights()

    def loss(own, params, model, batch, key):
        logits = network.apply({"params": own["U"]}, to_float(batch["image"]))
        counted = batch["label"].astype(jnp.int32) != config.void
        right = (logits.argmax(-1).astype(jnp.int32) == batch["label"].astype(jnp.int32)) & counted
        share = right.sum().astype(jnp.float32) / jnp.maximum(counted.sum(), 1).astype(jnp.float32)
        value = losses.cross_entropy(logits, batch["label"], None if weights is None else jnp.asarray(weights), config.void)
        return value, (model, {"accuracy": share})

    players = {"U": Player(("U",), loss, optimiser(config))}

    def init(key):
        # Parameters do not depend on the size of the image: the smallest that the network takes without padding.
        side = config.patch * 2**config.depth
        params = {"U": network.init(key, jnp.zeros((1, side, side, config.channels)))["params"]}
        ema = {"U": jax.tree.map(jnp.copy, params["U"])} if config.ema > 0 else {}
        return State(jnp.zeros((), jnp.int32), params, init_opt(players, params), {"U": {}}, ema, {})

    def step(state, batch, key):
        decay = half_life_decay(batch["label"].shape[0], config.ema) if config.ema > 0 else 0.0
        return play(players, ema_decay=decay)(state, batch, key)

    def translate(state, images):
        found = label_maps(config, {**state.params, **state.ema}["U"], images)
        return blend(images, found, len(config.classes))

    return System(
        init=init,
        step=step,
        sample=None,
        probes={},
        image=(*config.size, config.channels),
        records=1,
        prepare=functools.partial(augment, config),
        owns={name: player.owns for name, player in players.items()},
        labels=True,
        translate=translate,
        falls=0 if config.schedule == "constant" else config.steps,
    )


def to_float(images: jax.Array) -> jax.Array:
    """uint8 as float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def label_maps(config: Config, params: Tree, images: jax.Array) -> jax.Array:
    """int32 [N, H, W] of the most likely classes, from uint8 [N, H, W, C] of any H and W. The void class is never an answer."""
    logits = config.network().apply({"params": params}, to_float(images))
    if 0 <= config.void < len(config.classes):
        logits = logits.at[..., config.void].set(-jnp.inf)
    return logits.argmax(-1).astype(jnp.int32)


def colours(classes: int) -> np.ndarray:
    """uint8 [classes, 3]: hues by the golden ratio, so that neighbours in number differ."""
    hues = [colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.9 - 0.35 * (k % 3) / 2, 1 - 0.45 * (k % 2)) for k in range(classes)]
    return np.asarray(np.rint(255 * np.asarray(hues)), np.uint8)


def blend(images: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
    """float32 [N, H, W, 3] in [-1, 1]: class colours over the grey image."""
    grey = to_float(images).mean(-1, keepdims=True)
    return 0.35 * grey + 0.65 * to_float(jnp.asarray(colours(classes)))[labels]


def optimiser(config: Config) -> optax.GradientTransformation:
    """AdamW with the schedule of the configuration; normalisation and biases do not decay."""
    left = max(config.steps - config.warmup, 1)
    rate = {
        "constant": lambda: optax.constant_schedule(config.lr),
        "cosine": lambda: optax.cosine_decay_schedule(config.lr, left),
        "poly": lambda: optax.polynomial_schedule(config.lr, 0.0, 0.9, left),
    }[config.schedule]()
    if config.warmup:
        rate = optax.join_schedules([optax.linear_schedule(0.0, config.lr, config.warmup), rate], [config.warmup])

    def kernels(own):
        return jax.tree.map(lambda leaf: leaf.ndim > 1, own)

    return optax.adamw(rate, weight_decay=config.weight_decay, mask=kernels)


# -- on the host -------------------------------------------------------------------------------------------------------------------


def augment(config: Config, batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mirrors, cuts, scales and tints each image, its label map with it where that moves pixels.

    Args:
      batch: 'image' uint8 [B, H, W, C] and 'label' uint8 [B, H, W].

    Returns:
      The same names, shapes and types.

    Raises:
      ValueError: a label that is none of the classes and not the void label.
    """
    labels = batch["label"]
    highest = np.max(labels, initial=0, where=labels != config.void)
    if highest >= len(config.classes):
        raise ValueError(
            f"the data hold the label {highest}, but the model has the {len(config.classes)} classes 0..{len(config.classes) - 1}"
            f"{'' if config.void < 0 else f' and void {config.void}'}: set model.classes and model.void as in the set's facts.json"
        )
    pairs = [_augment_one(config, image, label, rng) for image, label in zip(batch["image"], labels, strict=True)]
    return {"image": np.stack([image for image, _ in pairs]), "label": np.stack([label for _, label in pairs])}


def _augment_one(config: Config, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if config.flip and rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    if config.scale != (1.0, 1.0):
        factor = float(np.exp(rng.uniform(*np.log(config.scale))))
        image, label = zoom(image, label, factor, rng.random(2))
    if config.jitter:
        image = tint(image, 1 + config.jitter * rng.uniform(-1, 1, 3))
    return image, label


def zoom(image: np.ndarray, label: np.ndarray, factor: float, place: Any) -> tuple[np.ndarray, np.ndarray]:
    """A part of the image, 1 / factor of its sides, at its own size again: bilinear, the label map nearest.

    ``place``: (down, across) in [0, 1], where the part lies in the room there is. With a factor below 1 (at least 0.5) the image is first
    continued by reflection.
    """
    from PIL import Image

    height, width = label.shape
    if factor < 1:
        more = [(round(side * (1 / factor - 1) / 2) + 1,) * 2 for side in (height, width)]
        more = [(min(before, side - 1), min(after, side - 1)) for (before, after), side in zip(more, (height, width), strict=True)]
        image, label = np.pad(image, (*more, (0, 0)), "reflect"), np.pad(label, more, "reflect")
    part = [min(side / factor, whole) for side, whole in zip((height, width), label.shape, strict=True)]
    top, left = ((whole - side) * at for whole, side, at in zip(label.shape, part, place, strict=True))
    box = (left, top, left + part[1], top + part[0])
    grey = image.shape[-1] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
    enlarged = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))
    map_ = Image.fromarray(np.ascontiguousarray(label)).resize((width, height), Image.Resampling.NEAREST, box=box)
    return enlarged[..., None] if grey else enlarged, np.asarray(map_)


def tint(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] with brightness, contrast (about the image's mean) and saturation (about its grey) times these factors."""
    brightness, contrast, saturation = (np.float32(factor) for factor in factors)
    pixels = image.astype(np.float32)
    if image.shape[-1] > 1:
        grey = pixels.mean(-1, keepdims=True)
        pixels = grey + saturation * (pixels - grey)
    mean = pixels.mean()
    return np.clip(brightness * (mean + contrast * (pixels - mean)), 0, 255).astype(np.uint8)
