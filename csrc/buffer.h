/* A growing byte buffer: reserve once, write, advance.
 *
 * It can begin in memory that it does not own (a stack array, a caller's buffer) and moves to the heap when it outgrows
 * that memory. The caller must not write while a memoryview of the memory is exported. This header does not use
 * Python.h: functions return -1 if an allocation fails.
 */
#ifndef GAI_BUFFER_H
#define GAI_BUFFER_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
    int borrowed; /* `data` belongs to the caller: it must not be freed or resized */
} gai_buffer;

static inline void gai_borrow(gai_buffer *buffer, void *memory, size_t capacity) {
    buffer->data = (uint8_t *)memory;
    buffer->size = 0;
    buffer->capacity = capacity;
    buffer->borrowed = 1;
}

static inline void gai_release(gai_buffer *buffer) {
    if (!buffer->borrowed) {
        free(buffer->data);
    }
    gai_borrow(buffer, NULL, 0);
}

/* Out of line on purpose: the usual case, in which there is room, must be short. */
#if defined(__GNUC__)
__attribute__((noinline, cold, unused))
#endif
static int gai_grow(gai_buffer *buffer, size_t room) {
    size_t needed = buffer->size + room;
    size_t capacity = buffer->capacity * 2;
    if (needed < room || needed > SIZE_MAX / 4) {
        return -1;
    }
    if (capacity < needed) {
        capacity = needed;
    }
    if (capacity < 64) {
        capacity = 64;
    }
    uint8_t *data = (uint8_t *)(buffer->borrowed ? malloc(capacity) : realloc(buffer->data, capacity));
    if (data == NULL) {
        return -1;
    }
    if (buffer->borrowed && buffer->size) {
        memcpy(data, buffer->data, buffer->size);
    }
    buffer->data = data;
    buffer->capacity = capacity;
    buffer->borrowed = 0;
    return 0;
}

/* Makes room for `room` more bytes. Returns -1 if there is no memory. */
static inline int gai_reserve(gai_buffer *buffer, size_t room) {
    return buffer->capacity - buffer->size >= room ? 0 : gai_grow(buffer, room);
}

/* Writes bytes for which gai_reserve has made room. */
static inline void gai_put(gai_buffer *buffer, const void *data, size_t size) {
    if (size) {
        memcpy(buffer->data + buffer->size, data, size);
        buffer->size += size;
    }
}

static inline int gai_append(gai_buffer *buffer, const void *data, size_t size) {
    if (gai_reserve(buffer, size) < 0) {
        return -1;
    }
    gai_put(buffer, data, size);
    return 0;
}

/* Empties the buffer and shrinks it: to `keep` bytes if little of it was used, otherwise to sixteen times `keep`, so
 * that a buffer that is always filled does not grow every time. */
static inline void gai_clear(gai_buffer *buffer, size_t keep) {
    size_t used = buffer->size, wanted = keep ? keep : 1;
    buffer->size = 0;
    if (buffer->borrowed || buffer->capacity / 4 <= keep) {
        return;
    }
    if (used >= buffer->capacity / 4) {
        wanted = wanted > SIZE_MAX / 16 ? wanted : wanted * 16;
    }
    if (wanted < buffer->capacity) {
        uint8_t *data = (uint8_t *)realloc(buffer->data, wanted);
        if (data != NULL) {
            buffer->data = data;
            buffer->capacity = wanted;
        }
    }
}

#endif
