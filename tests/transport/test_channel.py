"""The channel in memory: in order, with bounded room, and an end that nobody waits for."""

import asyncio

import pytest

from duetto.transport.channel import Lost, pair

SOON = 5.0


def test_envelopes_come_in_order_and_both_ways() -> None:
    async def main() -> None:
        ann, ben = pair()
        for word in (b"1", b"2", b"3"):
            await ann.send(word)
            await ben.send(word + b"!")
        assert [await ben.receive() for _ in range(3)] == [b"1", b"2", b"3"]
        assert [await ann.receive() for _ in range(3)] == [b"1!", b"2!", b"3!"]

    asyncio.run(main())


def test_who_sends_waits_for_room() -> None:
    async def main() -> None:
        ann, ben = pair(room=2)
        await ann.send(b"1")
        await ann.send(b"2")
        third = asyncio.ensure_future(ann.send(b"3"))
        await asyncio.sleep(0.01)
        assert not third.done()
        assert await ben.receive() == b"1"
        await asyncio.wait_for(third, SOON)

    asyncio.run(main())


def test_what_was_sent_before_the_end_still_arrives() -> None:
    async def main() -> None:
        ann, ben = pair()
        await ann.send(b"last")
        await ann.close()
        assert await ben.receive() == b"last"
        for end in (ben.receive, ann.receive):
            with pytest.raises(Lost):
                await end()
        for end in (ann, ben):
            with pytest.raises(Lost):
                await end.send(b"late")

    asyncio.run(main())


def test_an_end_wakes_whoever_waits_and_waits_for_nobody() -> None:
    async def main() -> None:
        ann, ben = pair(room=1)
        await ann.send(b"1")
        waiting = [asyncio.ensure_future(each) for each in (ann.send(b"2"), ann.receive())]
        await asyncio.sleep(0.01)
        await asyncio.wait_for(ben.close(), SOON)  # its way is full, and nobody reads it
        for each in waiting:
            with pytest.raises(Lost):
                await asyncio.wait_for(each, SOON)
        await asyncio.wait_for(ann.close(), SOON)
        await ann.close()

    asyncio.run(main())
