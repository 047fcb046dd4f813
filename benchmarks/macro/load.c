/* A bounded streaming client that measures a relay and checks every byte of text it relays.
 *
 *     load port=N request=FILE events=N words=FILE key=NAME end=TEXT conns=N [milliseconds=N | requests=N]
 *          [limit=S] [ramp_us=0] [message=FILE]
 *
 * Sends the bytes of `request` over `conns` connections, each again as soon as its answer has ended, until `milliseconds`
 * have passed or `requests` were sent; gives up after `limit` seconds. ramp_us lies between the first requests of two
 * connections. In every `data:` line the JSON string of the member `key` is text; `end` is what only the last frame holds.
 * With `message`, `request` opens a WebSocket, the bytes of `message` ask for an answer, and each message is an event.
 *
 * An answer is right where its texts, joined, are exactly those of the upstream in order, one event each, followed by the
 * end mark and the end of its HTTP chunks. One that differs in a byte is wrong, whatever its status.
 *
 * Prints one JSON object; `open` is how many answers were under way at most; times in microseconds: `ttft` from the request to the first text, `latency` from the stamp in
 * a text to its arrival, as percentiles and as [lowest, count] buckets 1.6 % wide. */
#include "common.h"

enum { FINE = 64, OCTAVES = 40, BUCKETS = FINE * OCTAVES };

typedef struct {
    long counts[BUCKETS], total, most;
    double sum;
} Histogram;

typedef enum { IDLE, HEAD, SIZE, EXTENSION, DATA, DATA_END, TRAILER, MESSAGE_HEAD, MESSAGE } State;

typedef struct {
    int fd;
    State state;
    long sent;       /* when the request was */
    long left;       /* bytes of the HTTP chunk, of a trailer's line, or of a message */
    char *held;      /* a head or a line that goes on */
    int held_size, held_room;
    int delta, offset; /* where in the text that is awaited */
    long stamp;
    int frames;      /* events that held text */
    bool is_reused, is_socket, has_begun, has_ended; /* is_socket: its WebSocket is open */
    const char *why; /* what was wrong */
} Connection;

static Histogram ttft, latency;
static Span request, message, *words;
static int poll_fd, word_count, events;
static char key[64];
static const char *end_mark;
static long port, answers, wrong, failed, sent, most_requests, deadline, bytes_read, texts, now, reconnects;
static int running, open_now, most_open; /* answers asked for; answers whose head has come, now and at most */
static char why[512];
static char scratch[READ_SIZE];

/* Below FINE each value has its bucket; above, FINE of them share an octave. */
static int bucket_of(long value) {
    if (value < FINE) return value < 0 ? 0 : (int)value;
    int octave = 63 - __builtin_clzl((unsigned long)value) - 6;
    int index = (octave + 1) * FINE + (int)((value >> octave) & (FINE - 1));
    return index < BUCKETS ? index : BUCKETS - 1;
}

static long lowest_in(int bucket) {
    if (bucket < FINE) return bucket;
    int octave = bucket / FINE - 1;
    return (long)(FINE + bucket % FINE) << octave;
}

static void record(Histogram *histogram, long value) {
    if (value < 0) value = 0;
    histogram->counts[bucket_of(value)]++;
    histogram->total++;
    histogram->sum += (double)value;
    if (value > histogram->most) histogram->most = value;
}

static long percentile(const Histogram *histogram, double share) {
    long rank = (long)(share * (double)histogram->total + 0.9999999), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if (histogram->counts[i] && (seen += histogram->counts[i]) >= rank) return lowest_in(i);
    return histogram->most;
}

static void print(const char *name, const Histogram *histogram) {
    printf("\"%s\":{\"count\":%ld", name, histogram->total);
    if (histogram->total) {
        printf(",\"mean\":%.1f,\"p50\":%ld,\"p90\":%ld,\"p99\":%ld,\"p999\":%ld,\"max\":%ld,\"buckets\":[",
               histogram->sum / (double)histogram->total, percentile(histogram, 0.5), percentile(histogram, 0.9),
               percentile(histogram, 0.99), percentile(histogram, 0.999), histogram->most);
        const char *comma = "";
        for (int i = 0; i < BUCKETS; i++)
            if (histogram->counts[i]) {
                printf("%s[%ld,%ld]", comma, lowest_in(i), histogram->counts[i]);
                comma = ",";
            }
        printf("]");
    }
    printf("}");
}

static void complain(Connection *connection, const char *what) {
    if (!connection->why) connection->why = what;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void take(Connection *connection, unsigned char byte) {
    if (connection->has_ended) {
        complain(connection, "text after the end");
    } else if (connection->delta >= events) {
        complain(connection, "more text than was sent");
    } else if (connection->offset < STAMP) {
        if (byte < '0' || byte > '9') complain(connection, "a text that was not sent");
        connection->stamp = connection->stamp * 10 + (byte - '0');
        if (++connection->offset == STAMP) {
            if (!connection->delta) record(&ttft, now - connection->sent);
            record(&latency, now - connection->stamp);
        }
    } else {
        Span word = words[connection->delta % word_count];
        if (byte != (unsigned char)word.bytes[connection->offset - STAMP]) complain(connection, "a changed byte");
        if (++connection->offset == STAMP + word.size) {
            connection->delta++;
            connection->offset = 0;
            connection->stamp = 0;
        }
    }
}

/* Reads the body of a JSON string and hands it on as UTF-8; false where an escape is none or the quote is missing, which
 * of the words, without a connection, is not asked for. */
static bool decode(const char *p, const char *end, void (*give)(Connection *, unsigned char), Connection *connection) {
    unsigned high = 0;
    while (p < end && *p != '"') {
        unsigned char byte = (unsigned char)*p++;
        if (byte != '\\') {
            give(connection, byte);
            continue;
        }
        if (p == end) return false;
        const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t", *found = strchr(from, *p);
        if (found) {
            give(connection, (unsigned char)to[found - from]);
            p++;
            continue;
        }
        unsigned code;
        if (*p != 'u' || end - p < 5 || sscanf(p + 1, "%4x", &code) != 1) return false;
        p += 5;
        if (code >> 10 == 0x36) { /* the first half of a surrogate pair */
            high = code;
            continue;
        }
        if (code >> 10 == 0x37 && high) code = 0x10000 + ((high & 0x3ff) << 10) + (code & 0x3ff);
        high = 0;
        if (code < 0x80) {
            give(connection, (unsigned char)code);
            continue;
        }
        int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        give(connection, (unsigned char)((0xff00 >> (more + 1)) | (code >> (6 * more))));
        while (more--) give(connection, (unsigned char)(0x80 | ((code >> (6 * more)) & 0x3f)));
    }
    return p < end || !connection;
}

static Span *decoded;
static void keep(Connection *connection, unsigned char byte) {
    (void)connection;
    decoded->bytes[decoded->size++] = (char)byte;
}

/* The words stand in their file as JSON, and are compared as text: a relay may write escapes of its own. */
static void decode_words(void) {
    for (int i = 0; i < word_count; i++) {
        Span raw = words[i];
        words[i] = (Span){checked(malloc(raw.size + 1)), 0};
        decoded = &words[i];
        decode(raw.bytes, raw.bytes + raw.size, keep, NULL);
    }
}

/* Whether a line holds the end mark, however it is spaced. */
static bool is_end(const char *p, int size) {
    char squeezed[4096];
    size_t kept = 0;
    for (const char *end = p + size; p < end && kept < sizeof squeezed; p++)
        if (*p != ' ') squeezed[kept++] = *p;
    return memmem(squeezed, kept, end_mark, strlen(end_mark)) != NULL;
}

/* Takes the JSON of one event, or the text that stands in its place. */
static void take_event(Connection *connection, const char *p, int size) {
    const char *end = p + size, *found = memmem(p, size, key, strlen(key));
    if (found) {
        found += strlen(key);
        while (found < end && *found == ' ') found++;
        if (found < end && *found == '"' && found + 1 < end && found[1] != '"') {
            connection->frames++;
            if (!decode(found + 1, end, take, connection)) complain(connection, "a string that does not end");
        }
    } else if (is_end(p, size)) {
        connection->has_ended = true;
    }
}

static void line(Connection *connection, const char *p, int size) {
    if (size >= 5 && !memcmp(p, "data:", 5)) take_event(connection, p, size);
}

/* ---- HTTP -------------------------------------------------------------------------------------------------------- */

static void hold(Connection *connection, const char *bytes, int size) {
    if (connection->held_room < connection->held_size + size) {
        connection->held_room = (connection->held_size + size) * 2;
        connection->held = checked(realloc(connection->held, connection->held_room));
    }
    memcpy(connection->held + connection->held_size, bytes, size);
    connection->held_size += size;
}

static void body(Connection *connection, const char *p, int size) {
    const char *end = p + size, *newline;
    while ((newline = memchr(p, '\n', end - p))) {
        if (connection->held_size) {
            hold(connection, p, (int)(newline - p));
            line(connection, connection->held, connection->held_size);
            connection->held_size = 0;
        } else {
            line(connection, p, (int)(newline - p));
        }
        p = newline + 1;
    }
    if (p < end) hold(connection, p, (int)(end - p));
}

static void begin(Connection *connection, State state) {
    connection->state = state;
    connection->has_begun = true;
    if (++open_now > most_open) most_open = open_now;
}

/* Sends the request, or what opens the WebSocket for it. */
static void send_request(Connection *connection) {
    Span bytes = connection->is_socket ? message : request;
    if (connection->is_socket)
        begin(connection, MESSAGE_HEAD);
    else
        connection->state = HEAD;
    if (send(connection->fd, bytes.bytes, bytes.size, MSG_NOSIGNAL) != bytes.size)
        complain(connection, "a request that could not be sent");
}

/* Takes the head as far as it is there; returns the bytes it used. */
static int head(Connection *connection, const char *p, int size) {
    int before = connection->held_size;
    hold(connection, p, size);
    char *end = memmem(connection->held, connection->held_size, "\r\n\r\n", 4);
    if (!end) return size;
    int used = (int)(end + 4 - connection->held) - before;
    *end = 0;
    if (strncmp(connection->held + 8, message.size ? " 101" : " 200", 4)) {
        complain(connection, message.size ? "a status that is not 101" : "a status that is not 200");
        snprintf(why, sizeof why, "%.80s … %.*s", connection->held, size - used > 300 ? 300 : size - used, p + used);
    } else if (!message.size && !strcasestr(connection->held, "\r\ntransfer-encoding: chunked")) {
        complain(connection, "an answer that is not chunked");
    }
    connection->held_size = 0;
    connection->left = 0;
    if (message.size) {
        connection->is_socket = true;
        send_request(connection);
    } else {
        begin(connection, SIZE);
    }
    return used;
}

/* Takes the head of a message as far as it is there (RFC 6455, 5.2); returns the bytes it used. */
static int message_head(Connection *connection, const char *p, int size) {
    const unsigned char *head = (unsigned char *)connection->held;
    int used = 0, needed = 2;
    for (;;) {
        if (connection->held_size >= 2) needed = 2 + (head[1] == 126) * 2 + (head[1] == 127) * 8;
        if (connection->held_size >= needed) break;
        if (used == size) return used;
        hold(connection, p + used++, 1);
        head = (unsigned char *)connection->held;
    }
    connection->left = needed == 2 ? head[1] : 0;
    for (int i = 2; i < needed; i++) connection->left = connection->left << 8 | head[i];
    if (head[0] != 0x81) complain(connection, "a frame that is no whole message of text");
    connection->held_size = 0;
    connection->state = MESSAGE;
    return used;
}

/* Takes a message as far as it is there; returns the bytes it used. */
static int message_body(Connection *connection, const char *p, int size) {
    int span = connection->left < size ? (int)connection->left : size;
    connection->left -= span;
    if (connection->held_size || connection->left) hold(connection, p, span);
    if (connection->left) return span;
    if (connection->held_size)
        take_event(connection, connection->held, connection->held_size);
    else
        take_event(connection, p, span);
    connection->held_size = 0;
    connection->state = MESSAGE_HEAD;
    return span;
}

/* Takes what one read brought; true where the answer has ended. */
static bool feed(Connection *connection, const char *p, int size) {
    const char *end = p + size;
    while (p < end && !connection->why) {
        switch (connection->state) {
        case IDLE:
            complain(connection, "bytes that were not asked for");
            break;
        case HEAD:
            p += head(connection, p, (int)(end - p));
            break;
        case SIZE:
        case EXTENSION: {
            char byte = *p++;
            const char *digits = "0123456789abcdef", *digit = strchr(digits, byte | 0x20);
            if (byte == '\n') {
                connection->state = connection->left ? DATA : TRAILER;
            } else if (connection->state == SIZE && byte && digit) {
                connection->left = connection->left * 16 + (digit - digits);
            } else {
                connection->state = EXTENSION; /* and the carriage return */
            }
            break;
        }
        case DATA: {
            int span = connection->left < end - p ? (int)connection->left : (int)(end - p);
            body(connection, p, span);
            p += span;
            connection->left -= span;
            if (!connection->left) connection->state = DATA_END;
            break;
        }
        case DATA_END:
            if (*p++ == '\n') connection->state = SIZE;
            break;
        case TRAILER:
            if (*p == '\n') {
                if (!connection->left) return true;
                connection->left = 0;
            } else if (*p != '\r') {
                connection->left++;
            }
            p++;
            break;
        case MESSAGE_HEAD:
            p += message_head(connection, p, (int)(end - p));
            break;
        case MESSAGE:
            p += message_body(connection, p, (int)(end - p));
            if (connection->has_ended) return true;
            break;
        }
    }
    return false;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void open_connection(Connection *connection) {
    struct sockaddr_in address = loopback(port);
    connection->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    no_delay(connection->fd);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    connection->is_reused = connection->is_socket = false;
    struct epoll_event event = {EPOLLIN, {.ptr = connection}};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, connection->fd, &event);
}

static void ask(Connection *connection) {
    connection->held_size = connection->delta = connection->offset = connection->frames = 0;
    connection->has_ended = false;
    connection->why = NULL;
    connection->stamp = 0;
    connection->sent = now_us();
    send_request(connection);
}

static void ask_again(Connection *connection) {
    connection->state = IDLE;
    open_now -= connection->has_begun;
    connection->has_begun = false;
    if (now >= deadline || (most_requests && sent >= most_requests)) {
        running--;
        return;
    }
    sent++;
    ask(connection);
}

static void reopen(Connection *connection) {
    close(connection->fd);
    open_connection(connection);
}

static void judge(Connection *connection) {
    if (connection->delta != events || connection->offset)
        complain(connection, "text is missing");
    else if (connection->frames != events)
        complain(connection, "deltas were joined or split");
    else if (!connection->has_ended)
        complain(connection, "the end mark is missing");
}

static void receive(Connection *connection) {
    ssize_t size = recv(connection->fd, scratch, sizeof scratch, 0);
    now = now_us();
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        if (connection->state == IDLE) { /* its work is done */
            close(connection->fd);
        } else if (connection->is_reused && connection->state == HEAD && !connection->held_size) {
            reconnects++; /* the server had closed it before it saw the request */
            reopen(connection);
            ask(connection);
        } else {
            failed++;
            if (!*why) snprintf(why, sizeof why, "the connection was closed in the middle of an answer");
            reopen(connection);
            ask_again(connection);
        }
        return;
    }
    bytes_read += size;
    bool ended = feed(connection, scratch, (int)size);
    if (ended && !connection->why) judge(connection);
    if (connection->why) {
        wrong++;
        if (!*why) snprintf(why, sizeof why, "%s (event %d of %d)", connection->why, connection->delta + 1, events);
        reopen(connection);
        ask_again(connection);
    } else if (ended) {
        answers++;
        texts += events;
        connection->is_reused = true;
        ask_again(connection);
    }
}

static void print_text(const char *text) {
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        putchar((unsigned char)*text < 0x20 ? ' ' : *text);
    }
    putchar('"');
}

int main(int count, char **arguments) {
    (void)count;
    raise_file_limit();
    port = number(arguments, "port", NULL);
    events = (int)number(arguments, "events", NULL);
    end_mark = option(arguments, "end", NULL);
    request = read_file(option(arguments, "request", NULL));
    const char *asking = option(arguments, "message", "");
    if (*asking) message = read_file(asking);
    word_count = read_lines(option(arguments, "words", NULL), &words);
    decode_words();
    snprintf(key, sizeof key, "\"%s\":", option(arguments, "key", NULL));
    int wanted = (int)number(arguments, "conns", NULL), opened = 0;
    most_requests = number(arguments, "requests", "0");
    long milliseconds = number(arguments, "milliseconds", "0"), ramp = number(arguments, "ramp_us", "0");
    long begun = now_us(), limit = begun + number(arguments, "limit", "60") * 1000000;
    deadline = most_requests ? limit : begun + milliseconds * 1000;
    if (most_requests && most_requests < wanted) wanted = (int)most_requests;
    Connection *connections = checked(calloc(wanted, sizeof *connections));
    poll_fd = epoll_create1(0);
    struct epoll_event ready[BATCH];
    for (now = begun; now < limit && (running || opened < wanted); now = now_us()) {
        while (opened < wanted && now >= begun + opened * ramp) {
            open_connection(&connections[opened]);
            running++;
            ask_again(&connections[opened++]);
            if (opened % BATCH == 0) break; /* the others are read meanwhile */
        }
        int found = epoll_wait(poll_fd, ready, BATCH, opened < wanted ? ramp > 0 : 100);
        for (int i = 0; i < found; i++) receive(ready[i].data.ptr);
    }
    if (running) {
        failed += running;
        if (!*why) snprintf(why, sizeof why, "%d answers did not end in time", running);
    }
    printf("{\"answers\":%ld,\"wrong\":%ld,\"failed\":%ld,\"why\":", answers, wrong, failed);
    print_text(why);
    printf(",\"events\":%ld,\"bytes\":%ld,\"seconds\":%.6f,\"connections\":%d,\"open\":%d,\"reconnects\":%ld,", texts, bytes_read,
           (double)(now_us() - begun) / 1e6, opened, most_open, reconnects);
    print("ttft", &ttft);
    printf(",");
    print("latency", &latency);
    printf("}\n");
    return 0;
}
