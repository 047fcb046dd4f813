"""The declarations of csrc/ that the Cython modules use. The headers explain them."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "buffer.h" nogil:
    ctypedef struct gai_buffer:
        uint8_t *data
        size_t size
        size_t capacity
        bint borrowed

    void gai_borrow(gai_buffer *buffer, void *memory, size_t capacity)
    void gai_release(gai_buffer *buffer)
    int gai_reserve(gai_buffer *buffer, size_t room)
    void gai_put(gai_buffer *buffer, const void *data, size_t size)
    int gai_append(gai_buffer *buffer, const void *data, size_t size)
    void gai_clear(gai_buffer *buffer, size_t keep)


cdef extern from "escape.h" nogil:
    size_t GAI_ESCAPE_ROOM
    bint gai_put_short(uint8_t *to, const uint8_t *text, size_t length)
    size_t gai_escape_utf8(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length)
    size_t gai_escape_ucs1(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length)
    size_t gai_escape_ucs2(uint8_t **at, const uint8_t *end, const uint16_t *text, size_t length)
    size_t gai_escape_ucs4(uint8_t **at, const uint8_t *end, const uint32_t *text, size_t length)


cdef extern from "simd.h" nogil:
    ctypedef struct gai_simd:
        const char *name

    const gai_simd *gai_scalar_loops()
    const gai_simd *gai_vector_loops()
    void gai_use_loops(const gai_simd *loops)


cdef extern from "integers.h" nogil:
    size_t GAI_INTEGER_ROOM
    const uint8_t *GAI_HEX_DIGITS
    uint8_t *gai_put_unsigned(uint8_t *at, uint64_t value)
    uint8_t *gai_put_integer(uint8_t *at, int64_t value)


cdef extern from "head.h" nogil:
    enum:
        GAI_NUMBERS

    ctypedef struct gai_head:
        const uint8_t *bytes
        size_t room

    int gai_make_head(
        gai_head *head, const uint8_t *text, size_t size, const size_t *cuts, const uint8_t *is_time, int numbers,
        const uint8_t *tail, size_t tail_size
    )
    uint8_t *gai_put_tail(uint8_t *to, const gai_head *head)
    uint8_t *gai_put_head(uint8_t *to, const gai_head *head, uint64_t number, uint64_t time)
    void gai_drop_head(gai_head *head)


cdef extern from "scan.h" nogil:
    size_t gai_find_line_end(const uint8_t *data, size_t length)
    bint gai_has_digits(const uint8_t *data, size_t length, size_t run)
    size_t gai_count_opening(const uint8_t *data, size_t length)

    ctypedef struct gai_outline:
        size_t depth
        bint long_digits
        bint blanks

    gai_outline gai_outline_json(const uint8_t *data, size_t length, size_t run)


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    int PyUnicode_KIND(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_1BYTE_KIND
    int PyUnicode_2BYTE_KIND


cdef extern from "copy.h" nogil:
    int GAI_COPY_DONE
    int GAI_COPY_MORE
    int GAI_COPY_MISS
    size_t GAI_COPY_ROOM
    int gai_copy_string(const uint8_t **at, const uint8_t *end, uint8_t **out, size_t *characters)


cdef extern from "trail.h" nogil:
    ctypedef struct gai_trail:
        gai_buffer pieces

    void gai_clear_trail(gai_trail *trail)
    void gai_add_to_trail(gai_trail *trail, const uint8_t *piece, size_t size)


cdef extern from "template.h" nogil:
    enum:
        GAI_HOLES
        GAI_NAMES

    ctypedef enum gai_role:
        GAI_NAME_TEXT
        GAI_NAME_IGNORED
        GAI_NAME_LABEL
        GAI_NAME_KEPT

    ctypedef struct gai_name:
        const uint8_t *data
        size_t size
        gai_role role

    ctypedef struct gai_kept:
        int name
        int first
        int last
        size_t begin
        size_t end

    ctypedef struct gai_template:
        const uint8_t *frame
        int count
        int text
        size_t *begins
        size_t *ends
        int kept_count
        gai_kept *kept


cdef extern from "skip.h" nogil:
    int gai_skip_blanks(const uint8_t **at, const uint8_t *end)
    int gai_skip_string(const uint8_t **at, const uint8_t *end)
    int gai_skip_text(const uint8_t **at, const uint8_t *end)
    int gai_skip_count(const uint8_t **at, const uint8_t *end)
    int gai_skip_word(const uint8_t **at, const uint8_t *end, const char *word, size_t size)
    int gai_skip_scalar(const uint8_t **at, const uint8_t *end)
    int gai_skip_value(const uint8_t **at, const uint8_t *end)


cdef extern from "learn.h" nogil:
    int gai_learn(
        gai_template *learned, const uint8_t *frame, size_t size, bint lines, const gai_name *names, size_t name_count,
        const uint8_t *text, size_t text_size, uint8_t *scratch
    )


cdef extern from "match.h" nogil:
    size_t gai_recall(gai_template *learned, const gai_template *known, const uint8_t *frame, const uint8_t *end)
    const uint8_t *gai_match_lead(
        gai_template *learned, const uint8_t *at, const uint8_t *end, const uint8_t **places, int *status
    )
    const uint8_t *gai_match_tail(
        gai_template *learned, const uint8_t *at, const uint8_t *end, const uint8_t **places, const uint8_t *said,
        int *status
    )


cdef extern from "run.h" nogil:
    bint gai_may_run(const gai_template *learned)
    size_t gai_copy_run(
        const gai_template *learned, const gai_head *head, const uint8_t **frame, const uint8_t *end, uint8_t **out,
        const uint8_t *stop, size_t span, size_t limit, uint64_t number, uint64_t time, size_t *characters,
        gai_trail *trail
    )


cdef extern from "states.h" nogil:
    enum:
        GAI_EMPTY
        GAI_LOOK_AT
        GAI_LEND
        GAI_KEEP
        GAI_TAKE_CHUNK
        GAI_TAKE_COPIED
        GAI_ABANDON
        GAI_UNLOAD

    void gai_move(uint8_t *state, int call)


cdef extern from "sockets.h" nogil:
    enum:
        GAI_CAN_WATCH
        GAI_READY

    ctypedef struct gai_ready:
        void *whose
        bint ends

    struct iovec:
        void *iov_base
        size_t iov_len

    int gai_open_set()
    void gai_close(int set_or_timer)
    int gai_watch(int set, int socket, void *whose)
    int gai_rest(int set, int socket, void *whose)
    int gai_wake(int set, int socket, void *whose)
    int gai_open_timer(int set)
    void gai_set_timer(int timer, long nanoseconds)
    void gai_forget(int set, int socket)
    int gai_take_ready(int set, gai_ready *ready, int *is_due)
    int gai_watch_reader(int set, int socket)
    int gai_take_readable(int set, int *readable, int most)
    Py_ssize_t gai_receive(int socket, void *to, size_t size)
    Py_ssize_t gai_send(int socket, const void *data, size_t size)
    Py_ssize_t gai_transmit(int socket, const void *data, size_t size)
    Py_ssize_t gai_send_parts(int socket, iovec *parts, int count)
