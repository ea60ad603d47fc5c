"""Scores do not depend on how the work was divided, say how they were made, and refuse to be compared across protocols."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgan import features, parallel, scores, sources
from jaxgan.__main__ import main
from jaxgan.evaluate import evaluate
from jaxgan.metrics import segments
from jaxgan.metrics.streaming import Moments, Rows

COLUMNS = 6
ROOT = Path(__file__).resolve().parent.parent


def project(params, images):
    """A network that is fast: random projections of a nonlinear function."""
    return jax.numpy.tanh(images.reshape(images.shape[0], -1) @ params)


def network(name: str = "projection", resize: str = "none") -> features.Measure:
    params = np.random.default_rng(0).normal(size=(8 * 8 * 3, COLUMNS)).astype(np.float32) / 8
    return features.network_measure(name, COLUMNS, project, params, lambda image: image.astype(np.float32) / 255, {"resize": resize})


def expected_rows(images: np.ndarray) -> np.ndarray:
    params = np.random.default_rng(0).normal(size=(8 * 8 * 3, COLUMNS)).astype(np.float32).astype(np.float64) / 8
    return np.tanh((images.reshape(len(images), -1) / 255.0) @ params)


def pictures(n: int, seed: int, dark: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256 - dark, (n, 8, 8, 3), dtype=np.uint8)


def save(folder: Path, images: np.ndarray, ending: str = "png") -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}.{ending}")
    return folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "CHUNK", 16)


def test_eight_devices_compute_what_numpy_does() -> None:
    images = pictures(45, 1)
    rows = Rows.read(features.collect(sources.in_memory(images), network(), batch=13))
    assert rows.shape == (45, COLUMNS)
    np.testing.assert_allclose(rows, expected_rows(images), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_any_batch_and_two_processes_merge_to_one_pass(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    images = sources.in_memory(pictures(100, 1))
    whole = features.collect(images, network(), batch=32)
    parts = []
    for process in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_count", lambda: 2)
            patch.setattr(jax, "process_index", lambda process=process: process)
            patch.setattr(features, "gather", lambda sums: [sums])
            parts.append([features.collect(images, network(), rows=rows, batch=batch) for rows in (True, False)])
    assert 0 < len(Rows.positions(parts[0][0])) < 100, "each process computes its own share only"
    np.testing.assert_allclose(Rows.read(Rows.merge(parts[1][0], parts[0][0])), Rows.read(whole), rtol=1e-6, atol=1e-6)
    mean, covariance = Moments.mean_covariance(Moments.merge(parts[0][1], parts[1][1]))
    np.testing.assert_allclose(mean, Rows.read(whole).mean(0, dtype=np.float64), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(covariance, np.cov(Rows.read(whole).astype(np.float64).T), rtol=1e-5, atol=1e-7)


def test_two_processes_return_the_scores_of_one(tmp_path: Path) -> None:
    images = pictures(90, 3), pictures(70, 4, dark=60)
    np.savez(tmp_path / "images.npz", real=images[0], fake=images[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment |= {"JAXGAN_COORDINATOR": f"127.0.0.1:{port}", "JAXGAN_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "images.npz")],
            env=environment | {"JAXGAN_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    here = evaluate(*images, ("fid", "kid", "prdc"), network=network(), subset_size=50)
    alone = evaluate(*images, ("fid",), network=network())["fid"].value
    for output in outputs:
        found = json.loads(output.splitlines()[-1])
        assert found.pop("moments") == pytest.approx(alone, rel=1e-6)
        assert found == pytest.approx({name: score.value for name, score in here.items()}, rel=1e-6)


@pytest.mark.parametrize("n, processes", [(100, 2), (5, 8), (1000, 3), (257, 4), (1, 2)])
def test_shares_cover_everything_once(n: int, processes: int) -> None:
    seen = [i for process in range(processes) for part in features.share(n, process, processes) for i in part]
    assert seen == list(range(n))


@pytest.mark.usefixtures("small_chunks")
def test_an_interrupted_pass_resumes_and_computes_nothing_twice(tmp_path: Path) -> None:
    images, seen = pictures(60, 1), []

    def measure(limit: int) -> features.Measure:
        def prepare(image: np.ndarray) -> np.ndarray:
            if len(seen) >= limit:
                raise KeyboardInterrupt
            seen.append(0)
            return image.astype(np.float32) / 255

        return network()._replace(prepare=prepare)

    with pytest.raises(KeyboardInterrupt):
        features.collect(sources.in_memory(images), measure(40), batch=4, cache=tmp_path)
    kept = list(tmp_path.rglob("*.safetensors"))
    assert 1 <= len(kept) <= 2
    seen.clear()
    rows = Rows.read(features.collect(sources.in_memory(images), measure(10_000), batch=4, cache=tmp_path))
    assert len(seen) == 60 - 16 * len(kept)
    np.testing.assert_array_equal(rows, Rows.read(features.collect(sources.in_memory(images), network(), batch=4)))
    kept[0].write_bytes(kept[0].read_bytes()[:-7])  # a damaged file is computed again
    seen.clear()
    np.testing.assert_array_equal(Rows.read(features.collect(sources.in_memory(images), measure(10_000), batch=4, cache=tmp_path)), rows)
    assert len(seen) == 16
    changed = images.copy()
    changed[3, 0, 0, 0] += 1
    seen.clear()
    features.collect(sources.in_memory(changed), measure(10_000), batch=4, cache=tmp_path)
    assert len(seen) == 60, "other content, other rows"


def test_a_folder_against_itself(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", pictures(40, 2))
    found = evaluate(folder, folder, ("fid", "kid", "prdc", "psnr"), network=network(), subsets=3)
    assert found["fid"].value == pytest.approx(0, abs=1e-6)
    assert [found[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert found["psnr"].value == np.inf and json.loads(scores.to_json(found))["psnr"]["value"] is None


def test_fid_of_moments_and_of_rows_agree_with_the_formula_and_carry_their_protocol(tmp_path: Path) -> None:
    from scipy.linalg import sqrtm

    real, fake = pictures(80, 3), pictures(90, 4, dark=60)
    a, b = expected_rows(real), expected_rows(fake)
    cross = np.trace(sqrtm(np.cov(a.T) @ np.cov(b.T)).real)
    formula = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * cross
    folder = save(tmp_path / "fakes", fake)
    alone = evaluate(real, folder, ("fid",), network=network())["fid"]
    both = evaluate(real, folder, ("fid", "kid"), network=network())["fid"]
    assert alone.value == pytest.approx(formula, rel=1e-4) and both.value == pytest.approx(alone.value, rel=1e-6)
    protocol = alone.protocol
    assert (protocol["features"], protocol["resize"]) == ("projection", "none")
    assert protocol["real"]["n"] == 80 and protocol["fake"]["n"] == 90 and protocol["fake"]["source"] == str(folder)
    assert protocol["fake"]["quantise"] == "8 bits as stored" and protocol["jaxgan"]


def test_a_saved_reference_stands_for_the_reals_and_another_protocol_is_refused(tmp_path: Path) -> None:
    real, fake, place = pictures(60, 3), pictures(50, 4, dark=60), tmp_path / "reference"
    direct = evaluate(real, fake, ("fid", "kid"), network=network(), save_reference=place)
    again = evaluate(None, fake, ("fid", "kid"), network=network(), reference=place)
    assert [again[name].value for name in again] == [direct[name].value for name in direct]
    assert again["fid"].protocol["real"]["n"] == 60
    with pytest.raises(ValueError, match="resize: 'clean' here, 'none' there"):
        evaluate(None, fake, ("fid",), network=network(resize="clean"), reference=place)
    evaluate(real, fake, ("fid",), network=network(), save_reference=tmp_path / "moments")
    assert evaluate(None, fake, ("fid",), network=network(), reference=tmp_path / "moments")["fid"].value == pytest.approx(
        direct["fid"].value, rel=1e-6
    )
    with pytest.raises(ValueError, match="holds mean and covariance alone"):
        evaluate(None, fake, ("kid",), network=network(), reference=tmp_path / "moments")
    with pytest.raises(FileNotFoundError, match="nowhere.*--save-reference"):
        evaluate(None, fake, ("fid",), network=network(), reference=tmp_path / "nowhere")


def test_pairs_are_matched_by_name_whatever_the_ending_and_must_match(tmp_path: Path) -> None:
    real = pictures(6, 5)
    fake = np.clip(real.astype(int) + 10, 0, 255).astype(np.uint8)
    here, there = save(tmp_path / "real", real), save(tmp_path / "fake", fake, "webp")
    for path in there.iterdir():
        Image.fromarray(fake[int(path.stem)]).save(path, lossless=True)
    squared = np.square((real.astype(float) - fake.astype(float)) / 127.5).mean((1, 2, 3))
    found = evaluate(here, there, ("psnr",), resamples=50)["psnr"]
    assert found.value == pytest.approx((10 * np.log10(4 / squared)).mean(), rel=1e-5)
    assert found.interval[0] < found.value < found.interval[1] and found.protocol["pairs"] == 6
    (there / "0003.webp").rename(there / "new.webp")
    with pytest.raises(ValueError, match="the names differ: 0003 only in .*real; new only in .*fake"):
        evaluate(here, there, ("psnr",))


def test_class_areas_of_scenes_by_their_own_labels_show_what_is_missing() -> None:
    scenes = sources.open_images("scenes:32", n=300)
    boat = scenes.classes.index("boat")
    without = scenes.take([i for i in range(300) if not (scenes.label(i) == boat).any()])
    found = evaluate(scenes, without, ("fsd", "classes"), segmenter="labels", resamples=20)
    assert found["classes"].parts["boat/delta"] == -1 and found["classes"].parts["boat/fake"] == 0
    assert found["fsd"].value > 0 and found["fsd"].protocol["segmenter"] == "labels"
    assert found["fsd"].value == pytest.approx(found["fsd"].parts["mean"] + found["fsd"].parts["covariance"])


def test_the_seam_statistic_finds_the_grid_and_merges() -> None:
    from jaxgan import viz

    images = np.kron(np.random.default_rng(0).integers(40, 200, (9, 4, 4, 1)), np.ones((1, 4, 4, 3))).astype(np.uint8)
    images = np.clip(images + np.random.default_rng(1).integers(-20, 20, images.shape), 0, 255).astype(np.uint8)
    found = evaluate(images, images, ("seam",), patch=(4, 4), batch=4)["seam"]
    assert found.value == pytest.approx(viz.seam_statistic(images, (4, 4))["seam"], rel=1e-6) and found.value > 2
    with pytest.raises(ValueError, match="patches of 5 pixels do not divide a side of 16"):
        evaluate(images, images, ("seam",), patch=(4, 5))
    with pytest.raises(ValueError, match="does not say how large its patches are"):
        evaluate(images, images, ("seam",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("fjd",)}, "there is no metric 'fjd'; nearest: fsd|there is no metric 'fjd'; nearest: fid"),
        ({"metrics": ()}, "no metric was named"),
        ({"metrics": ("fsd",)}, "need a segmenter"),
        ({"metrics": ("fsd",), "segmenter": "labels"}, "no label maps with class names"),
        ({"resamples": 1}, "resamples is 1"),
        ({"reference": "a", "save_reference": "b"}, "either used or saved"),
        ({"metrics": ("psnr",), "save_reference": "b"}, "none of them was asked for"),
        ({"level": 95}, "an interval of level 95 does not exist"),
        ({"metrics": ("seam",), "n": 5}, "holds 4 images, fewer than n = 5"),
        ({"resize": "nicely"}, "resize is 'nicely'; use one of"),
    ],
)
def test_what_cannot_be_computed_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(pictures(4, 0), pictures(4, 1), **options)


def test_n_and_repeated_metrics_hold_for_arrays() -> None:
    real, fake = pictures(30, 0), pictures(30, 1)
    found = evaluate(real, fake, ("psnr", "psnr"), n=10)["psnr"]
    chosen = segments.subset_order(30, 10, 1)
    squared = np.square((real[chosen].astype(float) - fake[chosen].astype(float)) / 127.5).mean((1, 2, 3))
    assert found.value == pytest.approx((10 * np.log10(4 / squared)).mean(), rel=1e-5)
    assert found.protocol["real"]["n"] == found.protocol["pairs"] == 10


def test_a_source_against_itself_gives_two_selections_however_it_is_written(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", pictures(40, 2))
    for again, split in ((folder, None), (f"{folder}/", None), (os.path.relpath(folder), None)):
        found = evaluate(folder, again, ("fid",), network=network(), n=20, fake_split=split)["fid"]
        assert found.value > 1e-3 and found.protocol["fake"]["selection"] == "shuffled by seed 2"
    found = evaluate("scenes:16", "scenes:16", ("seam",), n=2, patch=(4, 4), fake_split="train")["seam"]
    assert found.protocol["fake"]["selection"] == "shuffled by seed 2"


def test_the_text_says_what_both_sources_are_whatever_comes_first() -> None:
    found = evaluate(pictures(9, 0), pictures(8, 1), ("seam", "fid"), network=network(), patch=(4, 4))
    assert scores.to_text(found).splitlines()[-2:] == [
        "real: source arrays, n 9, kind arrays, quantise 8 bits as stored",
        "fake: source arrays, n 8, kind arrays, quantise 8 bits as stored",
    ]


def test_an_interval_says_its_level_and_how_it_was_drawn() -> None:
    given = {"resamples": 4, "level": 0.8, "seed": 7}
    found = evaluate(pictures(9, 0), pictures(9, 1), ("fid", "kid", "psnr"), network=network(), **given)
    assert all({key: score.protocol[key] for key in given} == given for score in found.values())
    assert "level" not in evaluate(pictures(9, 0), pictures(9, 1), ("psnr",))["psnr"].protocol


def test_arrays_that_are_not_8_bit_colour_are_refused() -> None:
    signed = pictures(4, 0).astype(np.float32) / 127.5 - 1
    for wrong, said in ((signed, r"float32 \[8, 8, 3\]"), (pictures(4, 0)[..., :1], r"uint8 \[8, 8, 1\]")):
        with pytest.raises(ValueError, match=f"is {said}, but must be uint8"):
            evaluate(pictures(4, 0), wrong, ("fid",), network=network())


def test_label_maps_of_other_classes_are_not_compared() -> None:
    scenes = sources.open_images("scenes:32", n=4)
    turned = sources.Images("turned", scenes._content._replace(classes=scenes.classes[::-1]), range(4), {})
    with pytest.raises(ValueError, match="label maps of different classes cannot be compared"):
        evaluate(turned, scenes, ("fsd",), segmenter="labels")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("fid", "seam"), "patch": (3, 3)}, "patches of 3 pixels do not divide"),
        ({"metrics": ("fid", "psnr"), "real": pictures(5, 2)}, "the names differ"),
        ({"metrics": ("fid",), "reference": "nowhere"}, "nowhere"),
        ({"metrics": ("fid", "ms_ssim")}, "ms_ssim needs sides of at least 176 px, and the images are 8x8"),
        ({"metrics": ("fid", "prdc")}, "neighbours is 5, but must be at least 1 and below the number of images .4 and 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_pass(monkeypatch: pytest.MonkeyPatch, options: dict, message: str) -> None:
    monkeypatch.setattr(features, "collect", lambda *args, **kwargs: pytest.fail("a pass has begun"))
    given = {"real": pictures(4, 0), "fake": pictures(4, 1), "network": network()} | options
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(**given)


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="inception"):
        evaluate(pictures(4, 0), pictures(4, 1), ("fid",))


@pytest.mark.slow
def test_the_command_line_computes_inception_fid_of_two_folders(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Against the closed form on features that another program computed of three photographs with the same weights."""
    weights = shared / "weights"
    if not (weights / "inception_2015_12_05_fid.safetensors").exists():
        pytest.skip(f"the weights of Inception are not in {weights}")
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(weights))
    with np.load(weights / "inception_2015_12_05_fid.golden.npz") as golden:
        photographs, rows = golden["images"], golden["features_f16weights"].astype(np.float64)
    real, fake = save(tmp_path / "real", photographs[:2]), save(tmp_path / "fake", photographs[1:])
    arguments = ["--real", str(real), "--fake", str(fake), "--metrics", "fid", "--batch", "8", "--cache", str(tmp_path / "cache")]
    assert main(["evaluate", *arguments, "--out", str(tmp_path / "scores.json")]) == 0
    score = json.loads((tmp_path / "scores.json").read_text())["fid"]
    a, b = rows[:2], rows[1:]
    spread = [np.square(x - x.mean(0)).sum() for x in (a, b)]
    cross = np.linalg.svd((a - a.mean(0)) @ (b - b.mean(0)).T, compute_uv=False).sum()
    assert score["value"] == pytest.approx(np.square(a.mean(0) - b.mean(0)).sum() + sum(spread) - 2 * cross, rel=1e-4)
    assert score["protocol"]["resize"] == "clean" and len(score["protocol"]["weights"]) == 64
    assert "biased upward" in score["protocol"]["note"] and score["protocol"]["fake"]["n"] == 2
    assert "fid" in capsys.readouterr().out
    assert main(["evaluate", "--real", str(real), "--fake", str(fake), "--metric", "fid"]) == 2
    assert "nearest: --metrics" in capsys.readouterr().err


def test_lpips_of_folders_is_that_of_the_published_pairs(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = shared / "weights"
    if not (weights / "vgg16_imagenet_conv.safetensors").exists():
        pytest.skip(f"the weights of VGG-16 are not in {weights}")
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(weights))
    with np.load(weights / "vgg16_lpips.golden.npz") as golden:
        reference, first, second = golden["ref"], golden["p0"], golden["p1"]
    real, fake = save(tmp_path / "real", np.stack([reference] * 2)), save(tmp_path / "fake", np.stack([first, second]))
    score = evaluate(real, fake, ("lpips", "ssim"), batch=8)["lpips"]
    assert (score.parts["most"], score.parts["least"]) == pytest.approx((0.56861, 0.42166), abs=2e-5)
    assert score.value == pytest.approx((0.56861 + 0.42166) / 2, abs=2e-5) and len(score.protocol["weights"]) == 2


def worker(path: str) -> dict[str, float]:
    """What each of two processes computes."""
    parallel.start()
    with np.load(path) as images:
        real, fake = images["real"], images["fake"]
    assert len(features.share(len(real), jax.process_index(), jax.process_count())) == 1
    found = {name: score.value for name, score in evaluate(real, fake, ("fid", "kid", "prdc"), network=network(), subset_size=50).items()}
    return found | {"moments": evaluate(real, fake, ("fid",), network=network())["fid"].value}


if __name__ == "__main__":
    print(json.dumps(worker(sys.argv[1])))
