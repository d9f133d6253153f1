"""The report's drawings: marks stand where their values are, ticks are round, labels do not cover each other."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jepalab.compare.drawing import Axis, Chart, Look, Margins, number_axis, steps_between
from jepalab.compare.labels import place, spread
from jepalab.compare.pictures import encode_strip


def test_marks_stand_where_their_values_are() -> None:
    axis = Axis("", 0.0, 1.0, ())
    chart = Chart("t", "d", x=axis, y=axis, size=(120, 220), margins=Margins(10, 10, 10, 10))
    look = Look("blue")
    for point in ((0.25, 0.25), (1.0, 0.0), (0.5, -3.0)):
        chart.dot(point, look)
    circles = [(mark.get("cx"), mark.get("cy")) for mark in chart.root.iter("circle")]
    assert circles == [("35.0", "160.0"), ("110.0", "210.0")]
    arrow = next(chart.root.iter("polygon"))
    assert "60.0,213.0" in (arrow.get("points") or ""), "its tip lies just below the edge"


def test_rows_run_downwards() -> None:
    axis = Axis("", 0.0, 1.0, ())
    margins = Margins(0, 0, 0, 0)
    chart = Chart("t", "d", x=axis, y=replace(axis, high=2.0), size=(100, 100), margins=margins, names_down=True)
    assert [chart.at_y(value) for value in (0.0, 0.5, 2.0)] == [0.0, 25.0, 100.0]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_few(low: float, length: float, most: int) -> None:
    ticks = steps_between(low, low + length, most=most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-6 * length <= tick <= low + (1 + 1e-6) * length for tick in ticks)
    gaps = np.diff(ticks)
    mantissas = {f"{gap:.0e}"[0] for gap in gaps}
    assert len(mantissas) <= 1
    assert mantissas <= set("125")


def test_an_axis_of_one_value_opens_around_it() -> None:
    axis = number_axis("", 3.0, 3.0)
    assert (axis.low, axis.high) == (2.5, 3.5)


@given(st.lists(st.floats(0, 100), max_size=12))
def test_spread_labels_keep_order_distance_and_bounds(wanted: list[float]) -> None:
    placed = spread(wanted, gap=8.0, low=0.0, high=100.0)
    assert all(-1e-9 <= at <= 100 + 1e-9 for at in placed)
    order = np.argsort(wanted, kind="stable")
    assert all(np.diff(np.array(placed)[order]) >= 8 - 1e-6)


def test_spread_moves_no_more_than_needed() -> None:
    assert spread([10.0, 50.0, 90.0], gap=8.0, low=0.0, high=100.0) == [10.0, 50.0, 90.0]
    assert spread([52.0, 50.0, 90.0], gap=8.0, low=0.0, high=100.0) == [55.0, 47.0, 90.0]
    assert spread([0.0, 0.0, 0.0], gap=80.0, low=0.0, high=100.0) == [0.0, 50.0, 100.0]
    assert spread([], gap=8.0, low=0.0, high=100.0) == []


def test_labels_of_a_cluster_overlap_neither_each_other_nor_the_marks() -> None:
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    anchors = 200 + 12 * np.stack([np.cos(angles), np.sin(angles)], 1)
    sizes = np.tile([[30.0, 12.0]], (7, 1))
    marks = np.concatenate([anchors - 5, anchors + 5], 1)
    boxes = place(anchors, sizes, bounds=(0.0, 0.0, 400.0, 400.0), obstacles=marks, weights=np.full(7, 4.0))
    everything = [*boxes, *marks]
    for i, box in enumerate(boxes):
        for other in everything[i + 1 :]:
            assert (np.maximum(box[:2], other[:2]) >= np.minimum(box[2:], other[2:])).any()


def test_labels_at_the_edge_stay_inside() -> None:
    corner = np.array([[1.0, 1.0], [399.0, 399.0]])
    sizes = np.array([[60.0, 12.0], [60.0, 12.0]])
    none = np.empty((0, 4))
    boxes = place(corner, sizes, bounds=(0.0, 0.0, 400.0, 400.0), obstacles=none, weights=np.empty(0))
    assert (boxes >= 0).all()
    assert (boxes <= 400).all()


def test_strip_is_black_at_low_and_white_at_high() -> None:
    clip = np.array([[[0.0, 1.0]], [[2.0, 5.0]]])
    address = encode_strip(clip, low=0.0, high=4.0)
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    grey, alpha = np.moveaxis(np.asarray(picture), -1, 0)
    assert grey[0, [0, 1, 4, 5]].tolist() == [0, 64, 128, 255]
    assert alpha[0].tolist() == [255, 255, 0, 0, 255, 255]
