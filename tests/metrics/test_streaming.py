"""Sums in one pass, in shards, in two halves, and resumed from a file: the same metric."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxgan.metrics import frechet, kernel, prdc, streaming
from jaxgan.metrics.streaming import Moments, Rows

RNG = np.random.default_rng(11)
REAL = (RNG.normal(size=(203, 7)) @ RNG.normal(size=(7, 7)) + 20).astype(np.float32)
FAKE = (RNG.normal(size=(187, 7)) @ RNG.normal(size=(7, 7)) + 21).astype(np.float32)
PROTOCOL = {"features": "inception", "resize": "bicubic", "weights": "43309431", "size": (299, 299)}


def batches(n: int, size: int = 16) -> list[np.ndarray]:
    return np.array_split(np.arange(n), range(size, n, size))


def passes(kind, rows, folder) -> dict[str, dict]:
    """The same rows added in one call, in 8 shards, in two halves, and with a save and a restart half-way."""
    zero = kind.zero(rows.shape[1])

    def add(sums, index):
        return kind.add(sums, rows[index]) if kind is Moments else kind.add(sums, index, rows[index])

    def run(parts, sums=zero):
        for part in parts:
            sums = add(sums, part)
        return sums

    n = len(rows)
    shards = [run(batches_of) for batches_of in ([b[k::8] for b in batches(n)] for k in range(8))]
    merged = shards[3]
    for k in (0, 7, 1, 2, 6, 4, 5):
        merged = kind.merge(merged, shards[k])
    streaming.save(folder / "half.safetensors", run(batches(n)[:6]), PROTOCOL)
    resumed = streaming.load(folder / "half.safetensors", PROTOCOL)
    return {
        "one pass": run([np.arange(n)]),
        "batches": run(batches(n)),
        "8 shards": merged,
        "halves": kind.merge(run(batches(n)[:4]), run(batches(n)[4:][::-1])),
        "resumed": run(batches(n)[6:], resumed.sums),
    }


def test_moments_give_one_frechet_distance_however_they_were_added(tmp_path):
    expected = frechet.from_rows(REAL, FAKE)
    fakes = passes(Moments, FAKE, tmp_path)
    for name, real in passes(Moments, REAL, tmp_path).items():
        assert int(real["n"]) == 203, name
        np.testing.assert_allclose(frechet.from_sums(real, fakes[name])[:3], expected[:3], rtol=1e-6, err_msg=name)
        mean, covariance = Moments.mean_covariance(real)
        np.testing.assert_allclose(mean, REAL.astype(np.float64).mean(axis=0), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(covariance, np.cov(REAL.astype(np.float64).T), rtol=1e-9, atol=1e-9, err_msg=name)


def test_rows_read_back_bit_for_bit_so_that_kid_and_prdc_are_equal(tmp_path):
    for name, sums in passes(Rows, REAL, tmp_path).items():
        rows = Rows.read(sums)
        assert rows.dtype == np.float32 and rows.tobytes() == REAL.tobytes(), name
        np.testing.assert_array_equal(Rows.positions(sums), np.arange(203))
        assert kernel.kid(rows, FAKE, subsets=5, subset_size=50) == kernel.kid(REAL, FAKE, subsets=5, subset_size=50)
        assert prdc.prdc(rows, FAKE, 3) == prdc.prdc(REAL, FAKE, 3)


def test_moments_far_from_zero_keep_their_digits():
    # Sums of squares of 1e6 in float64 would leave 4 digits of a variance of 1.
    rows = RNG.normal(size=(1000, 3))
    sums = Moments.zero(3)
    for index in batches(1000, 7):
        sums = Moments.add(sums, rows[index] + 1e6)
    np.testing.assert_allclose(Moments.mean_covariance(sums)[1], np.cov(rows.T), rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_rows_in_any_blocks_and_order(sizes, random):
    n = sum(sizes)
    order = np.array(random.sample(range(n), n), np.int64)
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    sums, start = Rows.zero(2), 0
    for size in sizes:
        before, index = dict(sums), order[start : start + size]
        sums, start = Rows.add(sums, index, rows[index]), start + size
        assert before.keys() == Rows._joined(Rows._blocks(before)).keys()
    np.testing.assert_array_equal(Rows.read(sums), rows)
    assert len(sums) <= 2 * (np.log2(n + 1) + 2)  # few blocks, or every addition would copy a long list


def test_adding_leaves_the_sums_it_was_given_as_they_were():
    for kind, extra in ((Moments, ()), (Rows, (np.arange(10),))):
        sums = kind.add(kind.zero(7), *extra, REAL[:10])
        copies = {name: array.copy() for name, array in sums.items()}
        kind.add(sums, *(e + 10 for e in extra), REAL[10:20])
        kind.merge(sums, sums if kind is Moments else kind.add(kind.zero(7), np.arange(20, 25), REAL[20:25]))
        for name, array in copies.items():
            np.testing.assert_array_equal(sums[name], array)


def test_a_batch_added_again_counts_once_and_another_source_is_noticed():
    sums = Rows.add(Rows.add(Rows.zero(7), np.arange(10), REAL[:10]), np.arange(5, 15), REAL[5:15])
    np.testing.assert_array_equal(Rows.read(sums), REAL[:15])
    with pytest.raises(ValueError, match="position 3 was added twice with different rows"):
        Rows.read(Rows.add(sums, np.array([3]), FAKE[:1]))


def test_another_protocol_does_not_merge_or_load_and_the_field_is_named(tmp_path):
    file = tmp_path / "real.safetensors"
    streaming.save(file, Moments.add(Moments.zero(7), REAL), PROTOCOL)
    same = streaming.load(file, PROTOCOL)
    assert same.protocol == json.loads(json.dumps(PROTOCOL))
    assert streaming.merge_saved(same, same).sums["n"] == 406
    with pytest.raises(ValueError, match=r"real.safetensors: another protocol \(resize: 'area' here, 'bicubic' there\)"):
        streaming.load(file, {**PROTOCOL, "resize": "area"})
    with pytest.raises(ValueError, match=r"\(crop: 'centre' here, not stated there\)"):
        streaming.load(file, {**PROTOCOL, "crop": "centre"})
    with pytest.raises(ValueError, match="weights: '43309431' here, 'x' there"):
        streaming.merge_saved(same, same._replace(protocol={**same.protocol, "weights": "x"}))
    with pytest.raises(ValueError, match="moments and rows do not merge"):
        streaming.merge_saved(same, streaming.Saved(Rows.zero(7), same.protocol))


def test_wrong_files_and_sums_are_refused(tmp_path):
    from safetensors.numpy import save_file

    file = tmp_path / "x.safetensors"
    with pytest.raises(ValueError, match="choose a name with that ending"):
        streaming.save(tmp_path / "x.npz", Moments.zero(2), {})
    with pytest.raises(ValueError, match="neither moments"):
        streaming.save(file, {"weights": np.zeros(3)}, {})
    with pytest.raises(ValueError, match="protocol is not JSON"):
        streaming.save(file, Moments.zero(2), {"x": object()})
    assert not list(tmp_path.iterdir())
    save_file({"n": np.zeros(3, np.float32)}, file)
    with pytest.raises(ValueError, match="holds no protocol"):
        streaming.load(file)
    save_file({"n": np.zeros(3, np.float32)}, file, metadata={"protocol": "{}"})
    with pytest.raises(ValueError, match="neither moments"):
        streaming.load(file)
    bad = Moments.add(Moments.zero(2), np.ones((3, 2)))
    save_file({**bad, "mean": np.array([np.nan, 1.0])}, file, metadata={"protocol": "{}"})
    with pytest.raises(ValueError, match="not finite: mean"):
        streaming.load(file)
    save_file({**bad, "mean": np.zeros(3)}, file, metadata={"protocol": "{}"})
    with pytest.raises(ValueError, match=r"mean is float64 \(3,\), not float64 \(2,\)"):
        streaming.load(file)
    save_file({**Rows.zero(2), "index.1": np.zeros(3, np.int64)}, file, metadata={"protocol": "{}"})
    with pytest.raises(ValueError, match="rows.1 is missing"):
        streaming.load(file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="not an intact safetensors"):
        streaming.load(file)
    with pytest.raises(FileNotFoundError):
        streaming.load(tmp_path / "absent.safetensors")


def test_wrong_rows_are_named():
    sums = Moments.zero(3)
    with pytest.raises(ValueError, match=r"rows of the shape \(2, 4\) were added to sums of 3 columns"):
        Moments.add(sums, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="row 1 of the added rows holds NaN"):
        Moments.add(sums, np.array([[0, 0, 0], [0, np.nan, 0]]))
    with pytest.raises(ValueError, match="moments of 3 and of 4 columns do not merge"):
        Moments.merge(sums, Moments.zero(4))
    with pytest.raises(ValueError, match="at least 2"):
        Moments.mean_covariance(Moments.add(sums, np.zeros((1, 3))))
    with pytest.raises(ValueError, match="2 rows need as many positions"):
        Rows.add(Rows.zero(3), np.arange(3), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="2 rows need as many positions"):
        Rows.add(Rows.zero(3), np.array([0, -1]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="rows of 3 columns .* and of 4 .* do not merge"):
        Rows.merge(Rows.zero(3), Rows.zero(4))
