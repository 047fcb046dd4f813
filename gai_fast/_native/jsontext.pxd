"""Values → JSON text in a `gai_buffer`; `encoders` calls these for every event."""

from gai_fast._native.c cimport gai_buffer


# The text as a JSON string, with its quotes; -1 where there is no memory. Does not raise.
cdef int put_string(gai_buffer *out, str text) noexcept

# 1: written. 0: something here knows no fast way, and what is behind the buffer's old size is void: take the pure
# function, which writes it or says why not. `depth` counts the containers around the value.
cdef int write_value(gai_buffer *out, object value, size_t depth) except -1
