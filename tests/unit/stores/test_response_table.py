"""`gai_fast/stores/memory.py`: what is kept, for how long, and what makes room."""

from __future__ import annotations

from gai_fast.stores.backend import ResponseBudget, ResponseRecord
from gai_fast.stores.memory import ResponseTable, name_of, record_of
from gai_fast.stores.responses import KeptResponse
from tests.limits import LIMITS
from tests.unit.net.fakes import FakeTime

MUCH = ResponseBudget(10**9, 10**9)


def keep(
    table: ResponseTable[str],
    name: str,
    *,
    caller: str = "a",
    size: int = 10,
    ttl: float = 60,
    budget: ResponseBudget = MUCH,
    items: tuple[str, ...] = (),
    parent: str = "",
) -> int:
    return table.keep(ResponseRecord(name, caller, parent, f"value of {name}", size, items), ttl, budget)


def names(table: ResponseTable[str], *asked: str) -> list[str]:
    return [name for name, _ in table.read(asked, 1, 10**9)]


def test_a_callers_oldest_go_first_then_the_oldest_of_all(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    budget = ResponseBudget(30, 50)
    assert [keep(table, f"a{n}", budget=budget) for n in range(4)] == [0, 0, 0, 1]
    assert [keep(table, f"b{n}", caller="b", budget=budget) for n in range(3)] == [0, 0, 1]
    assert names(table, *(f"a{n}" for n in range(4)), *(f"b{n}" for n in range(3))) == ["a2", "a3", "b0", "b1", "b2"]
    assert table.size == 50
    assert keep(table, "a4", size=30, budget=budget) == 3, "two of the caller, and the oldest of all"
    assert names(table, "a2", "a3", "a4", "b0", "b1", "b2") == ["a4", "b1", "b2"]


def test_what_is_kept_again_is_the_newest_and_counts_once(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    budget = ResponseBudget(30, 30)
    for name in ("first", "second", "third", "first"):
        assert keep(table, name, budget=budget, items=("item",)) == 0
    assert (len(table), table.size) == (3, 30)
    assert keep(table, "fourth", budget=budget) == 1
    assert names(table, "first", "second", "third", "fourth") == ["first", "third", "fourth"]
    assert table.holding({"item": ""}) == {"item": "first"}


def test_what_has_expired_is_not_found_and_makes_room_before_anything_is_dropped(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    budget = ResponseBudget(30, 30)
    keep(table, "long", budget=budget, ttl=600)
    keep(table, "short", budget=budget, ttl=10, items=("item",))
    keep(table, "again", budget=budget, ttl=10)
    time.advance(5)
    keep(table, "again", budget=budget, ttl=10)
    time.advance(6)
    assert names(table, "long", "short", "again") == ["long", "again"]
    assert table.holding({"item": "short"}) == {}
    assert not table.delete("short")
    assert keep(table, "new", budget=budget) == 0
    assert names(table, "long", "again", "new") == ["long", "again", "new"]


def test_nothing_is_left_of_what_is_removed(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    for number in range(10_000):
        keep(table, f"{number % 7}", caller=f"{number % 3}", items=("x", f"{number % 5}", "x"), ttl=86_400)
    for number in range(7):
        assert table.delete(f"{number}")
    assert (len(table), table.size, table._of_callers, table._sizes, table._items) == (0, 0, {}, {}, {})
    assert len(table._due) <= LIMITS.response_times + 2


def test_each_response_costs_the_same_however_many_there_are(time: FakeTime) -> None:
    """An order whose first is searched for would cost the square: minutes for all, seconds for these."""
    table: ResponseTable[str] = ResponseTable(time.clock)
    budget = ResponseBudget(2_000_000, 2_000_000)
    for number in range(400_000):
        keep(table, f"{number}", budget=budget)
    assert len(table) == 200_000
    time.advance(61)
    assert keep(table, "last", budget=budget) == 0
    assert len(table) == 1


def test_a_chain_is_read_from_its_end_until_there_are_enough_turns_or_bytes(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    for number in range(10):
        keep(table, f"{number}", parent=f"{number - 1}" if number else "")
    keep(table, "circle", parent="circle")
    assert [name for name, _ in table.read(["9"], 4, 10**9)] == ["9", "8", "7", "6"]
    assert [name for name, _ in table.read(["9"], 64, 25)] == ["9", "8", "7"], "the last may exceed the bytes"
    assert [name for name, _ in table.read(["9"], 64, 10**9)] == [*"9876543210"]
    assert [name for name, _ in table.read(["3", "none", "5"], 2, 10**9)] == ["3", "2", "5", "4"]
    assert len(table.read(["circle"], 64, 10**9)) == 64
    table.delete("5")
    assert [name for name, _ in table.read(["9"], 64, 10**9)] == ["9", "8", "7", "6"]


def test_an_item_is_found_in_the_newest_response_that_names_it(time: FakeTime) -> None:
    table: ResponseTable[str] = ResponseTable(time.clock)
    keep(table, "one", items=("x", "y"))
    keep(table, "two", items=("x",))
    assert table.holding({"x": "", "y": "two", "z": "", "own": "two", "gone": "three"}) == {
        "x": "two",
        "y": "one",
        "own": "two",
    }
    table.delete("two")
    assert table.holding({"x": "", "own": "two"}) == {"x": "one"}


def test_a_record_counts_the_texts_and_each_item_and_has_no_room_beyond_its_callers() -> None:
    kept = KeptResponse("resp_2", "resp_1", "completed", b"[]", b"{}", ["a", "b"])
    size = 4 + LIMITS.response_cost + 2 * LIMITS.response_item_cost
    record = record_of("ann", kept, size, is_here=True)
    assert record is not None
    assert (record.caller, record.value, record.size) == ("ann", kept, size)
    names = [name_of("ann", each, is_here=True) for each in ("resp_2", "resp_1", "a", "b")]
    assert [record.name, record.parent, *record.items] == names
    assert record_of("ann", kept, size - 1, is_here=True) is None
    many = kept._replace(items=[str(n) for n in range(LIMITS.response_items + 5)])
    found = record_of("ann", many, 10**9, is_here=True)
    assert found is not None
    assert [*found.items] == [name_of("ann", each, is_here=True) for each in many.items[5:]], "the newest"


def test_no_two_callers_or_ids_have_one_name() -> None:
    places = [("a", "b c"), ("a b", "c"), ("a", "b"), ("1 a", "b"), ("", "a b")]
    for is_here in (True, False):
        assert len({name_of(*place, is_here=is_here) for place in places}) == len(places)
    assert len(name_of("a", "b" * 5000, is_here=False)) == len(name_of("a", "b", is_here=False))
