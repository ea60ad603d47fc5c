"""A generator as a chain: it draws what the generator draws, goes on from any activation, and an edit changes what lies behind it."""

import functools
import math

import chain_toys
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import style_toy

from jaxgan import chains, configure, coords, dissection, generators
from jaxgan.nets import progan
from jaxgan.systems import coco_gan_sample
from jaxgan.weights import save_generator

FAMILIES = ("progan", "stylegan", "mobile_stylegan", "coco_gan")
N = 3


def chain_of(family):
    """(chain, function of latents: the images by the family's own means)."""
    if family == "progan":
        network, params, stats = chain_toys.progressive(clamp=False)
        return chains.of_progan(network, params, stats, "d"), lambda z: progan.synthesise(network, params, stats, z)
    if family == "coco_gan":
        config, params, model = chain_toys.coco()
        trained = coco_gan_sample.Trained({"G": params}, {"G": model})
        return chains.of_coco_gan(config, params, model, "d"), lambda z: coco_gan_sample.full_images(config, trained, z)
    toy = chain_toys.style_generator(family)
    return chains.of_style(toy), lambda codes: toy.synthesise(toy.arrays, codes, toy.noise(toy.arrays))


class Case:
    """A chain, latents of it, and what one compiled program makes of them: plainly, from kept activations, and with an edit."""

    def __init__(self, family):
        self.chain, self.own = chain_of(family)
        chain, names = self.chain, self.chain.names
        normal = np.random.default_rng(2).normal(size=(N, chain.normal_size)).astype(np.float32)
        self.starts = (names[0], chain.target, names[-2], names[-1])

        @functools.partial(jax.jit, compiler_options=chain_toys.COMPILER)
        def everything(arrays, normal):
            latents = chain.draw(arrays, normal)
            images, kept = chain.run(arrays, latents, keep=names)
            again = {name: chain.run(arrays, latents, start=(name, kept[name]))[0] for name in self.starts}
            edited = chain.run(arrays, latents, edits={chain.target: lambda x: 1 - x}, keep=names)
            by_hand, behind = chain.run(arrays, latents, start=(chain.target, 1 - kept[chain.target]), keep=names[-2:])
            return latents, images, kept, again, edited, by_hand, behind, self.own(latents)

        found = jax.device_get(everything(chain.arrays, normal))
        self.latents, self.images, self.kept, self.again, (self.edited, self.after), self.by_hand, self.behind, self.expected = found


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return Case(request.param)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_a_chain_draws_the_images_of_its_generator_from_any_activation(case):
    chain = case.chain
    assert case.images.shape == (N, *chain.image) and case.latents.shape == (N, *chain.latent) and chain.names[-1] == chains.OUTPUT
    close(case.images, case.expected)
    np.testing.assert_array_equal(case.kept[chains.OUTPUT], case.images)
    for name in case.starts:
        close(case.again[name], case.images)
    assert {name: found.shape[1:] for name, found in case.kept.items()} == chain.shapes
    assert chain.mean(chain.arrays).shape == chain.latent and chain.digest == "d"


def test_an_edit_changes_what_lies_behind_it_and_nothing_before(case):
    names, target = case.chain.names, case.chain.target
    for name in names[: names.index(target)]:
        np.testing.assert_array_equal(case.after[name], case.kept[name])
    close(case.after[target], 1 - case.kept[target])
    for name in names[names.index(target) + 1 :]:
        assert np.abs(case.after[name] - case.kept[name]).max((1, 2, 3)).min() > 1e-3 * np.abs(case.kept[name]).max()
    # the same by hand: the activation changed outside, the rest of the chain from there
    close(case.by_hand, case.edited)
    close(case.behind[names[-2]], case.after[names[-2]])


def test_gradients_reach_corrections_of_every_layer_and_the_latents(case):
    chain, names = case.chain, case.chain.names
    layers = (names[0], chain.target)
    weight = np.random.default_rng(3).normal(size=case.images.shape).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=chain_toys.COMPILER)
    def gradients(arrays, latents, corrections, kept):
        def value(latents, corrections):
            edits = {name: lambda x, d=d: x + d for name, d in corrections.items()}
            return (chain.run(arrays, latents, edits=edits)[0] * weight).sum()

        def from_target(activation):
            return (chain.run(arrays, latents, start=(chain.target, activation))[0] * weight).sum()

        to_latents, to_corrections = jax.grad(value, (0, 1))(latents, corrections)
        step = jax.tree.map(lambda d: 0.002 * jax.lax.rsqrt(jnp.square(d).sum()) * d, to_corrections)
        rise = value(latents, step) - value(latents, jax.tree.map(jnp.negative, step))
        slope = sum(2 * (step[name] * to_corrections[name]).sum() for name in layers)
        return to_latents, to_corrections, jax.grad(from_target)(kept), rise, slope

    nothing = {name: np.zeros_like(case.kept[name]) for name in layers}
    to_latents, to_corrections, expected, rise, slope = gradients(chain.arrays, case.latents, nothing, case.kept[chain.target])
    np.testing.assert_allclose(to_corrections[chain.target], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(rise, slope, rtol=0.03)
    assert all(np.abs(g).max((1, 2, 3)).min() > 0 for g in to_corrections.values()) and np.abs(to_latents).max() > 0


def tail_of_progan(params, x, units):
    """float64 numpy, by the specification: from layer 4 without ``units`` (pixel norm, doubling, convolution, scale, bias, LReLU 0.2)."""

    def normal(x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-8)

    x = np.array(x, np.float64)
    x[..., units] = 0
    for name in ("layer5", "layer6", "output"):
        kernel, bias = (np.asarray(params[name][leaf], np.float64) for leaf in ("kernel", "bias"))
        x = normal(x).repeat(2, 1).repeat(2, 2) if name == "layer5" else normal(x)
        taps, side = kernel.shape[0], x.shape[1]
        edge = taps // 2
        padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        y = sum(padded[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(taps) for j in range(taps))
        y = y * (math.sqrt(1 if name == "output" else 2) / (taps * math.sqrt(kernel.shape[2]))) + bias
        x = y if name == "output" else np.maximum(y, 0.2 * y)
    return np.clip(x, -1, 1)


def test_a_progressive_gan_without_units_is_the_formula_without_them():
    network, params, stats = chain_toys.progressive()
    chain = chains.of_progan(network, params, stats)
    normal = np.random.default_rng(4).normal(size=(N, 6)).astype(np.float32)

    @jax.jit
    def run(arrays):
        kept = chain.run(arrays, normal, keep=("layer4",))[1]["layer4"]
        edits = dissection.zero(chain, "layer4", [0, 5])
        return kept, chain.run(arrays, normal, edits=edits)[0], chain.run(arrays, None, start=("layer4", kept))[0]

    kept, without, plain = run(chain.arrays)
    assert chain.target == "layer4" and np.abs(plain - without).max() > 0.05
    np.testing.assert_allclose(without, tail_of_progan(params, kept, [0, 5]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain, tail_of_progan(params, kept, []), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"batch_norm": True, "scaling": "none", "pixel_norm": False}], ids=["published", "batch norm"])
def test_a_progressive_gan_that_still_grows_is_the_chain_of_its_level(changes):
    network, params, stats = chain_toys.progressive(growing=True, **changes)
    z = np.random.default_rng(7).normal(size=(2, 6)).astype(np.float32)
    for lod, last in ((1.0, "layer4"), (0.25, "layer4"), (1.5, "layer2")):
        chain = chains.of_progan(network, params, stats, lod=lod)
        assert chain.names[-2:] == (last, chains.OUTPUT) and chain.image == (16, 16, 3)
        found, kept = jax.jit(lambda arrays, chain=chain, last=last: chain.run(arrays, z, keep=(last,)))(chain.arrays)
        again = jax.jit(lambda arrays, x, chain=chain, last=last: chain.run(arrays, None, start=(last, x))[0])(chain.arrays, kept[last])
        close(found, jax.jit(lambda lod: progan.synthesise_at(network, params, stats, z, lod))(np.float32(lod)))
        close(again, found)


def test_a_layer_near_eight_pixels_is_the_target():
    def named(*sides, parts=(1, 1)):
        shapes = {f"layer{i}": (side, side, 3) for i, side in enumerate(sides)}
        return chains._target(tuple(shapes), shapes, parts)

    assert named(4, 4, 8, 8, 16) == "layer3" and named(4, 4) == "layer1" and named(16, 32) == "layer0"
    assert named(12, 24, 48, parts=(3, 3)) == "layer1"
    assert chain_of("mobile_stylegan")[0].target == "layer0_conv2"


def test_latents_of_a_coco_gan_are_uniform_and_its_edits_see_the_whole_image():
    config, params, model = chain_toys.coco()
    chain = chains.of_coco_gan(config, params, model)
    np.testing.assert_allclose(chain.draw(None, np.float32([[-2, 0, 1]])), [[math.erf(x / math.sqrt(2)) for x in (-2, 0, 1)]], rtol=1e-5)
    normal = np.random.default_rng(5).normal(size=(2, 6)).astype(np.float32)
    left = np.zeros((12, 8, 1), np.float32)
    left[:, :4] = 1

    @functools.partial(jax.jit, compiler_options=chain_toys.COMPILER)
    def halves(arrays):
        return chain.run(arrays, normal)[0], chain.run(arrays, normal, edits={"block_0": lambda x: x + left})[0]

    plain, changed = jax.device_get(halves(chain.arrays))
    assert np.abs(changed - plain)[:, :, :8].max((1, 2, 3)).min() > 1e-3  # the patches on the left
    np.testing.assert_allclose(changed[:, :, 8:], plain[:, :, 8:], atol=1e-6)  # patches do not mix


def test_a_generator_folder_is_opened_as_the_chain_of_its_family(tmp_path):
    opened = chains.open_chain(style_toy.write_folder(tmp_path / "style"))
    generator = generators.open_generator(tmp_path / "style")
    assert (opened.family, opened.digest, opened.image) == ("stylegan", generators.digest(generator), (16, 16, 3))
    assert opened.target == "layer03" and opened.latent == (6, 5)
    with pytest.raises(ValueError, match=r"the corner \(0, 0\) of a micro patch belongs to the family coco_gan"):
        chains.open_chain(tmp_path / "style", corner=(0, 0))
    with pytest.raises(ValueError, match="a run is of the family seeing, which is no chain of layers; those that are: progan, stylegan"):
        chains.chain(generator._replace(family="seeing"), "a run")
    config, params, model = chain_toys.coco()
    with pytest.raises(ValueError, match="a run holds no network G; its arrays are those of nothing"):
        chains.chain(generators.Generator("coco_gan", config, {}, None), "a run")
    tree = {"params": {"G": jax.tree.map(lambda a: 0 * a, params)}, "ema": {"G": params}, "model": {"G": model}}
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}
    save_generator(tmp_path / "coco", "coco_gan", configure.to_json(configure.Experiment(config))["model"], arrays, {})
    opened, expected = chains.open_chain(tmp_path / "coco"), chains.of_coco_gan(config, params, model)
    assert (opened.image, opened.target, len(opened.digest)) == ((24, 16, 3), "block_2", 64)
    jax.tree.map(np.testing.assert_array_equal, opened.arrays, expected.arrays)  # the averaged network


def test_one_micro_patch_is_a_chain_too_wherever_it_lies():
    config, params, model = chain_toys.coco()
    chain, geometry = chains.of_coco_gan(config, params, model, corner=(3, 5)), config.geometry()
    z = np.random.default_rng(6).uniform(-1, 1, (2, 6)).astype(np.float32)
    at = coords.coordinates(geometry, np.asarray([(3, 5)] * 2), geometry.micro)
    trained = coco_gan_sample.Trained({"G": params}, {"G": model})

    @functools.partial(jax.jit, compiler_options=chain_toys.COMPILER)
    def both(arrays):
        return chain.run(arrays, z)[0], coco_gan_sample.patches(config, trained, z, at)

    close(*both(chain.arrays))
    assert chain.shapes["input"] == (2, 2, 32) and chain.target == "block_2" and chain.image == (8, 8, 3)


def test_a_generator_trained_in_bfloat16_takes_float32_edits():
    config, params, model = chain_toys.coco(dtype="bfloat16")
    chain = chains.of_coco_gan(config, params, model, corner=(0, 0))
    z = np.zeros((2, 6), np.float32)
    edits = {"block_1": lambda x: x + jnp.ones(x.shape, jnp.float32)}
    images, kept = jax.eval_shape(lambda arrays: chain.run(arrays, z, edits=edits, keep=("block_1", "block_2")), chain.arrays)
    assert {images.dtype, *(activation.dtype for activation in kept.values())} == {jnp.float32.dtype}


@pytest.fixture(scope="module")
def style():
    return chain_of("stylegan")[0]


def test_what_does_not_fit_is_refused_by_the_layers_name(style):
    codes, activation = np.zeros((2, 6, 5), np.float32), np.zeros((2, 8, 8, 8), np.float32)

    def run(*arguments, **keywords):
        return style.run(style.arrays, *arguments, **keywords)

    for keywords in ({"keep": ("layer77",)}, {"edits": {"layer77": abs}}, {"start": ("layer77", activation)}):
        with pytest.raises(ValueError, match="no layer 'layer77': this generator has layer00, layer01, .*layer05, output"):
            run(codes, **keywords)
    with pytest.raises(ValueError, match="an edit of layer03 with a start at layer03: only what lies behind"):
        run(codes, start=("layer03", activation), edits={"layer03": abs})
    with pytest.raises(ValueError, match="keep layer02 with a start at layer03"):
        run(codes, start=("layer03", activation), keep=("layer02",))
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8, 8\) to start from: layer04 is \[N, 16, 16, 4\]"):
        run(codes, start=("layer04", activation))
    with pytest.raises(ValueError, match="3 latents for 2 activations of layer03"):
        run(np.zeros((3, 6, 5), np.float32), start=("layer03", activation))
    with pytest.raises(ValueError, match=r"latents of shape \(2, 5\): this generator takes \[N, 6, 5\]"):
        run(codes[:, 0])
    with pytest.raises(ValueError, match="no latents"):
        run(None, start=("layer03", activation))
    with pytest.raises(ValueError, match="keep is 'layer03': give a tuple"):
        run(codes, keep="layer03")
    with pytest.raises(ValueError, match=r"the edit of layer03 gives \(2, 8, 8\): it must keep the shape, \(2, 8, 8, 8\)"):
        jax.eval_shape(lambda: run(codes, edits={"layer03": lambda x: x[..., 0]}))
    with pytest.raises(ValueError, match="no layer 'r4': this generator has layer00"):
        chains.check_names(style, ["r4"])
