"""The mesh, where samples lie, and which start-up is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxgan import parallel

CLUSTER = ["JAXGAN_COORDINATOR", "JAXGAN_PROCESSES", "JAXGAN_PROCESS_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID"]
CLUSTER += ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"]


@pytest.fixture
def alone(monkeypatch):
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(parallel.glob, "glob", lambda pattern: [])
    return monkeypatch


def pod(processes: int, local: int) -> list[SimpleNamespace]:
    """Stand-ins for the devices of several hosts, in an order that interleaves the hosts as TPU slices do."""
    return [SimpleNamespace(id=i * processes + p, process_index=p) for i in range(local) for p in range(processes)]


def test_zero_takes_all_devices_that_are_left():
    assert dict(parallel.make_mesh((0, 1)).shape) == {"data": 8, "patch": 1}
    assert dict(parallel.make_mesh((0, 2)).shape) == {"data": 4, "patch": 2}
    assert dict(parallel.make_mesh((2, 0)).shape) == {"data": 2, "patch": 4}
    assert dict(parallel.make_mesh((0, 1), jax.devices()[:1]).shape) == {"data": 1, "patch": 1}


@pytest.mark.parametrize("shape", [(3, 2), (0, 3), (2, 2), (16, 1), (4, 4)])
def test_mesh_that_leaves_devices_out_is_refused_with_shapes_that_fit(shape):
    with pytest.raises(ValueError, match=r"8 devices present.*\(8, 1\), \(4, 2\)"):
        parallel.make_mesh(shape)


@pytest.mark.parametrize("shape", [(0, 0), (-1, 2), (8,)])
def test_malformed_mesh_is_refused(shape):
    with pytest.raises(ValueError, match="two numbers"):
        parallel.make_mesh(shape)


def test_each_process_holds_consecutive_samples_whole(monkeypatch):
    grids = []
    monkeypatch.setattr(parallel, "Mesh", lambda grid, axes, axis_types: grids.append(grid))
    parallel.make_mesh((0, 2), pod(processes=4, local=4))
    assert [[device.process_index for device in row] for row in grids[0]] == [[p, p] for p in range(4) for _ in range(2)]
    with pytest.raises(ValueError, match="two processes.*divides 4"):
        parallel.make_mesh((0, 8), pod(processes=4, local=4))


def test_batch_that_does_not_divide_names_the_nearest_that_do():
    mesh = parallel.make_mesh((4, 2))
    parallel.check_batch(12, mesh)
    with pytest.raises(ValueError, match="batch 10 .* 4 devices .* 8 or 12"):
        parallel.check_batch(10, mesh)
    with pytest.raises(ValueError, match="batch 3 .*use 4,"):
        parallel.check_batch(3, mesh)


def test_samples_use_all_devices_where_they_divide():
    mesh = parallel.make_mesh((4, 2))
    assert parallel.sample_axes(16, mesh) == ("data", "patch")
    assert parallel.sample_axes(12, mesh) == ("data",)


@pytest.mark.parametrize("batch, rows", [(16, 2), (12, 3)])
def test_global_batch_keeps_the_order_of_samples(batch, rows):
    mesh = parallel.make_mesh((4, 2))
    local = {"image": np.arange(batch * 6, dtype=np.float32).reshape(batch, 2, 3), "label": np.arange(batch, dtype=np.int32)}
    whole = parallel.global_batch(local, mesh, batch)
    for name, array in local.items():
        np.testing.assert_array_equal(np.asarray(whole[name]), array)
        assert whole[name].addressable_shards[0].data.shape == (rows, *array.shape[1:])


def test_share_of_the_wrong_size_names_the_entry():
    with pytest.raises(ValueError, match="'label' has shape .*16 samples"):
        parallel.global_batch({"label": np.zeros(15, np.int32)}, parallel.make_mesh(), 16)


def test_replicate_keeps_values_and_types_on_every_device():
    tree = parallel.replicate({"w": np.arange(3, dtype=np.float32), "key": jax.random.key(3)}, parallel.make_mesh((4, 2)))
    assert len(tree["w"].addressable_shards) == 8 and tree["w"].is_fully_replicated
    np.testing.assert_array_equal(np.asarray(tree["w"]), [0, 1, 2])
    assert jax.random.bits(tree["key"]) == jax.random.bits(jax.random.key(3))


def test_constrain_places_the_first_axis_and_falls_back_to_what_divides():
    mesh = parallel.make_mesh((4, 2))

    @jax.jit
    def double(x):
        return parallel.constrain(x * 2, "data", "patch")

    with jax.set_mesh(mesh):
        assert double(np.ones((16, 3), np.float32)).sharding.spec == PartitionSpec(("data", "patch"))
        assert double(np.ones((4, 3), np.float32)).sharding.spec == PartitionSpec("data")
        assert double(np.ones((3, 3), np.float32)).sharding.is_fully_replicated


def test_constrain_changes_nothing_without_a_mesh_or_inside_manual_axes():
    x = np.arange(48, dtype=np.float32).reshape(8, 6)

    def double(x):
        return parallel.constrain(x * 2, "data", "patch")

    np.testing.assert_array_equal(np.asarray(jax.jit(double)(x)), x * 2)
    np.testing.assert_array_equal(np.asarray(jax.pmap(double, axis_name="data")(x[:, None])), x[:, None] * 2)
    mesh = parallel.make_mesh((4, 2))
    with jax.set_mesh(mesh):
        mapped = jax.shard_map(double, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
        np.testing.assert_array_equal(np.asarray(jax.jit(mapped)(x)), x * 2)


def test_agree_and_main_in_one_process():
    assert parallel.agree(True) is True and parallel.agree(False) is False and parallel.is_main()


def test_single_process_starts_nothing_and_says_why(alone):
    assert parallel.start().startswith("One process: no JAXGAN_COORDINATOR")
    assert not jax.distributed.is_initialized()


def test_slurm_allocation_without_srun_stays_alone_and_names_srun(alone):
    alone.setenv("SLURM_NTASKS", "4")
    assert "srun" in parallel.start()
    alone.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert parallel.cluster()[0] == "slurm"


@pytest.mark.parametrize(
    "values, message",
    [
        (("127.0.0.1:1234", None, None), "JAXGAN_PROCESSES, JAXGAN_PROCESS_ID is not"),
        (("127.0.0.1", "2", "0"), "no port"),
        (("127.0.0.1:1234", "2", "2"), "from 0 to"),
        (("127.0.0.1:1234", "two", "0"), "from 0 to"),
    ],
)
def test_wrong_variables_are_refused_before_anything_starts(alone, values, message):
    for name, value in zip(CLUSTER, values, strict=False):
        if value is not None:
            alone.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        parallel.start()


def test_each_kind_of_cluster_is_started_with_its_own_arguments(alone):
    calls = []
    alone.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    alone.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert "jax.distributed started: mpirun" in parallel.start()
    alone.setenv("JAXGAN_COORDINATOR", "host:99")
    alone.setenv("JAXGAN_PROCESSES", "3")
    alone.setenv("JAXGAN_PROCESS_ID", "1")
    parallel.start()
    assert calls == [{"cluster_detection_method": "ompi"}, {"coordinator_address": "host:99", "num_processes": 3, "process_id": 1}]
