"""The exceptions and error texts of the kernels, shared by both implementations.

The other modules of this package decide when to raise them.
"""

from __future__ import annotations

from typing import Any


class FeedError(ValueError):
    """Bytes that a parser refuses.

    Args:
        text: The fault and its place, or the exceeded limit. The text never quotes the input.
        before: Items that the same call of `feed` completed before the fault. With them the result does not depend on
            how the bytes were cut.
    """

    def __init__(self, text: str, before: list[Any] | None = None) -> None:
        super().__init__(text)
        self.before: list[Any] = [] if before is None else before


class BufferTooSmall(BufferError):
    """The caller's buffer cannot hold the frame. Nothing was written, and the event got no number.

    Args:
        needed: Size of the whole frame in bytes, counted from the offset.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(f"the buffer is too small: {needed} bytes are needed from the offset on")
        self.needed = needed


class NotJSON(ValueError, TypeError):
    """A value without a JSON form: a `ValueError` as every error here, and a `TypeError` as `json.dumps` raises."""


# ---- JSON ----------------------------------------------------------------------------------------------------------


def unknown_type(path: str, value: object) -> NotJSON:
    return NotJSON(f"{path}: {type(value).__name__} is not a JSON type")


def key_not_text(path: str, key: object) -> NotJSON:
    return NotJSON(f"{path}: a key must be str, not {type(key).__name__}")


def not_finite(path: str) -> NotJSON:
    return NotJSON(f"{path}: NaN and Infinity are not JSON")


def too_deep(limit: int) -> NotJSON:
    return NotJSON(f"nested deeper than {limit} levels (limits.arguments_depth)")


def line_end_in_json(path: str) -> NotJSON:
    return NotJSON(f"{path}: a JSONText must not hold line ends")


def not_json(reason: str, at: int) -> ValueError:
    return ValueError(f"not JSON: {reason} at character {at + 1}")


def integer_too_long(limit: int) -> ValueError:
    return ValueError(f"not JSON we read: an integer of more than {limit} digits (limits.integer_digits)")


# ---- encoders ------------------------------------------------------------------------------------------------------


def not_text(name: str, value: object) -> NotJSON:
    return NotJSON(f"{name} must be str, not {type(value).__name__}")


def field_unsafe(name: str, character: str) -> ValueError:
    return ValueError(f"{name} must not hold control or format characters (U+{ord(character):04X})")


def field_too_long(name: str, limit: int, limit_name: str) -> ValueError:
    return ValueError(f"{name} is longer than {limit} characters (limits.{limit_name})")


def bad_retry(digits: int) -> ValueError:
    return ValueError(
        f"retry must be an int of milliseconds, 0 or more, of at most {digits} digits (limits.retry_digits)"
    )


def bad_envelope(value: object) -> ValueError:
    return ValueError(f"envelope must be 'compact' or 'full', not {value!r}")


def bad_stream_id() -> ValueError:
    return ValueError("stream_id must be 1 to 100 characters of [A-Za-z0-9_-]")


def bad_capacity() -> ValueError:
    return ValueError("capacity must be an int of bytes, 1 or more")


def not_an_event(value: object) -> NotJSON:
    return NotJSON(f"an event must be a dict, not {type(value).__name__}")


def misspelt_type(name: str, known: str) -> ValueError:
    """Returns the error of an event whose type is a misspelt name of a known type."""
    return ValueError(f"unknown event type {name!r} - at `type`; did you mean {known!r}?")


def no_type() -> ValueError:
    return ValueError("an event needs a type: a str that is not empty")


def bad_seq() -> ValueError:
    return ValueError("seq must be an int from 0 to 2**53 - 1")


def bad_clock() -> ValueError:
    return ValueError("clock must return milliseconds from 0 to 2**53 - 1")


def bad_finished() -> ValueError:
    return ValueError("a done event needs finished: True or False")


def viewed() -> BufferError:
    return BufferError("the encoder's memory is exported: leave the view's block first")


def view_ended() -> BufferError:
    return BufferError("the encoder's memory can be read inside of the view's block only")


def bad_buffer() -> TypeError:
    return TypeError("a writable, contiguous buffer is needed")


def bad_offset() -> ValueError:
    return ValueError("offset must be 0 or more")


def encoded_within_clock() -> RuntimeError:
    return RuntimeError("clock must not write events with the encoder that calls it")


# ---- parsers -------------------------------------------------------------------------------------------------------


def not_bytes(value: object) -> TypeError:
    return TypeError(f"a contiguous bytes-like object is needed, not {type(value).__name__}")


def bad_limit() -> ValueError:
    return ValueError("limit must be an int of bytes, 0 or more")


def event_too_long(limit: int) -> FeedError:
    return FeedError(f"an SSE event or line is longer than {limit} bytes (limits.event)")


def line_too_long(number: int, limit: int) -> FeedError:
    return FeedError(f"line {number} is longer than {limit} bytes (limits.event)")


def element_too_long(limit: int) -> FeedError:
    return FeedError(f"an element of a JSON array is longer than {limit} bytes (limits.event)")


def bad_line(number: int, reason: str) -> FeedError:
    return FeedError(f"line {number} is {reason}")


def feed_failed() -> FeedError:
    return FeedError("an earlier feed failed, and its bytes are lost: the input cannot be read on")


def fed_within_feed() -> RuntimeError:
    return RuntimeError("a parser belongs to one thread at a time: it is being fed already")


def not_utf8(at: int) -> str:
    return f"not UTF-8 at byte {at + 1}"
