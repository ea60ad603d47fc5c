"""Figures: every factor and every component of the pose can be seen, and nothing else moves a pixel."""

import numpy as np
import pytest

from jaxgan.data import figures

IDENTITY, POSE = (1, 3, 6, 1), (0.1, -0.1, 0.4, 0.7)


def test_the_same_figure_is_drawn_every_time():
    first, again = figures.render(IDENTITY, POSE, 32), figures.render(np.array(IDENTITY, np.int32), np.array(POSE, np.float32), 32)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0].shape == (32, 32, 3) and first[0].dtype == np.uint8 and first[1].dtype == bool
    assert figures.render(IDENTITY, POSE, 49)[0].shape == (49, 49, 3)


@pytest.mark.parametrize("size", [32, 64])
def test_all_values_of_every_factor_look_different(size):
    for factor, (_, count) in enumerate(figures.FACTORS):
        seen = []
        for value in range(count):
            identity = list(IDENTITY)
            identity[factor] = value
            seen.append(figures.render(identity, POSE, size)[0].astype(int))
        for a in range(count):
            for b in range(a):
                changed = (abs(seen[a] - seen[b]).max(-1) > 20).sum()
                assert changed > 0.004 * size * size, (factor, a, b, changed)


def test_colour_and_pattern_leave_the_mask_alone_and_shape_does_not():
    mask = figures.render((1, 0, 0, 0), POSE)[1]
    for identity in ((1, 5, 0, 0), (1, 0, 5, 0), (1, 0, 0, 2)):
        np.testing.assert_array_equal(mask, figures.render(identity, POSE)[1])
    assert (mask != figures.render((2, 0, 0, 0), POSE)[1]).any()


def test_the_place_moves_the_whole_picture_by_that_many_pixels():
    here, mask = figures.render(IDENTITY, (0.0, 0.0, 0.4, 0.7), 64)
    there, moved = figures.render(IDENTITY, (3 / 32, -5 / 32, 0.4, 0.7), 64)  # 32 pixels are one half of the width
    np.testing.assert_array_equal(np.roll(mask, (-5, 3), (0, 1)), moved)
    np.testing.assert_allclose(np.roll(here, (-5, 3), (0, 1)).astype(int), there.astype(int), atol=60)
    assert (np.roll(here, (-5, 3), (0, 1)) != there).mean() < 0.01  # single subpixels on an edge may round the other way


@pytest.mark.parametrize("shape", range(4))
def test_no_turn_of_any_shape_looks_as_it_did_and_the_arm_moves_alone(shape):
    identity = (shape, 2, 2, 0)
    turns = [figures.render(identity, (0, 0, turn, 0.0), 32)[0].astype(int) for turn in np.arange(24) * np.pi / 12]
    for a in range(24):
        for b in range(a):
            assert abs(turns[a] - turns[b]).mean() > 0.5, (a, b)
    np.testing.assert_array_equal(turns[0], figures.render(identity, (0, 0, 0, 0.0), 32)[0])
    bent, straight = figures.render(identity, (0, 0, 0, 0.9)), figures.render(identity, (0, 0, 0, 0.0))
    ahead = np.zeros((64, 64), bool)
    ahead[:, 33:] = True  # the figure looks to the right: the arm is on the left, behind the body
    assert (bent[0] != straight[0]).any() and not (bent[0] != straight[0])[ahead].any()


def test_a_mirrored_figure_is_no_figure_in_another_pose():
    image = figures.render((1, 2, 2, 0), (0, 0, 0, 0), 32)[0][:, ::-1].astype(int)
    turned = [figures.render((1, 2, 2, 0), (0, 0, turn, 0), 32)[0].astype(int) for turn in np.arange(48) * np.pi / 24]
    assert min(abs(image - other).mean() for other in turned) > 0.5


def test_the_mask_is_where_the_ground_does_not_show():
    black, mask = figures.render(IDENTITY, POSE, 32, np.zeros((32, 32, 3), np.uint8))
    white, _ = figures.render(IDENTITY, POSE, 32, np.full((32, 32, 3), 255, np.uint8))
    shows = (white.astype(int) - black).max(-1) / 255
    np.testing.assert_array_equal(mask, shows < 0.51)  # two of four subpixels
    assert 0.08 < mask.mean() < 0.4
    plain, _ = figures.render(IDENTITY, POSE, 32)
    assert (plain[shows == 1] == figures.EVEN["plain"]).all()


@pytest.mark.parametrize("turn", np.linspace(-3, 3, 7))
def test_the_figure_stays_within_the_frame_at_the_ends_of_its_range(turn):
    for corner in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        _, mask = figures.render((3, 0, 0, 0), (*np.multiply(corner, figures.PLACE), turn, 0.3), 64)
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_no_identity_is_in_two_splits_and_together_they_are_all():
    sets = {split: {tuple(row) for row in figures.identities(split).tolist()} for split in figures.SPLITS}
    assert {split: len(rows) for split, rows in sets.items()} == {"train": 600, "validation": 68, "test": 100}
    assert len(set.union(*sets.values())) == 768
    for column, (_, count) in enumerate(figures.FACTORS):  # every value is learned and asked for
        assert all(len({row[column] for row in rows}) == count for rows in sets.values())


def test_poses_move_evenly_within_their_ranges_and_a_clip_does_not_depend_on_how_many_there_are():
    facts = figures.facts("train", 200)
    few = figures.facts("train", 20)
    for a, b in zip(few, facts, strict=True):
        np.testing.assert_array_equal(a, b[:20])
    assert facts.pose.shape == (200, 16, 4) and facts.pose.dtype == np.float32
    limits = np.array([figures.PLACE, figures.PLACE, np.pi, figures.ARM], np.float32)
    assert (abs(facts.pose) <= limits).all() and (abs(facts.pose).max((0, 1)) > 0.97 * limits).all()
    steps = np.diff(facts.pose.astype(float), axis=1)
    turns = (steps[..., 2] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turns, np.broadcast_to(turns[:, :1], turns.shape), atol=1e-5)
    still = abs(facts.pose[:, 1:]) >= limits - 1e-6
    for column in (0, 1, 3):
        free = ~(still[:, 1:, column] | still[:, :-1, column])
        np.testing.assert_allclose(steps[:, 1:, column][free], steps[:, :-1, column][free], atol=1e-5)
    assert not np.array_equal(figures.facts("test", 20).pose, few.pose)


def test_grounds_are_of_the_clip_or_of_the_frame():
    facts = figures.facts("train", 2)
    corners = {}
    for ground in figures.GROUNDS:
        frames, _ = figures.draw_clip((0, 0, 0, 0), np.zeros((3, 4)), 32, ground, int(facts.seeds[0]))
        corners[ground] = frames[:, :3, :3]
    for ground, grey in figures.EVEN.items():
        assert (corners[ground] == grey).all()
    assert (corners["clip"] == corners["clip"][:1]).all() and np.ptp(corners["clip"]) > 0
    assert (corners["frame"][0] != corners["frame"][1]).any()
    other, _ = figures.draw_clip((0, 0, 0, 0), np.zeros((1, 4)), 32, "clip", int(facts.seeds[1]))
    assert (other[0, :3, :3] != corners["clip"][0]).any()


def test_all_bodies_are_brighter_than_the_dark_ground_and_not_than_the_plain_one():
    bodies = [figures.render((1, body, 0, 0), (0, 0, 0, 0), 32, figures.even("dark", 32))[0][20, 20].mean() for body in range(8)]
    assert min(bodies) > 3 * figures.EVEN["dark"]
    assert min(bodies) < figures.EVEN["plain"] < max(bodies)


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="body is 8; it must be in 0..7"):
        figures.render((0, 8, 0, 0), POSE)
    with pytest.raises(ValueError, match="a pose is 4 finite numbers"):
        figures.render(IDENTITY, (0, 0, 0))
    with pytest.raises(ValueError, match="size is 4"):
        figures.render(IDENTITY, POSE, 4)
    with pytest.raises(ValueError, match="no split 'valid' of figures; it has: train"):
        figures.identities("valid")
    with pytest.raises(ValueError, match="ground is 'grass'"):
        figures.draw_clip(IDENTITY, [POSE], 32, "grass", 0)
