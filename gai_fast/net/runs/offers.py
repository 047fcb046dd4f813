"""The tools of a process for its runs: which requests are runs, and what these offer.

Owns the toolbox of the configuration. A run keeps the one that it began with, until its end.

1. A request is a run if all patterns that hold for it name a server or a tool in common; nothing is read for that.
2. What a client asks for by name must be something that it may use, and its own tools must not have an offered name. A
   name is compared with the patterns at first, and with the lists once they are read; a server without one may have it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import characters
from gai_fast.core.run import RunLimits
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, KeySettings, ModelSettings, Settings
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns, no_such_tool
from gai_fast.net.attempts.records import RunRecord
from gai_fast.net.attempts.spec import StreamRun, StreamSpec
from gai_fast.net.runs.approvals.deferred import AnsweredCall
from gai_fast.net.runs.approvals.desk import ApprovalDesk
from gai_fast.net.runs.driver import FormerOwner, RunDriver, RunPlan, RunStreams
from gai_fast.net.runs.guards import RunGuards, Tell
from gai_fast.net.runs.messages import with_tools
from gai_fast.net.runs.records.records import CountKept, RunRecords, boundless, kept_for
from gai_fast.net.runs.tallies import RunTallies
from gai_fast.net.stream.session import Session
from gai_fast.net.toolbox.run_calls import RunIdentity
from gai_fast.net.toolbox.tool_source import GatewayTool, native_tools
from gai_fast.net.toolbox.toolbox import HeldToolbox, OfferedTools, Toolbox
from gai_fast.net.tools.limits import LIMITS
from gai_fast.net.upstream.tls import TLSFiles
from gai_fast.runtime.pace import Pace
from gai_fast.runtime.timers import Timers
from gai_fast.stores.backend import Records


@dataclass(slots=True)
class RunWish:
    """A request that is a run, or all requests that ask the same.

    Attributes:
        allowed: What it may use.
        model: The model that it asks.
        approve: Tools whose calls wait for a person, beside those of the configuration.
        asked: The patterns that it names.
        known: What the last one has offered. None before, and if it is forgotten.
        is_shared: Whether several requests have it.
        names_many: Whether it names so many tools that they are compared beside the loop.
    """

    allowed: AllowedTools
    model: ModelSettings
    approve: ToolPatterns
    asked: Sequence[str] = ()
    known: KnownOffer | None = None
    is_shared: bool = False
    names_many: bool = False


class KnownOffer:
    """What runs of one wish offer, in the forms that each of them needs.

    Args:
        offered: The tools.
        approve: As in `RunWish`.

    Attributes:
        offered: The tools.
        tools: The tools by the names that the model sees, with the approvals that the wish asks for.
        names: These names.
        shown: The tools as requests have them.
        may_ask: Whether calls of a tool wait for a person.
    """

    def __init__(self, offered: OfferedTools, approve: ToolPatterns) -> None:
        self.offered = offered
        self.tools = {name: _asked_for(tool, approve) for name, tool in offered.tools.items()}
        self.names = frozenset(self.tools)
        self.shown = native_tools(self.tools)
        self.may_ask = any(tool.approve for tool in self.tools.values())


class RunOffer:
    """What one run offers.

    Args:
        tools: The tools of the process.
        held: The toolbox.
        known: What it offers.
        model: The model that the request asks.
        unknown: A pattern of the request that names none of them. None if there is none.

    Attributes:
        answered: The calls whose approvals the request has decided: it begins with them.
    """

    def __init__(
        self,
        tools: RunTools,
        held: HeldToolbox,
        known: KnownOffer,
        model: ModelSettings,
        unknown: str | None = None,
    ) -> None:
        self._tools = tools
        self._unknown = unknown
        self._held = held
        self._known = known
        self._offered = known.tools
        self._model = model
        self.answered: Sequence[AnsweredCall] = ()

    @property
    def may_ask(self) -> bool:
        """Whether calls of a tool that it offers wait for a person."""
        return self._known.may_ask

    def check_names(self) -> None:
        """Checks that each pattern of the request names a tool.

        Raises:
            Error: One names none.
        """
        if self._unknown is not None:
            raise no_such_tool(self._unknown, "no tool that is there and may be used has this name")

    @property
    def records(self) -> RunRecords:
        """The records of runs."""
        return self._tools.desk.records

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts work on approvals, which goes on without its request."""
        self._tools.desk.start(work)

    def name_of(self, address: str) -> str | None:
        """Returns the name by which the model sees a tool. None if it is not offered.

        Args:
            address: Its name in configurations.
        """
        return next((name for name, tool in self._offered.items() if tool.address == address), None)

    def attach(
        self,
        spec: StreamSpec,
        stream_id: str,
        request_key: str | None,
        *,
        asks: bool,
        leaves: bool = False,
        traceparent: str = "",
    ) -> None:
        """Makes the stream of a spec a run.

        Args:
            spec: Its first attempt, with a native request.
            stream_id: Its id.
            request_key: The idempotency key of the request. None if it has none.
            asks: Whether somebody is asked for approvals.
            leaves: Whether these are left to a later request.
            traceparent: As in `RunIdentity`.

        Raises:
            Error: The request cannot be a run.
        """
        request = spec.request
        if not isinstance(request, Request):
            raise TypeError("a run needs a native request")
        names = frozenset(tool.name for tool in request.tools if isinstance(tool.name, str))
        taken = sorted(names & self._offered.keys())
        if taken:
            text = f"a tool of the request is named {taken[0]!r}, as one that the gateway offers"
            raise Error("invalid_request", text, reason="tool_name")
        model = self._model
        steps = model.max_steps if request.max_steps is UNSET else min(request.max_steps, model.max_steps)
        spec.request = whole = with_tools(request.without_run_members(), self._known.shown)
        spec.offered = self._known.names
        spec.prompt_characters = counted = characters(whole)
        spec.frames, spec.shape, spec.other, spec.sharing = None, None, None, None
        if self.answered:
            steps += 1  # no model is asked in the first one
        plan = RunPlan(
            whole,
            counted,
            self._offered,
            names,
            RunLimits(steps, model.max_tool_calls, model.parallel_tools, asks, leaves),
            model.run_timeout,
            RunIdentity(spec.caller, spec.request_id, stream_id, request_key or stream_id, traceparent),
            self._held,
            self._tools.desk,
            self._tools.tallies,
            self._tools.streams,
            self._tools.pace,
            self._tools.guards_of(spec, stream_id, model.name),
            self.answered,
        )
        spec.run = partial(self._tools.begun, plan, None)
        if spec.log_header is not None:
            spec.recorded_run = _record_of(plan)


class RunTools:
    """The tools of a process. Belongs to one loop. After use, `close` must be awaited.

    Args:
        settings: The configuration.
        timers: The loop's timers.
        loop: The loop.
        records: The records of the store.
        tallies: The counts of the process.
        streams: The streams of the process.
        functions: Functions of the program that are tools, which every model may use.
        room: Counts what is kept of runs.

    Raises:
        ValueError: A tool cannot be used. The text names it.
    """

    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        loop: asyncio.AbstractEventLoop,
        records: Records,
        tallies: RunTallies,
        streams: RunStreams,
        functions: Sequence[Callable[..., Any]] = (),
        room: CountKept = boundless,
    ) -> None:
        kept = RunRecords(records, kept_for(settings), room=room)
        self.desk = ApprovalDesk(kept, timers, loop, settings.runs)
        self.tallies = tallies
        self.streams = streams
        self.pace = Pace(loop, LIMITS.run_places)
        self._functions = functions
        self.timers = timers
        self.loop = loop
        self._settings = settings
        self._open: set[Toolbox] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._held = self._made(settings)
        self._files = _versions(settings)
        # By the names of models and the tools of keys: most requests name no tools themselves.
        self._wishes: dict[tuple[str, tuple[str, ...] | None], tuple[ModelSettings, RunWish | None]] = {}
        self._offering: deque[RunWish] = deque()  # of these, those that know what they offer; the oldest first

    def use(self, settings: Settings) -> None:
        """Uses another configuration for new runs.

        Raises:
            ValueError: A tool cannot be used; nothing changes.
        """
        former, files = self._settings, _versions(settings)
        if (settings.tool_servers, settings.tools, files) != (former.tool_servers, former.tools, self._files):
            held, self._held = self._held, self._made(settings)
            held.give_back()
        self._files = files
        self._settings = settings
        self._wishes.clear()
        self._offering.clear()

    def go_on(
        self,
        spec: StreamSpec,
        stream_id: str,
        record: RunRecord,
        said: Sequence[Event],
        told: Mapping[str, Any],
        *,
        is_own: bool,
    ) -> Callable[[int], Callable[[Session, StreamSpec], StreamRun]]:
        """Makes the stream of a spec the run of a worker that is gone. Returns what makes that of an owner's epoch.

        It offers the tools that the run began with, as they were then; a call of one that is not there fails.

        Args:
            spec: The attempt, with a native request.
            stream_id: Its id.
            record: What makes it a run.
            said: The events of its log.
            told: As in `FormerOwner`.
            is_own: Whether it is a run of this worker, which has waited.

        Raises:
            ValueError: The record is damaged.
        """
        request = spec.request
        if not isinstance(request, Request):
            raise TypeError("a run needs a native request")
        offered = msgspec.convert(record.tools, dict[str, GatewayTool])
        own = [tool for tool in request.tools if tool.name not in offered]
        plain = msgspec.structs.replace(request, tools=own).without_run_members()
        spec.request = whole = with_tools(plain, native_tools(offered))
        spec.offered = frozenset(offered)
        spec.prompt_characters = counted = characters(whole)
        spec.frames, spec.shape, spec.other, spec.sharing = None, None, None, None
        plan = RunPlan(
            whole,
            counted,
            offered,
            frozenset(record.client_tools),
            RunLimits(record.max_steps, record.max_tool_calls, record.parallel_tools, record.asks, record.leaves),
            record.seconds,
            RunIdentity(spec.caller, spec.request_id, stream_id, record.request_key, record.traceparent),
            self._held,
            self.desk,
            self.tallies,
            self.streams,
            self.pace,
            self.guards_of(spec, stream_id, spec.model.name if spec.log_header is None else spec.log_header.model),
            msgspec.convert(record.answered, tuple[AnsweredCall, ...]),
        )
        return lambda epoch: partial(self.begun, plan, FormerOwner(said, epoch, is_own, told))

    def begun(self, plan: RunPlan, former: FormerOwner | None, session: Session, spec: StreamSpec) -> StreamRun:
        """Makes the run of a stream that begins here, or goes on.

        A request may wait behind its offer, for guards or limits. If its tools are closed by then, the run has those of
        the present configuration, as one that goes on.
        """
        if plan.held.is_unused:
            plan = replace(plan, held=self._held)
        return RunDriver(plan, session, spec, self.timers, self.loop, former)

    def guards_of(self, spec: StreamSpec, stream_id: str, model: str) -> Callable[[Tell], RunGuards | None]:
        """Returns what makes the guards of a run's calls.

        Args:
            spec: The first attempt of its stream.
            stream_id: The id of the stream.
            model: The model that the client asked for.
        """
        let = spec.let
        placeholders = None if let is None else let.placeholders
        info = StreamInfo(stream_id, spec.request_id, model=model, caller=spec.caller, placeholders=placeholders)
        return partial(RunGuards.of_run, self.streams.guarding, info)

    def wish(
        self,
        model: ModelSettings,
        key: KeySettings | None,
        asked: Sequence[str] | None = None,
        approve: Sequence[str] = (),
    ) -> RunWish | None:
        """Returns what a request may use, if it is a run: rule 1.

        Args:
            model: The model that it asks.
            key: Its caller's key. None if there are no keys.
            asked: The patterns that it names. None if it names none.
            approve: Patterns of tools whose calls wait for a person because it says so.

        Raises:
            Error: It names what it may not use.
        """
        if asked is not None or approve:
            return self._wish(model, key, asked, approve)
        of_key = None if key is None else key.tools
        known = self._wishes.get((model.name, of_key))
        if known is None or known[0] is not model:
            if len(self._wishes) >= LIMITS.run_wishes:
                self._wishes.clear()
                self._offering.clear()
            wish = self._wish(model, key, None, ())
            if wish is not None:
                wish.is_shared = True
            known = self._wishes[model.name, of_key] = model, wish
        return known[1]

    def _wish(
        self, model: ModelSettings, key: KeySettings | None, asked: Sequence[str] | None, approve: Sequence[str]
    ) -> RunWish | None:
        lists = [ToolPatterns((*model.tools, *self._held.toolbox.functions))]
        if key is not None:
            lists.append(ToolPatterns(key.tools))
        for pattern in asked or ():
            if not self._has_any(AllowedTools([*lists, ToolPatterns([pattern])])):
                raise no_such_tool(pattern, self._why_not(pattern, lists[0], model, key))
        if asked is not None:
            lists.append(ToolPatterns(asked))
        allowed = AllowedTools(lists)
        if not self._has_any(allowed):
            return None
        asked = asked or ()
        return RunWish(allowed, model, ToolPatterns(approve), asked, names_many=len(asked) > LIMITS.run_patterns)

    async def offer_for(self, request: Request, model: ModelSettings) -> RunOffer | None:
        """Returns what a request of a program in this process offers. None if it is no run.

        Args:
            request: The request.
            model: The model that it asks.

        Raises:
            Error: It names what it may not use.
        """
        wish = self.wish(model, None, None if request.gateway_tools is UNSET else request.gateway_tools)
        if wish is None:
            return None
        offer = await self.offer(wish)
        offer.check_names()
        return offer

    async def offer(self, wish: RunWish, caller: str = ANONYMOUS) -> RunOffer:
        """Returns what a run offers. Waits for the lists of its servers, `connect_timeout` at most, and for its place.

        Args:
            wish: The run.
            caller: The name of its caller.
        """
        held = self._held
        held.take()
        try:
            if wish.names_many:
                return await self._offer_beside(wish, held, caller)
            known = wish.known
            offered = await held.toolbox.offered(wish.allowed, None if known is None else known.offered)
            await self.pace.place(caller)
            if known is None or known.offered is not offered:
                known = self._know(wish, KnownOffer(offered, wish.approve))
            return RunOffer(self, held, known, wish.model, held.toolbox.unknown(wish.asked, wish.allowed))
        finally:
            held.give_back()

    async def _offer_beside(self, wish: RunWish, held: HeldToolbox, caller: str) -> RunOffer:
        """Returns what a run offers whose request names much; as `offer`."""
        beside = partial(self.streams.beside, caller)
        offered = await held.toolbox.offered(wish.allowed, None, beside)
        known = await beside(lambda: KnownOffer(offered, wish.approve))
        unknown = await beside(lambda: held.toolbox.unknown(wish.asked, wish.allowed))
        await self.pace.place(caller)
        return RunOffer(self, held, known, wish.model, unknown)

    def _know(self, wish: RunWish, known: KnownOffer) -> KnownOffer:
        """Remembers what a wish offers; returns it. Forgets the oldest one if there are too many."""
        is_new, wish.known = wish.known is None, known
        if wish.is_shared and is_new:
            self._offering.append(wish)
            if len(self._offering) > LIMITS.run_offers:
                self._offering.popleft().known = None
        return known

    async def close(self) -> None:
        """Ends running calls, connections and processes."""
        self._held.give_back()
        for toolbox in list(self._open):
            self._close_later(toolbox)
        await asyncio.gather(*self._closing, self.desk.close())

    def _has_any(self, allowed: AllowedTools) -> bool:
        toolbox = self._held.toolbox
        return bool(allowed.servers(toolbox.servers) or allowed.own(toolbox.own))

    def _why_not(self, pattern: str, of_model: ToolPatterns, model: ModelSettings, key: KeySettings | None) -> str:
        """Returns why a request may use nothing that a pattern names."""
        asked = ToolPatterns([pattern])
        if not self._has_any(AllowedTools([asked])):
            return "no [[tool_server]] or [[tool]] is named so"
        if key is not None and not key.tools:
            return "its key may use none: set `tools` of its [[key]], or of [key_defaults]"
        if key is not None and not self._has_any(AllowedTools([ToolPatterns(key.tools), asked])):
            return "`tools` of its key do not name it"
        if not self._has_any(AllowedTools([of_model, asked])):
            return f"`tools` of the model {model.name!r} do not name it"
        return "`tools` of its key and of its model name nothing in common"

    def _made(self, settings: Settings) -> HeldToolbox:
        toolbox = Toolbox(settings, self.timers, self.loop, self._functions, self.streams.beside)
        for name in toolbox.own:
            self.tallies.expect(name)
        self._open.add(toolbox)
        return HeldToolbox(toolbox, self._close_later)

    def _close_later(self, toolbox: Toolbox) -> None:
        if toolbox in self._open:
            self._open.discard(toolbox)
            task = self.loop.create_task(toolbox.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _versions(settings: Settings) -> list[tuple[int, ...]]:
    """Returns numbers of which one changes if a file of authorities changes."""
    return [TLSFiles(server.ca_file).version for server in settings.tool_servers]


def _asked_for(tool: GatewayTool, approve: ToolPatterns) -> GatewayTool:
    return replace(tool, approve=True) if not tool.approve and tool.address in approve else tool


def _record_of(plan: RunPlan) -> RunRecord:
    limits = plan.limits
    return RunRecord(
        msgspec.to_builtins(plan.offered),
        sorted(plan.client_tools),
        limits.max_steps,
        limits.max_tool_calls,
        limits.parallel_tools,
        limits.asks,
        plan.seconds,
        plan.identity.request_key,
        limits.leaves,
        msgspec.to_builtins(plan.answered),
        plan.identity.traceparent,
    )
