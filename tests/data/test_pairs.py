"""Importing images with label maps: pairs that do not fit are named and left out, class numbers arrive to the bit."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure, sources
from jaxgan.__main__ import main
from jaxgan.data import pipeline
from jaxgan.data.pairs import import_pairs, read_names


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def numbers(height, width, seed=0, classes=3):
    return np.random.default_rng(seed).integers(0, classes, (height, width), dtype=np.uint8)


def file(array, kind="PNG", mode=None, **options):
    out = io.BytesIO()
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([7 * k % 256 for k in range(768)])
    image.save(out, kind, **options)
    return out.getvalue()


def write(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read(folder, size, split="train"):
    source = pipeline.open_labelled(configure.Data(source=str(folder), split=split), (*size, 3))
    return [source[i] for i in range(len(source))]


def test_three_good_pairs_among_hostile_ones(tmp_path, capsys):
    images = {f"good{i}.png": file(picture(20, 24, i)) for i in range(3)}
    labels = {"good0.png": file(numbers(20, 24, 0)), "good1.png": file(numbers(20, 24, 1), mode="P")}
    with_void = numbers(20, 24, 2)
    with_void[:5] = 9
    labels["good2.png"] = file(with_void)
    hostile = {
        "alone.png": "there is no label map alone.png",
        "size.png": "the image has 24x20 pixels and its label map 24x19",
        "ids.png": "the label map holds 3, 200, but the classes are 0..2",
        "jpeg.png": "its label map is a JPEG file: class numbers survive only in PNG",
        "colour.png": "its label map has colour mode RGB",
        "broken.png": "its label map cannot be read",
        "text.png": "its label map is not a PNG image",
        "empty.png": "its label map has 0 bytes",
        "turned.jpg": "its EXIF data turn the image",
        "twice.png": "twice.jpg has the same name",
        "torn.jpg": "truncated",
        "labels: nobody.png": "there is no image of its name",
        "labels: twin.webp": "twin.png has the same name",
    }
    images |= {name: file(picture(20, 24, 9)) for name in hostile if not name.startswith("labels") and name.endswith("png")}
    exif = Image.Exif()
    exif[0x0112] = 3
    images |= {"turned.jpg": file(picture(20, 24), "JPEG", exif=exif), "twice.jpg": file(picture(20, 24, 5), "JPEG")}
    images |= {"torn.jpg": file(picture(20, 24), "JPEG")[:700], "twin.png": file(picture(20, 24, 6))}
    wrong = numbers(20, 24)
    wrong[0, :2] = 3, 200
    labels |= {
        "size.png": file(numbers(19, 24)),
        "ids.png": file(wrong),
        "jpeg.jpg": file(numbers(20, 24), "JPEG"),
        "colour.png": file(picture(20, 24)),
        "broken.png": file(numbers(20, 24))[:90],
        "text.png": b"class one, class two",
        "empty.png": b"",
        "turned.png": file(numbers(20, 24)),
        "twice.png": file(numbers(20, 24, 5)),
        "torn.png": file(numbers(20, 24)),
        "nobody.png": file(numbers(20, 24)),
        "twin.png": file(numbers(20, 24, 6)),
        "twin.webp": file(picture(20, 24), "WEBP"),
    }
    write(tmp_path / "images", images)
    write(tmp_path / "maps", labels)
    report = import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / "maps", size=(20, 24), classes=("sky", "road", "car"), void=9)
    assert set(report.rejects) == set(hostile)
    for name, reason in hostile.items():
        assert reason in report.rejects[name], (name, report.rejects[name])
    assert report.counts == {"train": 5}  # three good ones, the first of the twice-named images, the first of the twin maps
    names = sorted(name for name in ("good0.png", "good1.png", "good2.png", "twice.jpg", "twin.png"))
    records = read(tmp_path / "out", (20, 24))
    maps = {"good0.png": numbers(20, 24, 0), "good1.png": numbers(20, 24, 1), "good2.png": with_void}
    maps |= {"twice.jpg": numbers(20, 24, 5), "twin.png": numbers(20, 24, 6)}
    for name, record in zip(names, records, strict=True):
        np.testing.assert_array_equal(record["label"], maps[name])
    np.testing.assert_array_equal(records[0]["image"], picture(20, 24, 0))
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert facts["classes"] == ["sky", "road", "car"] and facts["void"] == 9 and facts["rejects"] == len(hostile)
    everything = np.stack([maps[name] for name in names])
    assert facts["pixels"]["train"] == [int((everything == k).sum()) for k in range(3)]
    expected = [(everything == k).sum() / (480 * (everything == k).any((1, 2)).sum()) for k in range(3)]
    np.testing.assert_allclose(facts["frequency"], expected, atol=1e-6)
    assert json.loads((tmp_path / "out" / "rejects.json").read_text()) == report.rejects
    assert "rejected" in capsys.readouterr().err
    assert sources.open_images(str(tmp_path / "out")).classes == ("sky", "road", "car", "void")


def test_maps_are_resized_by_repetition_at_the_place_of_the_image(tmp_path):
    """The same picture as image and as label map: after a crop and an enlargement by pixels they still agree everywhere."""
    label = np.arange(12, dtype=np.uint8).repeat(3).repeat(1).reshape(6, 6)
    label = np.kron(label, np.ones((2, 3), np.uint8))  # 12 x 18; square crop: columns 3..15
    write(tmp_path / "images", {"a.png": file(np.repeat(label[..., None], 3, -1))})
    write(tmp_path / "maps", {"a.png": file(label)})
    import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / "maps", size=(24, 24), filter="nearest", upscale=True)
    (record,) = read(tmp_path / "out", (24, 24))
    np.testing.assert_array_equal(record["label"], record["image"][..., 0])
    np.testing.assert_array_equal(record["label"], label[:, 3:15].repeat(2, 0).repeat(2, 1))
    small = tmp_path / "small"
    import_pairs(tmp_path / "images", small, tmp_path / "maps", size=(5, 5), filter="bilinear")
    assert set(np.unique(read(small, (5, 5))[0]["label"])) <= set(range(12))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_keeps_its_numbers(tmp_path, bits):
    """PNG stretches such greys to 0..255 when they are shown."""
    import struct
    import zlib

    label = numbers(4, 8, classes=2**bits)
    packed = np.packbits(np.unpackbits(label[..., None], axis=-1)[..., 8 - bits :].reshape(4, -1), axis=-1)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 4, bits, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    write(tmp_path / "images", {"a.png": file(picture(4, 8))})
    write(tmp_path / "maps", {"a.png": data})
    import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / "maps", size=(4, 8))
    np.testing.assert_array_equal(read(tmp_path / "out", (4, 8))[0]["label"], label)


def test_subfolders_are_the_splits_and_the_command_prints_the_classes(tmp_path, capsys):
    files = {f"{split}/{i}": i for split, count in (("train", 3), ("validation", 2)) for i in range(count)}
    write(tmp_path / "images", {f"{name}.jpg": file(picture(16, 16, i), "JPEG") for name, i in files.items()})
    write(tmp_path / "images" / "maps", {f"{name}.png": file(numbers(16, 16, i)) for name, i in files.items()})  # inside the images
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\n\n")
    words = [str(tmp_path / "images"), str(tmp_path / "out"), "--labels", str(tmp_path / "images" / "maps")]
    assert main(["data", "import", *words, "--classes", str(tmp_path / "names.txt"), "--size", "16"]) == 0
    said = capsys.readouterr().out
    assert "3 train, 2 validation; 0 rejected" in said and "  1  road" in said
    np.testing.assert_array_equal(read(tmp_path / "out", (16, 16), "validation")[1]["label"], numbers(16, 16, 1))
    with pytest.raises(ValueError, match="splits train, validation already"):
        import_pairs(words[0], tmp_path / "no", words[3], size=(16, 16), test_share=0.5)


def test_a_split_without_a_single_map_is_named(tmp_path):
    # As in published sets whose test maps are void throughout.
    write(tmp_path / "images", {f"{split}/a.png": file(picture(8, 8, 0)) for split in ("train", "test")})
    maps = {"train/a.png": file(numbers(8, 8, 0)), "test/a.png": file(np.full((8, 8), 255, np.uint8))}
    write(tmp_path / "maps", maps)
    with pytest.raises(ValueError, match="all 1 pairs for the split 'test' were rejected.*every pixel of the label map is void"):
        import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / "maps", size=(8, 8), void=255)
    assert not (tmp_path / "out").exists()
    (tmp_path / "names.txt").write_bytes("\ufeffsky\r\nroad\r\n".encode())
    assert read_names(tmp_path / "names.txt") == ("sky", "road")


def test_the_test_share_takes_the_pairs_that_an_import_of_images_would_take(tmp_path):
    write(tmp_path / "images", {f"{i}.png": file(picture(8, 8, i)) for i in range(30)})
    write(tmp_path / "maps", {f"{i}.png": file(numbers(8, 8, i)) for i in range(30)})
    import_pairs(tmp_path / "images", tmp_path / "pairs", tmp_path / "maps", size=(8, 8), test_share=0.3)
    from jaxgan.data.folders import import_folder

    import_folder(tmp_path / "images", tmp_path / "alone", size=(8, 8), test_share=0.3)
    alone = pipeline.open_source(configure.Data(source=str(tmp_path / "alone"), split="test"), (8, 8, 3))
    held = read(tmp_path / "pairs", (8, 8), "test")
    np.testing.assert_array_equal([record["image"] for record in held], [alone[i]["image"] for i in range(len(alone))])


def test_what_cannot_work_is_refused_and_nothing_is_left(tmp_path, capsys):
    write(tmp_path / "images", {"a.png": file(picture(8, 8))})
    write(tmp_path / "maps", {"b.png": file(numbers(8, 8))})
    write(tmp_path / "black", {"a.png": file(np.full((8, 8), 7, np.uint8))})
    before = sorted(os.listdir(tmp_path))
    for labels, options, text in (
        ("maps", {}, "no image below .* has a label map of its name"),
        ("nothing", {}, "there is no folder"),
        ("black", {"classes": ("x", "y")}, "all 1 pairs for the split 'train' were rejected"),
        ("black", {"void": 7}, "every pixel of the label map is void"),
        ("black", {"void": 256}, "void is 256"),
        ("black", {"classes": ("x", "x")}, "class 1 is named 'x' like an earlier one"),
        ("black", {"crop": "face"}, "no crop 'face'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=text):
            import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / labels, **{"size": (8, 8), **options})
    assert sorted(os.listdir(tmp_path)) == before
    with pytest.raises(FileNotFoundError, match="class names"):
        read_names(tmp_path / "names.txt")
    assert main(["data", "import", str(tmp_path / "images"), str(tmp_path / "out"), "--size", "8", "--void", "3"]) == 2
    assert "name their folder with --labels" in capsys.readouterr().err


def test_a_set_without_label_maps_says_so(tmp_path):
    write(tmp_path / "images", {"a.png": file(picture(8, 8))})
    assert main(["data", "import", str(tmp_path / "images"), str(tmp_path / "out"), "--size", "8"]) == 0
    with pytest.raises(ValueError, match="has no label maps.*--labels"):
        pipeline.open_labelled(configure.Data(source=str(tmp_path / "out")), (8, 8, 3))


def test_label_maps_are_kept_in_memory_with_their_images(tmp_path):
    write(tmp_path / "images", {f"{i}.png": file(picture(8, 8, i)) for i in range(4)})
    write(tmp_path / "maps", {f"{i}.png": file(numbers(8, 8, i)) for i in range(4)})
    import_pairs(tmp_path / "images", tmp_path / "out", tmp_path / "maps", size=(8, 8))
    source = pipeline.open_labelled(configure.Data(source=str(tmp_path / "out")), (8, 8, 3))
    first = [source[i] for i in range(4)]
    source.records = None  # from now on only what was kept
    for i in range(4):
        np.testing.assert_array_equal(source[i]["image"], first[i]["image"])
        np.testing.assert_array_equal(source[i]["label"], numbers(8, 8, i))
