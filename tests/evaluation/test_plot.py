import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duetto.evaluation import plot
from duetto.evaluation.result import Curve, Point, Result, Target, Users, hashed
from duetto.evaluation.table import Interval

CURVE = Curve("before learning", (0.0, 0.2, 0.4, 1.0), (0.80, 0.90, 0.95, 0.96))
RESULT = Result(
    "r",
    "digits",
    (0,),
    "",
    curves=(CURVE, Curve("chance", (0.0, 1.0), (0.80, 0.96), reference=True)),
    points=(Point("chosen", 0.25, 0.91, "before learning"), Point("cloud only", 1.0, 0.96)),
    target=Target("target", 0.94),
)
ROUNDS = [
    {"round": i, "accuracy": 0.8 + 0.01 * i, "accuracy_low": 0.7, "accuracy_high": 0.9, "up_bytes": 2e6}
    for i in range(4)
]


def marks(svg: str, style: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(svg).iter() if style in each.get("class", "").split()]


def words(svg: str) -> str:
    return " ".join(ET.fromstring(svg).itertext())


def test_points_stand_where_their_values_are():
    svg = plot.tradeoff(RESULT, 1000, (0.8, 1.0))
    axes = plot.Axes(1000, float(re.search(r'viewBox="0 0 1000 (\d+)"', svg)[1]), (0, 1), (0.8, 1.0))
    (dot,) = [mark for mark in marks(svg, "dot") if mark.tag == "circle"]
    plain = axes.width - axes.left - axes.right, axes.height - axes.top - axes.bottom
    assert float(dot.get("cx")) == pytest.approx(axes.left + 0.25 * plain[0], abs=0.06)
    assert float(dot.get("cy")) == pytest.approx(axes.top + (1.0 - 0.91) / 0.2 * plain[1], abs=0.06)


def test_a_curve_is_marked_where_it_reaches_the_target():
    svg = plot.tradeoff(RESULT, 1000)
    assert len(marks(svg, "drop")) == 1  # the system's; a reference is not asked for
    assert "40.0 %" in [label[0].text for label in marks(svg, "strong")]
    never = Result("r", "digits", (0,), "", curves=(CURVE,), target=Target("target", 0.97))
    assert not marks(plot.tradeoff(never, 1000), "drop")


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Where the labels stand, by the widths that the plot expects."""
    found = []
    for label in marks(svg, "label"):
        lines = list(label)
        width = max(plot.extent(line.text) for line in lines)
        x = float(lines[0].get("x")) - (width if label.get("text-anchor") == "end" else 0)
        top = float(lines[0].get("y")) - plot.FONT * 0.95
        found.append((x, top, x + width, top + 1.25 * plot.FONT * len(lines)))
    return found


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.8, 0.96)), min_size=1, max_size=6),
    st.sampled_from([354, 516, 1064]),
)
def test_labels_do_not_stand_on_each_other_or_outside(places, width):
    points = tuple(Point(f"baseline {i}", x, y) for i, (x, y) in enumerate(places))
    svg = plot.tradeoff(
        Result("r", "digits", (0,), "", curves=RESULT.curves, points=points, target=RESULT.target), width
    )
    placed = boxes(svg)
    assert len(placed) == len(points) + 4  # two curves, the target, and the share it is reached at
    for i, (left, top, right, foot) in enumerate(placed):
        assert left >= 0
        assert right <= width
        for other in placed[:i]:
            assert right <= other[0] + 1 or other[2] <= left + 1 or foot <= other[1] + 1 or other[3] <= top + 1


def test_rounds_are_drawn_with_their_band_and_others_apart_with_their_unit():
    svg = plot.learning(ROUNDS, 500)
    assert len(marks(svg, "area")) == 1
    assert len(marks(svg, "line")) == 1  # a band's edges are no series
    assert "round 3, accuracy: 83.0 %" in words(svg)
    (other,) = plot.others(ROUNDS, 250)
    assert "sent up, MB" in words(other)
    assert "round 2, up bytes: 2" in words(other)
    assert plot.others([{"round": 0, "accuracy": 0.5}], 250) == []


@pytest.mark.parametrize("rounds", [ROUNDS[:1], [{"round": 5, "accuracy": 0.5}, {"round": 6, "accuracy": 0.5}]])
def test_one_round_or_a_flat_curve_is_drawn(rounds):
    svg = plot.learning(rounds, 500)
    assert len(marks(svg, "dot")) == len(rounds)
    assert "nan" not in svg


def people(n: int) -> Users:
    g = np.random.default_rng(0)
    return Users(g.uniform(0.5, 1, n), g.uniform(0.6, 1, n), [hashed(str(i)) for i in range(n)])


def test_every_user_is_drawn_worst_first():
    users = people(30)
    svg = plot.people(users, 500)
    assert len(marks(svg, "user")) == 30
    said = re.findall(r"user (\w+): ([\d.]+) % before", words(svg))
    assert [float(before) for _, before in said] == [round(100 * value, 1) for value in np.sort(users.before)]
    assert {name for name, _ in said} == set(users.names_hashed)


def test_many_users_are_two_curves():
    svg = plot.people(people(plot.MANY + 1), 500)
    assert not marks(svg, "user")
    assert len(marks(svg, "line")) == 2
    assert {label[0].text for label in marks(svg, "label")} == {"before", "after"}


def test_ticks_are_round_numbers_within():
    assert plot._ticks(0, 1, 10) == pytest.approx(np.arange(11) / 10)
    assert plot._ticks(0.83, 0.97, 7) == pytest.approx([0.84, 0.86, 0.88, 0.90, 0.92, 0.94, 0.96])
    assert plot._ticks(3, 3, 5) == [3]


def test_long_words_are_broken_and_cut():
    assert plot.wrapped("a short one", 26) == ["a short one"]
    assert plot.wrapped("after, threshold from audited answers", 26) == ["after, threshold from", "audited answers"]
    lines = plot.wrapped("word " * 40 + "x" * 99, 20)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(map(len, plot.wrapped("x" * 99, 20))) == 20


def test_words_cannot_leave_the_figure():
    hostile = '"><script>alert(1)</script>'
    curve = Curve(hostile, (0.0, 1.0), (0.8, 0.9))
    svg = plot.tradeoff(Result("r", "t", (0,), "", curves=(curve,), points=(Point(hostile, 0.5, 0.8),)), 1000)
    assert not [each for each in ET.fromstring(svg).iter() if each.tag.endswith("script")]


TABLE = np.array([[3, 0, 1], [0, 5, 3]])


def test_a_partition_has_a_column_a_user_and_a_shade_a_share():
    svg = plot.partition(TABLE, ["ann", "ben"], ["cat", "dog", "owl"], "who has what")
    cells = [mark for mark in marks(svg, "cell") if len(mark)]  # the others are the scale
    said = {mark[0].text: float(mark.get("fill-opacity")) for mark in cells}
    assert set(said) == {
        "ann: 3 of 4 rows are cat",
        "ann: 1 of 4 rows are owl",
        "ben: 5 of 8 rows are dog",
        "ben: 3 of 8 rows are owl",
    }
    assert sorted(said, key=said.get) == [  # by 1/4, 3/8, 5/8, 3/4
        "ann: 1 of 4 rows are owl",
        "ben: 3 of 8 rows are owl",
        "ben: 5 of 8 rows are dog",
        "ann: 3 of 4 rows are cat",
    ]
    ann, ben = marks(svg, "bar")
    assert float(ben.get("height")) == pytest.approx(2 * float(ann.get("height")))
    column = {mark[0].text[:3]: mark.get("x") for mark in [*cells, ann, ben]}
    assert float(column["ben"]) > float(column["ann"])
    assert {mark.get("x") for mark in cells} == set(column.values())
    line = {mark[0].text[-3:]: float(mark.get("y")) for mark in cells}
    assert line["cat"] < line["dog"] < line["owl"]
    assert "who has what" in words(svg)


def test_many_users_and_long_names_stay_in_the_picture():
    names = [f"user-{i}" for i in range(plot.MANY)]
    svg = plot.partition(np.ones((plot.MANY, 4), int), names, ["a" * 30, "b", "c", "<d>"], "t", width=700)
    for mark in [*marks(svg, "cell"), *marks(svg, "bar")]:
        assert float(mark.get("x")) >= 30 * 0.5 * plot.FONT, "right of the names"
        assert float(mark.get("x")) + float(mark.get("width")) <= 700


def test_spreads_have_a_dot_for_every_cell_that_is_shown() -> None:
    cells = np.array([0.0, 0.1, 0.2, 0.3, -5.0])
    panels = [
        ("first <panel>", [("plain", cells, False), ("meant", cells[:4], True)]),
        ("second", [("plain", -cells, False)]),
    ]
    svg = plot.spreads(panels, "a & b", "saving, %", (-0.2, 0.5), 800)
    dots = [mark for mark in marks(svg, "bar") + marks(svg, "cell") if mark.tag.endswith("circle")]
    assert len(dots) == 4 + 4 + 3  # not -5; and of the second panel's 0, -0.1 and -0.2
    left, right = (float(dot.get("cx")) for dot in dots[:4:3])
    ten = (right - left) / 3
    medians = [mark for mark in marks(svg, "cell") if "median" in "".join(mark.itertext())]
    at = [float(mark.get("x")) + float(mark.get("width")) / 2 for mark in medians]
    assert at == pytest.approx([left + ten, left + 1.5 * ten, left - ten], abs=0.1)
    told = words(svg)
    for each in (
        "first <panel>",
        "a & b",
        "saving, %",
        "1 of 5",
        "2 of 5",
        "meant: the middle half from 7.5 to 22.5 %",
    ):
        assert each in told
    assert "-88.0" in told, "the mean of all cells, shown or not"


def test_a_figure_alone_is_a_picture_with_its_styles() -> None:
    figure = '<svg viewBox="0 0 4 3" role="img"><path class="line s0" d="M0 0L1 1"/></svg>'
    root = ET.fromstring(plot.alone(figure))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 4 3"
    assert ".s0 {" in (root[0].text or "")
    assert root[1].get("d") == "M0 0L1 1"


def test_depth_draws_every_curve_its_band_and_what_is_known_without() -> None:
    curves = {
        "float32": [(0.9, 0.88, 0.92), (0.5, 0.4, 0.6)],
        "int4 <b>": [(0.8, 0.7, 0.9), (0.4, 0.3, 0.5)],
        "int4 <b>, not known": [(0.2, 0.1, 0.3), (0.1, 0.0, 0.2)],
    }
    drawn = plot.depth(curves, {"the mean": 0.1}, ["3", "11"], 900, "SSIM", ["int4 <b>, not known"])
    assert drawn.count('class="area') == 2, "a dashed curve has no band"
    assert 'class="line s1 ref0"' in drawn, "and the colour of the one that it belongs to"
    assert "int4 &lt;b&gt;, cut 11: 0.400 (0.300 to 0.500)" in drawn
    assert "the mean" in drawn
    assert "<b>" not in drawn


def test_images_are_greys_of_their_pixels() -> None:
    picture = np.array([[[[0.0, 1.0], [0.5, 1.0]]]])
    drawn = plot.images({"a": picture, "b & c": np.concatenate([picture, picture])})
    assert drawn.count("<rect") == 3
    assert drawn.count('fill="#ffffff" d="M1 0h1v1h-1zM1 1h1v1h-1z"') == 3
    assert "b &amp; c" in drawn


def test_sizes_stand_where_they_cost_and_are_worth_what_they_are() -> None:
    """The points' places, by hand: the plane's edges are a little outside of what is shown."""
    points = [
        ("0.25", 1.0, Interval(0.80, 0.78, 0.82), True, False),
        ("0.5", 3.0, Interval(0.79, 0.77, 0.81), False, False),
        ("1", 4.0, Interval(0.90, 0.88, 0.92), True, True),
    ]
    drawn = plot.sizes(points, "all of them", "mJ an answer")
    assert drawn.startswith("<svg")
    assert drawn.count("<circle") == 2  # the one taken is a diamond
    assert "1, taken" in drawn
    assert 'aria-label="all of them"' in drawn
    spread = 0.06 * 3.0
    x = 44 + (np.array([1.0, 3.0]) - (1.0 - spread)) / (3.0 + 2 * spread) * (900 - 44 - 14)
    found = [float(each) for each in re.findall(r'<circle [^>]*cx="([0-9.]+)"', drawn)]
    np.testing.assert_allclose(found, x, atol=0.06)
