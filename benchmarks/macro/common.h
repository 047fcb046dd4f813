/* What the two tools share: the clock, the options, the words, and answers larger than a socket takes at once.
 *
 * The text of delta number i is a stamp, STAMP digits that tell when it was sent in microseconds of the monotonic
 * clock, and the word of line i (modulo the lines) of the words file, whose lines are bodies of JSON strings. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 13, READ_SIZE = 256 << 10, BATCH = 256 };

typedef struct {
    char *bytes;
    int size;
} Span;

static inline long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static inline void *checked(void *memory) {
    if (!memory) {
        perror("memory");
        exit(1);
    }
    return memory;
}

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

/* The value of `name=value` among the arguments; no fallback: it must be there. */
static inline const char *option(char **arguments, const char *name, const char *fallback) {
    size_t size = strlen(name);
    for (char **one = arguments + 1; *one; one++)
        if (!strncmp(*one, name, size) && (*one)[size] == '=') return *one + size + 1;
    if (!fallback) {
        fprintf(stderr, "missing: %s=\n", name);
        exit(2);
    }
    return fallback;
}

static inline long number(char **arguments, const char *name, const char *fallback) {
    char *end;
    const char *text = option(arguments, name, fallback);
    long value = strtol(text, &end, 10);
    if (*end || end == text || value < 0) {
        fprintf(stderr, "not a number: %s=%s\n", name, text);
        exit(2);
    }
    return value;
}

static inline Span read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) fail(path);
    long size = ftell(file);
    rewind(file);
    Span read = {checked(malloc(size + 1)), (int)size};
    if (fread(read.bytes, 1, size, file) != (size_t)size) fail(path);
    read.bytes[size] = 0;
    fclose(file);
    return read;
}

/* The lines of a file, none empty; returns how many. */
static inline int read_lines(const char *path, Span **lines) {
    Span all = read_file(path);
    int count = 0;
    *lines = checked(malloc(sizeof(Span) * (all.size + 1)));
    for (char *line = strtok(all.bytes, "\n"); line; line = strtok(NULL, "\n"))
        (*lines)[count++] = (Span){line, (int)strlen(line)};
    if (!count) fail(path);
    return count;
}

static inline struct sockaddr_in loopback(long port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
}
