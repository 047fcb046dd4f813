"""Work that comes for many streams at once: how much of it begins in a turn of the loop."""

from __future__ import annotations

import asyncio

from gai_fast.runtime.pace import Pace


def test_few_begin_in_a_turn_and_all_in_their_order() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pace, turn = Pace(loop, 4), 0
        begun: list[tuple[int, int]] = []  # number, and turn of the loop

        async def work(number: int) -> None:
            await pace.place("alice")
            begun.append((number, turn))

        tasks = [asyncio.create_task(work(number)) for number in range(50)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turn += 1
        assert [number for number, _ in begun] == [*range(50)]
        turns = [turn for _, turn in begun]
        assert max(map(turns.count, turns)) == 4
        assert turns[-1] - turns[0] <= 26  # a place is had in the turn after the one that gives it

    asyncio.run(main())


def test_who_comes_alone_waits_for_nothing() -> None:
    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), 4)
        for _ in range(10):
            for _ in range(4):
                place = pace.place("alice")
                try:
                    place.send(None)
                except StopIteration:
                    continue
                raise AssertionError("it waits")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(main())


def test_who_is_cancelled_takes_no_place() -> None:
    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), 1)
        tasks = [asyncio.create_task(pace.place("alice")) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[1:99]:
            task.cancel()
        for _ in range(4):
            await asyncio.sleep(0)
        assert tasks[99].done()
        assert not tasks[99].cancelled()

    asyncio.run(main())


def test_the_work_of_one_caller_holds_up_no_other() -> None:
    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), 2)
        many = [asyncio.create_task(pace.place("alice")) for _ in range(1_000)]
        await asyncio.sleep(0)
        other = asyncio.create_task(pace.place("bob"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert other.done()
        assert not many[100].done()
        await asyncio.gather(*many)

    asyncio.run(main())
