"""Batches: an exact position, a new permutation each epoch, shards that cover the set, randomness of each process's own."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxgan import configure
from jaxgan.data import pipeline

ROOT = Path(__file__).resolve().parents[2]


class Numbers:
    """Image i is one pixel of value i."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": np.full((1, 1, 1), index, np.uint8)}


def prepare(arrays, random):
    return {"number": arrays["image"].ravel(), "random": random.random(len(arrays["image"]))}


def take(iterator, count, name="number"):
    return np.concatenate([next(iterator)[name] for _ in range(count)])


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_each_epoch_is_another_permutation():
    iterator = pipeline.batches(Numbers(60), batch=5, records=2, prepare=prepare, seed=0)
    epochs = [take(iterator, 6) for _ in range(4)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(60))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = pipeline.batches(Numbers(60), batch=5, records=2, prepare=prepare, seed=1)
    assert tuple(take(other, 6)) != tuple(epochs[0])


class Drawn(Numbers):
    """Sample i is a pair: i, and a number drawn anew each time it is asked for."""

    def draw(self, index, random):
        return {"image": np.array([index, random.integers(256)], np.uint8).reshape(2, 1, 1, 1)}

    def __getitem__(self, index):
        return self.draw(index, np.random.default_rng(index))


def test_a_source_that_draws_draws_anew_in_every_epoch_and_the_same_after_a_resume():
    def pairs(arrays, random):
        return {"number": arrays["image"][:, 0].ravel(), "drawn": arrays["image"][:, 1].ravel()}

    iterator = pipeline.batches(Drawn(20), batch=5, records=1, prepare=pairs, seed=0)
    first = [next(iterator) for _ in range(4)]
    state = iterator.get_state()
    second = [next(iterator) for _ in range(4)]
    drawn = [{int(n): int(d) for b in epoch for n, d in zip(b["number"], b["drawn"], strict=True)} for epoch in (first, second)]
    assert set(drawn[0]) == set(drawn[1]) == set(range(20))
    assert sum(drawn[0][i] != drawn[1][i] for i in range(20)) > 15
    iterator.set_state(state)
    for expected in second:
        same(next(iterator), expected)
    shown = pipeline.preview(Drawn(20), 4)
    assert shown.shape == (4, 2, 1, 1, 1)
    np.testing.assert_array_equal(pipeline.side_by_side(shown)[:, 0, :, 0], shown[:, :, 0, 0, 0])


@pytest.mark.parametrize("count,processes", [(60, 2), (60, 3), (61, 2)])
def test_shards_are_disjoint_and_cover_the_set(count, processes):
    shards = []
    for process in range(processes):
        iterator = pipeline.batches(
            Numbers(count), batch=processes, records=1, prepare=prepare, seed=3, process_index=process, process_count=processes
        )
        shards.append(take(iterator, len(range(process, count, processes))))
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), np.arange(count))


def test_processes_and_batches_draw_different_random_numbers():
    randoms = []
    for process in range(2):
        iterator = pipeline.batches(Numbers(20), batch=8, records=1, prepare=prepare, seed=0, process_index=process, process_count=2)
        randoms += [next(iterator)["random"] for _ in range(12)]  # 12 batches of 4: past the end of an epoch
    assert len(np.unique(np.concatenate(randoms))) == 24 * 4


def test_a_batch_holds_the_records_of_its_samples():
    iterator = pipeline.batches(Numbers(20), batch=4, records=3, prepare=lambda arrays, _: arrays, seed=0)
    assert next(iterator)["image"].shape == (12, 1, 1, 1)


def test_resuming_gives_the_batches_that_would_have_come():
    def fresh():
        return pipeline.batches(Numbers(50), batch=4, records=2, prepare=prepare, seed=7)

    first = fresh()
    for _ in range(9):
        next(first)
    state = first.get_state()
    expected = [next(first) for _ in range(15)]
    second = fresh()
    second.set_state(state)
    for batch in expected:
        same(next(second), batch)
    second.set_state(state)  # and backwards
    same(next(second), expected[0])


@pytest.mark.slow
def test_resuming_is_exact_with_two_worker_processes(tmp_path):
    """In a script of its own, since worker processes start by running the main module again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "import numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_pipeline import Numbers, prepare\n"
        "from jaxgan.data import pipeline\n"
        "def fresh(workers): return pipeline.batches(Numbers(50), batch=4, records=2, prepare=prepare, seed=7, workers=workers)\n"
        "if __name__ == '__main__':\n"
        "    first = fresh(2)\n"
        "    for _ in range(9): next(first)\n"
        "    state = first.get_state()\n"
        "    expected = [next(first) for _ in range(15)]\n"
        "    second = fresh(2)\n"
        "    second.set_state(state)\n"
        "    resumed = [next(second) for _ in range(15)]\n"
        "    start = fresh(0)\n"
        "    threads = [next(start) for _ in range(24)]\n"
        "    runs = {'expected': expected, 'resumed': resumed, 'threads': threads}\n"
        "    np.savez(sys.argv[1], **{f'{run}/{k}': np.stack([b[k] for b in runs[run]]) for run in runs for k in ('number', 'random')})\n"
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, str(script), str(tmp_path / "out")], env=environment, check=True, timeout=240)
    with np.load(tmp_path / "out.npz") as runs:
        for name in ("number", "random"):
            np.testing.assert_array_equal(runs[f"expected/{name}"], runs[f"resumed/{name}"])
            # The worker count changes nothing but the form of the saved position.
            np.testing.assert_array_equal(runs[f"expected/{name}"], runs[f"threads/{name}"][9:])


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a batch of 7 does not divide over 2 processes"):
        pipeline.batches(Numbers(20), batch=7, records=1, prepare=prepare, seed=0, process_count=2)
    with pytest.raises(ValueError, match="1 images do not reach 2 processes"):
        pipeline.batches(Numbers(1), batch=4, records=1, prepare=prepare, seed=0, process_count=2)
    with pytest.raises(ValueError, match="seed is -1"):
        pipeline.batches(Numbers(9), batch=4, records=1, prepare=prepare, seed=-1)
    with pytest.raises(ValueError, match="process 2 of 2"):
        pipeline.batches(Numbers(9), batch=4, records=1, prepare=prepare, seed=0, process_index=2, process_count=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pipeline.open_source(configure.Data(root=str(folder), count=40), (16, 16, 3))
    return str(folder)


def test_one_pass_gives_every_image_once_and_keeps_the_rest(root):
    source = pipeline.open_source(configure.Data(root=root, count=40), (16, 16, 3))
    blocks = list(pipeline.one_pass(source, 16))
    assert [len(block) for block in blocks] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(blocks), np.stack([source[i]["image"] for i in range(40)]))


def test_the_preview_is_spread_over_the_source_and_the_same_every_time(root):
    source = pipeline.open_source(configure.Data(root=root, count=40), (16, 16, 3))
    shown = pipeline.preview(source, 4)
    every = np.stack([source[i]["image"] for i in range(40)])
    found = [int(np.flatnonzero((every == image).all((1, 2, 3)))[0]) for image in shown]
    assert [i // 10 for i in found] == [0, 1, 2, 3]
    np.testing.assert_array_equal(pipeline.preview(source, 4), shown)
    np.testing.assert_array_equal(pipeline.preview(source, 100), every)


def test_a_preview_shows_many_identities_where_they_come_in_turn():
    class InTurn:
        def __len__(self):
            return 2400

        def __getitem__(self, i):
            return {"image": np.full((1, 1, 1), i % 600)}

    assert len(np.unique(pipeline.preview(InTurn(), 8))) >= 7  # equal steps of 300 meet two


def test_memory_changes_no_pixel_and_a_source_travels_to_another_process(root, monkeypatch):
    source = pipeline.open_source(configure.Data(root=root, count=40), (16, 16, 3))
    first = [source[i]["image"].copy() for i in range(40)]
    again = [source[i]["image"] for i in range(40)]
    travelled = pickle.loads(pickle.dumps(source))
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    uncached = pipeline.open_source(configure.Data(root=root, count=40), (16, 16, 3))
    for i in range(40):
        for image in (again[i], travelled[i]["image"], uncached[i]["image"]):
            np.testing.assert_array_equal(image, first[i])
    assert len(pickle.dumps(source)) < 20_000


def test_sources_that_are_not_there_are_named(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="is not a folder; use 'scenes'"):
        pipeline.open_source(configure.Data(source=str(tmp_path / "nowhere")), (16, 16, 3))
    with pytest.raises(FileNotFoundError, match="jaxgan data import"):
        pipeline.open_source(configure.Data(source=str(tmp_path)), (16, 16, 3))
    with pytest.raises(ValueError, match=r"no split 'validation' in .*train \(40\), test \(16\)"):
        pipeline.open_source(configure.Data(root=root, count=40, split="validation"), (16, 16, 3))
