"""StyleGAN's training against what the original code computed: the growing schedule, its input processing, and two short trainings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import stylegan as nets
from jaxgan.nets import stylegan_variables
from jaxgan.play import half_life_decay
from jaxgan.system import State
from jaxgan.systems import growing, stylegan, stylegan_schedule
from jaxgan.systems.stylegan import Config
from jaxgan.weights.stylegan_files import read_stylegan


def nhwc(array):
    return np.moveaxis(array, -3, -1)


@pytest.fixture(scope="module")
def reference(shared):
    def read(name):
        with np.load(shared / "golden" / f"stylegan_{name}.npz") as file:
            return dict(file)

    return read


def test_the_schedule_of_1024_px_on_eight_devices(reference):
    golden = reference("data_schedule")
    for kimg, row in zip(golden["sched_kimg"], golden["sched"], strict=True):
        phase = [phase for phase in growing.phases(1024, 8, 600.0, 600.0) if phase.begin <= kimg][-1]
        lod = float(phase.lod(float(kimg) - phase.begin))
        side = 1024 >> int(lod)
        tables = (stylegan_schedule.BATCHES[8], stylegan_schedule.RATES)
        found = [lod, side, *(growing.look_up(table, side) for table in tables)]
        np.testing.assert_allclose(found, row[:4], rtol=1e-6, err_msg=f"{kimg} kimg")


def test_reals_at_whole_and_fractional_levels_of_detail(reference):
    golden = reference("data_schedule")
    data = nhwc(golden["uint8"])
    for lod in ("0.0", "0.3", "1.0", "1.6"):
        level, fade = int(float(lod)), float(lod) % 1
        found = jax.jit(growing.process_reals)(data, jnp.float32(fade) if fade else None)
        found = np.asarray(found).repeat(1 << level, 1).repeat(1 << level, 2)  # there every image is enlarged to full size
        np.testing.assert_allclose(found, nhwc(golden[f"lod_{lod}"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("train", marks=pytest.mark.slow), "train_fade"])
def test_a_short_training(reference, shared, name):
    golden = reference(name)
    networks = read_stylegan(shared / "golden" / f"stylegan_{name}_init.pkl")
    G, Gs = (stylegan_variables.read_generator(network.all_variables()) for network in (networks.G, networks.Gs))
    D = stylegan_variables.read_discriminator(networks.D.all_variables())
    lod, size = float(golden["lod"]), golden["reals"].shape[1]
    config = Config(
        resolution=16,
        fmap_base=32 * G.network.widths[0],
        fmap_max=G.network.widths[0],
        latent_size=16,
        w_size=16,
        mapping_width=16,
        mapping_layers=3,
        start=16,
        rates=((4, float(golden["lr"])),),
    )
    assert config.generator() == G.network and config.discriminator() == D.network
    assert half_life_decay(size, config.ema) == pytest.approx(float(golden["ema_beta"]), rel=1e-6)
    step = stylegan.make_step(config, 0, lambda step: jnp.float32(lod), lod > 0, given=True)
    params = {"G": G.params, "D": D.params}
    state = config.system().init(jax.random.key(0))
    model = {"G": {**G.state, "lod": jnp.float32(lod)}, "D": {}}
    state = State(state.step, params, state.opt, model, {"G": Gs.params}, {})
    averages = []
    jitted = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})
    for i in range(len(golden["reals"])):
        batch = {"image": jnp.asarray(nhwc(golden["reals"][i])), "z_D": golden["z_d"][i], "z_G": golden["z_g"][i]}
        # D's own pass moves the average of w first, by the codes of its latents
        codes = nets.map_latents(G.network, state.params["G"], jnp.asarray(golden["z_d"][i]))
        averages.append(0.995 * state.model["G"]["w_avg"] + 0.005 * codes.mean(0))
        state, info = jitted(state, batch, jax.random.key(i))
        averages.append(state.model["G"]["w_avg"])
        np.testing.assert_allclose(info["loss/D"], golden["D_loss"][i].astype(np.float64).mean(), rtol=1e-4)
        np.testing.assert_allclose(info["loss/G"], golden["G_loss"][i].astype(np.float64).mean(), rtol=1e-4)
        assert all(np.asarray(vector).all() for vector in info["finite"].values())
    np.testing.assert_allclose(averages, golden["dlatent_avg_after_D_and_G"], atol=1e-5)

    def final(prefix):
        return {key.removeprefix(prefix): array for key, array in golden.items() if key.startswith(prefix)}

    wanted = {
        "G": stylegan_variables.generator_params(G.network, final("final/G/")),
        "D": stylegan_variables.discriminator_params(D.network, final("final/D/")),
    }
    averaged = final("final/Gs/")

    def compare(found, expected):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=5e-5), found, expected)

    compare(state.params, wanted)
    compare(state.ema["G"], stylegan_variables.generator_params(G.network, averaged))
    compare(averages[-2], averaged["dlatent_avg"])  # copied between the two moves of the last step
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), wanted, params)
    assert min(moved["D"]["conv4"].values()) > 1e-3, "the comparison would notice a training that does nothing"
