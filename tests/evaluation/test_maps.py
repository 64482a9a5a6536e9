"""A planner's map as a picture and as words: regions, borders, names, shades, and the table that says the same."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from duetto.evaluation import maps
from duetto.evaluation.result import Map

UP, RTT = tuple(np.geomspace(0.1, 1000, 21).tolist()), tuple(np.geomspace(0.001, 1, 13).tolist())
NAMES, KINDS = ("device", "cloud, input compressed", "cut 3, int8"), ("device", "cloud", "split")


def drawn(at: tuple[float, float] = (10.0, 0.05), title: str = "a net on a phone, latency") -> Map:
    """The device is best below 1 Mbit/s, the cloud above 100, and a cut between them gains up to 0.3 s."""
    column = np.digitize(UP, (1.0, 100.0))
    best = np.tile(np.array([0, 2, 1])[column], (len(RTT), 1))
    gain = np.where(best == 2, np.geomspace(1e-3, 0.3, len(RTT))[:, None], 0.0)
    return Map(title, "s", UP, RTT, NAMES, KINDS, best.tolist(), gain.tolist(), at)


class Page(HTMLParser):
    """Every element, and the text of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.now: list[str] = []
        self.feed(html)
        assert not self.now

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.now.append(tag)
        self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.now.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.now):
            self.text[tag][-1] += data


def area(d: str) -> float:
    """Of a path of rectangles, in square pixels."""
    parts = re.findall(r"M([\d.]+) ([\d.]+)H([\d.]+)V([\d.]+)H", d)
    return sum(abs((float(x1) - float(x0)) * (float(y1) - float(y0))) for x0, y0, x1, y1 in parts)


def test_regions_are_as_large_as_their_links_are_many() -> None:
    each = drawn()
    page = Page(maps.plans(each, maps.styles([each]), 516))
    regions = {
        words.partition(":")[0]: area(str(attrs["d"]))
        for (_, attrs), words in zip(
            [tag for tag in page.tags if tag[0] == "path" and "region" in str(tag[1]["class"])],
            page.text["title"],
            strict=False,
        )
    }
    # columns lie between the middles of neighbouring bandwidths, so the borders are halfway in logarithms
    middle = np.log10(np.sqrt(np.array(UP)[1:] * np.array(UP)[:-1]))
    column = np.digitize(UP, (1.0, 100.0))
    first, second = (middle[np.flatnonzero(np.diff(column))] + 1) / 4
    wide, high = 516 - 52 - 24, 330 - 34 - 46
    expected = [first * wide * high, (1 - second) * wide * high, (second - first) * wide * high]
    for name, size in zip(NAMES, expected, strict=True):
        assert regions[name] == pytest.approx(size, rel=0.01)
    (border,) = [attrs["d"] for tag, attrs in page.tags if attrs.get("class") == "border"]
    xs = {float(x) for x in re.findall(r"M([\d.]+) ", str(border))}
    assert sorted(xs) == pytest.approx([52 + first * wide, 52 + second * wide], abs=0.1)


@pytest.mark.parametrize("width", [354, 516])
def test_regions_are_named_where_there_is_room_and_the_link_is_marked(width: float) -> None:
    each = drawn()
    page = Page(maps.plans(each, maps.styles([each]), width))
    named = [
        text for (tag, attrs), text in zip(_texts(page), page.text["text"], strict=True) if attrs["class"] == "place"
    ]
    assert len(named) == 3
    assert [words[0] for words in named] == ["1", "2", "3"]
    assert "this link" in page.text["text"]
    assert "the link asked about: 10 Mbit/s up, 50 ms" in page.text["title"]
    for numbers in ("0.1", "1,000", "bandwidth up, Mbit/s", "round trip, ms"):
        assert numbers in page.text["text"]
    (svg,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert svg["role"] == "img"
    assert str(svg["aria-label"]).startswith("a net on a phone, latency: the best plan over links")


def _texts(page: Page) -> list[tuple[str, dict[str, str | None]]]:
    return [tag for tag in page.tags if tag[0] == "text"]


def test_a_link_beyond_the_map_stands_at_its_edge() -> None:
    each = drawn(at=(5000.0, 1e-5))
    svg = maps.plans(each, maps.styles([each]), 516)
    (mark,) = re.findall(r'class="dot base" d="M([\d.]+) ([\d.]+)', svg)
    assert tuple(map(float, mark)) == (516 - 24, 330 - 46 - 7)


def test_the_table_says_the_same() -> None:
    each = drawn()
    page = Page(maps.legend(each, maps.styles([each])))
    shares = [100 * float(np.mean(np.asarray(each.best) == i)) for i in range(3)]
    column = np.digitize(UP, (1.0, 100.0))
    spans = [(min(own), max(own)) for own in (np.array(UP)[column == c] for c in (0, 2, 1))]
    lines = page.text["tr"][1:]
    for i, line in enumerate(lines):
        low, high = (f"{value:.3g}" if value < 999.5 else f"{value:,.0f}" for value in spans[i])
        gain = "300 ms" if i == 2 else "–"
        assert line == f"{i + 1}{NAMES[i]}{shares[i]:.0f} %{low}–{high}{gain}"
    assert page.text["th"][2] == f"Mbit/s at {1000 * min(RTT, key=lambda rtt: abs(np.log(rtt / 0.05))):.3g} ms"


def test_shades_are_powers_of_ten_of_what_is_gained() -> None:
    each = drawn()
    assert maps.steps([each]) == pytest.approx([1e-3, 1e-2, 1e-1])
    page = Page(maps.scale(each, maps.steps([each])))
    gain = np.asarray(each.gain)
    shares = [np.mean(gain == 0), *(np.mean((gain >= low) & (gain < 10 * low)) for low in (1e-3, 1e-2, 1e-1))]
    words = ["nothing", "1 ms to 10 ms", "10 ms to 100 ms", "100 ms to 1 s"]
    assert page.text["li"] == [f"{word} {100 * share:.0f} %" for word, share in zip(words, shares, strict=True)]
    svg = Page(maps.gained(each, maps.steps([each]), 516))
    assert len([tag for tag, attrs in svg.tags if "region" in str(attrs.get("class"))]) == 3
    assert "no split gains" in svg.text["text"]


def test_where_nothing_is_gained_it_says_so() -> None:
    each = drawn()
    none = replace(each, gain=np.zeros_like(each.gain).tolist(), best=np.minimum(each.best, 1).tolist())
    none = replace(none, plans=NAMES[:2], kinds=KINDS[:2])
    assert maps.steps([none]) == []
    assert "No split gains anything" in maps.scale(none, [])
    page = Page(maps.gained(none, [], 516))
    assert "no split gains" in page.text["text"]
    assert not [attrs for _, attrs in page.tags if "region" in str(attrs.get("class"))]


def test_a_plan_looks_alike_in_all_maps() -> None:
    one, other = (
        drawn(),
        replace(drawn(), plans=("cut 9, int4", "device", "cut 3, int8"), kinds=("split", "device", "split")),
    )
    looks = maps.styles([one, other])
    assert [looks[name].number for name in ("device", "cloud, input compressed", "cut 3, int8", "cut 9, int4")] == [
        1,
        2,
        3,
        4,
    ]
    assert len({(look.colour, look.tint) for look in looks.values()}) == 4
    assert looks["device"] == maps.styles([one])["device"]


def test_names_stay_names() -> None:
    hostile = '<script>alert(1)</script>"'
    each = replace(drawn(title=hostile), plans=(hostile, *NAMES[1:]))
    looks = maps.styles([each])
    for html in (maps.plans(each, looks, 516), maps.gained(each, maps.steps([each]), 516), maps.legend(each, looks)):
        assert "script" not in [tag for tag, _ in Page(html).tags]
