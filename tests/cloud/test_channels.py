"""The registry's channels as releases: once each, also where the process dies between, and never backwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from duetto.cloud.channels import offered, version_of
from duetto.cloud.site import Site
from duetto.errors import ConfigError, DataError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "cloud", f"sqlite:///{tmp_path / 'duetto.db'}", str(tmp_path / "blobs")).begin()
    for text in (b"one", b"two", b"three"):
        kinds = {"device": made.registry.blobs.put(text), "policy": made.registry.blobs.put(b'{"of": "%s"}' % text)}
        made.registry.add("small", kinds, by="test")
    yield made
    made.engine.dispose()


def state(site: Site) -> dict[str, tuple[int, str, object]]:
    found = {}
    for each in site.releases.releases():
        told = json.loads(each.told["told"])
        found[each.channel] = (each.version, told["policy"]["of"], told.get("canary"))
    return found


def move(site: Site, version: int, channel: str) -> None:
    site.registry.promote("small", version, channel, by="test", why="test")


def test_forward_only_and_a_promotion_keeps_its_number(site: Site) -> None:
    assert offered(site, "small", 0.2) == []
    move(site, 1, "stable")
    move(site, 1, "canary")
    assert [(each.channel, each.version) for each in offered(site, "small", 0.2)] == [("stable", 1), ("canary", 1)]
    assert offered(site, "small") == []
    assert state(site) == {"stable": (1, "one", 0.2), "canary": (1, "one", None)}
    move(site, 2, "canary")
    offered(site, "small")
    assert state(site) == {"stable": (1, "one", 0.2), "canary": (2, "two", None)}
    move(site, 2, "stable")
    offered(site, "small")
    assert state(site) == {"stable": (2, "two", 0.2), "canary": (2, "two", None)}
    site.registry.roll_back("small", "stable", by="test", why="complaints")
    offered(site, "small")
    assert state(site) == {"stable": (3, "one", 0.2), "canary": (2, "two", None)}
    site.registry.roll_back("small", "canary", by="test", why="the same")
    offered(site, "small")
    assert state(site) == {"stable": (3, "one", 0.2), "canary": (3, "one", None)}
    move(site, 3, "canary")
    move(site, 3, "stable")  # two moves, and a process that died before either was offered
    offered(site, "small")
    assert state(site) == {"stable": (4, "three", 0.2), "canary": (4, "three", None)}
    assert (version_of(site, "small", "stable"), version_of(site, "other", "stable")) == (4, None)


def test_another_share_is_told_by_a_new_release(site: Site) -> None:
    move(site, 1, "stable")
    offered(site, "small", 0.2)
    assert [each.version for each in offered(site, "small", 0.4)] == [2]
    assert state(site)["stable"] == (2, "one", 0.4)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        offered(site, "small", 1.5)


def test_what_a_person_published_before_is_gone_on_from(site: Site) -> None:
    site.releases.publish("small", 7, "stable", b"by hand")
    move(site, 1, "stable")
    assert [each.version for each in offered(site, "small", 0.0)] == [8]


def test_a_version_without_an_artefact_for_devices(site: Site) -> None:
    site.registry.add("other", {"safetensors": site.registry.blobs.put(b"x")}, by="test")
    site.registry.promote("other", 1, "stable", by="test", why="test")
    with pytest.raises(DataError, match="runs on no device"):
        offered(site, "other")
