"""The relay's fast path: `gai_fast/_pure/relay.py` says what it must equal.

A learned frame is a row of literals with holes between them: the text, and the values nothing depends on. A frame is
copied when every literal is there, every hole holds what a JSON parser would take, and the text is one that can be
written without being understood (csrc/copy.h). The first byte that differs sends the frame down the full path.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from gai_fast._native.buffer cimport append
from gai_fast._native.c cimport (
    GAI_COPY_DONE,
    GAI_COPY_MISS,
    GAI_COPY_MORE,
    GAI_COPY_ROOM,
    GAI_INTEGER_ROOM,
    gai_borrow,
    gai_buffer,
    gai_clear,
    gai_copy_string,
    gai_put,
    gai_put_unsigned,
    gai_release,
    gai_reserve,
    gai_skip_blanks,
    gai_skip_number,
    gai_skip_string,
)
from gai_fast._pure.jsontext import parse_exact
from gai_fast.limits import LIMITS

import re

cdef size_t HELD = LIMITS.held_frame
cdef size_t KEPT = LIMITS.encoder_capacity

# The scalar tokens of a JSON text; everything between two of them is literal.
cdef object TOKEN = re.compile(rb'"((?:[^"\\]+|\\.)*)"(?=([ \t]*:)?)|-?[0-9][0-9.eE+-]*')


cdef class _Template:
    def __cinit__(self):
        gai_borrow(&self.collected, NULL, 0)

    def __dealloc__(self):
        gai_release(&self.collected)


cdef class DeltaCopier:
    """Cuts a stream into frames and copies those it has learned. See `gai_fast._pure.relay.DeltaCopier`."""

    def __cinit__(self):
        gai_borrow(&self._out, NULL, 0)

    def __dealloc__(self):
        gai_release(&self._out)

    def __init__(self, framer, passes):
        self._framer = framer
        self._passes = passes
        self._held = b""
        self._templates = []

    def feed(self, bytes data not None):
        """Takes the next bytes; `next` is then called until it returns `None`."""
        self._chunk = self._held + data if self._held else data
        self._held = b""
        self._data = <const uint8_t *>PyBytes_AS_STRING(self._chunk)
        self._size = PyBytes_GET_SIZE(self._chunk)
        self._at = 0

    def next(self, long long seq, long long ts):
        """The next frames that must take the full path; `None`: none is left in what was fed."""
        cdef bint at_boundary = False, asked = False
        cdef size_t end
        cdef int status = GAI_COPY_MISS
        cdef Py_ssize_t i
        while self._at < self._size:
            if self._templates:
                if not asked:
                    # Nothing moves the framer but what is fed to it below.
                    at_boundary, asked = self._framer.at_boundary, True
                if at_boundary:
                    for i in range(len(self._templates)):
                        status = self.copy(<_Template>self._templates[i], seq + <long long>self._copied + 1, ts)
                        if status != GAI_COPY_MISS:
                            break
                    if status == GAI_COPY_DONE:
                        if i:
                            self._templates.insert(0, self._templates.pop(i))
                        continue
                    if status == GAI_COPY_MORE and self._size - self._at <= HELD:
                        self._held = self._chunk[self._at:]
                        break
            asked = False
            end = self.block_end()
            piece = self._chunk if self._at == 0 and end == self._size else self._chunk[self._at:end]
            self._at = end
            frames = self._framer.feed(piece)
            if frames:
                return frames
        self._at = self._size = 0
        self._data = NULL
        self._chunk = None
        return None

    cdef size_t block_end(self) noexcept:
        """Behind the blank line that ends the block, where it is one of LF or CRLF; else the end of the bytes."""
        cdef const uint8_t *at = self._data + self._at
        cdef const uint8_t *end = self._data + self._size
        while at < end:
            at = <const uint8_t *>memchr(at, c"\n", end - at)
            if at is NULL:
                break
            at += 1
            if at < end and at[0] == c"\n":
                return at + 1 - self._data
            if end - at >= 2 and at[0] == c"\r" and at[1] == c"\n":
                return at + 2 - self._data
        return self._size

    cdef int copy(self, _Template template, long long seq, long long ts) except -1:
        cdef const uint8_t *at = self._data + self._at
        cdef const uint8_t *end = self._data + self._size
        cdef const uint8_t *literal
        cdef gai_buffer *out = &self._out
        cdef size_t begin = out.size, size, room = end - at, text_begin = 0, text_end = 0, characters = 0
        cdef uint8_t *to
        cdef bytes part
        cdef int i, k, status = GAI_COPY_MISS
        for i in range(template.count + 1):
            literal = template.data + template.offsets[i]
            size = template.sizes[i]
            if <size_t>(end - at) < size:
                size = end - at
                out.size = begin
                return GAI_COPY_MORE if memcmp(at, literal, size) == 0 else GAI_COPY_MISS
            if memcmp(at, literal, size) != 0:
                out.size = begin
                return GAI_COPY_MISS
            at += size
            if i == template.count:
                break
            if template.holes[i] == HOLE_TEXT:
                if gai_reserve(out, room + template.room + GAI_COPY_ROOM) < 0:
                    out.size = begin
                    raise MemoryError
                for k in range(template.parts):
                    if template.ops[k] == OP_BYTES:
                        part = <bytes>template.written[k]
                        gai_put(out, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
                    else:
                        out.size = gai_put_unsigned(out.data + out.size, seq if template.ops[k] == OP_SEQ else ts) - out.data
                to = out.data + out.size
                text_begin = out.size
                status = gai_copy_string(&at, end, &to, &characters)
                text_end = out.size = to - out.data
                if status == GAI_COPY_DONE and not characters:
                    status = GAI_COPY_MISS  # an empty delta is none
            elif template.holes[i] == HOLE_STRING:
                status = gai_skip_string(&at, end)
            elif template.holes[i] == HOLE_NUMBER:
                status = gai_skip_number(&at, end)
            else:
                status = gai_skip_blanks(&at, end)
            if status != GAI_COPY_DONE:
                out.size = begin
                return status
        if template.collects and text_end > text_begin:
            if append(&template.collected, out.data + text_begin, text_end - text_begin) < 0:
                return -1
        if self._passes:
            out.size = begin
            gai_put(out, self._data + self._at, at - (self._data + self._at))
        else:
            gai_put(out, PyBytes_AS_STRING(template.behind), PyBytes_GET_SIZE(template.behind))
        template.characters += characters
        template.copied += 1
        self._copied += 1
        self._at = at - self._data
        return GAI_COPY_DONE

    def close(self):
        """Ends the input: the unfinished rest, if there is any, as a last frame."""
        held, self._held = self._held, b""
        frames = self._framer.feed(held) if held else []
        return frames + self._framer.close()

    def learn(self, frame, event, str key, members, ignored, parts):
        """Learns what a frame became."""
        cdef _Template template
        cdef list holes
        raw = frame.raw
        if len(raw) > HELD:
            return
        holes = find_holes(raw, event[key], members, ignored)
        if holes is None or len(holes) > HOLES:
            return
        template = _Template()
        template.event = event
        template.frame = raw
        template.data = <const uint8_t *>PyBytes_AS_STRING(raw)
        template.count = len(holes)
        at = 0
        for i, (begin, end, hole) in enumerate(holes):
            template.offsets[i] = at
            template.sizes[i] = begin - at
            template.holes[i] = hole
            at = end
        template.offsets[template.count] = at
        template.sizes[template.count] = len(raw) - at
        at = parts.index("text") if parts else 0
        if at > PARTS:
            return
        template.parts = at
        template.written = tuple(parts[:at])
        for i in range(at):
            template.ops[i] = OP_SEQ if parts[i] == "seq" else OP_TS if parts[i] == "ts" else OP_BYTES
        template.behind = b"".join(parts[at + 1:])
        template.room = sum(map(len, parts)) + PARTS * GAI_INTEGER_ROOM
        template.collects = key == "arguments"
        self._templates.insert(0, template)
        if len(self._templates) > TEMPLATES:
            self._templates.pop()

    def forget(self):
        """Forgets everything: the stream has changed its shape."""
        self._templates.clear()

    def take_copied(self):
        """What was copied since the last call: bytes, frames, and for each kind of delta what an adapter must know."""
        cdef _Template template
        if not self._copied:
            return b"", 0, []
        kinds = []
        for template in self._templates:
            if template.copied:
                text = ""
                if template.collects:
                    written = PyBytes_FromStringAndSize(<const char *>template.collected.data, template.collected.size)
                    text = parse_exact(f'"{written.decode()}"')
                    gai_clear(&template.collected, KEPT)
                kinds.append((template.event, template.characters, text))
                template.characters = template.copied = 0
        copied = self._copied
        data = PyBytes_FromStringAndSize(<const char *>self._out.data, self._out.size)
        gai_clear(&self._out, KEPT)
        self._copied = 0
        return data, copied, kinds


def find_holes(bytes raw, str text, members, ignored):
    """The holes of a frame as (begin, end, kind), in order; `None` where it is not clear which string is the text."""
    holes = []
    found = 0
    name = None
    for token in TOKEN.finditer(raw):
        begin, end = token.span()
        if raw[begin] == c'"':
            if token[2] is not None:
                name = token[1].decode("utf-8", "replace")
                continue
            if name in members:
                try:
                    same = parse_exact(token[0].decode()) == text
                except ValueError:
                    return None
                if same:
                    found += 1
                    holes.append((begin + 1, end - 1, HOLE_TEXT))
            elif name in ignored and token[1].isascii() and b"\\" not in token[1]:
                holes.append((begin + 1, end - 1, HOLE_STRING))
        elif name in ignored and token[0].lstrip(b"-").isdigit():
            holes.append((begin, end, HOLE_NUMBER))
        name = None
    if found != 1:
        return None
    # Anthropic pads its frames with blanks before the last brace.
    brace = raw.rfind(b"}")
    if brace >= 0 and brace > holes[len(holes) - 1][1]:
        holes.append((len(raw[:brace].rstrip(b" \t")), brace, HOLE_BLANKS))
    return holes
