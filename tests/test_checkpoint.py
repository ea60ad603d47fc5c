"""Checkpoints: what is read back is what was saved, or the step before it; never something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import checkpoint, parallel
from jaxgan.checkpoint import Checkpoints
from jaxgan.system import State

# Where one array cannot be read, orbax closes its event loop while other reads still come in; their threads then complain to nobody.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(seed: int, width: int = 5, frozen: float = 0.0) -> State:
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "G": {"fc": {"kernel": jax.random.normal(keys[0], (3, width)), "empty": jnp.zeros((0, 2))}},
        # One array that is large enough to be stored in a file of its own.
        "D": {"w": jax.random.normal(keys[1], (4,)).astype(jnp.bfloat16), "large": jax.random.normal(keys[1], (90, 90))},
    }
    opt = {"G": optax.adam(0.1).init({"G": params["G"]})}
    model = {"D": {"u": jax.random.normal(keys[2], (2, 2)), "seen": jnp.asarray(seed % 2 == 0)}}
    return State(jnp.asarray(seed, jnp.int32), params, opt, model, {}, {"vgg": jnp.full((2,), frozen)})


def same(first: State, second: State) -> bool:
    one, two = checkpoint.name_leaves(first), checkpoint.name_leaves(second)
    return one.keys() == two.keys() and all(
        np.asarray(one[name]).dtype == np.asarray(two[name]).dtype and np.array_equal(np.asarray(one[name]), np.asarray(two[name]))
        for name in one
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    saved = Checkpoints(folder)
    for step in (1, 2):
        saved.save(step, state(step), {"next_index": 10 * step}, {"kimg": step})
    saved.close()
    return folder


@pytest.fixture
def folder(two_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def test_restores_every_leaf_dtype_position_and_note(folder: Path) -> None:
    like = jax.eval_shape(lambda: state(0))._replace(frozen={"vgg": jnp.ones((2,))})
    found = Checkpoints(folder).restore(like)
    assert found.step == 2 and found.position == {"next_index": 20} and found.note == {"kimg": 2}
    assert same(found.state, state(2))
    assert found.state.frozen is like.frozen, "frozen trees are not saved; they stay what the caller gave"


def test_a_relative_folder_is_taken_from_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved = Checkpoints("runs/here/checkpoints")
    saved.save(1, state(1), {})
    saved.close()
    like = jax.eval_shape(lambda: state(0))._replace(frozen={"vgg": jnp.ones((2,))})
    assert Checkpoints("runs/here/checkpoints").restore(like).step == 1
    assert checkpoint.load_networks("runs/here/checkpoints")[0] == 1
    assert (tmp_path / "runs/here/checkpoints/1").is_dir()


def test_nothing_there_is_none_and_makes_no_folder(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").restore(state(0)) is None
    assert not (tmp_path / "none").exists()


def test_keeps_the_newest(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2, 3, 4):
        saved.save(step, state(step), {})
    saved.close()
    assert saved.steps() == [3, 4]


def test_the_next_step_may_reuse_the_buffers_while_the_save_is_running(tmp_path: Path) -> None:
    saved, first = Checkpoints(tmp_path / "checkpoints"), state(1)
    expected = jax.tree.map(np.array, first._replace(frozen={}))
    saved.save(1, first, {})
    spoil = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 if leaf.dtype != bool else ~leaf, tree), donate_argnums=0)
    jax.block_until_ready(spoil(first._replace(frozen={})))
    saved.close()
    assert same(saved.restore(jax.eval_shape(lambda: state(0))).state, expected)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_no_damage_to_any_file_gives_wrong_values(folder: Path, tmp_path: Path, damage: str) -> None:
    like, fell_back = jax.eval_shape(lambda: state(0)), []
    names = sorted(str(path.relative_to(folder)) for path in (folder / "2").rglob("*") if path.is_file())
    for number, name in enumerate(names):
        copy = Path(shutil.copytree(folder, tmp_path / str(number) / "checkpoints"))
        path = copy / name
        content = path.read_bytes()
        middle = len(content) // 2
        if damage == "delete":
            path.unlink()
        else:
            flipped = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
            path.write_bytes(content[:middle] + (flipped + content[middle + 64 :] if damage == "flip" else b""))
        said: list[str] = []
        saved = Checkpoints(copy, say=said.append)
        found = saved.restore(like)
        assert same(found.state, state(found.step)), (name, "was restored with wrong values")
        if found.step == 1:
            fell_back.append(name)
            assert len(said) == 1 and "checkpoint 2 is damaged" in said[0] and "step 1" in said[0]
            assert saved.steps() == [1] and len(list((copy.parent / "checkpoints_damaged").iterdir())) == 1
        saved.save(3, state(3), {})
        saved.close()
        assert same(Checkpoints(copy).restore(like).state, state(3)), (name, "the next save does not work")
    largest = max(names, key=lambda name: (folder / name).stat().st_size)
    assert largest.startswith("2/arrays/") and largest in fell_back and "2/manifest/metadata" in fell_back


def test_wrong_values_that_the_storage_does_not_notice_name_the_leaf(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = iter(range(10**6))
    true = checkpoint.checksum

    def checksum(array: np.ndarray) -> str:
        return "0" * 32 if next(sums) == 3 else true(array)

    expected = sorted(checkpoint.name_leaves(state(0)))
    monkeypatch.setattr(checkpoint, "checksum", checksum)
    said: list[str] = []
    found = Checkpoints(folder, say=said.append).restore(jax.eval_shape(lambda: state(0)))
    assert found.step == 1 and any(f"leaf {name} does not match its checksum" in said[0] for name in expected)


def test_checksum_sees_one_bit_the_dtype_and_the_shape() -> None:
    array = np.arange(6, dtype=np.float32)
    flipped = array.copy()
    flipped.view(np.uint32)[3] ^= 1
    sums = {checkpoint.checksum(a) for a in (array, flipped, array.view(np.int32), array.reshape(2, 3), array[:5])}
    assert len(sums) == 5
    assert checkpoint.checksum(np.asfortranarray(array.reshape(2, 3))) == checkpoint.checksum(array.reshape(2, 3))


def test_the_next_save_works_after_a_fall_back(folder: Path) -> None:
    (folder / "2" / "manifest" / "metadata").unlink()
    saved = Checkpoints(folder, say=lambda text: None)
    assert saved.restore(jax.eval_shape(lambda: state(0))).step == 1
    saved.save(2, state(22), {"next_index": 5})
    saved.close()
    found = saved.restore(jax.eval_shape(lambda: state(0)))
    assert found.step == 2 and same(found.state, state(22))


def test_no_intact_step_is_an_error_that_changes_nothing(folder: Path) -> None:
    for step in ("1", "2"):
        (folder / step / "manifest" / "metadata").write_text("{")
    before = sorted(str(path) for path in folder.parent.rglob("*"))
    with pytest.raises(ValueError, match=r"no checkpoint in .* is intact \(step 2: .*step 1: "):
        Checkpoints(folder).restore(state(0))
    assert sorted(str(path) for path in folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: state(0, width=6), r"opt/G/0/mu/G/fc/kernel is \[3, 5\] float32 in it and \[3, 6\] float32 in this run"),
        (lambda: state(0)._replace(ema={"G": jnp.zeros((2,))}), r"ema/G is absent in it and \[2\] float32 in this run"),
        (lambda: state(0)._replace(model={}), r"model/D/seen is \[\] bool in it and absent in this run"),
    ],
)
def test_another_configuration_names_the_leaf_and_both_shapes(folder: Path, other, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Checkpoints(folder).restore(jax.eval_shape(other))
    assert "choose a new workdir" in str(error.value)
    assert Checkpoints(folder).steps() == [1, 2]


@pytest.mark.parametrize("shape", [(8, 1), (2, 2), (1, 1)])
def test_restores_onto_another_number_of_devices(folder: Path, shape: tuple[int, int]) -> None:
    mesh = parallel.make_mesh(shape, devices=jax.devices()[: shape[0] * shape[1]])
    found = Checkpoints(folder).restore(jax.eval_shape(lambda: state(0)), mesh)
    leaf = found.state.params["G"]["fc"]["kernel"]
    assert len(leaf.sharding.device_set) == shape[0] * shape[1] and leaf.is_fully_replicated
    assert same(found.state, state(2))


def test_networks_alone_can_be_read_and_put_into_a_fresh_state(folder: Path) -> None:
    step, arrays = checkpoint.load_networks(folder)
    assert step == 2 and {name.split("/")[0] for name in arrays} == {"params", "model"}
    fresh = state(7)._replace(ema={"G": jax.tree.map(jnp.zeros_like, state(7).params["G"])})
    filled = checkpoint.fill(fresh, arrays)
    assert np.array_equal(filled.params["G"]["fc"]["kernel"], state(2).params["G"]["fc"]["kernel"])
    assert np.array_equal(filled.ema["G"]["fc"]["kernel"], state(2).params["G"]["fc"]["kernel"]), "the average begins at the parameters"
    assert filled.step == 7 and filled.opt is not None
    with pytest.raises(ValueError, match=r"params/G/fc/kernel is \[3, 5\] there and \[3, 6\] here"):
        checkpoint.fill(state(7, width=6), arrays)
    with pytest.raises(ValueError, match="nothing was saved there yet"):
        checkpoint.load_networks(folder / "none")


def test_a_save_that_fails_in_the_background_is_said_and_hurts_no_earlier_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Checkpoints(folder)
    saved.save(3, state(3), {})
    saved.wait()
    monkeypatch.setattr(saved._manager, "check_for_errors", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="no checkpoint was written.*No space left on device.*Free some space"):
        saved.wait()
    assert Checkpoints(folder).restore(jax.eval_shape(lambda: state(0))).step == 3
