"""The hot path of a stream. `relay.py`, `counters.py`, `fast_path.py`, `messages.py` and `pieces.py` in `kernels/_pure`
define its behaviour.

`DeltaCopier` writes frames that are similar to a learned frame without parsing them. `FastPath` copies from the
upstream's connection to the client's in one call; `ReadBatch` does so for all reads of an iteration. `ChunkWriter`
writes the pieces of a log.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.time cimport perf_counter
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_New, PyTuple_SET_ITEM
from libc.errno cimport EAGAIN
from libc.limits cimport LLONG_MAX
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset, strerror
from sys import exception

from gai_fast.kernels._native.buffer cimport append, append_bytes, bytes_memory, finished_bytes, new_bytes, part, reserve, resize_bytes
from gai_fast.kernels._native.c cimport (
    GAI_ABANDON,
    GAI_CAN_WATCH,
    GAI_COPY_DONE,
    GAI_COPY_MISS,
    GAI_COPY_MORE,
    GAI_COPY_ROOM,
    GAI_EMPTY,
    GAI_HOLES,
    GAI_KEEP,
    GAI_LEND,
    GAI_LOOK_AT,
    GAI_NAMES,
    GAI_NAME_IGNORED,
    GAI_NAME_KEPT,
    GAI_NAME_LABEL,
    GAI_NAME_TEXT,
    GAI_NUMBERS,
    GAI_READY,
    GAI_TAKE_CHUNK,
    GAI_TAKE_COPIED,
    GAI_UNLOAD,
    gai_add_to_trail,
    gai_borrow,
    gai_buffer,
    gai_clear_trail,
    gai_close,
    gai_copy_run,
    gai_copy_string,
    gai_drop_head,
    gai_forget,
    gai_kept,
    gai_learn,
    gai_make_head,
    gai_match_lead,
    gai_match_tail,
    gai_may_run,
    gai_move,
    gai_name,
    gai_open_set,
    gai_open_timer,
    gai_put_head,
    gai_put_tail,
    gai_ready,
    gai_recall,
    gai_receive,
    gai_release,
    gai_reserve,
    gai_rest,
    gai_send,
    gai_send_parts,
    gai_set_timer,
    gai_take_ready,
    gai_template,
    gai_use_loops,
    gai_wake,
    gai_watch,
    iovec,
)
from gai_fast.kernels._native.encoders cimport loops_in_use, put_string
from gai_fast.kernels._native.encoders import parse_exact
from gai_fast.kernels._native.tls cimport TLSRecords
from gai_fast.kernels._native.parsers cimport ChunkedBody, END, whole_chunk, _Feed, _LineFeed, _SSEFeed, LineFramer, SSEFramer
from gai_fast.kernels._pure.relay import as_bytes
from gai_fast.model.limits import SHARED
from gai_fast.kernels._pure.limits import LIMITS

gai_use_loops(loops_in_use())

# ---- copied frames -------------------------------------------------------------------------------------------------


cdef enum:
    FRUITLESS = 2 * TEMPLATES   # templates without a match after which a stream's frames count as not repeating
    RETRY = 16                  # if a stream's frames do not repeat, one of so many frames is learned
    LAST_FRAMES = 1024          # bytes of the frames that end most responses: finish reason, usage, end mark
    VIEWED = 4096               # bytes from which on a view is cheaper than a copy
    DIGITS = 5                  # digits of most numbers
    HEX_DIGITS = 16             # the most digits of a chunk's size
    CHUNK_FRAME = HEX_DIGITS + 4  # bytes around the data of a chunk

cdef const char *HEX = b"0123456789abcdef"
cdef size_t HELD = LIMITS.held_frame
cdef size_t COLLECTED = LIMITS.collected_text
cdef Py_ssize_t CHANGES = LIMITS.kept_changes
cdef Py_ssize_t BATCHED = LIMITS.batched_read
cdef Py_ssize_t ACK_STEP = SHARED.ack_step
cdef Py_ssize_t BULK = LIMITS.bulk_read
cdef long REST = <long>(LIMITS.bulk_rest * 1e9)
cdef dict NAMES = {}            # one `_Names` for each adapter: its sets are constants of its class


cdef class _Names:
    def __cinit__(self, members, ignored, kept, labels):
        roles = [(name, GAI_NAME_TEXT) for name in members]
        roles += [(name, GAI_NAME_IGNORED) for name in ignored]
        roles += [(name, GAI_NAME_KEPT) for name in kept]
        roles += [(name, GAI_NAME_LABEL) for name in labels]
        if len(roles) > GAI_NAMES:
            raise ValueError(f"an adapter names at most {GAI_NAMES} members")
        self.keys = [name for name, _ in roles]
        self.held = [name.encode() for name in self.keys]
        self.names = <gai_name *>malloc((len(roles) + 1) * sizeof(gai_name))
        if self.names is NULL:
            raise MemoryError
        for i, (name, (_, role)) in enumerate(zip(self.held, roles)):
            self.names[i].data = <const uint8_t *>PyBytes_AS_STRING(name)
            self.names[i].size = PyBytes_GET_SIZE(name)
            self.names[i].role = role
        self.count = len(roles)
        self.lessons = []

    def __dealloc__(self):
        free(self.names)


cdef _Names names_of(members, ignored, kept, labels):
    sets = (members, ignored, kept, labels)
    names = NAMES.get(sets)
    if names is None:
        names = NAMES[sets] = _Names(members, ignored, kept, labels)
    return <_Names>names


cdef class _Kind:
    def __cinit__(self, dict event, str key):
        gai_borrow(&self.texts.pieces, NULL, 0)
        self.event = event
        self.key = key
        self.keeps = ALL_TEXT if key == "arguments" else LAST_TEXT if key == "trail" else NO_TEXT

    def __dealloc__(self):
        gai_release(&self.texts.pieces)

    cdef bint covers(self, dict event, str key):
        """Returns whether an event is of this kind: it differs only in the text."""
        if self.key != key or len(self.event) != len(event):
            return False
        for name, value in self.event.items():
            if name != key and (name not in event or event[name] != value):
                return False
        return True

    cdef tuple take(self):
        """Returns the event, and the number of characters and the text of the deltas copied since the last call."""
        text = self.take_text() if self.keeps else ""
        characters = self.characters
        self.characters = 0
        self.touched = False
        return self.event, characters, text

    cdef str take_text(self):
        cdef gai_buffer *pieces = &self.texts.pieces
        if not pieces.size:
            return ""
        text = pieces.data[:pieces.size].decode()
        if "\\" in text:
            text = parse_exact(f'"{text}"')
        gai_release(pieces)
        gai_clear_trail(&self.texts)
        return text


cdef class _Kept:
    def __cinit__(self):
        gai_borrow(&self.text, NULL, 0)

    def __dealloc__(self):
        gai_release(&self.text)

    cdef inline int keep(self, const uint8_t *text, size_t size) except -1:
        reserve(&self.text, size)
        self.text.size = 0
        append(&self.text, text, size)
        self.fresh = True
        return 0


cdef class _Template:
    def __dealloc__(self):
        gai_drop_head(&self.around)

    cdef bint set_parts(self, parts) except -1:
        """Sets the output of a frame; returns False if the order of its parts is not supported."""
        cdef size_t cuts[GAI_NUMBERS]
        cdef uint8_t stamps[GAI_NUMBERS]
        cdef int numbers = 0
        cdef bint is_behind = False
        cdef size_t ahead = 0   # bytes before the text
        cdef gai_buffer pieces
        cdef uint8_t[512] memory
        gai_borrow(&pieces, memory, sizeof(memory))
        try:
            for part in parts:
                if type(part) is bytes:
                    append_bytes(&pieces, <bytes>part)
                elif is_behind or (part != "text" and numbers == GAI_NUMBERS):
                    return False
                elif part == "text":
                    is_behind = True
                    ahead = pieces.size
                else:
                    cuts[numbers] = pieces.size
                    stamps[numbers] = part == "ts"
                    self.is_timed |= stamps[numbers]
                    numbers += 1
            if not is_behind:
                ahead = pieces.size
            if gai_make_head(
                &self.around, pieces.data, ahead, cuts, stamps, numbers, pieces.data + ahead, pieces.size - ahead
            ) < 0:
                raise MemoryError
            self.written = pieces.size + numbers * DIGITS
        finally:
            gai_release(&pieces)
        return True

    cdef size_t expected(self, size_t size) noexcept:
        cdef size_t text = self.learned.begins[self.learned.text + 1] - self.learned.ends[self.learned.text]
        return 0 if not self.written else size // PyBytes_GET_SIZE(self.frame) * (self.written + text)


cdef bytes without_values(bytes frame, const gai_template *learned):
    """Returns the frame with blanks in its holes."""
    cdef int i
    cdef bytes blanked = PyBytes_FromStringAndSize(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))
    for i in range(learned.count):
        memset(PyBytes_AS_STRING(blanked) + learned.ends[i], c" ", learned.begins[i + 1] - learned.ends[i])
    return blanked


cdef object piece(bytes whole, size_t at, size_t end):
    """Returns a part of the bytes. A large part is a view, because writing copies it anyway (64 KiB: 5 us)."""
    if end - at < VIEWED or end - at == <size_t>PyBytes_GET_SIZE(whole):
        return part(whole, at, end)
    return memoryview(whole)[at:end]


cdef inline int digits_of(size_t size) noexcept:
    """Returns the number of hexadecimal digits of a size that is not 0."""
    cdef int count = 0
    while size:
        size >>= 4
        count += 1
    return count


cdef inline uint8_t *put_line_end(uint8_t *to) noexcept:
    to[0] = c"\r"
    to[1] = c"\n"
    return to + 2


cdef inline uint8_t *put_size(uint8_t *to, size_t size, int digits) noexcept:
    """Writes the first line of an HTTP chunk (RFC 9112, section 7.1), `digits` + 2 bytes; returns their end."""
    cdef int at = digits
    while at:
        at -= 1
        to[at] = HEX[size & 15]
        size >>= 4
    return put_line_end(to + digits)


cdef inline uint8_t *put_chunk(uint8_t *to, const uint8_t *data, size_t size, int digits) noexcept:
    """Writes an HTTP chunk, `digits` + `size` + 4 bytes; returns their end."""
    to = put_size(to, size, digits)
    memcpy(to, data, size)
    return put_line_end(to + size)


cdef bytes as_chunk(const uint8_t *data, size_t size):
    """Returns the bytes as one HTTP chunk."""
    cdef int digits = digits_of(size)
    cdef PyObject *made = new_bytes(NULL, digits + size + 4)
    put_chunk(<uint8_t *>bytes_memory(made), data, size, digits)
    result = <bytes>made  # of its size: `finished_bytes` costs 40 instructions
    Py_DECREF(result)
    return result


def size_of(pieces not None):
    """See `gai_fast.kernels._pure.pieces.size_of`."""
    return count_bytes(pieces)


def frame_chunk(bytes head not None, pieces not None, bytes tail not None):
    """See `gai_fast.kernels._pure.pieces.frame_chunk`."""
    cdef size_t size = count_bytes(pieces)
    cdef size_t left = size
    cdef int digits = digits_of(size)
    cdef Py_ssize_t ends = PyBytes_GET_SIZE(head) + PyBytes_GET_SIZE(tail)
    cdef PyObject *made = new_bytes(NULL, ends + size + digits + 4 if size else ends)
    cdef uint8_t *to = <uint8_t *>bytes_memory(made)
    result = <bytes>made
    Py_DECREF(result)
    to = put_bytes(to, head)
    if size:
        to = put_size(to, size, digits)
        for piece in pieces:
            to = put_piece(to, piece, &left)
        if left:
            raise ValueError("the pieces have shrunk")
        to = put_line_end(to)
    put_bytes(to, tail)
    return result


cdef size_t count_bytes(pieces) except? -1:
    cdef size_t size = 0
    for piece in pieces:
        size += PyBytes_GET_SIZE(piece) if PyBytes_CheckExact(piece) else len(piece)
    return size


cdef inline uint8_t *put_bytes(uint8_t *to, bytes data) noexcept:
    memcpy(to, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return to + PyBytes_GET_SIZE(data)


cdef inline uint8_t *put_piece(uint8_t *to, piece, size_t *left) except NULL:
    """Writes a piece of at most `left` bytes; returns its end."""
    cdef Py_buffer view
    cdef size_t size
    if PyBytes_CheckExact(piece):
        size = PyBytes_GET_SIZE(piece)
        if size > left[0]:
            raise ValueError("the pieces have grown")
        memcpy(to, PyBytes_AS_STRING(piece), size)
    else:
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        size = view.len
        if size <= left[0]:
            memcpy(to, view.buf, size)
        PyBuffer_Release(&view)
        if size > left[0]:
            raise ValueError("the pieces have grown")
    left[0] -= size
    return to + size


# ---- WebSocket messages ----------------------------------------------------------------------------------------------

cdef enum:
    MESSAGE_HEAD = 10       # bytes of the longest header
    MESSAGE_TEXT = 0x81
    MESSAGE_SHORT = 126
    MESSAGE_LONG = 1 << 16
    MEMBER_ID = 8           # bytes of the member `id` besides its value
    SHORT_COPY = 64         # bytes of one copy, which may exceed the data
    MESSAGE_ROOM = MESSAGE_HEAD + MEMBER_ID + SHORT_COPY  # bytes needed besides lead, id and event


cdef inline uint8_t *put_message_head(uint8_t *to, size_t size) noexcept:
    """Writes the header of an unmasked text message; returns its end."""
    cdef int more = 8
    to[0] = MESSAGE_TEXT
    if size < MESSAGE_SHORT:
        to[1] = <uint8_t>size
        return to + 2
    if size < MESSAGE_LONG:
        to[1] = MESSAGE_SHORT
        to[2] = <uint8_t>(size >> 8)
        to[3] = <uint8_t>size
        return to + 4
    to[1] = MESSAGE_SHORT + 1
    to += 2
    while more:
        more -= 1
        to[0] = <uint8_t>(size >> (8 * more))
        to += 1
    return to


cpdef bytes event_messages(bytes frames, bytes begin):
    """See `gai_fast.kernels._pure.messages.event_messages`. A message is shorter than its frame."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(frames)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frames)
    cdef const uint8_t *stop
    cdef const uint8_t *before = at  # the line of the last event's name, and what precedes its data
    cdef size_t named = PyBytes_GET_SIZE(begin), before_size = 0, size
    cdef PyObject *made
    cdef uint8_t *out
    cdef uint8_t *to
    if at == end or memchr(at, c"\r", end - at) is not NULL:
        return None
    if named < 7 or memcmp(PyBytes_AS_STRING(begin), b"event: ", 7):
        return None
    made = new_bytes(NULL, end - at)
    out = to = <uint8_t *>bytes_memory(made)
    while at < end:
        if not before_size or before_size >= <size_t>(end - at) or memcmp(at, before, before_size):
            before = at
            if named >= <size_t>(end - at) or memcmp(at, PyBytes_AS_STRING(begin), named):
                break
            at = <const uint8_t *>memchr(at + named, c"\n", end - at - named)
            if at is NULL or end - at < 8 or memcmp(at, b"\ndata: {", 8):
                break
            before_size = at + 8 - before
            at = before
        at += before_size
        stop = <const uint8_t *>memchr(at, c"\n", end - at)
        if stop is NULL or stop + 1 == end or stop[1] != c"\n":
            break
        size = stop - at
        to = put_message_head(to, size + 1)
        to[0] = c"{"
        memcpy(to + 1, at, size)
        to += size + 1
        at = stop + 2
    else:
        return finished_bytes(made, to - out)
    finished_bytes(made, 0)
    return None


def frame_messages(bytes frames not None, bytes lead not None):
    """See `gai_fast.kernels._pure.messages.frame_messages`. Most messages are shorter than their frames."""
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(frames)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(frames)
    cdef const uint8_t *stop
    cdef const uint8_t *named = NULL
    cdef const uint8_t *before = at  # the line of the last event's name: most events have the same name
    cdef size_t lead_size = PyBytes_GET_SIZE(lead), named_size = 0, before_size = 0, size, most, made_size
    cdef size_t room = PyBytes_GET_SIZE(frames) + lead_size + MESSAGE_ROOM
    cdef uint8_t leads[SHORT_COPY]
    cdef PyObject *made
    cdef uint8_t *out
    cdef uint8_t *to
    if lead_size == 1 and PyBytes_AS_STRING(lead)[0] == c"{":
        plain = event_messages(frames, b"event: ")  # nothing is added: nearly all frames are copied at once
        if plain is not None:
            return plain
    made = new_bytes(NULL, room)
    out = to = <uint8_t *>bytes_memory(made)
    memcpy(leads, PyBytes_AS_STRING(lead), min(lead_size, <size_t>SHORT_COPY))
    while at < end:
        if at[0] == c"\n":  # the end of a frame
            at += 1
            continue
        if before_size and before_size < <size_t>(end - at) and not memcmp(at, before, before_size):
            at += before_size
        stop = <const uint8_t *>memchr(at, c"\n", end - at)
        if stop is NULL:
            stop = end
        size = stop - at
        if size >= 7 and at[0] == c"d" and not memcmp(at, b"data: {", 7):
            at += 7
            size -= 7
            made_size = to - out
            most = made_size + lead_size + named_size + size + MESSAGE_ROOM
            if most > room:
                room = 2 * most
                resize_bytes(&made, room)
                out = <uint8_t *>bytes_memory(made)
                to = out + made_size
            to = put_message_head(to, lead_size + (named_size + MEMBER_ID if named is not NULL else 0) + size)
            if lead_size <= SHORT_COPY:
                memcpy(to, leads, SHORT_COPY)
            else:
                memcpy(to, PyBytes_AS_STRING(lead), lead_size)
            to += lead_size
            if named is not NULL:
                memcpy(to, b'"id":"', 6)
                memcpy(to + 6, named, named_size)
                memcpy(to + 6 + named_size, b'",', 2)
                to += named_size + MEMBER_ID
                named = NULL
                named_size = 0
            # A copy of a constant length needs no call; the bytes after the data are overwritten.
            if size <= SHORT_COPY and SHORT_COPY <= <size_t>(end - at):
                memcpy(to, at, SHORT_COPY)
            else:
                memcpy(to, at, size)
            to += size
        elif size >= 7 and at[0] == c"e" and not memcmp(at, b"event: ", 7):
            before = at
            before_size = size + 1
        elif size >= 4 and at[0] == c"i" and not memcmp(at, b"id: ", 4):
            named = at + 4
            named_size = size - 4
        at = stop + 1
    return finished_bytes(made, to - out)


def last_seq(bytes frames not None):
    """See `gai_fast.kernels._pure.messages.last_seq`."""
    cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(frames)
    cdef const uint8_t *end = begin + PyBytes_GET_SIZE(frames)
    cdef const uint8_t *stop = end  # the end of the line after `at`
    cdef const uint8_t *at = end
    cdef const uint8_t *number
    cdef const uint8_t *behind
    while at > begin:
        at -= 1
        if at[0] != c"\n":
            continue
        if stop - at >= 8 and not memcmp(at, b"\ndata: {", 8):
            number = <const uint8_t *>memchr(at, c'"', stop - at)
            while number is not NULL and stop - number > 6:
                if not memcmp(number, b'"seq":', 6):
                    number += 6
                    behind = number
                    while behind < stop and c"0" <= behind[0] <= c"9":
                        behind += 1
                    if behind > number:
                        return int(PyBytes_FromStringAndSize(<const char *>number, behind - number))
                else:
                    number += 1
                number = <const uint8_t *>memchr(number, c'"', stop - number)
        stop = at
    return 0


def unmasked(bytes data not None, Py_ssize_t at):
    """See `gai_fast.kernels._pure.messages.unmasked`."""
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(data) - at
    if at < 4 or size < 0:
        raise ValueError("there is no mask")
    cdef PyObject *made = new_bytes(NULL, size)
    cdef uint8_t *to = <uint8_t *>bytes_memory(made)
    cdef const uint8_t *payload = <const uint8_t *>PyBytes_AS_STRING(data) + at
    cdef const uint8_t *mask = payload - 4
    for i in range(size):
        to[i] = payload[i] ^ mask[i & 3]
    return finished_bytes(made, size)


cdef class DeltaCopier:
    """Cuts a stream into frames and copies learned frames. See `gai_fast.kernels._pure.relay.DeltaCopier`."""

    def __cinit__(
        self, framer, passes, members=frozenset(), ignored=frozenset(), kept=frozenset(), labels=frozenset()
    ):
        self._state = GAI_EMPTY
        gai_borrow(&self._out, NULL, 0)
        self._held = b""
        self._runs = []
        self._templates = []
        self._touched = []
        self._former = []
        self._kept = {}
        self._names = names_of(members, ignored, kept, labels)
        self._cutter = framer
        self._framer = framer if isinstance(framer, (SSEFramer, LineFramer)) else None
        self._lines = isinstance(framer, LineFramer)
        self._passes = passes

    def __dealloc__(self):
        self.drop()

    def feed(self, data):
        """Adds the next bytes. Call `next` until it returns `None`."""
        cdef bytes chunk = as_bytes(data) if type(data) is not bytes else data
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        self.look_at(chunk, 0, PyBytes_GET_SIZE(chunk))

    cdef int look_at(self, bytes chunk, size_t at, size_t end) noexcept:
        gai_move(&self._state, GAI_LOOK_AT)
        self._run_begin = self._run_end = 0  # if an exception skipped `unload`, the run is part of other bytes
        self._chunk = chunk
        self._data = <const uint8_t *>PyBytes_AS_STRING(chunk)
        self._at = at
        self._size = end
        return 0

    cdef bytes unload(self):
        gai_move(&self._state, GAI_UNLOAD)
        if not self.copied:
            self.drop()
        if self._chunk is None:
            return b""
        self.cut_run()
        left = part(self._chunk, self._at, self._size)
        self._at = self._size = 0
        self._data = NULL
        self._chunk = None
        return left

    def next(self, long long seq, long long ts):
        """Returns the next frames to parse. `None` if the fed bytes hold no more."""
        cdef size_t begin, end
        cdef int status
        cdef list frames
        while self._at < self._size:
            if (self._templates or self._expected is not None) and self.holds_nothing() and (
                self._templates or self.recall()
            ):
                status = self.copy_next(seq, ts)
                if status == GAI_COPY_DONE:
                    continue
                if status == GAI_COPY_MORE and self._size - self._at <= HELD:
                    self._held = self.unload()
                    return None
            # A frame after copied frames that cannot be copied is mostly the end of a response.
            end = self._size if self.copied and self._size - self._at <= LAST_FRAMES else self.frame_end()
            begin = self._at
            self._at = end
            frames = None
            try:
                if self._framer is not None:
                    frames = self._framer.take(self._data + begin, end - begin)
                else:
                    frames = self._cutter.feed(part(self._chunk, begin, end))
            finally:
                if frames is None:
                    self._at = self._size = 0  # the framer raised: read nothing more
            if frames:
                self._unlearned += len(frames)
                return frames
        self.unload()
        return None

    cdef bint copy_all(self, long long seq, long long ts) except -1:
        cdef int status
        while self._at < self._size:
            if not self._templates or not self.holds_nothing():
                return False
            status = self.copy_next(seq, ts)
            if status == GAI_COPY_MORE and self._size - self._at <= HELD:
                self._held = part(self._chunk, self._at, self._size)
                self._size = self._at
                return True
            # A LF that follows still belongs to the frame, and the sink must get it.
            if status != GAI_COPY_DONE or (not self._lines and (<_SSEFeed>self._framer)._late_lf):
                return False
        return True

    cdef bint holds_nothing(self) noexcept:
        """Returns whether the framer waits for the beginning of a frame."""
        return self._framer._size == 0 and self._framer._broken is None

    cdef size_t frame_end(self) noexcept:
        """Returns the end of the bytes for the framer: the end of a frame, or of several frames if they do not repeat.

        If the end is too early, it costs a call. If it is too late, more frames than needed are parsed. Neither changes
        the output.
        """
        cdef const uint8_t *begin = self._data + self._at
        cdef const uint8_t *end = self._data + self._size
        cdef const uint8_t *at = begin
        cdef int frames = 1 if self._fruitless < FRUITLESS else RETRY
        if not self._lines and begin[0] == c"\n":
            return self._at + 1
        if not self._lines and end - begin >= 2 and begin[0] == c"\r" and begin[1] == c"\n":
            return self._at + 2
        while True:
            at = <const uint8_t *>memchr(at, c"\n", end - at)
            if at is NULL:
                return self._size
            at += 1
            if self._lines:
                frames -= 1
            elif at < end and at[0] == c"\n":
                at += 1
                frames -= 1
            elif end - at >= 2 and at[0] == c"\r" and at[1] == c"\n":
                at += 2
                frames -= 1
            if not frames:
                return at - self._data

    cdef int copy_next(self, long long seq, long long ts) except -1:
        cdef Py_ssize_t i
        cdef int status = GAI_COPY_MISS
        if PyList_GET_SIZE(self._former) > CHANGES:  # `len` checks for None first
            return GAI_COPY_MISS  # the full path hands over the collected texts
        seq += self.copied + 1
        for i in range(PyList_GET_SIZE(self._templates)):
            status = self.copy(<_Template>self._templates[i], seq, ts)
            if status != GAI_COPY_MISS:
                if status == GAI_COPY_DONE and i:
                    self._templates.insert(0, self._templates.pop(i))
                break
        return status

    cdef int copy(self, _Template template, long long seq, long long ts) except -1:
        cdef gai_template *learned = &template.learned
        cdef gai_buffer *out = &self._out
        cdef const uint8_t *places[GAI_HOLES + 1]
        cdef const uint8_t *frame = self._data + self._at
        cdef const uint8_t *end = self._data + self._size
        cdef const uint8_t *at
        cdef const uint8_t *said
        cdef const uint8_t *stop
        cdef size_t text, frames = 0, characters = 0, more, limit = self._framer._limit
        cdef size_t held = template.kind.texts.pieces.size
        cdef size_t room = template.around.room + GAI_COPY_ROOM, span = HELD
        cdef bint runs = <size_t>(end - frame) > 2 * <size_t>PyBytes_GET_SIZE(template.frame)
        cdef gai_kept *kept
        cdef uint8_t *to
        cdef int i, status
        try:
            if runs and out.capacity:
                frames = self.copy_run(template, &frame, seq, ts, &characters)
            while True:
                at = gai_match_lead(learned, frame, end, places, &status)
                if status != GAI_COPY_DONE:
                    break
                # Copied text never grows, so the room is the size of the text.
                if span > <size_t>(end - at):
                    span = end - at
                stop = at + span
                if out.capacity - out.size < room + span:
                    self.grow(room + span, template.expected(end - frame))
                    if runs:
                        more = self.copy_run(template, &frame, seq + frames, ts, &characters)
                        if more:
                            frames += more
                            continue
                to = out.data + out.size
                if not self._passes:
                    to = gai_put_head(to, &template.around, seq + frames, ts)
                text = to - out.data
                said = at
                more = 0
                status = gai_copy_string(&at, stop, &to, &more)
                if status == GAI_COPY_MORE and stop < end:
                    span *= 2
                    continue
                if status == GAI_COPY_DONE:
                    at = gai_match_tail(learned, at, end, places, said, &status)
                    # As for the framer: the LF after the CR belongs to the frame if it has come.
                    if template.ends_with_cr and status == GAI_COPY_DONE and at < end and at[0] == c"\n":
                        at += 1
                # The full path handles an empty text, which is no delta, and a frame that may exceed the limit, and
                # hands over the collected text.
                if status == GAI_COPY_DONE and (
                    not more or <size_t>(at - frame) > limit or template.kind.texts.pieces.size > COLLECTED
                ):
                    status = GAI_COPY_MISS
                if status != GAI_COPY_DONE:
                    break
                for i in range(learned.kept_count):
                    kept = &learned.kept[i]
                    said = places[kept.first] + (kept.begin - learned.begins[kept.first])
                    (<_Kept>template.kept[i]).keep(
                        said, places[kept.last] + (kept.end - learned.begins[kept.last]) - said
                    )
                # Appended last: if there is no memory for the text, the frame does not count as copied.
                if template.kind.keeps:
                    if template.kind.keeps == ALL_TEXT:
                        append(&template.kind.texts.pieces, out.data + text, to - out.data - text)
                    else:
                        gai_add_to_trail(&template.kind.texts, out.data + text, to - out.data - text)
                if not self._passes:
                    out.size = gai_put_tail(to, &template.around) - out.data
                characters += more
                frames += 1
                frame = at
        finally:
            if frames:
                self.note(template, frames, characters, frame - self._data, held)
        return GAI_COPY_DONE if frames else status

    cdef size_t copy_run(
        self, _Template template, const uint8_t **frame, long long seq, long long ts, size_t *characters
    ) noexcept:
        """Copies frames that equal the learned frame except for their text, while there is room; returns the number."""
        cdef gai_buffer *out = &self._out
        cdef uint8_t *to = out.data + out.size
        cdef size_t frames
        if template.ends_with_cr or template.kind.keeps == ALL_TEXT or not gai_may_run(&template.learned):
            return 0
        frames = gai_copy_run(
            &template.learned, NULL if self._passes else &template.around, frame, self._data + self._size, &to,
            out.data + out.capacity, HELD, self._framer._limit, seq, ts, characters,
            &template.kind.texts if template.kind.keeps else NULL,
        )
        if not self._passes:
            out.size = to - out.data
        return frames

    cdef int keep_order(self, _Kind kind, size_t held) except -1:
        """Separates the new text of a kind from its text that was copied before a text of another kind."""
        cdef gai_buffer *collected = &kind.texts.pieces
        cdef bytes new = PyBytes_FromStringAndSize(<const char *>collected.data + held, collected.size - held)
        collected.size = held
        self._former += self.take_touched()
        append(collected, <const uint8_t *>PyBytes_AS_STRING(new), PyBytes_GET_SIZE(new))
        return 0

    cdef int note(self, _Template template, size_t frames, size_t characters, size_t end, size_t held) except -1:
        """Notes copied frames for the adapter, and updates the framer as if the framer had cut them.

        The kind had `held` bytes of collected text before these frames.
        """
        cdef _Kind kind = template.kind
        cdef Py_ssize_t count = PyList_GET_SIZE(self._touched)
        if not count or self._touched[count - 1] is not kind:
            if kind.touched and kind.keeps == ALL_TEXT:
                self.keep_order(kind, held)
            elif kind.touched:
                self._touched.remove(kind)
            self._touched.append(kind)
            kind.touched = True
        if self._passes:
            if self._run_end != self._at:
                self.cut_run()
                self._run_begin = self._at
            self._run_end = end
        self._at = end
        kind.characters += characters
        template.matched = True
        # The count decreases by the matches only: if frames repeat rarely, learning costs more than it saves.
        self._fruitless -= frames if frames < self._fruitless else self._fruitless
        self.copied += frames
        self._framer._first = False
        if self._lines:
            (<_LineFeed>self._framer)._number += frames
        else:
            (<_SSEFeed>self._framer)._late_lf = self._data[end - 1] == c"\r"
        return 0

    cdef int cut_run(self) except -1:
        """Cuts the run out of the fed bytes, without a copy if it is all of them."""
        if self._run_end:
            self._runs.append(piece(self._chunk, self._run_begin, self._run_end))
            self._run_begin = self._run_end = 0
        return 0

    def close(self):
        """Ends the input. Returns the incomplete rest as a last frame, if there is one."""
        held, self._held = self._held, b""
        frames = self._cutter.feed(held) if held else []
        return frames + self._cutter.close()

    @property
    def learns(self):
        """Whether `learn` is worth calling for the next frame."""
        return self._framer is not None and (self._fruitless < FRUITLESS or self._unlearned >= RETRY)

    def expect(self, dict event not None, str key not None, parts):
        """Announces the event that the next frame produces if another stream has learned a similar frame."""
        if self._framer is not None and not self._templates:
            self._expected, self._expected_key, self._expected_parts = event, key, parts

    cdef bint recall(self) except -1:
        cdef list lessons = self._names.lessons
        cdef const uint8_t *frame = self._data + self._at
        cdef _Lesson lesson
        cdef _Template template
        cdef gai_template learned
        cdef size_t size
        cdef Py_ssize_t i
        event, self._expected = self._expected, None
        for i in range(len(lessons)):
            lesson = <_Lesson>lessons[i]
            if lesson.lines != self._lines:
                continue
            size = gai_recall(&learned, &lesson.learned, frame, self._data + self._size)
            if 0 < size <= HELD:
                if i:
                    lessons.insert(0, lessons.pop(i))
                template = _Template()
                template.frame = part(self._chunk, self._at, self._at + size)
                template.learned = learned
                template.learned.frame = <const uint8_t *>PyBytes_AS_STRING(template.frame)
                template.kept = []
                return self.add(template, event, self._expected_key, self._expected_parts)
        return False

    def learn(self, frame, dict event not None, str key not None, parts, always=False):
        """Learns a frame and its output."""
        cdef _Template template
        cdef _Lesson lesson
        cdef list lessons = self._names.lessons
        cdef bytes raw = frame.raw
        text = event[key]
        # Adapters and formats note the first text that is not blank, so its frame must be parsed.
        if not text.strip() or <size_t>PyBytes_GET_SIZE(raw) > HELD or not self.learns:
            return
        self._unlearned = 0
        template = _Template()
        template.frame = raw
        if not self.find_holes(template, text) or not self.add(template, event, key, parts):
            self.count_fruitless()
            return
        if always and not template.learned.kept_count:
            lesson = _Lesson()
            # Other streams must not get any value of this stream.
            lesson.frame = without_values(raw, &template.learned)
            lesson.learned, lesson.lines = template.learned, self._lines
            lesson.learned.frame = <const uint8_t *>PyBytes_AS_STRING(lesson.frame)
            lessons.insert(0, lesson)
            del lessons[LESSONS:]

    cdef bint add(self, _Template template, dict event, str key, parts) except -1:
        if not self._passes and not template.set_parts(parts):
            return False
        template.ends_with_cr = PyBytes_AS_STRING(template.frame)[PyBytes_GET_SIZE(template.frame) - 1] == c"\r"
        template.kind = self.kind_of(event, key)
        self._is_timed |= template.is_timed
        self._templates.insert(0, template)
        if len(self._templates) > TEMPLATES:
            self.give_up(self._templates.pop())
        return True

    cdef bint find_holes(self, _Template template, str text) except -1:
        cdef _Names names = self._names
        cdef size_t size = PyBytes_GET_SIZE(template.frame)
        cdef gai_buffer quoted
        cdef uint8_t[1024] memory
        cdef int i, found
        # The text as our encoder writes it, followed by scratch memory for the frame's strings.
        gai_borrow(&quoted, memory, sizeof(memory))
        try:
            if put_string(&quoted, text) < 0:
                raise MemoryError
            reserve(&quoted, size + GAI_COPY_ROOM)
            found = gai_learn(
                &template.learned, <const uint8_t *>PyBytes_AS_STRING(template.frame), size, self._lines,
                names.names, names.count, quoted.data + 1, quoted.size - 2, quoted.data + quoted.size,
            )
        finally:
            gai_release(&quoted)
        if not found:
            return False
        template.kept = []
        for i in range(template.learned.kept_count):
            template.kept.append(self._kept.setdefault(names.keys[template.learned.kept[i].name], _Kept()))
        return True

    cdef _Kind kind_of(self, dict event, str key):
        """Returns the kind of a delta. All templates of a delta share one kind, so that their texts stay in order."""
        cdef _Kind kind
        cdef _Template template
        for template in self._templates:
            if template.kind.covers(event, key):
                return template.kind
        for kind in self._touched:
            if kind.covers(event, key):
                return kind
        return _Kind(event, key)

    cdef int give_up(self, _Template template) except -1:
        if not template.matched:
            self.count_fruitless()
        return 0

    cdef int count_fruitless(self) noexcept:
        # The count stays at the limit, so that one match is enough when frames begin to repeat.
        self._fruitless += self._fruitless < FRUITLESS
        return 0

    def forget(self):
        """Forgets the learned frames, because later frames may have another meaning."""
        self._expected = None
        if self._templates:
            for template in self._templates:
                self.give_up(template)
            self._templates = []  # `list.clear` would call a method

    def take_copied(self):
        """Returns the output since the last call: bytes, frames, and the adapter's notes for each kind of delta."""
        cdef size_t copied = self.copied
        if not copied:
            return b"", 0, []
        self.copied = 0
        data = self.take_piece()
        return data, copied, self.take_kinds()

    def settle(self):
        """Returns the fast path's frames and notes since the last call."""
        passed = self._passed
        self._passed = 0
        return passed, self.take_kinds() if passed else []

    @property
    def copies(self):
        """Whether a frame has been learned, and the framer holds no partial frame. `_held` precedes the next bytes."""
        return bool(self._templates) and self.holds_nothing()

    cdef object take_piece(self):
        cdef PyObject *made = self._made
        cdef size_t size = self._out.size
        gai_move(&self._state, GAI_TAKE_COPIED)
        if self._passes:
            self.drop()
            self.cut_run()
            data = self._runs[0] if len(self._runs) == 1 else b"".join(self._runs)
            self._runs.clear()
            return data
        if made is NULL:
            return b""  # there was no memory for the output; the call that needed it has raised
        self._made = NULL
        gai_borrow(&self._out, NULL, 0)
        return finished_bytes(made, size)

    cdef bytes take_chunk(self, size_t *size):
        gai_move(&self._state, GAI_TAKE_CHUNK)
        self._passed += self.copied
        self.copied = 0
        if self._passes:
            # There is one run; it is written from the fed bytes without another copy.
            size[0] = self._run_end - self._run_begin
            data = as_chunk(self._data + self._run_begin, size[0])
            self._run_begin = self._run_end = 0
            self.drop()
            return data
        size[0] = self._out.size
        data = as_chunk(self._out.data, size[0])
        self.drop()
        return data

    cdef bytes take_frames(self, size_t *size):
        cdef PyObject *made = self._made
        gai_move(&self._state, GAI_TAKE_CHUNK)
        self._passed += self.copied
        self.copied = 0
        if self._passes:
            size[0] = self._run_end - self._run_begin
            data = PyBytes_FromStringAndSize(<const char *>self._data + self._run_begin, size[0])
            self._run_begin = self._run_end = 0
            self.drop()
            return data
        size[0] = self._out.size
        if made is NULL:
            data = PyBytes_FromStringAndSize(<const char *>self._out.data, size[0])
            self.drop()
            return data
        self._made = NULL
        gai_borrow(&self._out, NULL, 0)
        return finished_bytes(made, size[0])

    cdef list take_kinds(self):
        cdef list former
        if not self._former:
            return self.take_touched()
        former, self._former = self._former, []
        return former + self.take_touched()

    cdef list take_touched(self):
        cdef _Kind kind
        touched, self._touched = self._touched, []
        return [kind.take() for kind in touched]

    cdef int grow(self, size_t needed, size_t expected) except -1:
        cdef size_t least = self._out.capacity + self._out.capacity // 4
        cdef size_t capacity = self._out.size + needed + expected
        capacity = capacity if capacity > least else least
        if self._made is NULL:
            self._made = new_bytes(NULL, capacity)
            if self._out.size:
                memcpy(bytes_memory(self._made), self._out.data, self._out.size)
        else:
            try:
                resize_bytes(&self._made, capacity)
            except MemoryError:
                self.drop()
                raise
        self._out.data = <uint8_t *>bytes_memory(self._made)
        self._out.capacity = capacity
        return 0

    cdef int lend(self, uint8_t *memory, size_t size) noexcept:
        gai_move(&self._state, GAI_LEND)
        if self._made is NULL:  # otherwise kept output has not been taken yet
            gai_borrow(&self._out, memory, size)
        return 0

    cdef int keep(self) except -1:
        cdef size_t size = self._out.size
        gai_move(&self._state, GAI_KEEP)
        if not size:
            self.drop()
        elif self._made is NULL:
            self._made = new_bytes(<const char *>self._out.data, size)
            gai_borrow(&self._out, bytes_memory(self._made), size)
            self._out.size = size
        return 0

    cdef int abandon(self) noexcept:
        gai_move(&self._state, GAI_ABANDON)
        self.copied = self._run_begin = self._run_end = 0
        return self.drop()

    cdef int drop(self) noexcept:
        Py_XDECREF(self._made)
        self._made = NULL
        gai_borrow(&self._out, NULL, 0)
        return 0

    def take_kept(self):
        """Returns the JSON text of each kept member, by name, from the last copied frame that had it, once."""
        cdef _Kept keeper
        kept = {}
        for name, keeper in self._kept.items():
            if keeper.fresh:
                keeper.fresh = False
                text = PyBytes_FromStringAndSize(<const char *>keeper.text.data, keeper.text.size)
                kept[name] = text.decode("utf-8", "replace")
        return kept


# ---- counters ------------------------------------------------------------------------------------------------------


cdef class Bounds:
    """See `gai_fast.kernels._pure.counters.Bounds`."""

    def __cinit__(self, tuple values not None):
        cdef double value
        if len(values) > MOST:
            raise ValueError(f"a histogram has at most {MOST} bounds")
        self.values = values
        self._count = 0
        for value in values:
            self._values[self._count] = value
            self._count += 1

    def place_of(self, double value):
        """Returns the index of the first bound that the value does not exceed."""
        return self.place(value)

    cdef int place(self, double value) noexcept:
        cdef int at = 0
        while at < self._count and not value <= self._values[at]:
            at += 1
        return at


cdef class Histogram:
    """See `gai_fast.kernels._pure.counters.Histogram`."""

    def __cinit__(self, tuple bounds not None):
        self.bounds = Bounds(bounds)

    @property
    def counts(self):
        """The number of values up to each bound, and above all bounds."""
        cdef int at
        return [self._counts[at] for at in range(self.bounds._count + 1)]

    def observe(self, value):
        """Counts a value; `None` is not counted."""
        cdef double number
        if value is not None:
            number = value
            self._counts[self.bounds.place(number)] += 1
            self.sum += number

    def merge(self, tuple counts not None, double total):
        """Adds the counts of another histogram with the same bounds."""
        cdef long long[MOST + 1] others
        cdef Py_ssize_t at, size = len(counts)
        if size > self.bounds._count + 1:
            raise ValueError("the other histogram has more bounds")
        for at in range(size):
            others[at] = <object>PyTuple_GET_ITEM(counts, at)
        for at in range(size):
            self._counts[at] += others[at]
        self.sum += total


cdef object ZERO = 0


cdef class StreamCounters:
    """See `gai_fast.kernels._pure.counters.StreamCounters`."""

    def __cinit__(self, Bounds bounds not None, double began):
        self._bounds = bounds
        self._last = began

    @property
    def first_at(self):
        """The time of the read with the first delta. None if no delta has come."""
        return self._first if self._has_begun else None

    @property
    def gaps(self):
        """The number of gaps between deltas up to each bound, and above all bounds."""
        cdef int at
        cdef object count  # declared: with a C number each use below would make an object
        made = PyTuple_New(self._bounds._count + 1)
        for at in range(self._bounds._count + 1):
            count = self._gaps[at] if self._gaps[at] else ZERO  # most counts are zero
            Py_INCREF(count)  # `PyTuple_SET_ITEM` steals a reference
            PyTuple_SET_ITEM(made, at, count)
        return made

    def read(self, double began, double ended, Py_ssize_t size, long long deltas):
        """Counts a read that has been handled."""
        self.note(began, ended, size, deltas)

    def figures(self):
        """Returns `first_at`, `worked`, `received`, `sent`, `deltas` and `gap_sum` in one call."""
        return self.first_at, self.worked, self.received, self.sent, self.deltas, self.gap_sum

    def wrote(self, Py_ssize_t size):
        """Counts bytes given to the client's connection."""
        self.sent += size

    cdef int note(self, double began, double ended, Py_ssize_t size, long long deltas) noexcept:
        cdef long long new = deltas - self.deltas
        self.worked += ended - began
        self.received += size
        if new <= 0:
            return 0
        self.deltas = deltas
        if not self._has_begun:
            self._has_begun = True
            self._first = began
        else:
            self._gaps[self._bounds.place(ended - self._last)] += 1
            self.gap_sum += ended - self._last
        self._gaps[0] += <unsigned int>(new - 1)
        self._last = ended
        return 0


# ---- from one connection to the other ------------------------------------------------------------------------------


cdef enum:
    BRIEF = 4096        # bytes of output on the stack: most reads need less, the others allocate
    PLAIN_OVERHEAD = 32  # bytes between two chunks: line ends, a size of 15 digits
    READ = 4            # list items for one read
    STEADY = 4          # fully copied reads in a row, or one bulk read, before a socket is borrowed: saves 1 us a read
    REFUSED = 64        # further reads, or a quarter as many bulk reads, after which a refused loan is asked for again
    ROOM = 65536        # bytes of one read, as with the loops

cdef char[ROOM] INPUT   # filled and emptied while the interpreter's lock is held


@cython.final
cdef class FastPath:
    """See `gai_fast.kernels._pure.fast_path.FastPath`."""

    cdef DeltaCopier _copier
    cdef object _transport
    cdef object _send       # writes HTTP chunks, or WebSocket messages
    cdef object _log        # receives frames in place of `_send`; None if the transport is no log
    cdef bytes _lead        # the beginning of each message; None if there is no log that lends its socket
    cdef object _now_ms
    cdef StreamCounters _counters
    cdef long long _seq
    cdef long long _deltas
    cdef long long _until   # bytes of the body after which reads take the long way
    cdef double _ended
    cdef ReadBatch _batch   # reads the upstream's socket; None if the upstream's connection reads it
    cdef object _reader     # the connection that lent the upstream's socket
    cdef object _exchange   # the exchange of that connection
    cdef int _in            # the upstream's socket, or -1
    cdef TLSRecords _records    # the TLS records that read the upstream's socket; None without TLS
    cdef int _out           # the client's socket if it is lent, or -1
    cdef int _steady        # fully copied reads in a row; a bulk read counts as four
    cdef bint _writes       # the client's socket may be borrowed without the upstream's, whose connection decrypts
    cdef int _unasked       # reads before a log that did not lend its socket is asked again
    cdef Py_ssize_t _unnoted    # bytes of messages that the log has not noted yet
    cdef public ChunkedBody chunks
    cdef readonly double at
    cdef readonly double wrote_at

    def __cinit__(self, DeltaCopier copier not None, transport, now_ms, StreamCounters counters not None):
        self._copier = copier
        self._transport = transport
        self._log = getattr(transport, "log_frames", None)
        self._lead = getattr(transport, "lead", None)
        if self._log is None:
            self._send = transport.write
        elif self._lead is not None:
            self._send = transport.write_messages
        self._now_ms = now_ms
        self._counters = counters
        self._in = self._out = -1
        self._until = LLONG_MAX

    def follow(self, long long seq, long long deltas, long long until=LLONG_MAX):
        """Continues after a read on the full path."""
        self._seq = seq
        self._deltas = deltas
        self._until = until

    def end_reading(self):
        """Ends the loan of the upstream's socket."""
        if self._batch is not None:
            self._batch.give_back(self)

    def end_writing(self):
        """Ends the loan of the client's socket."""
        self._out = -1
        self.note_messages()

    def feed(self, bytes data not None, double now):
        """Handles one read; returns the bytes of the body that must take the full path."""
        if self.chunks is None:
            raise ValueError("this fast path is closed")
        return self.take(data, now, perf_counter())

    cdef bytes take(self, bytes data, double now, double began):
        """Handles one read as `feed`, with `chunks` open. The handling began at `began`; sets `_ended`."""
        cdef uint8_t[BRIEF] brief
        cdef DeltaCopier copier = self._copier
        cdef ChunkedBody chunks = self.chunks
        cdef const uint8_t *begin = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef const uint8_t *end = begin + PyBytes_GET_SIZE(data)
        cdef const uint8_t *only
        cdef size_t size, copied, said
        cdef bytes body, written = None, held = copier._held
        cdef Py_ssize_t ahead = PyBytes_GET_SIZE(held)  # bytes of an earlier read
        cdef bint is_all, is_well = False
        cdef bint is_long = self._counters.received + (end - begin) > self._until
        self.at = now
        only = whole_chunk(begin, end, &size) if chunks.is_between() and not ahead and not is_long else NULL
        if only is not NULL and only + size + 2 == end:
            chunks.skip_whole()
            copier.look_at(data, only - begin, only - begin + size)
        else:
            body = chunks.take_apart(data, 0, held)
            copier._held = b""
            if is_long or chunks.broken or chunks._state == END or chunks.overhead > PLAIN_OVERHEAD:
                # The session must count the read, or the exchange must see the end of the body, or the violation.
                self.note(began, -ahead)
                return body
            size = PyBytes_GET_SIZE(body)
            copier.look_at(body, 0, size)
        copier.lend(brief, BRIEF)
        try:
            is_all = copier.copy_all(self._seq, self._now_ms() if copier._is_timed else 0)
            copied = copier.copied
            if not is_all:
                copier.keep()
            elif copied:
                if self._log is None:
                    written = copier.take_chunk(&said)
                else:
                    written = copier.take_frames(&said)
            is_well = True
        finally:
            if not is_well:
                copier.abandon()
        if not is_all:
            body = copier.unload()
            self.note(began, <Py_ssize_t>size - ahead - PyBytes_GET_SIZE(body))
            return body
        if copied:
            self._seq += copied
            self._deltas += copied
            copier.unload()
            self._counters.sent += said
            if self._log is None:
                self.write(written)
            elif self._out < 0:
                self._log(written, self._seq)
                self.ask_log()
            else:
                written = frame_messages(written, self._lead)
                self._unnoted += PyBytes_GET_SIZE(written)
                self.write(written)
                if self._unnoted >= ACK_STEP:
                    self.note_messages()
            self.wrote_at = now
        else:
            copier.unload()
        self.note(began, <Py_ssize_t>size - ahead)
        return None

    cdef int write(self, bytes data) except -1:
        """Writes to the client's socket if it is lent.

        The client's connection writes the rest and is asked to lend the socket for the next write.
        """
        cdef Py_ssize_t sent
        if self._out >= 0:
            sent = gai_send(self._out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            if sent == PyBytes_GET_SIZE(data):
                return 0
            self._out = -1
            data = data[sent:]
        self._send(data)
        if self._batch is not None or self._writes:
            self._out = self._transport.lend(self)
            if self._out < 0:
                self._writes = False  # until the upstream's connection is asked again
        return 0

    cdef int ask_log(self) except -1:
        """Borrows the log's socket, if it has one. If the log refuses, it is asked again after `REFUSED` reads."""
        if self._lead is None or self._batch is None:
            return 0
        if self._unasked:
            self._unasked -= 1
            return 0
        self._out = self._transport.lend(self)
        if self._out < 0:
            self._unasked = REFUSED
        return 0

    cdef int note_messages(self) except -1:
        """Reports to the log what was written to its socket."""
        cdef Py_ssize_t size = self._unnoted
        if size:
            self._unnoted = 0
            self._transport.note_sent(self._seq, size)
        return 0

    cdef int note(self, double began, Py_ssize_t size) except -1:
        """Counts a read, or the copied part of a read."""
        self._ended = perf_counter()
        self._counters.note(began, self._ended, size, self._deltas)
        return 0


@cython.final
cdef class ChunkWriter:
    """See `gai_fast.kernels._pure.fast_path.ChunkWriter`."""

    cdef object _transport
    cdef object _send
    cdef int _out           # the client's socket if it is lent, or -1
    cdef int _steady        # writes through the transport in a row

    def __cinit__(self, transport):
        self._transport = transport
        self._send = transport.write
        self._out = -1

    def write(self, bytes piece not None):
        """Writes a piece as one HTTP chunk. Ignores an empty piece."""
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(piece)
        cdef size_t size = PyBytes_GET_SIZE(piece)
        cdef size_t sent = 0
        cdef bytes chunk
        if not size:
            return
        if self._out < 0:
            self._steady += 1
            if self._steady > STEADY and GAI_CAN_WATCH:
                self._steady = -REFUSED
                self._out = self._transport.lend(self)
        if self._out >= 0:
            sent = self.put(data, size)
            if sent == size + digits_of(size) + 4:
                return
            self._out = -1
        chunk = as_chunk(data, size)
        self._send(chunk if not sent else chunk[sent:])

    def end_writing(self):
        """Ends the loan of the client's socket."""
        self._out = -1
        self._steady = 0

    cdef size_t put(self, const uint8_t *data, size_t size) noexcept:
        """Writes a chunk to the client's socket, a long chunk without a copy; returns the number of bytes sent."""
        cdef uint8_t brief[BRIEF]
        cdef iovec parts[3]
        cdef int digits = digits_of(size)
        if size <= BRIEF - CHUNK_FRAME:
            return gai_send(self._out, brief, put_chunk(brief, data, size, digits) - brief)
        parts[0].iov_base = brief
        parts[0].iov_len = put_size(brief, size, digits) - brief
        parts[1].iov_base = <void *>data
        parts[1].iov_len = size
        parts[2].iov_base = b"\r\n"
        parts[2].iov_len = 2
        return gai_send_parts(self._out, parts, 3)


cdef inline int append_read(list reads, reader, exchange, FastPath fast_path, bytes data) except -1:
    """Appends the items of one read, or none of them."""
    cdef Py_ssize_t size = len(reads)
    cdef bint is_well = False
    try:
        reads.append(reader)
        reads.append(exchange)
        reads.append(fast_path)
        reads.append(data)
        is_well = True
    finally:
        if not is_well:
            del reads[size:]
    return 0


cdef inline int put_item(list items, Py_ssize_t at, object item) noexcept:
    """Replaces an item; for `items[at] = item` Cython calls a function that checks the place."""
    cdef PyObject *former = <PyObject *>PyList_GET_ITEM(items, at)
    Py_INCREF(item)
    PyList_SET_ITEM(items, at, item)
    Py_XDECREF(former)
    return 0


cdef inline int put_read(list reads, reader, exchange, FastPath fast_path, bytes data) noexcept:
    """Replaces the items of an only read."""
    put_item(reads, 0, reader)
    put_item(reads, 1, exchange)
    put_item(reads, 2, fast_path)
    put_item(reads, 3, data)
    return 0


@cython.final
cdef class ReadBatch:
    """See `gai_fast.kernels._pure.fast_path.ReadBatch`. A read goes directly to its fast path, not through its reader."""

    cdef object _loop
    cdef object _clock
    cdef list _reads    # for each read: reader, exchange, fast path, data; None if there is none
    cdef list _spare    # the list of an only read that was handled, for the next one; None if there is none
    cdef int _set       # the epoll set of the lent sockets, or -1
    cdef int _timer     # in that set: resting sockets are read when it is due; -1: no timer, and no socket rests
    cdef bint _is_timed # the timer has been set
    cdef set _lent      # the fast paths of lent sockets: epoll refers to them without keeping them alive
    cdef dict _resting  # the fast paths of resting sockets, as keys, in the order in which they are read

    def __cinit__(self, loop, clock):
        self._set = self._timer = -1
        self._loop = loop
        self._clock = clock
        self._lent = set()
        self._resting = {}

    def __dealloc__(self):
        self.close_set()

    def add(self, reader, exchange, FastPath fast_path not None, bytes data not None):
        """Adds a read."""
        if self._reads is None:
            self._loop.call_soon(self._handle)
        self.append(reader, exchange, fast_path, data)
        if len(data) >= BATCHED:
            self.handle_all()

    cdef int append(self, reader, exchange, FastPath fast_path, bytes data) except -1:
        """Appends the items of one read, or none of them."""
        cdef list spare = self._spare
        if self._reads is not None:
            return append_read(self._reads, reader, exchange, fast_path, data)
        # Most iterations have one read: a list that need not grow costs 150 instructions less, and no new one 160.
        if spare is None:
            self._reads = [reader, exchange, fast_path, data]
        else:
            self._spare = None
            put_read(spare, reader, exchange, fast_path, data)
            self._reads = spare
        return 0

    def close(self):
        """Gives back all borrowed sockets and closes the set."""
        try:
            self.give_all_back(list(self._lent), 0)
        finally:
            if self._set >= 0:
                try:
                    self._loop.remove_reader(self._set)
                finally:
                    self.close_set()

    cdef int close_set(self) noexcept:
        if self._timer >= 0:
            gai_close(self._timer)
        if self._set >= 0:
            gai_close(self._set)
        self._set = self._timer = -1
        self._is_timed = False
        return 0

    cdef int give_all_back(self, list lent, Py_ssize_t at) except -1:
        """Gives back the sockets from an index on. If one raises, the others are still given back."""
        cdef FastPath fast_path
        try:
            while at < len(lent):
                fast_path = <FastPath>lent[at]
                at += 1
                if fast_path._batch is self:  # not given back in the meantime
                    fast_path._reader.take_back()
        finally:
            if at < len(lent):
                self.give_all_back(lent, at)
        return 0

    def _handle(self):
        """Handles the reads of the iteration, as a callback of the loop."""
        self.handle_all()

    cdef int handle_all(self) except -1:  # no `def`: calling one costs a lone token 200 instructions
        """Handles the reads of the iteration."""
        cdef list reads = self._reads
        cdef Py_ssize_t at = 0, end
        cdef double now, ended
        cdef FastPath fast_path
        cdef bytes rest
        cdef bint is_well, is_bulk
        if reads is None:
            return 0
        self._reads = None
        end = len(reads)
        try:
            now = self._clock()
            ended = perf_counter()
            while at < end:
                at += READ
                fast_path = <FastPath>reads[at - 2]
                if fast_path.chunks is None:
                    reads[at - 4].handle(reads[at - 3], <bytes>reads[at - 1], now)
                    ended = perf_counter()
                    continue
                is_well = False
                try:
                    rest = fast_path.take(<bytes>reads[at - 1], now, ended)
                    ended = fast_path._ended
                    is_well = True
                finally:  # with `except` a lone token costs 50 instructions more
                    if not is_well:
                        reads[at - 4].failed(reads[at - 3], exception())
                if rest is not None:
                    fast_path._steady = 0
                    reads[at - 4].handle_rest(reads[at - 3], rest, now)
                    ended = perf_counter()
                elif fast_path._batch is None:
                    is_bulk = BULK <= PyBytes_GET_SIZE(<bytes>reads[at - 1]) < ROOM
                    fast_path._steady += STEADY if is_bulk else 1
                    if fast_path._steady >= STEADY:
                        self.borrow(reads[at - 4], reads[at - 3], fast_path, is_bulk)
        finally:
            if at < end:
                self._reads = reads[at:] if self._reads is None else reads[at:] + self._reads
                self._loop.call_soon(self._handle)
            elif end == READ:
                put_read(reads, None, None, None, None)
                self._spare = reads
        return 0

    def _read(self):
        """Reads each borrowed socket that is ready or has rested once, then handles the reads."""
        cdef gai_ready[2 * GAI_READY] ready
        cdef int i, is_due
        cdef int count = gai_take_ready(self._set, ready, &is_due)
        if is_due:
            count += self.take_rested(ready + count)
        # A callback of one fast path may give others back and drop the last reference to them.
        for i in range(count):
            Py_INCREF(<FastPath>ready[i].whose)
        try:
            self.receive_all(ready, count)
        finally:
            for i in range(count):
                Py_DECREF(<FastPath>ready[i].whose)
            if is_due and self._resting and not self._is_timed:
                self.set_timer(REST)
            self.handle_all()

    cdef int take_rested(self, gai_ready *rested) except -1:
        """Adds the sockets that have rested, at most `GAI_READY`; returns their number. The next call adds others."""
        cdef FastPath fast_path
        cdef int count = 0
        self._is_timed = False
        for fast_path in self._resting:
            if count == GAI_READY:
                self.set_timer(0)
                break
            rested[count].whose = <void *>fast_path
            rested[count].ends = False
            count += 1
        return count

    cdef int rest(self, FastPath fast_path) except -1:
        """Lets a socket rest, as the last of the resting sockets."""
        if fast_path in self._resting:
            del self._resting[fast_path]
        else:
            gai_rest(self._set, fast_path._in, <void *>fast_path)
        self._resting[fast_path] = None
        if not self._is_timed:
            self.set_timer(REST)
        return 0

    cdef bint wake(self, FastPath fast_path) except -1:
        """Makes the set report a socket again; returns whether it does."""
        del self._resting[fast_path]
        return gai_wake(self._set, fast_path._in, <void *>fast_path) == 0

    cdef int set_timer(self, long nanoseconds) noexcept:
        self._is_timed = True
        gai_set_timer(self._timer, nanoseconds)
        return 0

    cdef int receive_all(self, gai_ready *ready, int count) except -1:
        """Reads each ready socket. If one raises, the others are still read: epoll does not report them again."""
        cdef int i = 0
        try:
            while i < count:
                i += 1
                self.receive(<FastPath>ready[i - 1].whose, ready[i - 1].ends)
        finally:
            if i < count:
                self.receive_all(ready + i, count - i)

    cdef int receive(self, FastPath fast_path, bint ends) except -1:
        """Reads a borrowed socket, or gives it back."""
        cdef bint is_done = True  # the connection must continue: the end, a closed fast path, or a full buffer
        cdef bint is_well = False
        if fast_path._batch is not self:
            return 0  # given back in the meantime
        if fast_path.chunks is not None and not ends:
            try:
                is_done = self.read(fast_path) > 0
                is_well = True
            finally:
                if not is_well:
                    fast_path._reader.failed(fast_path._exchange, exception())  # the bytes of the read are lost
        if is_done and fast_path._batch is self:
            fast_path._reader.take_back()
        return 0

    cdef int read(self, FastPath fast_path) except -1:
        """Reads a borrowed socket once; returns whether its connection must continue to read.

        After a bulk read more bytes follow, a record or a packet at a time, and each would cost an iteration of the
        loop. So the socket rests, and all bytes of this time become one read. If a read without TLS has filled the
        buffer, the socket does not rest: its connection reads four times as much at once.
        """
        cdef TLSRecords records = fast_path._records
        cdef Py_ssize_t size
        cdef bytes data
        cdef bint is_full, rests
        if records is not None:
            data = records.take()
            size = PyBytes_GET_SIZE(data)
            if size:
                self.append(fast_path._reader, fast_path._exchange, fast_path, data)
            if records.is_noteworthy():
                return True
            is_full = records.is_full
            rests = size >= BULK and self._timer >= 0
        else:
            size = gai_receive(fast_path._in, INPUT, ROOM)
            if size > 0:
                data = PyBytes_FromStringAndSize(INPUT, size)
                self.append(fast_path._reader, fast_path._exchange, fast_path, data)
            elif size == 0:
                return True
            elif size != -EAGAIN:
                fast_path._reader.broke(OSError(-size, strerror(-size).decode()))
                return False
            is_full = size == ROOM
            rests = BULK <= size < ROOM and self._timer >= 0
        if rests:
            self.rest(fast_path)
            return False
        if self._resting and fast_path in self._resting and not self.wake(fast_path):
            return True
        return is_full

    cdef bint can_watch(self) except -1:
        """Returns whether there is a set of sockets; opens it at the first call."""
        cdef int opened
        cdef bint is_well = False
        if self._set >= 0 or not GAI_CAN_WATCH:
            return self._set >= 0
        opened = gai_open_set()
        if opened < 0:
            return False
        try:
            self._loop.add_reader(opened, self._read)
            is_well = True
        finally:
            if not is_well:
                gai_close(opened)  # the loop does not watch the set
        self._set = opened
        self._timer = gai_open_timer(opened)
        return True

    cdef int borrow(self, reader, exchange, FastPath fast_path, bint is_bulk) except -1:
        """Borrows a stream's socket, if there is epoll and the connection lends it. After a bulk read it rests."""
        cdef int socket
        cdef bint is_watched = False
        fast_path._steady = -REFUSED
        if not self.can_watch():
            return 0
        socket = reader.lend(fast_path)
        if socket < 0:
            fast_path._writes = fast_path._log is None
            return 0
        fast_path._batch, fast_path._reader, fast_path._exchange = self, reader, exchange
        fast_path._in = socket
        fast_path._records = reader.records
        try:
            self._lent.add(fast_path)
            is_watched = gai_watch(self._set, socket, <void *>fast_path) == 0
            if is_watched and is_bulk and self._timer >= 0:
                self.rest(fast_path)
        finally:
            if not is_watched:
                reader.take_back()
        return 0

    cdef int give_back(self, FastPath fast_path) except -1:
        gai_forget(self._set, fast_path._in)
        if self._resting:
            self._resting.pop(fast_path, None)
        fast_path._in = fast_path._out = -1
        fast_path._steady = 0
        fast_path._batch = fast_path._reader = fast_path._exchange = fast_path._records = None
        self._lent.discard(fast_path)
        return 0
