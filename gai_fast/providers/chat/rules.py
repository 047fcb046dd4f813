"""The rules for requests in the chat dialect: roles, members of messages, parts, calls and their results.

Knows the dialect, and the members that providers' answers add to a client's messages. Knows no provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.shapes import CACHE_MARKS, RequestShape, chat_shape
from gai_fast.model.changes import Changes
from gai_fast.providers.chat.mends import has_functions, with_tools
from gai_fast.providers.requests.parts import joined
from gai_fast.providers.requests.rules import AS_IT_IS, CallIds, MemberRule, Mend, RequestRules
from gai_fast.runtime.breathing import breathe

LEFT_BY_ANSWERS: Final = frozenset(
    "annotations citations executed_tools images provider_specific_fields reasoning reasoning_content "
    "reasoning_details search_results thinking_blocks x_gai".split()
)
"""The members that answers of this gateway and of providers leave in a client's messages, and that other providers do
not know. No client asks for anything by them."""

_PARTS_OF_ANSWERS: Final = frozenset(("thinking", "reference", "reasoning"))
"""The types of parts that only answers have: Mistral's and Databricks'."""

WITHOUT_EFFECT: Final = frozenset(
    "metadata prediction prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier store "
    "user".split()
)
"""Members without an effect on the answer: they are left out if the upstream lacks them, and never refused."""

OF_OPEN_MODELS: Final = frozenset(("top_k", "min_p", "repetition_penalty"))
"""Members that OpenAI does not have, and that servers of open models have in common."""

_DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "frequency_penalty": (0,),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing."""


_LEFT_BY_CALLS: Final = frozenset(("extra_content", "index", "provider_specific_fields"))
"""The members that answers leave in calls: a signature of Google's, the place of a fragment, and LiteLLM's."""

_PartWriter = Callable[[dict[str, Any]], "dict[str, Any] | None"]


class Role:
    """The messages of one role that a provider accepts.

    Args:
        name: The provider's word for the role.
        members: The names of the members besides `role` and `content`; only strict rules read them.
        parts: The types of the parts that are no text, each with its writer, or None if the part is sent as it is. A
            writer returns None if the provider lacks what the part holds. Only strict rules refuse other types.
        one_text: Several texts are joined to one.
    """

    def __init__(
        self,
        name: str,
        members: frozenset[str] = frozenset(),
        parts: Mapping[str, _PartWriter | None] | None = None,
        *,
        one_text: bool = False,
    ) -> None:
        self.name = name
        self.members = members
        self.parts: Mapping[str, _PartWriter | None] = parts or {}
        self.one_text = one_text


@mypyc_attr(allow_interpreted_subclasses=True)
class ChatRules(RequestRules):
    """The rules of a provider for chat requests.

    Args:
        provider: As for `RequestRules`, as the next five.
        source: …
        strict: …
        members: …
        call_ids: …
        mends: …
        roles: The roles. Others are sent as they are, but refused by strict rules.
        keeps: Of the members and parts that answers leave in messages and calls, those that the provider accepts.
        lacks: The roles, and the members of messages, that the provider does not have.
        has_functions: The provider has the dialect's older form of tools, `functions`.
    """

    def __init__(
        self,
        provider: str,
        source: str,
        *,
        strict: bool = False,
        members: Mapping[str, MemberRule] | None = None,
        call_ids: CallIds | None = None,
        mends: Sequence[Mend] = (),
        roles: Mapping[str, Role] | None = None,
        keeps: frozenset[str] = frozenset(),
        lacks: frozenset[str] = frozenset(),
        has_functions: bool = True,
    ) -> None:
        super().__init__(provider, source, strict=strict, members=members, call_ids=call_ids, mends=mends)
        self.roles: Mapping[str, Role] = roles or {}
        self.lacks = lacks
        self.has_functions = has_functions
        self._foreign = LEFT_BY_ANSWERS - keeps
        self._foreign_parts = _PARTS_OF_ANSWERS - keeps
        self._foreign_of_calls = _LEFT_BY_CALLS - keeps

    def fitted(self, body: Mapping[str, Any], shape: RequestShape, changes: Changes) -> dict[str, Any]:
        if not self.has_functions and has_functions(body, shape):
            body = with_tools(body)
            shape = chat_shape(body["messages"])
        return super().fitted(body, shape, changes)

    def is_plain(self, shape: RequestShape) -> bool:
        for role, names in shape.roles.items():
            rule = self.roles.get(role)
            if rule is not None and (rule.name != role or rule.one_text):
                return False
            if self.strict and (rule is None or not rule.members.issuperset(names)):
                return False
            if not self._foreign.isdisjoint(names) or role in self.lacks or not self.lacks.isdisjoint(names):
                return False
        for role, kinds in shape.parts.items():
            rule = self.roles.get(role)
            for kind in kinds:
                if rule is not None and kind in rule.parts:
                    if rule.parts[kind] is not None:
                        return False
                elif self.strict or kind in self._foreign_parts:
                    return False
        return self._foreign_of_calls.isdisjoint(shape.calls) and self.ids_fit(shape)

    def leave_out_member(self, name: str, value: Any, changes: Changes) -> None:
        if value is None or name == "stream_options" or value in _DEFAULTS.get(name, ()):
            return
        if name in WITHOUT_EFFECT:
            changes.drop(name)
        else:
            changes.leave_out(self.provider, name)

    def fit_messages(self, body: dict[str, Any], shape: RequestShape, changes: Changes) -> None:
        messages = body.get("messages")
        if not isinstance(messages, list):
            return
        sent: list[Any] = []
        places: list[str] = []
        for at, message in enumerate(messages):
            breathe()
            path = f"messages[{at}]"
            fitted = self._message(message, path, changes) if isinstance(message, dict) else message
            if fitted is None:
                changes.drop_message(path)
            else:
                sent.append(fitted)
                places.append(path)
        if len(sent) < len(messages):
            changes.follow(places)
        body["messages"] = sent

    def _message(self, message: dict[str, Any], path: str, changes: Changes) -> dict[str, Any] | None:
        """Returns a message that the provider accepts, or None if nothing of it is left."""
        role = message.get("role")
        rule = self.roles.get(role) if isinstance(role, str) else None
        if (rule is None and self.strict) or (isinstance(role, str) and role in self.lacks):
            changes.leave_out(self.provider, path, "messages of this role")
            return None
        sent: dict[str, Any] = {}
        for name, value in message.items():
            if name == "role":
                sent[name] = value if rule is None else rule.name
            elif name == "content":
                sent[name] = self._content(value, rule, f"{path}.content", changes)
            elif name in self._foreign:
                continue
            elif name in self.lacks:
                if value:
                    changes.leave_out(self.provider, f"{path}.{name}")
            elif rule is not None and self.strict and name not in rule.members:
                self._leave_out(name, value, message, path, changes)
            elif name == "tool_calls" and isinstance(value, list):
                sent[name] = self._calls(value, f"{path}.tool_calls", changes)
            elif name == "tool_call_id" and isinstance(value, str) and self.call_ids is not None:
                sent[name] = self.call_ids.fitted(value)
            elif value is not None or not self.strict:
                sent[name] = value
        refusal = message.get("refusal")
        if refusal and not sent.get("content") and "refusal" not in sent and isinstance(refusal, str):
            sent["content"] = refusal
        had_calls = message.get("tool_calls") and not sent.get("tool_calls")
        if sent.get("content") != [] and not (had_calls and not sent.get("content")):
            return sent
        if role == "tool":
            return {**sent, "content": ""}  # without its result a call would be left out
        if not sent.get("tool_calls"):
            return None  # it had only leftovers of answers, or parts that were left out
        return {**sent, "content": None}

    def _leave_out(self, name: str, value: Any, message: dict[str, Any], path: str, changes: Changes) -> None:
        """Leaves out a member of a message that strict rules do not know."""
        if not value or name == "refusal" or (name == "name" and message.get("role") == "tool"):
            return  # its call names the tool, and a refusal has become the text
        if name in CACHE_MARKS:  # without it the answer is the same
            changes.drop(f"{path}.{name}")
            return
        changes.leave_out(self.provider, f"{path}.{name}")

    def _content(self, content: Any, rule: Role | None, path: str, changes: Changes) -> Any:
        if not isinstance(content, list):
            return content
        sent: list[Any] = []
        for at, part in enumerate(content):
            fitted = self._part(part, rule, f"{path}[{at}]", changes) if isinstance(part, dict) else part
            if fitted is not None:
                sent.append(fitted)
        if rule is not None and rule.one_text and sent:
            texts = [part.get("text") if isinstance(part, dict) else None for part in sent]
            if None not in texts:
                return joined([str(text) for text in texts])
        return sent

    def _part(self, part: dict[str, Any], rule: Role | None, path: str, changes: Changes) -> dict[str, Any] | None:
        kind = part.get("type")
        if not isinstance(kind, str):
            return part
        if rule is not None and kind in rule.parts:
            write = rule.parts[kind]
            written = part if write is None else write(part)
            if written is None:
                changes.leave_out(self.provider, path)
            return written
        if kind in self._foreign_parts:
            return None
        if not self.strict:
            return part
        if kind in ("text", "refusal"):
            for name in part:
                if name not in ("type", kind):
                    changes.drop(f"{path}.{name}")  # of caches, or what answers leave
            return {"type": "text", "text": part.get(kind)}
        changes.leave_out(self.provider, path, f"{kind} parts in messages of this role"[:200])
        return None

    def _calls(self, calls: list[Any], path: str, changes: Changes) -> list[Any]:
        sent: list[Any] = []
        for at, call in enumerate(calls):
            if not isinstance(call, dict):
                sent.append(call)
                continue
            if self.strict and "function" not in call and call.get("type") != "function":
                changes.leave_out(self.provider, f"{path}[{at}]", "calls of tools that are no functions")
                continue
            kept = {name: value for name, value in call.items() if name not in self._foreign_of_calls}
            if self.strict:
                kept = {name: value for name, value in kept.items() if name in ("id", "type", "function")}
            identifier = kept.get("id")
            if isinstance(identifier, str) and self.call_ids is not None:
                kept["id"] = self.call_ids.fitted(identifier)
            sent.append(kept)
        return sent


def as_known(names: str) -> dict[str, MemberRule]:
    """Returns the members that are sent as they are.

    Args:
        names: Their names, separated by blanks.
    """
    return dict.fromkeys(names.split(), AS_IT_IS)
