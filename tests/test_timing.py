"""Numbers about speed: what is counted, what is left out, and for which chips a share of the peak is given."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import pytest

from jaxgan import timing


def test_a_window_counts_work_and_not_pauses() -> None:
    now = [0.0]
    watch = timing.Stopwatch(clock=lambda: now[0])
    now[0] = 2.0
    watch.pause()
    now[0] = 100.0
    watch.go()
    now[0] = 102.0
    assert watch.window(40) == 10.0
    assert watch.window(0) is None, "no work, no rate"
    now[0] = 103.0
    assert watch.window(30) == 30.0
    now[0] = 104.0
    assert watch.window(500) == 500.0
    assert watch.median() == 30.0


def test_flops_of_a_product_are_two_per_multiplication() -> None:
    lowered = jax.jit(lambda a, b: a @ b).lower(jnp.zeros((16, 32)), jnp.zeros((32, 8)))
    assert timing.flops_of(lowered) == pytest.approx(2 * 16 * 32 * 8, rel=0.01)
    assert timing.flops_of(lowered.compile()) == pytest.approx(2 * 16 * 32 * 8, rel=0.01)
    assert timing.flops_of(jax.jit(lambda a: a).lower(jnp.zeros(3))) is None


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("cpu", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_are_known_by_what_the_device_calls_itself(kind: str, peak: float | None) -> None:
    assert timing.peak_flops(kind) == peak


def test_mfu_is_a_share_of_all_chips_and_none_for_unknown_ones() -> None:
    assert timing.mfu(275e12, 2.0, 4, "TPU v4") == pytest.approx(1 / 8)
    assert timing.mfu(1e12, 1.0, 1, "cpu") is None


def test_benchmark_leaves_the_warm_up_out_and_takes_the_median() -> None:
    calls = []

    def work() -> jax.Array:
        calls.append(time.perf_counter())
        time.sleep(0.2 if len(calls) <= 2 else 0.01)  # the first calls compile
        return jnp.zeros(())

    measured = timing.benchmark(work, windows=3, seconds=0.03)
    assert 0.009 < measured.seconds < 0.05 and len(measured.windows) == 3 and 1 <= measured.calls <= 3
    assert measured.cpu_seconds < measured.seconds, "sleeping takes no processor time"
    assert measured.peak_rss > 50e6
    with pytest.raises(ValueError, match="windows = 0"):
        timing.benchmark(work, windows=0)


def test_a_trace_window_is_checked() -> None:
    with pytest.raises(ValueError, match=r"trace \(3, 2\)"):
        timing.Trace("unused", (3, 2))
