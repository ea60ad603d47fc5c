"""COCO-GAN's whole training step against a second derivation of it in float64 (``coco_gan_reference``).

What holds the parts to the published code is test_coco_gan_golden.py. Here: who moves when, on which reals, from which state, with which
moments, and what of the running arrays each update leaves behind.
"""

import dataclasses
import functools

import coco_gan_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan.systems import coco_gan
from jaxgan.systems.coco_gan_import import import_variables, place

SAMPLES = 4
# The objectives' terms pull on the discriminator with forces of the same order; under the published weights the penalty's is invisible.
EVEN = {"gp_weight": 1000.0, "spatial_weight": 1.0, "content_weight": 0.0}
CONFIG = coco_gan.Config(latent=32, g_width=8, d_width=8, aux_width=32)
CASES = {
    "published": CONFIG,
    "published, in float64": CONFIG,
    "guided": dataclasses.replace(CONFIG, **EVEN | {"content_weight": 1.0}),
    "guided, generator run twice": dataclasses.replace(CONFIG, **EVEN | {"content_weight": 1.0}, shared_forward=False),
    "beyond the border": dataclasses.replace(CONFIG, **EVEN, extrapolate=1),
}
# Post-training's players see what two others left. In float32 rounding has decided by then where some arrays went, and its own players'
# gradients differ by percents; in float64 they agree.
DOUBLE = {"published, in float64", "beyond the border"}
# Of the larger learning rate: how far an update may be off. A float32 gradient of 3e-3 of its array's largest has lost up to a hundredth,
# on some processors more than on others.
SLACK = {"float32": 2e-2, "float64": 3e-3}
# The same program at half the compile time.
QUICKLY = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def arrays(golden) -> dict[str, np.ndarray]:
    with np.load(golden / "cocogan_CelebA_64x64_N2M2S32.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def variables(arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix("var/"): value for name, value in arrays.items() if name.startswith("var/")}


def doubles(tree):
    return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)


def find(tree, path):
    for part in path:
        tree = tree[part]
    return tree


def by_name(state, variables) -> dict[str, np.ndarray]:
    """The state's parameters and running arrays by TensorFlow name."""
    found = {}
    for name in variables:
        kind, network, path = place(name)
        if network in state.params:
            found[name] = np.asarray(find(state.params[network] if kind == "params" else state.model[network][kind], path))
    return found


def moments(state, player, names) -> dict[str, np.ndarray]:
    nu = optax.tree_utils.tree_get(state.opt[player], "nu")
    return {name: np.asarray(find(nu[place(name)[1]], place(name)[2])) for name in names}


def random_batch(config, seed):
    rng = np.random.default_rng(seed)
    records = config.system().records
    image = rng.integers(0, 256, (SAMPLES, records, *config.macro, 3), dtype=np.uint8)
    # flat areas, so that the reals are no mere noise
    image[:, :, 8:, :16] = rng.integers(0, 256, (SAMPLES, records, 1, 1, 3), dtype=np.uint8)
    return {"image": jnp.asarray(image), "corner": jnp.asarray(rng.integers(0, 3, (SAMPLES, 2)) * 16, jnp.int32)}


def reference_draws(config, batch, key) -> dict[str, reference.Draws]:
    """What each player sees, from the batch and from what the step draws with this key; every player but Q has reals of its own."""
    drawn = coco_gan.draw_step(config, None, batch, jax.random.fold_in(key, 0))
    np.testing.assert_allclose(drawn["coordinate"], reference.coordinate(np.asarray(batch["corner"]), 64, 32), atol=1e-6)
    real = np.asarray(batch["image"], np.float64) / 127.5 - 1.0
    inside = doubles(batch["corner"])
    seen = {}
    for record, player in enumerate(["D", "G", "D_beyond", "G_beyond"][: real.shape[1]]):
        suffix = player[1:]
        corner, alpha = doubles(drawn["corner" + suffix]), doubles(drawn["alpha" + suffix])
        seen[player] = reference.Draws(real[:, record], doubles(drawn["latents"]), inside, corner, alpha)
    if config.content_weight:
        seen["Q"] = seen["D"]
    return seen


def decided_by_rounding(result, after) -> dict[str, dict[str, np.ndarray]]:
    """What to add to the reference's movements so that both sides go the same way where the gradient is nothing but rounding.

    At beta1 = 0 a gradient of 1e-17 moves its array as far as one of 1. Such are: biases before a normalisation, and biases of units of
    the last block of the discriminator that no pixel switches off (reals and fakes cancel). The latter shift every later logit.
    """
    doubtful = {}
    for player, gradients in result.gradients.items():
        total = reference.norm(gradients)
        doubtful[player] = {name: np.abs(gradient) <= 1e-6 * total for name, gradient in gradients.items()}
    nudges = {}
    for player, masks in doubtful.items():
        # where two players move an array, the sum tells of one only if the other's part is known
        votes = {name: sum(other[name].astype(int) for other in doubtful.values() if name in other) for name in masks}
        nudges[player] = {name: np.where(mask & (votes[name] == 1), after[name] - result.arrays[name], 0.0) for name, mask in masks.items()}
    return nudges


def check(before, after, moments_after, result, info, precision):
    """The step's outcome against the reference's ``result``; all by TensorFlow name."""
    expected_info = {name: value for name, value in result.info.items() if name in info}
    reported = {name for name in info if name.startswith(("loss/", "gradient/", "spatial/", "penalty"))}
    assert reported <= set(expected_info)
    for name, expected in expected_info.items():
        # a Wasserstein estimate is a difference of two means that are many times larger
        assert float(info[name]) == pytest.approx(expected, rel=1e-4, abs=1e-4 if name.startswith("wasserstein") else 0.0), name

    certain: dict[str, np.ndarray] = {}
    for player, gradients in result.gradients.items():
        total = reference.norm(gradients)
        for name, gradient in gradients.items():
            size = np.abs(gradient)
            # the second moment is all that the optimiser keeps of a gradient; its root is sqrt(0.001) of its size after the first step;
            # the slack is that of test_coco_gan_golden.py
            slack = np.sqrt(0.001) * (2e-3 * size.max() + 1e-5 * total)
            moment, expected = np.sqrt(moments_after[player][name]), np.sqrt(result.nu[player][name])
            np.testing.assert_allclose(moment, expected, rtol=0, atol=slack, err_msg=f"second moment of {player}: {name}")
            certain[name] = certain.get(name, True) & (size > 3e-3 * size.max() + 1e-5 * total)

    for name, value in after.items():
        expected = result.arrays[name]
        if name in certain:
            known = certain[name]
            error = np.abs(value - expected)
            slack = SLACK[precision] * 4e-4 + 2.0**-22 * np.abs(value)  # the latter for the float32 that it is added to
            assert (error <= slack)[known].all(), f"{name}: wrong by up to {error[known].max()}"
            assert np.abs(value - before[name]).max() <= 1.5e-3, name  # two players, the larger rate, sqrt(2) at most in the second step
        else:
            # G moves second: what it leaves of the coordinate head comes from weights that D moved, some of them as rounding decided
            slack = (1e-4 if name.startswith("GD_") else 1e-5) * np.abs(expected).max()
            # so the bias of the hidden layer, up to 4e-4 either way; and this mean contains it
            slack += 2e-4 if name == "GD_spatial_prediction_head/bn1/moving_mean" else 0.0
            np.testing.assert_allclose(value, expected, rtol=0, atol=slack, err_msg=name)
    assert np.mean([known.mean() for known in certain.values()]) > 0.5


@pytest.mark.slow
def test_the_reference_is_the_published_code(arrays, variables):
    """One run of the published code: objectives, norms of all gradients, singular vectors and running statistics."""
    with jax.enable_x64(True):
        v = doubles(variables)
        corner = np.round((doubles(arrays["in/macro_coord_fake"]) + 1) / 2 * 32).astype(int)
        real = [image[top : top + 32, left : left + 32] for image, (top, left) in zip(arrays["in/real_images_u8"], corner, strict=True)]
        at = doubles(corner)
        draws = reference.Draws(np.stack(real) / 127.5 - 1.0, doubles(arrays["in/z"]), at, at, doubles(arrays["in/gp_alpha"]))
        sizes, weights = reference.Sizes(), reference.Weights(*doubles([10.0, 100.0, 0.0]))
        fake = reference.fakes_of(v, sizes, draws)
        np.testing.assert_allclose(fake, arrays["train/gen_macro"], atol=5e-5)
        for kind in "DG":
            (loss, (after, _)), gradients = reference.differentiate(kind, reference.owned(v, kind), v, sizes, weights, draws, fake)
            assert float(loss) == pytest.approx(float(arrays[f"loss/{kind.lower()}_loss"]), rel=1e-6)
            total = float(arrays[f"gradnorm_total_{kind.lower()}"])
            for name, gradient in gradients.items():
                expected = float(arrays[f"gradnorm_{kind.lower()}/{name}"])
                assert float(jnp.linalg.norm(gradient)) == pytest.approx(expected, rel=1e-5, abs=2e-6 * total), name
            for key, expected in arrays.items():
                name = key.split("/", 1)[-1]
                if key.startswith("after_") and not key.startswith("after_fake") and name in after:
                    np.testing.assert_allclose(after[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=key)


def in_double(tree):
    """Its floating-point leaves in float64."""
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def step_in_double(config):
    """The library's step with networks, objectives and updates in float64. It takes the draws in the batch's place, because with float64
    switched on the same key draws other numbers."""
    networks = coco_gan.Networks(config, dtype=jnp.float64)
    return functools.partial(coco_gan.shared_step, networks, coco_gan.make_players(networks), lambda drawn, key: drawn, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_step(case, variables):
    """Two steps; the reference takes the second from what the library left after the first, second moments included."""
    config = CASES[case]
    system = config.system()
    trained = import_variables(config, variables)
    state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(system.init, jax.random.key(0)))
    state = state._replace(params=trained.params, model=trained.model)
    step = jax.jit(system.step if case not in DOUBLE else step_in_double(config), compiler_options=QUICKLY)
    weights = reference.Weights(*doubles([config.gp_weight, config.spatial_weight, config.content_weight]))
    players: dict[str, tuple] = {}
    precision = "float64" if case in DOUBLE else "float32"
    for count in (1, 2):
        batch, key = random_batch(config, count), jax.random.key(count)
        if case in DOUBLE:
            drawn = coco_gan.draw_step(config, None, batch, jax.random.fold_in(key, 0))
            with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
                following, info = step(in_double(state), in_double(drawn), key)
        else:
            following, info = step(state, batch, key)
        draws = reference_draws(config, batch, key)
        before, after = by_name(state, variables), by_name(following, variables)
        whole = doubles(variables | before)  # the reference reads a content head even where nobody trains one
        nu = doubles({player: moments(state, player, names) for player, names in players.items()})
        with jax.enable_x64(True):
            first = reference.train_step(whole, nu, count, reference.Sizes(), weights, draws)
            nudges = decided_by_rounding(first, after)
            result = reference.train_step(whole, nu, count, reference.Sizes(), weights, draws, nudges)
        players = {player: tuple(gradients) for player, gradients in result.gradients.items()}
        assert set(players) == set(system.owns)
        check(before, after, {player: moments(following, player, names) for player, names in players.items()}, result, info, precision)
        state = following
