"""Which model runs: trials, the way back, and never an older one, wherever the process dies."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from duetto.device import slots as module
from duetto.device.agreement import Agreement
from duetto.device.slots import Slot, Slots
from duetto.errors import ConfigError, DataError

RULE = Agreement(window=100, margin=0.02, looks=4)


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    """Empty."""
    return Slots(tmp_path / "device")


def brought(slots: Slots, version: int) -> tuple[int, str, int]:
    """A model's file, verified and in its place."""
    data = b"model %d" % version
    sha256 = hashlib.sha256(data).hexdigest()
    assert slots.test(version, sha256)
    slots.path(sha256).parent.mkdir(parents=True, exist_ok=True)
    slots.path(sha256).write_bytes(data)
    return version, sha256, len(data)


def runs(slots: Slots, version: int) -> Slot:
    """A model is installed, started and confirmed."""
    slots.switch(*brought(slots, version))
    slots.begin()
    slots.confirm(version)
    slot = slots.begin()
    assert slot is not None
    assert (slot.version, slot.state) == (version, "good")
    return slot


def version(slots: Slots) -> int | None:
    """What a new process would run."""
    slot = slots.begin()
    return slot and slot.version


def test_a_new_model_is_on_trial_and_the_old_one_is_kept(slots: Slots) -> None:
    assert slots.begin() is None
    old = runs(slots, 1)
    slots.switch(*brought(slots, 2))
    new = slots.begin()
    assert new is not None
    assert (new.version, new.state, new.starts) == (2, "trying", 1)
    assert slots.path(old).read_bytes() == b"model 1"
    slots.confirm(1)  # by a process that still ran the old one
    assert slots.state().current == new
    slots.confirm(2)
    runs(slots, 3)
    assert not slots.path(old).exists()
    assert slots.path(new).exists()


def test_a_model_that_is_never_confirmed_goes(slots: Slots) -> None:
    runs(slots, 1)
    bad = slots.switch(*brought(slots, 2))
    assert [version(slots) for _ in range(5)] == [2, 2, 2, 1, 1]
    assert slots.state().bad == ((2, bad.sha256, "died 3 times before it was confirmed"),)
    assert not slots.path(bad).exists()
    assert not slots.wanted(2, bad.sha256)
    assert slots.wanted(3, "0" * 64)
    once = Slots(slots.folder, tries=1)
    once.switch(*brought(slots, 3))
    assert [version(once) for _ in range(2)] == [3, 1]


def test_the_first_model_goes_to_none(slots: Slots) -> None:
    slots.switch(*brought(slots, 1))
    assert [version(slots) for _ in range(4)] == [1, 1, 1, None]


def test_another_on_trial_does_not_push_out_the_good_one(slots: Slots) -> None:
    runs(slots, 1)
    slots.switch(*brought(slots, 2))
    slots.switch(*brought(slots, 3))
    assert [version(slots) for _ in range(4)] == [3, 3, 3, 1]


def test_never_an_older_one(slots: Slots) -> None:
    runs(slots, 5)
    older, same = hashlib.sha256(b"model 4").hexdigest(), "0" * 64
    with pytest.raises(DataError, match="version 4 after version 5"):
        slots.switch(4, older, 7)
    with pytest.raises(DataError, match="another version 5"):
        slots.wanted(5, same)
    slots.switch(*brought(slots, 6))
    slots.rollback("the cloud said so")
    assert version(slots) == 5
    with pytest.raises(DataError, match="version 5 after version 6"):  # that it runs is no reason to install it
        slots.wanted(5, hashlib.sha256(b"model 5").hexdigest())
    with pytest.raises(DataError, match="was sent away"):
        slots.switch(6, hashlib.sha256(b"model 6").hexdigest(), 7)


def test_a_damaged_file_is_not_run_and_may_come_again(slots: Slots) -> None:
    runs(slots, 1)
    slot = runs(slots, 2)
    slots.path(slot).write_bytes(b"model 3")
    assert version(slots) == 1
    assert slots.wanted(2, slot.sha256)
    slots.switch(*brought(slots, 2))
    assert version(slots) == 2
    slots.path(slot).unlink()
    assert version(slots) == 1
    with pytest.raises(DataError, match="not what it should be"):
        slots.switch(2, slot.sha256, 7)


def test_a_model_that_agrees_less_goes(slots: Slots) -> None:
    runs(slots, 1)
    for _ in range(10):
        assert slots.observe(1, 19, 20, RULE) is None
    before = slots.state().current
    assert before is not None
    assert before.asked == RULE.window
    assert before.agreed == pytest.approx(0.95 * RULE.window)
    runs(slots, 2)
    said = [slots.observe(2, 10, 20, RULE) for _ in range(2)]
    assert said == [None, "agreed with the cloud in 20 of 40 answers, version 1 in 95 of 100"]
    assert version(slots) == 1
    assert slots.observe(2, 0, 100, RULE) is None  # by a process that still ran it


def test_a_model_that_agrees_is_kept_for_good(slots: Slots) -> None:
    runs(slots, 1)
    slots.observe(1, 95, 100, RULE)
    runs(slots, 2)
    for _ in range(5):
        assert slots.observe(2, 19, 20, RULE) is None
    assert slots.observe(2, 0, 100, RULE) is None  # the world may change later; this is no news of the model
    assert version(slots) == 2
    with pytest.raises(ConfigError, match="5 of 4"):
        slots.observe(2, 5, 4, RULE)


def test_a_self_test_that_kills_ends(slots: Slots) -> None:
    assert [slots.test(2, "a" * 64) for _ in range(5)] == [True, True, True, False, True]
    assert slots.state().bad == ((2, "a" * 64, "died 3 times in its self-test"),)
    assert not slots.wanted(2, "a" * 64)
    slots.condemn(3, "b" * 64, "differs")
    assert [reason for *_, reason in slots.state().bad] == ["died 3 times in its self-test", "differs"]


def test_a_state_that_is_damaged_is_named(slots: Slots) -> None:
    runs(slots, 1)
    for bad in (b"", b"{}", b'{"format": 2}', b'{"format": 1, "current": {"version": 1}}'):
        (slots.folder / "slots.json").write_bytes(bad)
        with pytest.raises(DataError, match=r"slots\.json cannot be read"):
            slots.begin()
    with pytest.raises(ConfigError, match="tries"):
        Slots(slots.folder, tries=0)


STEPS: dict[str, Callable[[Slots], object]] = {
    "begin": lambda slots: slots.begin(),
    "confirm": lambda slots: slots.confirm(2),
    "switch": lambda slots: slots.switch(*brought(slots, 3)),
    "rollback": lambda slots: slots.rollback("x"),
    "observe": lambda slots: slots.observe(2, 1, 2, RULE),
}


@pytest.mark.parametrize("step", STEPS)
def test_dying_at_any_write_leaves_a_state_that_runs(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each write and each deletion: what runs next is the old or the new, and its file is there."""
    allowed = {"rollback": {1, 2}, "switch": {2, 3}}.get(step, {2})
    for moment in range(12):
        slots = Slots(tmp_path / f"{moment}", tries=9)
        runs(slots, 1)
        slots.switch(*brought(slots, 2))
        floor = slots.state().floor
        left, died = [moment], False
        put, unlink = module.put, Path.unlink

        def counted(*given: object, before: Callable[..., object], left: list[int] = left, **options: object) -> object:
            if left[0] == 0:
                raise KeyboardInterrupt
            done = before(*given, **options)
            left[0] -= 2
            if left[0] == -1:
                raise KeyboardInterrupt
            return done

        with monkeypatch.context() as patched:
            patched.setattr(module, "put", lambda *a, **k: counted(*a, before=put, **k))  # noqa: B023
            patched.setattr(Path, "unlink", lambda *a, **k: counted(*a, before=unlink, **k))  # noqa: B023
            try:
                STEPS[step](slots)
            except KeyboardInterrupt:
                died = True
        assert version(slots) in allowed
        assert slots.state().floor in (floor, (3, hashlib.sha256(b"model 3").hexdigest()))
        if not died:
            break
    assert not died
