"""The doctor counts what crosses between devices, and says what fits."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import collectives, doctor, parallel
from jaxgan.data import pipeline


@pytest.fixture(scope="module")
def toy() -> Any:
    """The toy system of the loop's tests, as the module jaxgan.systems.toy."""
    spec = importlib.util.spec_from_file_location("jaxgan.systems.toy", Path(__file__).parent / "toy.py")
    module, opened = importlib.util.module_from_spec(spec), pipeline.open_source
    sys.modules["jaxgan.systems.toy"] = module
    spec.loader.exec_module(module)
    yield module
    pipeline.open_source = opened
    del sys.modules["jaxgan.systems.toy"]


def compiled(function, mesh, *arguments, out=None):
    """HLO text of a function of ShapeDtypeStructs ``(shape, dtype, spec)`` on a mesh."""
    structs = [jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec)) for shape, dtype, spec in arguments]
    return jax.jit(function, out_shardings=None if out is None else NamedSharding(mesh, out)).lower(*structs).compile().as_text()


def shard_mapped(body, mesh, out):
    return jax.shard_map(body, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=out, check_vma=False)


P = PartitionSpec


def test_a_mean_over_the_batch_is_one_sum_of_its_size():
    mesh = parallel.make_mesh((8, 1))
    found = collectives.read(compiled(lambda x: x.sum(0), mesh, ((16, 33), jnp.float32, P("data")), out=P()))
    assert [(one.kind, one.bytes, one.shape, one.dtype, one.group, one.times) for one in found] == [("all-reduce", 132, (33,), "f32", 8, 1)]
    assert "reduce_sum" in found[0].origin


@pytest.mark.parametrize(
    "body, out, kind, size, group",
    [
        (lambda x: jax.lax.all_gather(x, "data"), P(), "all-gather", 16 * 6 * 4, 4),
        (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), P("data"), "collective-permute", 4 * 6 * 4, 4),
        (lambda x: jax.lax.all_to_all(x, "data", 0, 1), P("data"), "all-to-all", 4 * 6 * 4, 4),
        (lambda x: jax.lax.psum_scatter(x, "data"), P("data"), "reduce-scatter", 4 * 6 * 4, 4),
        (lambda x: jax.lax.psum(x.astype(jnp.int8), "data"), P(), "all-reduce", None, 4),
    ],
)
def test_each_kind_is_counted_with_its_bytes(body, out, kind, size, group):
    mesh = parallel.make_mesh((4, 1), jax.devices()[:4])
    found = collectives.read(compiled(shard_mapped(body, mesh, out), mesh, ((16, 6), jnp.float32, P("data"))))
    assert {one.kind for one in found} == {kind}
    assert sum(one.bytes for one in found) == size or size is None
    assert all(one.group == group for one in found)


def test_what_a_loop_moves_counts_once_for_each_round():
    mesh = parallel.make_mesh((8, 1))

    def body(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jax.lax.psum(y, "data") * 0.1, x)

    found = collectives.read(compiled(shard_mapped(body, mesh, P("data")), mesh, ((8, 7), jnp.float32, P("data"))))
    assert collectives.totals(found) == {"all-reduce": (5, 5 * 7 * 4)}


def test_one_device_moves_nothing():
    mesh = parallel.make_mesh((1, 1), jax.devices()[:1])
    assert collectives.read(compiled(lambda x: x.sum(0), mesh, ((16, 3), jnp.float32, P("data")), out=P())) == []


# Written by hand after the grammar of HLO text: asynchronous pairs, tuples with index comments, the three notations of groups.
ASYNCHRONOUS = """HloModule jit_step, is_scheduled=true

%body.1 (p.0: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p.0 = (s32[], f32[4]{0}) parameter(0)
  %cp = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=7, source_target_pairs={{0,1},{1,0}}
  %cp.done = bf16[4,8]{1,0} collective-permute-done(%cp)
  ROOT %t = (s32[], f32[4]{0}) tuple(%a, %b)
}

ENTRY %main.9 (x: f32[4,64]) -> f32[64] {
  %ag = (f32[4,64]{1,0:T(8,128)}, f32[64,64]{1,0:T(8,128)S(1)}) all-gather-start(%x), replica_groups=[2,16]<=[32], dimensions={0}
  %ag.done = f32[64,64]{1,0:T(8,128)} all-gather-done(%ag), metadata={op_name="jit(step)/gather"}
  %ar = (f32[3,3,8,16]{3,2,1,0:T(8,128)}, /*index=1*/f32[]{:T(128)}) all-reduce(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %g.0 = f32[3,3,8,16]{3,2,1,0} get-tuple-element(%ar), index=0, metadata={op_name="jit(step)/transpose(jvp())/conv"}
  %g.1 = f32[]{:T(128)} get-tuple-element(%ar), index=1, metadata={op_name="jit(step)/loss"}
  %ars = f32[100]{0} all-reduce-start(%c), replica_groups=mesh['a'=16,'b'=2,'c'=4] {'a','c'}, to_apply=%add, metadata={op_name="stats"}
  %ars.done = f32[100]{0} all-reduce-done(%ars)
  %f = f32[100]{0} fusion(%ars.done), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/all-reduce(not this)"}
  %w = (s32[], f32[4]{0}) while(%init), condition=%cond, body=%body.1, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %r = f32[64]{0} copy(%f)
}
"""


def test_asynchronous_pairs_tuples_and_every_notation_of_groups():
    found = {(one.kind, one.bytes, one.shape, one.group, one.times, one.origin) for one in collectives.read(ASYNCHRONOUS)}
    assert found == {
        ("collective-permute", 3 * 4 * 8 * 2, (4, 8), 2, 3, ""),
        ("all-gather", 64 * 64 * 4, (64, 64), 16, 1, ""),
        ("all-reduce", 3 * 3 * 8 * 16 * 4, (3, 3, 8, 16), 4, 1, "jit(step)/transpose(jvp())/conv"),
        ("all-reduce", 4, (), 4, 1, "jit(step)/loss"),
        ("all-reduce", 400, (100,), 64, 1, "stats"),
    }


def test_purposes_are_told_apart():
    def one(kind, *shape):
        return collectives.Collective(kind, 0, shape, "f32", 8, 1, "")

    known = {(3, 3, 64, 64), (128, 1)}
    assert collectives.purpose(one("all-reduce", 3, 3, 64, 64), known) == "gradients"
    assert collectives.purpose(one("all-reduce", 64, 3, 64, 3), known) == "gradients"
    assert collectives.purpose(one("all-reduce", 64), known) == collectives.purpose(one("all-reduce", 2, 64), known) == "statistics"
    assert collectives.purpose(one("all-reduce"), known) == collectives.purpose(one("all-reduce", 1, 1), known) == "metrics"
    assert collectives.purpose(one("all-reduce", 8, 16, 16, 64), known) == "samples"
    assert collectives.purpose(one("all-gather", 64), known) == "samples"
    phase = one("all-reduce", 2, 2, 64, 64)
    assert collectives.purpose(phase, known) == "samples"
    assert collectives.purpose(phase._replace(origin="jit(step)/transpose(jvp(G))/conv_general_dilated"), known) == "gradients"
    assert collectives.purpose(phase._replace(shape=(8, 16, 64, 64), origin="transpose(x)/conv_general_dilated"), known) == "samples"


def test_training_step_of_the_loop_on_a_mesh_moves_sums_only(toy):
    result = doctor.measure(toy.experiment(), mesh=(4, 2))
    assert result["batch"] == 16 and result["mesh"] == [4, 2] and result["fits"] is None
    assert set(result["collectives"]) == {"all-reduce"} and "samples" not in result["purposes"]
    assert result["memory"]["total"] > 0 and result["flops"] > 0
    # The state's arrays are on every device, the images spread over all of them.
    state, batch = doctor.shapes(toy.system(toy.Config()), 3, 16, parallel.make_mesh((4, 2)))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) + 8 * 8 * 4 * 16 // 8
    assert result["memory"]["arguments"] == held
    text = doctor.render(result)
    assert "mesh (data 4, patch 2), samples over data and patch" in text and "all-reduce" in text
    json.dumps(result)


def test_batch_and_per_chip(toy):
    assert doctor.measure(toy.experiment(), per_chip=3)["batch"] == 24
    with pytest.raises(ValueError, match="not both"):
        doctor.measure(toy.experiment(), batch=8, per_chip=3)
    with pytest.raises(ValueError, match="batch 9 does not divide"):
        doctor.measure(toy.experiment(), batch=9)


def test_lowering_for_a_platform_that_is_not_here(toy):
    assert "lowers for cuda" in doctor.doctor(toy.experiment(), platform="cuda")
    with pytest.raises(ValueError, match="'gpu' is not one of"):
        doctor.doctor(toy.experiment(), platform="gpu")
    with pytest.raises(ValueError, match="not both"):
        doctor.doctor(toy.experiment(), platform="cuda", topology="v5e:4x4")


TOO_LARGE = "RESOURCE_EXHAUSTED: Ran out of memory "


@pytest.mark.parametrize(
    "message, figures",
    [
        (TOO_LARGE + "on HBM, the total memory required for HLO temporaries (74.65G) exceeds available HBM (15.75G).", (74.65, 15.75)),
        (TOO_LARGE + "in memory space hbm. Used 33.04G of 15.75G hbm. Exceeded hbm capacity by 17.29G.", (33.04, 15.75)),
        ("INTERNAL: something else (3G)", None),
    ],
)
def test_compilers_message_of_a_program_that_does_not_fit(message, figures):
    assert doctor.oversize(message) == figures


def test_report_on_this_machine_names_devices_cluster_and_extras(monkeypatch):
    monkeypatch.delenv("JAXGAN_COORDINATOR", raising=False)
    report = doctor.doctor()
    assert report.count("cpu ") >= 8 and "cluster     none" in report and f"jax {jax.__version__}" in report
    assert "pip install 'jaxgan[" in report or all(importlib.util.find_spec(module) for module, _ in doctor.EXTRAS.values())


def test_unknown_topologies_and_a_missing_libtpu_say_what_to_do(toy, monkeypatch):
    with pytest.raises(ValueError, match="'v5e-16' is not of the form"):
        doctor.measure(toy.experiment(), topology="v5e-16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'jaxgan\[tpu\]'"):
        doctor.measure(toy.experiment(), topology="v5e:4x4")


CODE = """
import sys, json, dataclasses
from jaxgan import configure, doctor
from jaxgan.systems import coco_gan
model = coco_gan.Config(full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
experiment = configure.Experiment(model, configure.Data(), configure.Run(batch=16))
print(json.dumps(doctor.measure(experiment, topology=sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu (500 MB, the extra `tpu`) is not installed")
def test_compiles_for_a_tpu_slice_without_a_tpu():
    def run(topology):
        return subprocess.run([sys.executable, "-c", CODE, topology], capture_output=True, text=True, env=dict(os.environ), timeout=900)

    done = run("v5e:4x4")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["devices"] == 16 and result["device_kind"] == "TPU v5 lite" and result["fits"] is True
    assert set(result["collectives"]) == {"all-reduce"} and "samples" not in result["purposes"]
    refused = run("v5e:3x5")
    assert refused.returncode != 0 and "not known to libtpu" in refused.stderr


def test_question_to_the_compiling_process_carries_the_whole_experiment(toy, monkeypatch):
    seen = {}

    def run(command, **options):
        seen.update(json.loads(Path(command[-2]).read_text()), environment=options["env"])
        Path(command[-1]).write_text(json.dumps({"error": "no such chip", "kind": "ValueError"}))
        return subprocess.CompletedProcess(command, 0, "", "noise")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    experiment = dataclasses.replace(toy.experiment(), model=toy.Config(width=5))
    with pytest.raises(ValueError, match="^no such chip$"):
        doctor.measure(experiment, topology="v6e:4x4", per_chip=2)
    assert seen["experiment"]["model"]["width"] == 5 and (seen["topology"], seen["per_chip"]) == ("v6e:4x4", 2)
    assert seen["environment"]["TPU_SKIP_MDS_QUERY"] == "1"
    assert seen["mesh"] is None
