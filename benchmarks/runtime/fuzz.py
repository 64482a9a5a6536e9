"""Fuzz our decoders under coverage guidance (atheris, libFuzzer). See FUZZ.md for what it found.

    python benchmarks/runtime/fuzz.py envelope|session|vocabulary|tree [libFuzzer's options] [corpus folder]

atheris is no dependency: install it, numpy, safetensors, array-api-compat and protobuf into an environment of its own.
Only what a decoder promises may be raised; anything else is a crash that libFuzzer keeps the input of.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-not-found,unused-ignore]

with atheris.instrument_imports(include=["duetto"]):
    from duetto import tree as trees
    from duetto.codecs import Quantise, TopK, Zstd
    from duetto.errors import ConfigError, WireError
    from duetto.protocols import Coded
    from duetto.protocols.probe import Echo
    from duetto.protocols.stages import Finish
    from duetto.transport import vocabulary
    from duetto.transport.channel import Lost, pair
    from duetto.transport.envelope import Limits, heard
    from duetto.transport.party import Running
    from duetto.transport.session import Greeting, Session
    from duetto.types import Chain, Party

GOLDEN = Path(__file__).parents[2] / "tests" / "transport" / "golden"
LIMITS = Limits(body_bytes=1 << 20, held_bytes=2 << 20, asks=8, parts=2)


def envelope(data: bytes) -> None:
    """One envelope."""
    with suppress(WireError):
        heard(data, LIMITS)


def tree(data: bytes) -> None:
    """One tree; what is read is written and read again the same."""
    with suppress(WireError):
        again = trees.encode(trees.decode(data, 1 << 20))
        assert trees.encode(trees.decode(again)) == again


def read(data: bytes) -> None:
    """One description, and one key."""
    text = data.decode("utf-8", "replace")
    with suppress(WireError, ConfigError):
        vocabulary.read(text, {"Echo": Echo})
    with suppress(WireError):
        assert vocabulary.key_of(vocabulary.key_text(vocabulary.key_of(text))) == vocabulary.key_of(text)


def session(data: bytes) -> None:
    """A conversation: envelopes with two bytes of length before each."""
    said = []
    while len(data) > 2:
        nbytes = int.from_bytes(data[:2], "little")
        said.append(data[2 : 2 + nbytes])
        data = data[2 + nbytes :]
    LOOP.run_until_complete(talked(said))


async def talked(said: list[bytes]) -> None:
    """Tell it all to a party that offers an echo."""
    faults: list[object] = []
    LOOP.set_exception_handler(lambda loop, context: faults.append(context))
    ben = Running(Party(skills=(Echo,)), "ben")
    here, there = pair(1 << 20)
    talks = Session(here, Greeting("ben"), ben.answer, LIMITS)
    for each in said:
        await there.send(each)

    async def talk() -> None:
        with suppress(Lost):
            await talks.open()
            ended = await talks.run()
            assert ended.why.isprintable(), ended.why
            assert not ended.why.partition(":")[0].endswith("Error"), ended.why

    talking = asyncio.ensure_future(talk())
    for _ in range(3 * len(said) + 20):  # so many turns take all of it in
        await asyncio.sleep(0)
    await there.close()
    await talking
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not faults, faults
    assert not ben.busy


TARGETS = {"envelope": envelope, "session": session, "vocabulary": read, "tree": tree}


def seeds(target: str) -> list[bytes]:
    """What to begin with: golden bytes, and what is in them."""
    golden = [path.read_bytes() for path in sorted(GOLDEN.glob("*.bin"))]
    bodies = [heard(each).body for each in golden]
    if target == "session":
        framed = {path.stem: path.read_bytes() for path in GOLDEN.glob("*.bin")}
        framed = {name: len(each).to_bytes(2, "little") + each for name, each in framed.items()}
        asks = b"".join(framed[name] for name in ("hello", "ask", "ask_again", "cancel", "bye"))
        return [framed["hello"] + each for each in framed.values()] + [
            asks,
            framed["hello"] + b"".join(framed.values()),
        ]
    if target == "vocabulary":
        skills = Echo(), Coded(Echo(), Chain((Quantise(8), Zstd(1)))), Coded(Finish("large"), Chain(), TopK(0.5))
        return [vocabulary.written(each)[1].encode() for each in skills] + [b'[0,"ann",7]', b'["\\u00e9",-1]']
    return golden if target == "envelope" else [each for each in bodies if each]


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py {'|'.join(TARGETS)} [-runs=N] [corpus]")
    name = sys.argv.pop(1)
    LOOP = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds(name)):
            (Path(folder) / f"{number}").write_bytes(seed)
        atheris.Setup([*sys.argv, folder], TARGETS[name])
        atheris.Fuzz()
