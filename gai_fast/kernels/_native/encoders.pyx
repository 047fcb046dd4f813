"""Events, objects and text → JSON, SSE frames and NDJSON lines.

`jsontext.py` and `encoders.py` in `kernels/_pure` define their behaviour. A delta is written directly into the buffer:
without a bytes object, a dict, or a Python call except to the clock. Any other event is written key by key. The writer
knows the exact types that `json` makes, and `JSONText`. If a value has another type, the pure function writes the whole
object, or refuses it with its error text.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport isfinite
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy

import operator

import orjson

from gai_fast.kernels._native.buffer cimport append, append_bytes, reserve
from gai_fast.kernels._native.c cimport (
    GAI_ESCAPE_ROOM,
    GAI_INTEGER_ROOM,
    GAI_NUMBERS,
    PyUnicode_1BYTE_KIND,
    PyUnicode_2BYTE_KIND,
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_ASCII,
    PyUnicode_KIND,
    gai_borrow,
    gai_buffer,
    gai_clear,
    gai_drop_head,
    gai_escape_ucs1,
    gai_escape_ucs2,
    gai_escape_ucs4,
    gai_escape_utf8,
    gai_find_line_end,
    gai_head,
    gai_make_head,
    gai_outline,
    gai_outline_json,
    gai_put,
    gai_put_head,
    gai_put_integer,
    gai_put_short,
    gai_put_unsigned,
    gai_release,
    gai_reserve,
    gai_scalar_loops,
    gai_simd,
    gai_use_loops,
    gai_vector_loops,
)
from gai_fast.kernels._pure import encoders as pure, faults, jsontext as pure_text
from gai_fast.model.events import JSONText, KEY_RANK, KEYS, SCHEMA, TYPES as KNOWN_TYPES
from gai_fast.model.halves import ends_in_half, joined
from gai_fast.model.limits import SHARED
from gai_fast.kernels._pure.limits import LIMITS

# ---- the vector loops ----------------------------------------------------------------------------------------------


cdef extern from "Python.h":
    uint32_t PyUnicode_READ(int kind, const void *data, Py_ssize_t at)
    object PyObject_CallNoArgs(object called)  # 45 instructions less than Cython's own call of an object


cdef extern from *:
    """
    #if defined(__clang__)
    #define GAI_COMPILER "clang " __clang_version__
    #else
    #define GAI_COMPILER "gcc " __VERSION__
    #endif
    """
    const char *GAI_COMPILER
    const char *CYTHON_ABI

cdef const gai_simd *SCALAR = gai_scalar_loops()
cdef const gai_simd *VECTORS = gai_vector_loops()
# All extensions that use the loops point at this table, so `use` changes the loops for all of them.
cdef gai_simd LOOPS = (SCALAR if VECTORS == NULL else VECTORS)[0]
gai_use_loops(&LOOPS)


cdef const gai_simd *loops_in_use():
    return &LOOPS


def forms():
    """Returns the names of the loops' forms that this machine can run: scalar, and vectors if the machine has them."""
    return ("scalar",) if VECTORS == NULL else ("scalar", VECTORS.name.decode())


def form():
    """Returns the form in use: vectors until `use` is called (`gai_fast.kernels` calls it for `GAI_FAST_SIMD`)."""
    return LOOPS.name.decode()


def use(name):
    """Uses a form in all extensions at once. Both forms give the same bytes.

    Raises:
        ValueError: This machine does not have the form.
    """
    global LOOPS
    if name not in forms():
        raise ValueError(f"no {name!r} form here; there are {forms()}")
    LOOPS = (SCALAR if name == "scalar" else VECTORS)[0]


def build():
    """Returns the compiler and Cython, with their versions."""
    return f"{GAI_COMPILER.decode()}, cython {CYTHON_ABI.decode().replace('_', '.')}"


# ---- memory --------------------------------------------------------------------------------------------------------


cdef class WriteBuffer:
    """The memory of an encoder. While it is open, `memoryview` gives the written bytes, read-only."""

    def __cinit__(self, size_t keep):
        gai_borrow(&self.bytes, NULL, 0)
        self.keep = keep
        reserve(&self.bytes, keep)

    def __dealloc__(self):
        gai_release(&self.bytes)

    def __getbuffer__(self, Py_buffer *view, int flags):
        # A view's `obj` is this object. After the block it must not give memory that the encoder writes and resizes.
        if not self.is_open:
            raise faults.view_ended()
        PyBuffer_FillInfo(view, self, self.bytes.data, self.bytes.size, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.exports -= 1


# ---- JSON text -----------------------------------------------------------------------------------------------------


cdef size_t DEPTH = SHARED.arguments_depth
cdef size_t DIGITS = pure_text.LONG_DIGITS
cdef object dumps = orjson.dumps
cdef object loads = orjson.loads
cdef object JSONDecodeError = orjson.JSONDecodeError
cdef object Fragment = orjson.Fragment


def escape(text):
    r"""Returns the text as a JSON string, with its quotes, in UTF-8. See `gai_fast.kernels._pure.jsontext.escape`."""
    cdef gai_buffer out
    cdef uint8_t[512] memory
    if not isinstance(text, str):
        raise faults.not_text("text", text)
    gai_borrow(&out, memory, sizeof(memory))
    try:
        write_string(&out, <str>text)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)


def join_json(list pieces not None):
    """Returns JSON, joined from pieces. See `gai_fast.kernels._pure.jsontext.join_json`."""
    cdef gai_buffer out
    cdef uint8_t[1024] memory
    gai_borrow(&out, memory, sizeof(memory))
    try:
        for piece in pieces:
            if isinstance(piece, bytes):
                append_bytes(&out, <bytes>piece)
            elif isinstance(piece, str):
                write_string(&out, <str>piece)
            else:
                raise faults.not_text("text", piece)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)


def encode_json(value):
    """Returns the value as canonical JSON. See `gai_fast.kernels._pure.jsontext.encode_json`."""
    cdef gai_buffer out
    cdef uint8_t[512] memory
    gai_borrow(&out, memory, sizeof(memory))
    try:
        if write_value(&out, value, 0):
            return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)
    return pure_text.encode_json(value)


def compact_json(text):
    """Returns the JSON text without white space. See `gai_fast.kernels._pure.jsontext.compact_json`."""
    cdef gai_outline outline
    if look_over(text, &outline):
        try:
            loads(text)
            return pure_text.without_blanks(text) if outline.blanks else text
        except JSONDecodeError:
            pass
    return pure_text.compact_json(text)


def parse_exact(text):
    """Returns the value of a JSON text, integers exact. See `gai_fast.kernels._pure.jsontext.parse_exact`."""
    cdef gai_outline outline
    if look_over(text, &outline):
        try:
            return loads(text)
        except JSONDecodeError:
            pass
    return pure_text.parse_exact(text)


cdef bint look_over(object text, gai_outline *outline) except -1:
    """Returns whether orjson reads the text as the pure function does, if the text is valid JSON."""
    cdef Py_ssize_t size = 0
    cdef const char *utf8
    if type(text) is not str:
        return False
    try:
        utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        return False
    outline[0] = gai_outline_json(<const uint8_t *>utf8, size, DIGITS)
    return not outline.long_digits and outline.depth <= DEPTH


cdef extern from *:
    """
    /* Returns the UTF-8 of a str, which CPython keeps once it has been requested; NULL if there is none yet. */
    static const char *gai_known_utf8(PyObject *text, Py_ssize_t *size) {
        if (PyUnicode_IS_COMPACT_ASCII(text)) {
            *size = PyUnicode_GET_LENGTH(text);
            return (const char *)PyUnicode_DATA(text);
        }
        *size = ((PyCompactUnicodeObject *)text)->utf8_length;
        return ((PyCompactUnicodeObject *)text)->utf8;
    }
    """
    const char *gai_known_utf8(object text, Py_ssize_t *size)


# Set by `put_string` if a text ends in a high surrogate. Whoever reads it resets it first.
cdef bint HALF_SEEN = False


cdef int put_string(gai_buffer *out, str text) noexcept:
    global HALF_SEEN
    cdef Py_ssize_t size = 0
    cdef const uint8_t *utf8 = <const uint8_t *>gai_known_utf8(text, &size)
    cdef size_t length = size if utf8 is not NULL else PyUnicode_GET_LENGTH(text), done = 0
    cdef const void *data = PyUnicode_DATA(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef uint8_t *at
    cdef uint8_t *end
    if utf8 is not NULL and size <= SHORT:  # most strings by far
        if gai_reserve(out, SHORT + 2) < 0:
            return -1
        at = out.data + out.size
        if gai_put_short(at + 1, utf8, size):
            at[0] = at[size + 1] = c'"'
            out.size += size + 2
            return 0
    # Reserves one byte per character, the quotes, and the room for a step: enough if no character needs more bytes.
    # Otherwise the buffer grows below.
    if gai_reserve(out, length + GAI_ESCAPE_ROOM + 2) < 0:
        return -1
    gai_put(out, b'"', 1)
    while True:
        at = out.data + out.size
        end = out.data + out.capacity
        if utf8 is not NULL:
            done += gai_escape_utf8(&at, end, utf8 + done, length - done)
        elif kind == PyUnicode_1BYTE_KIND:
            done += gai_escape_ucs1(&at, end, <const uint8_t *>data + done, length - done)
        elif kind == PyUnicode_2BYTE_KIND:
            done += gai_escape_ucs2(&at, end, <const uint16_t *>data + done, length - done)
        else:
            done += gai_escape_ucs4(&at, end, <const uint32_t *>data + done, length - done)
        out.size = at - out.data
        if gai_reserve(out, length - done + GAI_ESCAPE_ROOM + 1) < 0:
            return -1
        if done == length:
            gai_put(out, b'"', 1)
            if kind != PyUnicode_1BYTE_KIND and utf8 is NULL and length:
                HALF_SEEN |= 0xD800 <= PyUnicode_READ(kind, data, length - 1) <= 0xDBFF
            return 0


cdef int write_string(gai_buffer *out, str text) except -1:
    if put_string(out, text) < 0:
        raise MemoryError
    return 0


cdef int write_value(gai_buffer *out, object value, size_t depth) except -1:
    cdef int overflow = 0
    cdef long long integer
    cdef type kind = type(value)
    if kind is str:
        write_string(out, <str>value)
    elif kind is int:
        integer = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return 0
        reserve(out, GAI_INTEGER_ROOM)
        out.size = gai_put_integer(out.data + out.size, integer) - out.data
    elif kind is dict:
        return write_dict(out, value, depth)
    elif kind is list:
        return write_list(out, value, depth)
    elif value is None:
        append(out, b"null", 4)
    elif value is True:
        append(out, b"true", 4)
    elif value is False:
        append(out, b"false", 5)
    elif kind is float:
        if not isfinite(<double>value):
            return 0
        append_bytes(out, dumps(value))
    elif kind is JSONText:
        return write_verbatim(out, value.text)
    elif kind is tuple:
        return write_list(out, list(value), depth)
    elif kind is Fragment:  # schemas of tools: beside a `null`, the pure function looks at each value
        try:
            append_bytes(out, dumps(value))
        except TypeError:  # its contents are no text
            return 0
    else:
        return 0
    return 1


cdef int write_dict(gai_buffer *out, dict value, size_t depth) except -1:
    cdef bint first = True
    if depth >= DEPTH:
        return 0
    append(out, b"{", 1)
    for key, item in value.items():
        if type(key) is not str:
            return 0
        if not first:
            append(out, b",", 1)
        first = False
        write_string(out, <str>key)
        append(out, b":", 1)
        if not write_value(out, item, depth + 1):
            return 0
    append(out, b"}", 1)
    return 1


cdef int write_list(gai_buffer *out, list value, size_t depth) except -1:
    cdef bint first = True
    if depth >= DEPTH:
        return 0
    append(out, b"[", 1)
    for item in value:
        if not first:
            append(out, b",", 1)
        first = False
        if not write_value(out, item, depth + 1):
            return 0
    append(out, b"]", 1)
    return 1


cdef int write_verbatim(gai_buffer *out, object text) except -1:
    cdef bytes written
    cdef const uint8_t *data
    cdef size_t size
    if type(text) is not str:
        return 0
    if PyUnicode_IS_ASCII(text):
        data = <const uint8_t *>PyUnicode_DATA(text)
        size = PyUnicode_GET_LENGTH(text)
        written = None
    else:
        try:
            written = (<str>text).encode("utf-8")
        except UnicodeEncodeError:
            return 0
        data = <const uint8_t *><const char *>written
        size = len(written)
    # A line end would end the frame; the pure function refuses it.
    if memchr(data, c"\n", size) != NULL or memchr(data, c"\r", size) != NULL:
        return 0
    append(out, data, size)
    return 1


# ---- frames and lines ----------------------------------------------------------------------------------------------


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define gai_lowest(mask) __builtin_ctzll(mask)
    #else
    #error "a compiler with __builtin_ctzll is needed"
    #endif
    """
    int gai_lowest(uint64_t mask) nogil

cdef enum:
    # The ranks of the keys that an encoder itself may write: their indexes in events.KEYS.
    RANK_SCHEMA = 0
    RANK_TYPE = 1
    RANK_TS = 2
    RANK_SEQ = 3
    RANK_TRACE_ID = 4
    RANK_REQUEST_ID = 5
    RANK_OTHERS = 6
    RANKS = 64  # the number of bits in a mask

assert KEYS[:RANK_OTHERS] == ("schema", "type", "ts", "seq", "trace_id", "request_id") and len(KEYS) <= RANKS

cdef enum:
    SHORT = 16  # the most bytes of a text that is written at once
    FRAME = 16  # room for the bytes around the text

cdef frozenset TYPES = KNOWN_TYPES

# The type of a delta and the beginnings of its frame and of its object, by TEXT and REASONING.
cdef tuple DELTA_TYPES = ("text.delta", "reasoning.delta")
cdef tuple EVENT_LINES = (b"event: text.delta\n", b"event: reasoning.delta\n")
cdef tuple TYPE_MEMBERS = (b'"type":"text.delta"', b'"type":"reasoning.delta"')
cdef bytes SCHEMA_MEMBER = b'"schema":"%b",' % SCHEMA.encode()
cdef tuple MEMBERS = tuple(b',"%b":' % key.encode() for key in KEYS)
cdef dict RANK_OF = dict(KEY_RANK)

cdef enum:
    SLOTS = 256 # many more slots than keys, so that nearly every key is in its first slot

cdef struct Slot:
    PyObject *key   # `RANK_OF` keeps it
    int rank

# The keys by their address: Python interns the names in a program, so each key is one object.
cdef Slot KEY_SLOTS[SLOTS]

cdef inline Slot *slot_of(object key) noexcept:
    """Returns the slot of a key; if the key has no slot, the empty slot for it."""
    cdef size_t at = (<size_t><void *>key >> 4) % SLOTS
    while KEY_SLOTS[at].key is not NULL and KEY_SLOTS[at].key is not <PyObject *>key:
        at = (at + 1) % SLOTS
    return &KEY_SLOTS[at]


cdef int fill_slots() except -1:
    cdef Slot *slot
    for key, rank in RANK_OF.items():
        slot = slot_of(key)
        slot.key, slot.rank = <PyObject *>key, rank
    return 0

fill_slots()
# The parts of a compact `text.delta` with only a text, in NDJSON and in SSE; None until they are known.
cdef list PLAIN_PARTS = [None, None]
cdef size_t NAME_LIMIT = LIMITS.event_name
cdef size_t ID_LIMIT = SHARED.identifier
cdef object CAPACITY = LIMITS.encoder_capacity
cdef long long EXACT_END = pure.EXACT_END
cdef bytes FINISHED = pure.encode_done({"finished": True})


# ---- single values -------------------------------------------------------------------------------------------------


def encode_sse(data, *, event=None, id=None, retry=None):
    """Returns one SSE frame, fields in the order `event`, `id`, `retry`, `data`, then the blank line.

    Args:
        data: A `str` or bytes-like object is written as text, one `data:` line for each of its lines (CRLF, CR and LF
            end a line; bytes are UTF-8, invalid bytes become U+FFFD). Any other object is written as JSON.
        event: The event's name; no control or format characters, at most `limits.event_name` characters.
        id: The event's id; no control or format characters, at most `limits.identifier` characters. An empty id makes
            the client forget its last id.
        retry: Milliseconds until a client reconnects, 0 or more.

    Raises:
        ValueError: A field is invalid, or `data` has no JSON form.
    """
    cdef gai_buffer out
    cdef uint8_t[512] memory
    gai_borrow(&out, memory, sizeof(memory))
    try:
        if event is not None:
            append(&out, b"event: ", 7)
            write_field(&out, "event", event, NAME_LIMIT, "event_name")
        if id is not None:
            append(&out, b"id: ", 4)
            write_field(&out, "id", id, ID_LIMIT, "identifier")
        if retry is not None:
            write_retry(&out, pure.checked_retry(retry))
        if isinstance(data, (bytes, bytearray, memoryview)):
            data = bytes(data).decode("utf-8", "replace")
        if isinstance(data, str):
            write_lines(&out, b"data: ", <str>data)
            append(&out, b"\n", 1)
        else:
            append(&out, b"data: ", 6)
            write_json(&out, data)
            append(&out, b"\n\n", 2)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)


def encode_ndjson(obj):
    """Returns the object as one line of JSON, with its LF.

    Raises:
        ValueError: The object has no JSON form.
    """
    cdef gai_buffer out
    cdef uint8_t[512] memory
    gai_borrow(&out, memory, sizeof(memory))
    try:
        write_json(&out, obj)
        append(&out, b"\n", 1)
        return PyBytes_FromStringAndSize(<char *>out.data, out.size)
    finally:
        gai_release(&out)


cdef int write_json(gai_buffer *out, object value) except -1:
    cdef size_t begin = out.size
    if not write_value(out, value, 0):
        out.size = begin
        append_bytes(out, pure_text.encode_json(value))
    return 0


cdef bint is_printable(object text, size_t limit):
    """Returns whether the text is a valid field: printable ASCII of at most `limit` characters."""
    cdef const uint8_t *data
    cdef size_t length, i
    if type(text) is not str or not PyUnicode_IS_ASCII(text):
        return False
    data = <const uint8_t *>PyUnicode_DATA(text)
    length = PyUnicode_GET_LENGTH(text)
    if length > limit:
        return False
    for i in range(length):
        if data[i] < 0x20 or data[i] > 0x7E:
            return False
    return True


cdef int write_field(gai_buffer *out, str name, object value, size_t limit, str limit_name) except -1:
    """Writes a field's value and its line end. Raises if the value is invalid."""
    if not is_printable(value, limit):
        pure.field_value(name, value, limit, limit_name)
    return write_name(out, <str>value)


cdef int write_name(gai_buffer *out, str value) except -1:
    if PyUnicode_IS_ASCII(value):
        append(out, PyUnicode_DATA(value), PyUnicode_GET_LENGTH(value))
    else:
        append_bytes(out, value.encode("utf-8"))
    return append(out, b"\n", 1)


cdef int write_retry(gai_buffer *out, object retry) except -1:
    return append_bytes(out, b"retry: %d\n" % retry)


cdef int write_lines(gai_buffer *out, bytes prefix, str text) except -1:
    """Writes each line of the text with the prefix; CRLF, CR and LF end a line."""
    cdef bytes written
    cdef const uint8_t *data
    cdef size_t length, end
    if PyUnicode_IS_ASCII(text):
        data = <const uint8_t *>PyUnicode_DATA(text)
        length = PyUnicode_GET_LENGTH(text)
    else:
        try:
            written = text.encode("utf-8")
        except UnicodeEncodeError:
            written = pure_text.well_formed(text).encode("utf-8")
        data = <const uint8_t *><const char *>written
        length = len(written)
    while True:
        end = gai_find_line_end(data, length)
        append_bytes(out, prefix)
        append(out, data, end)
        append(out, b"\n", 1)
        if end == length:
            return 0
        if data[end] == c"\r" and end + 1 < length and data[end + 1] == c"\n":
            end += 1
        data += end + 1
        length -= end + 1


# ---- how a delta is written ----------------------------------------------------------------------------------------


cdef bint is_plain_text(object event, str key):
    """Returns whether an event is a `text.delta` with only a text."""
    return (
        type(event) is dict
        and len(<dict>event) == 2
        and key == "text"
        and "text" in <dict>event
        and (<dict>event).get("type") == "text.delta"
    )


# ---- encoders ------------------------------------------------------------------------------------------------------


cdef class EncoderView:
    """A context manager that gives the encoder's memory without a copy. Leaving the block empties the buffer."""

    def __cinit__(self, _Encoder encoder not None):
        self._encoder = encoder

    def __enter__(self):
        cdef _Encoder encoder = self._encoder
        cdef bytes pending
        encoder.make_writable()
        if encoder._ahead:
            pending = encoder.take()
            append_bytes(&encoder._buffer.bytes, pending)
        encoder._buffer.is_open = True
        self._view = memoryview(encoder._buffer)
        encoder._viewed = encoder._is_slow = True
        return self._view

    def __exit__(self, *_):
        cdef _Encoder encoder = self._encoder
        if self._view is None:
            return
        encoder._viewed = encoder._buffer.is_open = False
        encoder._is_slow = encoder._halves is not None
        try:
            self._view.release()
        except BufferError:
            pass  # other memoryviews exist; `exports` below counts them
        self._view = None
        if encoder._buffer.exports:
            # A transport still holds the memory and keeps it unchanged. The encoder continues with new memory.
            encoder._buffer = WriteBuffer(encoder._buffer.keep)
        else:
            gai_clear(&encoder._buffer.bytes, encoder._buffer.keep)


cdef class _Encoder:
    """The part that both framings share. See `gai_fast.kernels._pure.encoders`."""

    def __cinit__(self):
        self._buffer = WriteBuffer(0)  # `prepare` replaces it, but a subclass may not call `prepare`
        self._first = True
        self._text_rank = -1

    def __dealloc__(self):
        self.drop_heads()

    def text_delta(self, text, /):
        """Appends a `text.delta` event. A high surrogate at the end of the text waits for the next one.

        Args:
            text (str): The text, of any length.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        self.append_delta(TEXT, text)

    def reasoning_delta(self, text, /):
        """Appends a `reasoning.delta` event, as `text_delta` does.

        Args:
            text (str): The text, of any length.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        self.append_delta(REASONING, text)

    def text_delta_into(self, buffer, offset, text):
        """Writes a `text.delta` event into the caller's memory.

        Args:
            buffer (bytearray or another writable, contiguous buffer): The memory.
            offset (int): The offset in bytes at which the frame begins.
            text (str): The text.

        Returns:
            int: The number of bytes written; 0 if the text is a half that waits.

        Raises:
            BufferError: The buffer is too small; `needed` of the error is the size of the frame. Nothing was written,
                and the event got no number.
            TypeError: `buffer` is not writable or not contiguous.
            ValueError: `offset` is negative, or `text` is not a `str`.
        """
        return self.place_delta(TEXT, buffer, offset, text)

    def reasoning_delta_into(self, buffer, offset, text):
        """Writes a `reasoning.delta` event into the caller's own memory, as `text_delta_into` does."""
        return self.place_delta(REASONING, buffer, offset, text)

    def event_into(self, buffer, offset, event):
        """Writes any event into the caller's own memory, as `text_delta_into` does."""
        cdef gai_buffer out
        cdef uint8_t[512] memory
        cdef long long seq
        if self._halves is not None:
            return self.place_joined(event, buffer, offset)
        gai_borrow(&out, memory, sizeof(memory))
        try:
            seq = self.write_event(&out, event, None)
            if HALF_SEEN:
                return self.place_joined(event, buffer, offset)
            place(&out, buffer, offset)
            self.count(seq)
            return out.size
        finally:
            gai_release(&out)

    def delta_parts(self, event, str key not None):
        """Returns the parts of this delta's frame, for any text and any numbers.

        The frame of a stream's first event has more parts.

        Args:
            event: The delta.
            key: The key that holds the text.

        Raises:
            ValueError: As `event`.
        """
        cdef list parts
        if self._full or self._timestamps or self._stream_id is not None or not is_plain_text(event, key):
            return self.parts_of(event, key)
        # All streams of a framing share these parts.
        parts = PLAIN_PARTS[self._sse]
        if parts is None:
            parts = PLAIN_PARTS[self._sse] = self.parts_of(event, key)
        return parts.copy()

    cdef list parts_of(self, event, str key):
        cdef gai_buffer out
        cdef uint8_t[512] memory
        cdef list parts = []
        cdef object rank = RANK_OF.get(key)
        cdef bint is_timed = self._clock is not None and (self._full or self._timestamps)
        cdef bint done = False
        if type(event) is dict and rank is not None and is_printable((<dict>event).get("type"), NAME_LIMIT):
            gai_borrow(&out, memory, sizeof(memory))
            self._parts, self._text_rank = parts, rank
            try:
                done = self.write_parts(&out, event, key, is_timed)
            finally:
                self._parts, self._text_rank = None, -1
                gai_release(&out)
        if not done:
            parts = pure.delta_parts(
                event, key, sse=self._sse, stream_id=self._stream_id, envelope=self.envelope() if self._full else {},
                is_timed=is_timed,
            )
        return parts

    cdef bint write_parts(self, gai_buffer *out, dict event, str key, bint is_timed) except -1:
        """Writes a delta with parts for its text and its numbers; returns False if the pure function must write it."""
        name = event["type"]
        if not name:
            return False
        if self._sse:
            append(out, b"event: ", 7)
            write_name(out, name)
            if self._stream_id is not None:
                append(out, b"id: ", 4)
                append(out, PyUnicode_DATA(self._stream_id), PyUnicode_GET_LENGTH(self._stream_id))
                append(out, b".", 1)
                self.cut(out, "seq")
                append(out, b"\n", 1)
            append(out, b"data: ", 6)
        # The text is a placeholder, because an empty text would be left out. A time of 0 means that the event gets the
        # clock's time.
        if not self.write_members(out, {**event, key: "-"}, 0, 0 if is_timed else -1, self._full):
            return False
        append(out, b"\n\n", 2 if self._sse else 1)
        return self.cut(out, None) == 0

    cdef int cut(self, gai_buffer *out, str part) except -1:
        """Ends a part of bytes, and adds a part for a value if `part` names one."""
        if out.size:
            self._parts.append(PyBytes_FromStringAndSize(<char *>out.data, out.size))
            out.size = 0
        if part is not None:
            self._parts.append(part)
        return 0

    cdef int write_number(self, gai_buffer *out, str part, long long value) except -1:
        """Writes `seq` or `ts`; while a frame's parts are made, adds a part for it instead."""
        return write_unsigned(out, value) if self._parts is None else self.cut(out, part)

    def append_frames(self, bytes frames not None, long long count, characters=0):
        """Appends frames that a `DeltaCopier` has written, and counts their events. Ignores `characters`.

        Raises:
            BufferError: A view is exported.
        """
        cdef size_t size = len(frames)
        self.make_writable()
        if self._buffer.bytes.size and size < self._buffer.keep:
            append_bytes(&self._buffer.bytes, frames)
        elif size:
            self.put_aside()
            self._pieces.append(frames)
            self._ahead += size
        self.count(self._seq + count)

    def take(self):
        """Returns the pending bytes and empties the buffer.

        Raises:
            BufferError: A view is exported.
        """
        cdef bytes taken
        self.make_writable()
        if not self._ahead:
            taken = PyBytes_FromStringAndSize(<char *>self._buffer.bytes.data, self._buffer.bytes.size)
            gai_clear(&self._buffer.bytes, self._buffer.keep)
            return taken
        return b"".join(self.take_pieces())

    def take_pieces(self):
        """Returns the pending bytes as pieces, without joining them, and empties the buffer.

        Raises:
            BufferError: A view is exported.
        """
        cdef list pieces
        self.make_writable()
        self.put_aside()
        pieces = self._pieces
        self._pieces = None
        self._ahead = 0
        return pieces

    def view(self):
        """Returns a context manager that gives the pending bytes as a read-only `memoryview`, without a copy.

        Inside the block the encoder refuses to write. Leaving the block empties the buffer, as `take` does. If an
        object still holds the memory then (a transport with a slice of it), the memory stays unchanged.
        """
        return EncoderView(self)

    def __len__(self):
        """Returns the number of pending bytes."""
        return self._ahead + self._buffer.bytes.size

    @property
    def seq(self):
        """The number of the last event; 0 before the first event."""
        return self._seq

    cdef int prepare(
        self, object envelope, object stream_id, object request_id, object trace_id, object clock, object capacity,
        object timestamps
    ) except -1:
        if envelope in ("compact", "full") and is_text_or_none(request_id) and is_text_or_none(trace_id):
            self._full = envelope == "full"
        else:
            self._full, written = pure.checked_envelope(envelope, request_id, trace_id)
            trace_id, request_id = (<dict>written).get("trace_id"), (<dict>written).get("request_id")
        self._trace_id = trace_id or None
        self._request_id = request_id or None
        self._stream_id = None if stream_id is None else pure.checked_stream_id(stream_id)
        self._clock = clock
        self._timestamps = timestamps
        cdef size_t keep = capacity if capacity is CAPACITY else pure.checked_capacity(capacity)
        # Called again, or for an encoder that a subclass has used before.
        if self._buffer.keep or self._buffer.bytes.size or not self._first or self._is_slow or self._pieces is not None:
            self._seq = 0
            self._first = True
            self._viewed = False
            self.set_halves(None)
            self._pieces = None
            self._ahead = 0
            self.drop_heads()
            self._buffer = WriteBuffer(keep)
            return 0
        self._buffer.keep = keep
        reserve(&self._buffer.bytes, keep)
        return 0

    cdef dict envelope(self):
        cdef dict written = {"schema": SCHEMA}
        if self._trace_id is not None:
            written["trace_id"] = self._trace_id
        if self._request_id is not None:
            written["request_id"] = self._request_id
        return written

    @cython.final
    cdef inline int make_writable(self) except -1:
        if self._viewed:
            raise faults.viewed()
        return 0

    cdef int put_aside(self) except -1:
        cdef size_t size = self._buffer.bytes.size
        if self._pieces is None:
            self._pieces = []
        if size:
            self._pieces.append(PyBytes_FromStringAndSize(<char *>self._buffer.bytes.data, size))
            self._ahead += size
            gai_clear(&self._buffer.bytes, self._buffer.keep)
        return 0

    cdef long long clock_ts(self, bint wanted) except -2:
        cdef long long ts
        if not wanted or self._clock is None:
            return -1
        cdef long long seq = self._seq
        cdef bint first = self._first
        now = PyObject_CallNoArgs(self._clock)
        ts = exact(now)
        if ts < 0:
            ts = pure.checked_ts(now)
        if self._seq != seq or self._first != first:
            raise faults.encoded_within_clock()  # the caller has already used both for this event
        return ts

    cdef int count(self, long long seq) noexcept:
        if seq >= 0:
            self._seq = seq
            if self._first:
                self._first = False
                self.drop_heads()  # these heads have the first event's envelope
        return 0

    cdef int drop_heads(self) noexcept:
        gai_drop_head(&self._heads[TEXT])
        gai_drop_head(&self._heads[REASONING])
        return 0

    cdef int put_sse_head(self, gai_buffer *out, const char *name, size_t size, long long seq) noexcept:
        """Writes `event:`, and `id:` if the stream has an id and the event a number; returns -1 without memory."""
        cdef size_t id_size = 0 if self._stream_id is None else PyUnicode_GET_LENGTH(self._stream_id)
        if gai_reserve(out, size + id_size + GAI_INTEGER_ROOM + 14) < 0:
            return -1
        gai_put(out, b"event: ", 7)
        gai_put(out, name, size)
        gai_put(out, b"\n", 1)
        if id_size and seq >= 0:
            gai_put(out, b"id: ", 4)
            gai_put(out, PyUnicode_DATA(self._stream_id), id_size)
            gai_put(out, b".", 1)
            out.size = gai_put_unsigned(out.data + out.size, seq) - out.data
            gai_put(out, b"\n", 1)
        return 0

    @cython.final
    cdef int put_delta(self, gai_buffer *out, int kind, str text, long long ts) except -1:
        global HALF_SEEN
        cdef gai_head *head = &self._heads[kind]
        cdef size_t length = PyUnicode_GET_LENGTH(text), begin = out.size
        cdef uint8_t *to
        if head.bytes is NULL:
            self.make_head(head, kind, ts >= 0)
        reserve(out, head.room + SHORT + FRAME)
        to = gai_put_head(out.data + begin, head, self._seq + 1, ts)
        if length:
            memcpy(to, b',"text":"', 9)
            to += 9
            # Most texts are short: they need no call and no loop.
            if length <= SHORT and PyUnicode_IS_ASCII(text) and gai_put_short(
                to, <const uint8_t *>PyUnicode_DATA(text), length
            ):
                to += length
                to[0] = c'"'
                to += 1
            else:
                out.size = to - 1 - out.data
                HALF_SEEN = False
                if put_string(out, text) < 0 or gai_reserve(out, FRAME) < 0:
                    out.size = begin
                    raise MemoryError
                if HALF_SEEN:
                    out.size = begin
                    return 1
                to = out.data + out.size
        memcpy(to, b"}\n\n", 3)
        out.size = to + 2 + self._sse - out.data
        return 0

    cdef int make_head(self, gai_head *head, int kind, bint timed) except -1:
        """Makes the head of a delta: the bytes before its text."""
        cdef bint has_envelope = self._full or self._first
        cdef size_t cuts[GAI_NUMBERS]
        cdef uint8_t stamps[GAI_NUMBERS]
        cdef int numbers = 0
        cdef gai_buffer text
        cdef uint8_t[512] memory
        gai_borrow(&text, memory, sizeof(memory))
        try:
            if self._sse:
                append_bytes(&text, <bytes>EVENT_LINES[kind])
                if self._stream_id is not None:
                    append(&text, b"id: ", 4)
                    append(&text, PyUnicode_DATA(self._stream_id), PyUnicode_GET_LENGTH(self._stream_id))
                    append(&text, b".", 1)
                    cuts[numbers], stamps[numbers] = text.size, False
                    numbers += 1
                    append(&text, b"\n", 1)
                append(&text, b"data: ", 6)
            append(&text, b"{", 1)
            if has_envelope:
                append_bytes(&text, SCHEMA_MEMBER)
            append_bytes(&text, <bytes>TYPE_MEMBERS[kind])
            if timed:
                append(&text, b',"ts":', 6)
                cuts[numbers], stamps[numbers] = text.size, True
                numbers += 1
            append(&text, b',"seq":', 7)
            cuts[numbers], stamps[numbers] = text.size, False
            numbers += 1
            if has_envelope:
                if self._trace_id is not None:
                    write_member(&text, RANK_TRACE_ID, self._trace_id)
                if self._request_id is not None:
                    write_member(&text, RANK_REQUEST_ID, self._request_id)
            if gai_make_head(head, text.data, text.size, cuts, stamps, numbers, NULL, 0) < 0:
                raise MemoryError
        finally:
            gai_release(&text)
        return 0

    @cython.final
    cdef int append_delta(self, int kind, object text) except -1:
        cdef long long ts = -1
        if not isinstance(text, str):
            raise faults.not_text("text", text)
        if self._is_slow:
            return self.append_joined({"type": DELTA_TYPES[kind], "text": text}, None)
        if self._clock is not None and (self._full or self._first or self._timestamps):
            ts = self.clock_ts(True)
            self.make_writable()  # again: the clock is the caller's code and may have exported a view
        if self.put_delta(&self._buffer.bytes, kind, <str>text, ts):
            return self.append_joined({"type": DELTA_TYPES[kind], "text": text}, None)
        if self._first:
            return self.count(self._seq + 1)
        self._seq += 1
        return 0

    cdef Py_ssize_t place_delta(self, int kind, object buffer, object offset, object text) except -1:
        cdef gai_buffer out
        cdef uint8_t[512] memory
        cdef long long ts
        if not isinstance(text, str):
            raise faults.not_text("text", text)
        if self._halves is not None:
            return self.place_joined({"type": DELTA_TYPES[kind], "text": text}, buffer, offset)
        ts = self.clock_ts(self._full or self._first or self._timestamps)
        gai_borrow(&out, memory, sizeof(memory))
        try:
            if self.put_delta(&out, kind, <str>text, ts):
                return self.place_joined({"type": DELTA_TYPES[kind], "text": text}, buffer, offset)
            place(&out, buffer, offset)
            self.count(self._seq + 1)
            return out.size
        finally:
            gai_release(&out)

    cdef int append_event(self, object event, object retry) except -1:
        # Written to separate memory first: the clock, which is Python code, must not find half a frame in the buffer.
        cdef gai_buffer out
        cdef uint8_t[1024] memory
        cdef long long seq
        if retry is None and type(event) is dict and len(<dict>event) == 2:
            # A delta with only a text, as most events are.
            name, text = (<dict>event).get("type"), (<dict>event).get("text")
            if type(name) is str and type(text) is str:
                if <str>name == "text.delta":
                    return self.append_delta(TEXT, text)
                if <str>name == "reasoning.delta":
                    return self.append_delta(REASONING, text)
        if self._is_slow:
            return self.append_joined(event, retry)
        gai_borrow(&out, memory, sizeof(memory))
        try:
            seq = self.write_event(&out, event, retry)
            if HALF_SEEN:
                return self.append_joined(event, retry)
            self.make_writable()
            append(&self._buffer.bytes, out.data, out.size)
            self.count(seq)
        finally:
            gai_release(&out)
        return 0

    cdef int append_joined(self, object event, object retry) except -1:
        cdef gai_buffer out
        cdef long long seq = self._seq
        cdef bint first = self._first
        cdef dict halves = {} if self._halves is None else self._halves.copy()
        self.make_writable()
        gai_borrow(&out, NULL, 0)
        try:
            self.write_joined(&out, event, retry, halves)
            self.make_writable()
            append(&self._buffer.bytes, out.data, out.size)
        except BaseException:
            if out.size:  # otherwise nothing has been counted
                self._seq, self._first = seq, first
                self.drop_heads()
            raise
        finally:
            gai_release(&out)
        return self.set_halves(halves)

    cdef Py_ssize_t place_joined(self, object event, object buffer, object offset) except -1:
        cdef gai_buffer out
        cdef long long seq = self._seq
        cdef bint first = self._first
        cdef dict halves = {} if self._halves is None else self._halves.copy()
        gai_borrow(&out, NULL, 0)
        try:
            self.write_joined(&out, event, None, halves)
            place(&out, buffer, offset)
            self.set_halves(halves)
            return out.size
        except BaseException:
            if out.size:  # otherwise nothing has been counted
                self._seq, self._first = seq, first
                self.drop_heads()
            raise
        finally:
            gai_release(&out)

    cdef int write_joined(self, gai_buffer *out, object event, object retry, dict halves) except -1:
        cdef size_t written
        for each in joined(halves, event):
            written = out.size
            try:
                self.count(self.write_event(out, each, retry))
                written = out.size
            finally:
                out.size = written
            retry = None
        return 0

    cdef int set_halves(self, dict halves) noexcept:
        self._halves = halves if halves else None
        self._is_slow = self._viewed or self._halves is not None
        return 0

    cdef long long write_event(self, gai_buffer *out, object event, object retry) except -2:
        global HALF_SEEN
        cdef long long seq = -1, ts = -1
        cdef bint has_envelope = False, done = False
        cdef size_t begin
        cdef object name, own
        cdef bytes encoded
        if retry is not None:
            pure.checked_retry(retry)
        if type(event) is not dict and isinstance(event, dict):
            event = dict(event)
        name = (<dict>event).get("type") if type(event) is dict else None
        if name is None or name is not self._checked_type:  # mostly the type of the event before, checked already
            if not is_printable(name, NAME_LIMIT) or not PyUnicode_GET_LENGTH(name):
                name = pure.event_type(event)
            done = name == "done"
            if name not in TYPES:
                pure.refuse_misspelt(name)
            if not done:
                self._checked_type = name
        if done:
            encoded = FINISHED if (<dict>event).get("finished") is True else pure.encode_done(event)
        else:
            own = (<dict>event).get("seq")
            seq = self._seq + 1 if own is None else exact(own)
            if seq < 0:
                seq = pure.event_seq(event, self._seq)
            has_envelope = self._full or self._first
            ts = self.clock_ts((has_envelope or self._timestamps) and (<dict>event).get("ts") is None)
        if self._sse:
            self.write_sse_head(out, <str>name, seq)
            if retry is not None:
                write_retry(out, retry)
            append(out, b"data: ", 6)
        begin = out.size
        HALF_SEEN = False
        if done:
            append_bytes(out, encoded)
        elif not self.write_members(out, <dict>event, seq, ts, has_envelope):
            out.size = begin
            append_bytes(out, self.encode_slowly(event, seq, ts, has_envelope))
            HALF_SEEN = ends_in_half(event)
        append(out, b"\n\n", 2 if self._sse else 1)
        return seq

    cdef int write_sse_head(self, gai_buffer *out, str name, long long seq) except -1:
        cdef Py_ssize_t size = 0
        cdef const char *encoded = PyUnicode_AsUTF8AndSize(name, &size)
        if self.put_sse_head(out, encoded, size, seq) < 0:
            raise MemoryError
        return 0

    cdef bytes encode_slowly(self, dict event, long long seq, long long ts, bint has_envelope):
        cdef dict envelope = {"seq": seq}
        if has_envelope:
            envelope.update(self.envelope())
        if ts >= 0:
            envelope["ts"] = ts
        return pure_text.encode_json(pure.ordered(event, envelope))

    cdef int write_members(self, gai_buffer *out, dict event, long long seq, long long ts, bint has_envelope) except -1:
        """Writes the object, keys in `events.KEYS` order; returns 0 if a value has another type (see `write_value`)."""
        cdef PyObject *values[RANKS]
        cdef uint64_t held = 0, left
        cdef bint unknown = False
        cdef PyObject *found
        cdef Slot *slot
        cdef int rank
        try:
            for key, value in event.items():
                if type(key) is not str:
                    return 0
                if is_empty(value):
                    continue
                slot = slot_of(key)
                if slot.key is not NULL:
                    rank = slot.rank
                else:
                    found = PyDict_GetItemWithError(RANK_OF, key)
                    if found is NULL:
                        unknown = True
                        continue
                    rank = <object>found
                Py_INCREF(value)
                values[rank] = <PyObject *>value
                held |= <uint64_t>1 << rank
            if not held >> RANK_TYPE & 1:
                return 0  # the clock, which is the caller's code, has removed the type
            append(out, b"{", 1)
            if held >> RANK_SCHEMA & 1:
                append(out, b'"schema":', 9)
                if not write_value(out, <object>values[RANK_SCHEMA], 1):
                    return 0
                append(out, b",", 1)
            elif has_envelope:
                append_bytes(out, SCHEMA_MEMBER)
            append(out, b'"type":', 7)
            if not write_value(out, <object>values[RANK_TYPE], 1):
                return 0
            if held >> RANK_TS & 1:
                if not write_member(out, RANK_TS, <object>values[RANK_TS]):
                    return 0
            elif ts >= 0:
                append_bytes(out, <bytes>MEMBERS[RANK_TS])
                self.write_number(out, "ts", ts)
            append_bytes(out, <bytes>MEMBERS[RANK_SEQ])
            self.write_number(out, "seq", seq)
            if held >> RANK_TRACE_ID & 1:
                if not write_member(out, RANK_TRACE_ID, <object>values[RANK_TRACE_ID]):
                    return 0
            elif has_envelope and self._trace_id is not None:
                write_member(out, RANK_TRACE_ID, self._trace_id)
            if held >> RANK_REQUEST_ID & 1:
                if not write_member(out, RANK_REQUEST_ID, <object>values[RANK_REQUEST_ID]):
                    return 0
            elif has_envelope and self._request_id is not None:
                write_member(out, RANK_REQUEST_ID, self._request_id)
            left = held >> RANK_OTHERS << RANK_OTHERS
            while left:
                rank = gai_lowest(left)
                left &= left - 1
                if rank == self._text_rank:
                    append_bytes(out, <bytes>MEMBERS[rank])
                    append(out, b'"', 1)
                    self.cut(out, "text")
                    append(out, b'"', 1)
                elif not write_member(out, rank, <object>values[rank]):
                    return 0
        finally:
            while held:
                rank = gai_lowest(held)
                held &= held - 1
                Py_DECREF(<object>values[rank])
        if unknown and not write_unknown(out, event):
            return 0
        append(out, b"}", 1)
        return 1


cdef long long exact(object value) except -2:
    """Returns an integer that all JSON readers keep exact. For other values -1: the pure functions decide."""
    cdef long long number
    cdef int overflow = 0
    if type(value) is not int:
        return -1
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return number if 0 <= number < EXACT_END and not overflow else -1


cdef inline bint is_text_or_none(object value):
    return value is None or type(value) is str


cdef bint is_empty(object value):
    """Returns the same as `events.is_empty`."""
    cdef type kind = type(value)
    if value is None:
        return True
    if kind is str:
        return PyUnicode_GET_LENGTH(value) == 0
    if kind is dict or kind is list:
        return not value
    return isinstance(value, (str, list, dict)) and not value


cdef int write_unsigned(gai_buffer *out, long long value) except -1:
    reserve(out, GAI_INTEGER_ROOM)
    out.size = gai_put_unsigned(out.data + out.size, value) - out.data
    return 0


cdef int write_member(gai_buffer *out, int rank, object value) except -1:
    append_bytes(out, <bytes>MEMBERS[rank])
    return write_value(out, value, 1)


cdef int write_unknown(gai_buffer *out, dict event) except -1:
    """Writes the keys that are not in `events.KEYS`, in their own order."""
    for key, value in event.items():
        if key in RANK_OF or is_empty(value):
            continue
        append(out, b",", 1)
        if not write_value(out, key, 1):
            return 0
        append(out, b":", 1)
        if not write_value(out, value, 1):
            return 0
    return 1


cdef int place(gai_buffer *out, object buffer, object offset) except -1:
    """Copies the frame into the caller's memory. Raises if the memory is not suitable."""
    cdef Py_buffer view
    cdef long long begin
    cdef int overflow = 0
    if not PyObject_CheckBuffer(buffer):
        raise faults.bad_buffer()
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except BufferError:
        raise faults.bad_buffer() from None
    try:
        begin = PyLong_AsLongLongAndOverflow(offset if type(offset) is int else operator.index(offset), &overflow)
        if overflow < 0 or (begin < 0 and not overflow):
            raise faults.bad_offset()
        if overflow or view.len - begin < <Py_ssize_t>out.size:
            raise faults.BufferTooSmall(out.size)
        memcpy(<char *>view.buf + begin, out.data, out.size)
    finally:
        PyBuffer_Release(&view)
    return 0


cdef class SSEEncoder(_Encoder):
    """SSEEncoder(envelope='compact', stream_id=None, request_id=None, trace_id=None, clock=None, capacity=4096, *, timestamps=False)
--

    Encodes `gai.events.v1` as SSE into one reusable buffer. Only one thread may use it at a time.

    The part that both framings share: envelope, numbers, buffer.

        A high surrogate at the end of a delta waits for the next delta of its type, choice and call, and both become one
        character. A half whose other half does not come becomes U+FFFD, before the event that ends its text.

        Args:
            envelope (str): `"compact"` (schema, ts and the ids only on the first event) or `"full"` (on every event).
            stream_id (str or None): The stream's id: 1 to 100 characters of `[A-Za-z0-9_-]`. If given, SSE frames have an
                `id:` line.
            request_id (str or None): The request's id. If given, the envelope has it.
            trace_id (str or None): The trace's id. If given, the envelope has it.
            clock (callable or None): Returns milliseconds since the epoch as an `int`, below 2**53. It must not write with
                the encoder. Without a clock only events with their own `ts` have a `ts`.
            capacity (int): The first size of the buffer in bytes; the buffer shrinks back to it.
            timestamps (bool): Whether every event has a `ts` with the compact envelope, too.

        Raises:
            ValueError: An argument is invalid.
        
    """

    has_blocks = False
    collects_text = False

    def __init__(
        self, envelope="compact", stream_id=None, request_id=None, trace_id=None, clock=None, capacity=CAPACITY, *,
        timestamps=False
    ):
        self._sse = True
        self.prepare(envelope, stream_id, request_id, trace_id, clock, capacity, timestamps)

    def event(self, event, retry=None):
        """Appends any event.

        Args:
            event (dict): A `gai_fast.Event`. Keys are written in the order of docs/events.md, unknown keys last, empty
                values not.
            retry (int or None): Milliseconds for a `retry:` line, for the first frame of a resumable stream.

        Raises:
            ValueError: The `type` is missing, invalid or a misspelt name of a known type, `seq` is invalid, or a value
                has no JSON form. Nothing was written.
            BufferError: A view is exported.
        """
        self.append_event(event, retry)

    def comment(self, text):
        r"""Appends a comment, each line as `: line\n`, without a blank line: OpenAI's Python SDK reads those as events.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        cdef gai_buffer out
        cdef uint8_t[512] memory
        if not isinstance(text, str):
            raise faults.not_text("comment", text)
        self.make_writable()
        gai_borrow(&out, memory, sizeof(memory))
        try:
            write_lines(&out, b": ", <str>text)
            self.make_writable()
            append(&self._buffer.bytes, out.data, out.size)
        finally:
            gai_release(&out)

    def heartbeat(self):
        """Appends a keep-alive."""
        self.comment("ping")

    def copied(self, event, text):
        """Does nothing: this encoder keeps no text."""


cdef class NDJSONEncoder(_Encoder):
    """NDJSONEncoder(envelope='full', stream_id=None, request_id=None, trace_id=None, clock=None, capacity=4096, *, timestamps=False)
--

    Encodes `gai.events.v1` as NDJSON into one reusable buffer. Only one thread may use it at a time.

    The part that both framings share: envelope, numbers, buffer.

        A high surrogate at the end of a delta waits for the next delta of its type, choice and call, and both become one
        character. A half whose other half does not come becomes U+FFFD, before the event that ends its text.

        Args:
            envelope (str): `"compact"` (schema, ts and the ids only on the first event) or `"full"` (on every event).
            stream_id (str or None): The stream's id: 1 to 100 characters of `[A-Za-z0-9_-]`. If given, SSE frames have an
                `id:` line.
            request_id (str or None): The request's id. If given, the envelope has it.
            trace_id (str or None): The trace's id. If given, the envelope has it.
            clock (callable or None): Returns milliseconds since the epoch as an `int`, below 2**53. It must not write with
                the encoder. Without a clock only events with their own `ts` have a `ts`.
            capacity (int): The first size of the buffer in bytes; the buffer shrinks back to it.
            timestamps (bool): Whether every event has a `ts` with the compact envelope, too.

        Raises:
            ValueError: An argument is invalid.
        
    """

    has_blocks = False
    collects_text = False

    def __init__(
        self, envelope="full", stream_id=None, request_id=None, trace_id=None, clock=None, capacity=CAPACITY, *,
        timestamps=False
    ):
        self.prepare(envelope, stream_id, request_id, trace_id, clock, capacity, timestamps)

    def event(self, event):
        """Appends any event.

        Args:
            event (dict): A `gai_fast.Event`. Keys are written in the order of docs/events.md, unknown keys last, empty
                values not.

        Raises:
            ValueError: The `type` is missing, invalid or a misspelt name of a known type, `seq` is invalid, or a value
                has no JSON form. Nothing was written.
            BufferError: A view is exported.
        """
        self.append_event(event, None)

    def comment(self, text):
        """Appends an empty line: NDJSON has no comments, and its readers skip empty lines.

        Args:
            text (str): Is left out.

        Raises:
            ValueError: `text` is not a `str`.
            BufferError: A view is exported.
        """
        if not isinstance(text, str):
            raise faults.not_text("comment", text)
        self.make_writable()
        append(&self._buffer.bytes, b"\n", 1)

    def heartbeat(self):
        """Appends a keep-alive."""
        self.comment("")

    def copied(self, event, text):
        """Does nothing: this encoder keeps no text."""
