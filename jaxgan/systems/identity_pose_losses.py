"""What identity and pose are learned from: the terms of the losses, and which network each of them may move.

The scheme is that of Xiao, Liu, Lee (ICCV 2019): targets are real frames, codes do double duty, and generated pixels are traced back to the
image of the identity. The equations, their weights and the further terms are chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan import losses
from jaxgan.nets import pixel_verification as pvm

Tree = Any


def together(*parts: Tree) -> Tree:
    """k trees of arrays [B, ...] as one of [k B, ...], sample by sample, so that a batch over several devices stays where it is."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, 1).reshape(-1, *leaves[0].shape[1:]), *parts)


def apart(joined: Tree, parts: int) -> list[Tree]:
    """The inverse of ``together``: a tree of arrays [k B, ...] -> k trees of arrays [B, ...]."""
    return [
        jax.tree.map(lambda leaf, number=number: leaf.reshape(-1, parts, *leaf.shape[1:])[:, number], joined) for number in range(parts)
    ]


def route(decode: Callable[[Tree, Tree, jax.Array], jax.Array]) -> Callable[[Tree, Tree, jax.Array], tuple[jax.Array, ...]]:
    """``decode(network, identity, pose) -> images`` three times the same, each with gradients for fewer of its arguments.

    Returns:
      ``f(network, identity, pose) -> (free, kept, still)``. Gradients of the first reach all three, those of the second not the pose, those
      of the third the network alone. The images are made once.
    """

    @jax.custom_vjp
    def routed(network, identity, pose):
        return (decode(network, identity, pose),) * 3

    def forward(network, identity, pose):
        images, pull = jax.vjp(decode, network, identity, pose)
        return (images,) * 3, pull

    def backward(pull, slopes):
        free, kept, still = slopes
        return pull(free + kept + still)[0], pull(free + kept)[1], pull(free)[2]

    routed.defvjp(forward, backward)
    return routed


def unit(code: jax.Array) -> jax.Array:
    """[B, ...] -> [B, d] of length 1; a code of zeros stays zeros."""
    rows = code.reshape(code.shape[0], -1)
    return rows * lax.rsqrt(jnp.sum(rows * rows, -1, keepdims=True) + 1e-8)


def distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """1 - cosine of codes [B, ...] -> [B], in [0, 2]."""
    return 1.0 - jnp.sum(unit(a) * unit(b), -1)


def margin(near: jax.Array, far: jax.Array, width: float) -> jax.Array:
    """max(0, near - far + width) for distances [B]: the first pair should be nearer than the second by ``width``."""
    return jax.nn.relu(near - far + width)


def pose_margin(target: jax.Array, pose: jax.Array, identity: jax.Array, moved: jax.Array, width: float = 0.3) -> jax.Array:
    """mean of max(0, d(p_tgt, p_pose) - d(p_tgt, p_id) + 0.3) where ``moved`` (bool [B]), of pose codes                   (8)

    Target and pose image share the pose, target and identity image do not: unless the object hardly moved between them.
    """
    return jnp.where(moved, margin(distance(target, pose), distance(target, identity), width), 0.0).mean()


def identity_margin(target: jax.Array, pose: jax.Array, identity: jax.Array, width: float = 0.3) -> jax.Array:
    """mean of max(0, d(i_tgt, i_id) - d(i_tgt, i_pose) + 0.3), of identity codes                                          (9)"""
    return margin(distance(target, identity), distance(target, pose), width).mean()


def has_moved(identity: jax.Array, target: jax.Array, gap: jax.Array) -> jax.Array:
    """bool [B]: two frames or more lie between the two images [B, S, S, 3], and they differ by 0.02 or more on average."""
    return (gap >= 2) & (jnp.abs(identity - target).mean((1, 2, 3)) >= 0.02)


def maps_difference(maps: Sequence[jax.Array], others: Sequence[jax.Array]) -> jax.Array:
    """Sum over layers of the mean absolute difference of two images' maps (Wang et al., CVPR 2018; Johnson et al., ECCV 2016)."""
    return sum(jnp.abs(one - lax.stop_gradient(two)).mean() for one, two in zip(maps, others, strict=True))


class Parts(NamedTuple):
    """The networks as functions of their parameters."""

    identity: Callable[[Tree, jax.Array], Any]
    """``identity(E_id, images) -> Identity``."""
    pose: Callable[[Tree, jax.Array, Tree], jax.Array]
    """``pose(E_pose, images, disguise) -> code``; the disguise is for as many samples, or None."""
    decode: Callable[[Tree, Any, jax.Array], jax.Array]
    """``decode(G, identity, pose) -> images``."""
    judge: Callable[[Tree, jax.Array, jax.Array], tuple[list[jax.Array], list[jax.Array]]]
    """``judge(normalised D, images, code) -> (scores, maps)`` of all scales."""
    maps: Callable[[Tree, jax.Array], list[jax.Array]] | None = None
    """``maps(params, images)``: what results and targets are compared by in the place of the discriminator's maps."""


def discriminator_loss(parts: Parts, normal: Tree, params: Tree, batch: Mapping[str, Any], r1: float = 0.0) -> jax.Array:
    """Hinge loss on real targets, on transfers, and on transfers to the pose of another triplet, all with the code of the identity image.

    Args:
      parts: the networks.
      normal: the discriminator's parameters with normalised kernels.
      params: of the encoders and the generator, by name.
      batch: from ``identity_pose.on_device``.
      r1: weight of R1 on the targets (``losses.squared_slopes``).
    """
    identity = parts.identity(params["E_id"], batch["identity"])
    pose = parts.pose(params["E_pose"], batch["pose"], batch["disguise"])
    fakes = parts.decode(params["G"], together(identity, identity), together(pose, jnp.roll(pose, 1, 0)))
    code = unit(identity.code)
    scores, _ = parts.judge(normal, together(batch["target"], *apart(fakes, 2)), together(code, code, code))
    value = sum(losses.hinge_discriminator(real, jnp.stack(fakes)) for real, *fakes in (apart(score, 3) for score in scores)) / len(scores)
    if r1:
        slopes = losses.squared_slopes(lambda images: sum(s.mean((1, 2)) for s in parts.judge(normal, images, code)[0]), batch["target"])
        value = value + 0.5 * r1 * slopes.mean()
    return value


def generator_terms(
    options: Any, parts: Parts, own: Tree, params: Tree, normal: Tree, real: Mapping[str, jax.Array], batch: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The terms that generator and encoders learn from, before their weights; terms whose weight is 0 are not computed.

    'rec', 'perc': |result - target|, and of their maps. 'self_rec', 'self_perc': the same, halved, of an image decoded from its own codes,
    the pose image and the identity image, with the very codes of the transfer (7b). 'adv': the discriminator's judgement of the transfer
    and of one to another triplet's pose. 'pv': pixel verification (7) of both; it moves G and E_id. 'dis_pose', 'dis_id': (8) and (9).
    'back': the codes that both are read back as by the encoders at hand, d(E_pose(x), p) + d(E_id(x), i); it moves G alone (10).

    Args:
      options: an ``identity_pose.Config``.
      own: parameters of 'G', 'E_id' and 'E_pose', which the terms are to be differentiated by.
      params: those of all networks.
      normal: the discriminator's, with normalised kernels.
      real: 'rho' and 'v', residual and score of real targets.
      batch: from ``identity_pose.on_device``.

    Returns:
      (terms by name, further scalars to be logged: residual and score of the two transfers).
    """
    x_id, x_pose, x_tgt, disguise = (batch[name] for name in ("identity", "pose", "target", "disguise"))
    margins, crossing = options.w_dis > 0, options.w_adv > 0 or options.w_pv > 0 or options.w_back > 0
    encoded = (x_id, x_pose, x_tgt) if margins else (x_id, x_pose)
    identities = apart(parts.identity(own["E_id"], together(*encoded)), len(encoded))
    poses = apart(parts.pose(own["E_pose"], together(*encoded), together(*(disguise,) * len(encoded))), len(encoded))
    (i_id, i_pose), (p_id, p_pose), p_cross = identities[:2], poses[:2], jnp.roll(poses[1], 1, 0)
    code = lax.stop_gradient(unit(i_id.code))

    asked = [(i_id, p_pose)]
    truths = [x_tgt]
    if options.self_decode:
        asked += [(i_pose, p_pose), (i_id, p_id)]
        truths += [x_pose, x_id]
    if crossing:
        asked += [(i_id, p_cross)]
    given = (together(*(identity for identity, _ in asked)), together(*(pose for _, pose in asked)))
    if options.w_pv > 0 or options.w_back > 0:
        free, kept, still = (apart(images, len(asked)) for images in route(parts.decode)(own["G"], *given))
    else:
        free = apart(parts.decode(own["G"], *given), len(asked))

    found, seen = {"rec": losses.absolute_error(free[0], x_tgt)}, {}
    if options.self_decode:
        found["self_rec"] = 0.5 * (losses.absolute_error(free[1], x_pose) + losses.absolute_error(free[2], x_id))
    compared = options.perceptual != "none" and options.w_perc > 0
    if options.w_adv > 0 or (compared and parts.maps is None):
        shown = [*free, *truths]
        scores, maps = parts.judge(normal, together(*shown), together(*(code,) * len(shown)))
    if compared:
        if parts.maps is not None:
            shown = [*free[: len(truths)], *truths]
            maps = parts.maps(params, together(*shown))
        by_image = list(zip(*(apart(layer, len(shown)) for layer in maps), strict=True))
        pairs = list(zip(by_image, by_image[len(shown) - len(truths) :], strict=False))
        found["perc"] = maps_difference(*pairs[0])
        if options.self_decode:
            found["self_perc"] = 0.5 * (maps_difference(*pairs[1]) + maps_difference(*pairs[2]))
    if options.w_adv > 0:
        judged = [apart(score, len(asked) + len(truths)) for score in scores]
        last = len(asked) - 1
        found["adv"] = sum(losses.wasserstein_generator(jnp.stack([score[0], score[last]])) for score in judged) / len(judged)
    if options.w_pv > 0:
        phi = lax.stop_gradient(params["phi"])
        out = pvm.pvm_apply(phi, together(kept[0], kept[-1]), together(x_id, x_id), factor=options.grid, attention=False)
        # Where the other triplet's pose is asked for there is no target: the identity image stands for it.
        mask = together(pvm.demand(x_tgt, x_pose, options.grid), pvm.demand(x_id, jnp.roll(x_pose, 1, 0), options.grid))
        rho, v = (real["rho"], real["v"]) if options.hinge else (0.0, 1.0)
        found["pv"] = pvm.pvm_loss(out, mask, rho, v)
        seen = {"made/rho": out.residual.mean(), "made/v": out.score.mean()}
    if margins:
        found["dis_pose"] = pose_margin(poses[2], p_pose, p_id, has_moved(x_id, x_tgt, batch["gap"]), options.margin)
        found["dis_id"] = identity_margin(identities[2].code, i_pose.code, i_id.code, options.margin)
    if options.w_back > 0:
        e_id, e_pose = lax.stop_gradient((own["E_id"], own["E_pose"]))
        images = together(still[0], still[-1])
        again = parts.pose(e_pose, images, together(disguise, disguise))
        of_pose = distance(again, lax.stop_gradient(together(p_pose, p_cross)))
        of_identity = distance(parts.identity(e_id, images).code, lax.stop_gradient(together(i_id.code, i_id.code)))
        found["back"] = (of_pose + of_identity).mean()
    return found, seen
