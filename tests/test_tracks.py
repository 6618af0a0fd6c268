"""Tracks over drawn scenes with known people, and the votes on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from threefold.read.reading import Reading, make_reading
from threefold.watch.tracks import Detection, Tracker, assign, overlaps
from threefold.watch.votes import Opinion, Rules, Vote

POINTS = ((0.0, 0.0),) * 5
ALL = ("mask", "gender", "age_group")


def at(x: float, y: float = 100, size: float = 40, score: float = 0.9) -> Detection:
    return Detection((x - size / 2, y - size / 2, x + size / 2, y + size / 2), score, POINTS)


def follow(scene: Sequence[Sequence[Detection | None]], fps: float = 25, max_gap: float = 1.0) -> list[list[int]]:
    """Frames of people (None: not detected), each in the same place of every frame -> the track numbers of each."""
    tracker = Tracker(max_gap)
    numbers: list[list[int]] = [[] for _ in scene[0]]
    for index, people in enumerate(scene):
        detections = [person for person in people if person is not None]
        seen, _ = tracker.update(index / fps, sorted(detections, key=lambda face: -face.score))
        by_box = {id(detection): track.number for track, detection in seen}
        assert len(by_box) == len(detections)
        for person, history in zip(people, numbers, strict=True):
            if person is not None:
                history.append(by_box[id(person)])
    return numbers


def test_two_people_who_cross_keep_their_numbers():
    """They walk through each other at 4 face widths a second; while they overlap the one behind is not seen."""
    scene = []
    for index in range(60):
        left, right = 100 + 6.4 * index, 480 - 6.4 * index
        scene.append((at(left), None if abs(left - right) < 30 else at(right, 108)))
    assert [set(person) for person in follow(scene)] == [{1}, {2}]


def test_people_side_by_side_are_two_and_never_exchanged():
    rng = np.random.default_rng(0)
    scene = [[at(200 + rng.normal(0, 2)), at(250 + rng.normal(0, 2)), at(300 + rng.normal(0, 2))] for _ in range(80)]
    assert [set(person) for person in follow(scene)] == [{1}, {2}, {3}]


def test_neighbour_who_vanishes_does_not_hand_over_the_number():
    scene = [[at(200), at(260) if index < 20 else None] for index in range(40)]
    assert [set(person) for person in follow(scene)] == [{1}, {2}]


def test_missed_detections_are_bridged_up_to_the_gap():
    """A walking face that is seen in one frame of four, and one that is gone for 0.8 and for 1.2 seconds."""
    sparse = [[at(100 + 4 * i) if i % 4 == 0 else None] for i in range(60)]
    assert set(follow(sparse)[0]) == {1}
    for away, numbers in ((20, {1}), (30, {1, 2})):
        scene = [[at(200) if i < 20 or i >= 20 + away else None] for i in range(80)]
        assert set(follow(scene)[0]) == numbers


def test_who_walks_out_of_sight_and_on_is_taken_up_where_expected():
    """Hidden for 12 frames at 3 face widths a second: the velocity carries the track, a standing guess would not."""
    scene = [[at(100 + 4.8 * i) if not 15 <= i < 27 else None] for i in range(50)]
    assert 12 * 4.8 > 40 and set(follow(scene)[0]) == {1}


def test_one_who_turns_away_has_weak_boxes_and_stays_one_track():
    scores = [0.92] * 10 + [0.7, 0.65, 0.61] * 5 + [0.9] * 10
    scene = [[at(200, size=40 if score > 0.8 else 34, score=score)] for score in scores]
    assert set(follow(scene)[0]) == {1}


def test_a_weak_box_never_takes_the_track_of_a_strong_one():
    """In the same frame a weak box lies nearer to the predicted place than the strong one does."""
    tracker = Tracker()
    tracker.update(0, [at(100)])
    seen, _ = tracker.update(0.04, [at(110), at(100, score=0.62)])
    assert [(track.number, face.score) for track, face in seen] == [(1, 0.9), (2, 0.62)]


def test_frames_that_arrive_in_bursts_throw_nobody_off():
    """A network holds back ten frames of 40 ms and hands them over at once, while somebody walks on."""
    tracker = Tracker()
    for index in range(60):
        seen, _ = tracker.update(index // 10 * 0.4 + index % 10 * 1e-4, [at(100 + 2 * index)])
        assert [track.number for track, _ in seen] == [1]
    assert abs(seen[0][0].speed[0]) <= 9 * 40


def test_a_face_that_is_twice_as_large_is_somebody_else():
    assert follow([[at(200, size=30)], [at(200, size=75)]])[0] == [1, 2]
    assert set(follow([[at(200, size=30 * 1.03**i)] for i in range(50)])[0]) == {1}, "who comes nearer stays one"


def test_who_leaves_ends_and_closing_ends_the_rest():
    tracker = Tracker(max_gap=0.5)
    tracker.update(0, [at(100), at(300)])
    tracker.update(0.4, [at(100)])
    _, ended = tracker.update(0.6, [at(100)])
    assert [track.number for track in ended] == [2] and ended[0].seconds == 0 and ended[0].frames == 1
    assert [(track.number, track.frames, track.seconds) for track in tracker.close()] == [(1, 3, 0.6)]
    assert tracker.close() == []
    with pytest.raises(ValueError, match="before"):
        tracker.update(0.5, [])


def test_long_silence_makes_no_track_fly_away():
    tracker = Tracker(max_gap=100)
    for index in range(10):
        seen, _ = tracker.update(index / 25, [at(100 + 5 * index)])
    track = seen[0][0]
    speed = track.speed[0]
    assert speed == pytest.approx(125, rel=0.1)
    assert track.at(track.last + 90)[0] - track.place[0] == pytest.approx(speed, rel=0.01), "one second's worth at most"


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 10_000))
def test_assignment_is_the_best_there_is(rows: int, columns: int, seed: int):
    rng = np.random.default_rng(seed)
    cost = rng.choice([0.1, 0.5, 0.9, 1.3, 2.5, np.inf], (rows, columns)) + rng.random((rows, columns)) / 10
    pairs = assign(cost, 1.0)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert all(cost[pair] < 1 for pair in pairs)
    if not rows or not columns:
        assert pairs == []
        return
    capped = np.minimum(cost, 1.0) if rows <= columns else np.minimum(cost, 1.0).T
    best = min(
        sum(capped[row, column] for row, column in enumerate(order))
        for order in itertools.permutations(range(capped.shape[1]), capped.shape[0])
    )
    assert sum(cost[pair] for pair in pairs) + 1.0 * (min(rows, columns) - len(pairs)) == pytest.approx(best)


def test_overlap_is_iou_less_distance():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [30, 0, 40, 10]], dtype=float)
    overlap = overlaps(boxes, boxes)
    assert np.allclose(np.diag(overlap), 1) and np.allclose(overlap, overlap.T)
    assert overlap[0, 1] == pytest.approx(1 / 3 - 25 / 325) and overlap[0, 2] == pytest.approx(-900 / 1700)


def reading(mask: int = 0, sure: float = 0.9, quality: str = "ok", age: float | None = None) -> Reading:
    """The mask with probability `sure`, the others alike; female with 0.9; the middle age group with 0.9."""
    parts = [np.full(3, (1 - sure) / 2), np.array([0.1, 0.9]), np.array([0.05, 0.9, 0.05])]
    parts[0][mask] = sure
    joint = np.einsum("i,j,k->ijk", *parts).reshape(18).astype(np.float32)
    return make_reading(joint, age, quality=quality)


TRACK = Tracker().update(0, [at(100)])[0][0][0]


def hear(
    opinion: Opinion, readings: Sequence[Reading], begin: float = 0, pause: float = 0.2
) -> list[tuple[float, str]]:
    """(time, kind mask) of all that was told."""
    events = []
    for index, heard in enumerate(readings):
        time = begin + index * pause
        opinion.add(time, heard, 0.9)
        if kind := opinion.settle(time):
            events.append((round(time, 3), f"{kind} {opinion.reading(TRACK).mask}"))
    return events


def test_vote_is_a_product_at_no_correlation_and_a_mean_at_full_correlation():
    shares = np.array([0.7, 0.2, 0.1])
    weight = (0.7 - 1 / 3) / (2 / 3)
    logs = np.log(0.98 * shares + 0.02 / 3)
    for correlation, factor in ((0.0, 8 * weight), (1.0, 1.0), (0.3, 8 * weight / (1 + 0.3 * (8 * weight - 1)))):
        vote = Vote(3, correlation)
        for index in range(8):
            vote.add(index, shares, 1.0)
        expected = np.exp(factor * logs)
        assert vote.posterior == pytest.approx(expected / expected.sum())


def test_a_thousand_unsure_frames_do_not_make_one_sure():
    """Independent, a thousand readings of 0.5 would be certainty; of one person they are one unsure look."""
    vote = Vote(3, Rules().correlation)
    for index in range(1000):
        vote.add(index / 25, np.array([0.5, 0.3, 0.2]), 0.9)
    assert vote.posterior[0] < Rules().threshold and not vote.sure(Rules())
    assert Vote(3, 0.3).posterior == pytest.approx(np.full(3, 1 / 3))


def test_one_loud_frame_has_no_veto_and_empty_frames_dilute_nothing():
    vote = Vote(3, 0.3)
    for index in range(8):
        vote.add(index, np.array([0.9, 0.05, 0.05]), 0.9)
    before = vote.posterior[0]
    for index in range(50):
        vote.add(8 + index, np.full(3, 1 / 3), 0.9)
    assert vote.posterior[0] == pytest.approx(before)
    vote.add(60, np.array([0.0, 0.0, 1.0]), 1.0)
    assert vote.posterior[0] > 0.9 and math.isfinite(vote.logs.sum())


def test_event_comes_once_when_sure_for_frames_and_seconds():
    assert hear(Opinion(("mask",), Rules()), [reading()] * 20) == [(0.6, "event worn")]
    assert hear(Opinion(("mask",), Rules()), [reading()] * 20, pause=0.04) == [(0.52, "event worn")]
    assert hear(Opinion(("mask",), Rules(frames=7)), [reading()] * 20) == [(1.2, "event worn")]
    assert hear(Opinion(("mask",), Rules()), [reading(0, 0.5)] * 50) == []


def test_gender_and_age_are_waited_for_but_not_for_ever():
    opinion = Opinion(ALL, Rules())
    assert hear(opinion, [reading(2, age=40.0)] * 10) == [(0.6, "event none")]
    now = opinion.reading(TRACK)
    assert (now.mask, now.gender, now.age_group, now.age) == ("none", "female", "30-59", pytest.approx(40))
    assert (now.face, now.box, now.score, now.quality) == (1, TRACK.box, 0.9, "ok") and "class" not in now.data()
    unsure = make_reading(np.repeat([0.98, 0.01, 0.01], 6).astype(np.float32) / 6, None)
    slow = Opinion(ALL, Rules(patience=1.0))
    assert hear(slow, [unsure] * 20) == [(1.6, "event worn")]
    now = slow.reading(TRACK)
    assert (now.gender, now.age_group, now.age) == ("indeterminate", "indeterminate", None)


def test_a_mask_taken_off_in_view_is_told_once_and_a_glitch_is_not():
    opinion = Opinion(("mask",), Rules())
    assert hear(opinion, [reading(0)] * 100) == [(0.6, "event worn")]
    assert hear(opinion, [reading(2), reading(2), reading(0)] * 10, begin=20) == []
    assert hear(opinion, [reading(2)] * 10, begin=30) == [(30.6, "changed none")]
    assert hear(opinion, [reading(0)] * 10, begin=40) == [(40.6, "changed worn")]
    assert opinion.end(50, 1000) is None


def test_readings_that_are_not_good_enough_weigh_nothing():
    opinion = Opinion(ALL, Rules())
    assert hear(opinion, [reading(quality="blurred"), reading(quality="small")] * 20) == []
    assert opinion.end(5.0, 100) == "indeterminate"
    now = opinion.reading(TRACK)
    assert (now.mask, now.gender) == ("indeterminate",) * 2 and now.confidence == pytest.approx(1 / 3)


def test_what_is_told_at_the_end():
    unsure = Opinion(("mask",), Rules())
    hear(unsure, [reading(0, 0.5)] * 5)
    assert unsure.end(0.9, 20) is None and unsure.end(2.0, 2) is None, "too short to be told"
    assert unsure.end(2.0, 20) is not None
    waiting = Opinion(ALL, Rules(patience=100))
    hear(waiting, [make_reading(np.repeat([0.98, 0.01, 0.01], 6).astype(np.float32) / 6, None)] * 5)
    assert waiting.end(0.8, 20) == "event"
    now = waiting.reading(TRACK)
    assert (now.mask, now.gender) == ("worn", "indeterminate")


def test_entrance_mode_keeps_nothing_but_the_mask():
    opinion = Opinion(("mask",), Rules())
    hear(opinion, [reading(0, age=30.0)] * 5)
    assert set(opinion.votes) == {"mask"}
    assert not {"gender", "age_group", "age"} & set(opinion.reading(TRACK).data())


def test_faces_are_read_often_until_sure_then_rarely_and_again_when_in_doubt():
    def times(opinion: Opinion, what: Reading, begin: int, frames: int) -> list[float]:
        read = []
        for index in range(begin, begin + frames):
            if opinion.due(index / 25):
                read.append(index)
                opinion.add(index / 25, what, 0.9)
            opinion.settle(index / 25)
        return read

    opinion = Opinion(("mask",), Rules())
    assert times(opinion, reading(0), 0, 100) == [0, 3, 6, 9, 12, 15, 40, 65, 90]
    assert times(opinion, reading(2), 100, 50) == [115, 118, 121, 124, 127, 130], "told as changed at the last"
    lost = Opinion(("mask",), Rules(many=4))
    assert times(lost, reading(0, 0.4), 0, 50) == [0, 3, 6, 9, 22, 35, 48]
