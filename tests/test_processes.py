"""Two processes with four devices each compute what one process with eight does, agree, save together and stop together."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import parallel

ROOT = Path(__file__).resolve().parent.parent


def step(weights: jax.Array, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """One gradient step of a linear map behind a normalisation over the whole batch: wrong where a mean is over one process only."""

    def loss(weights: jax.Array) -> jax.Array:
        x = parallel.constrain(batch["x"] @ weights, "data", "patch")
        x = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + 1e-3)
        return jnp.mean(jnp.square(x - batch["y"]))

    value, gradient = jax.value_and_grad(loss)(weights)
    return weights - 0.1 * gradient, value


def samples(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {"x": rng.normal(size=(batch, 6)).astype(np.float32), "y": rng.normal(size=(batch, 3)).astype(np.float32)}


def run_step(mesh: jax.sharding.Mesh, batch: int) -> tuple[np.ndarray, float]:
    share = batch // jax.process_count()
    first = jax.process_index() * share
    whole = parallel.global_batch({name: array[first : first + share] for name, array in samples(batch).items()}, mesh, batch)
    weights = parallel.replicate(np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3), mesh)
    with jax.set_mesh(mesh):
        weights, value = jax.jit(step, out_shardings=jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))(weights, whole)
    return np.asarray(weights), float(value)


def worker(folder: str) -> dict[str, Any]:
    """What each of the two processes does."""
    from jaxgan.checkpoint import Checkpoints
    from jaxgan.system import State

    said = parallel.start()
    assert parallel.start() == said, "starting twice changed something"
    me = jax.process_index()
    found: dict[str, Any] = {"said": said, "devices": [jax.local_device_count(), jax.device_count()], "main": parallel.is_main()}
    found["steps"] = {}
    for shape, batch in (((0, 1), 16), ((0, 2), 12)):
        weights, value = run_step(parallel.make_mesh(shape), batch)
        found["steps"][f"{shape} {batch}"] = [weights.tolist(), value]
    try:
        parallel.make_mesh((1, 8))
    except ValueError as error:
        found["refused"] = str(error)
    found["agree"] = [parallel.agree(False), parallel.agree(me == 1), parallel.agree(True)]
    mesh = parallel.make_mesh((0, 1))
    state = State(np.int32(7), {"G": {"w": np.arange(5, dtype=np.float32)}}, {}, {}, {}, {})
    with_mesh = parallel.replicate(state, mesh)
    saved = Checkpoints(Path(folder) / "checkpoints")
    saved.save(7, with_mesh, {"position": 100 + me}, {"kimg": 1.5})
    saved.wait()
    back = saved.restore(with_mesh, mesh)
    saved.close()
    found["restored"] = [back.step, back.position, back.note, np.asarray(back.state.params["G"]["w"]).tolist()]
    return found


def start(command: list[str], count: int = 2) -> list[subprocess.Popen]:
    """The same command in several processes of four devices each, joined on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    environment |= {"JAXGAN_COORDINATOR": f"127.0.0.1:{port}", "JAXGAN_PROCESSES": str(count)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment | {"JAXGAN_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes: list[subprocess.Popen], seconds: float = 300.0) -> list[str]:
    """Their outputs, after all have ended with status 0; none outlives the test."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    outputs = finish(start([__file__, str(tmp_path_factory.mktemp("pair"))]))
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_both_join_and_say_so(pair: list[dict[str, Any]]) -> None:
    for index, found in enumerate(pair):
        assert re.match(rf"Process {index} of 2, jax.distributed started: JAXGAN_COORDINATOR=127.0.0.1:\d+", found["said"])
        assert found["devices"] == [4, 8] and found["main"] is (index == 0)


@pytest.mark.parametrize("shape, batch", [((0, 1), 16), ((0, 2), 12)])
def test_a_step_equals_that_of_one_process(pair: list[dict[str, Any]], shape: tuple[int, int], batch: int) -> None:
    weights, value = run_step(parallel.make_mesh((1, 1), jax.devices()[:1]), batch)
    for found in pair:
        theirs, their_value = found["steps"][f"{shape} {batch}"]
        np.testing.assert_allclose(theirs, weights, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(their_value, value, rtol=1e-5)


def test_a_sample_is_not_split_over_two_processes(pair: list[dict[str, Any]]) -> None:
    assert all("two processes, each with 4 devices" in found["refused"] for found in pair)


def test_what_one_process_flags_all_know(pair: list[dict[str, Any]]) -> None:
    assert [found["agree"] for found in pair] == [[False, True, True]] * 2


def test_a_checkpoint_of_both_gives_each_its_own_data_position(pair: list[dict[str, Any]]) -> None:
    for index, found in enumerate(pair):
        assert found["restored"] == [7, {"position": 100 + index}, {"kimg": 1.5}, [0, 1, 2, 3, 4]]


@pytest.mark.slow
def test_sigterm_to_one_stops_both_at_one_step_and_the_same_command_resumes(tmp_path: Path) -> None:
    workdir, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    command = [str(ROOT / "tests" / "toy.py"), str(workdir), json.dumps({"kimg": 16 * 60 / 1000, "log_every": 1})]
    os.environ["TOY_SECONDS"] = "0.05"
    try:
        processes = start(command)
    finally:
        del os.environ["TOY_SECONDS"]
    end = time.monotonic() + 200
    while not (log.exists() and log.read_text().count("\n") >= 3):
        if any(process.poll() is not None for process in processes) or time.monotonic() > end:
            pytest.fail("\n".join(finish(processes, 1)))
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    stopped = [re.search(r"status (\w+) at (\d+)", output) for output in finish(processes)]
    assert stopped[0] and stopped[1] and stopped[0].groups() == stopped[1].groups()
    status, at = stopped[0].group(1), int(stopped[0].group(2))
    assert status == "stopped" and 3 <= at < 60
    assert (workdir / "checkpoints" / str(at)).is_dir()
    outputs = finish(start(command))
    assert all("status finished at 60" in output for output in outputs) and f"Resumed at step {at}" in outputs[0]
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 61))


if __name__ == "__main__":
    print(json.dumps(worker(sys.argv[1])))
