/* A fake provider for the benchmarks: answers every POST with the same stream, in the dialect of the path it came to:
 * OpenAI's Responses, Anthropic's Messages, or else OpenAI's chat.
 *
 *     upstream port=N events=N words=FILE [interval_us=0] [vary=0]
 *
 * interval_us 0 sends a whole answer at once, otherwise a delta each interval, the first with the head. vary=1 pads every
 * delta with an `obfuscation` string of changing length, as OpenAI does unless it is asked not to. Answers are built
 * once, with holes for the stamps, so that this process costs next to nothing beside the relay it feeds. */
#include "common.h"

#define MOST_CONNECTIONS 65536
#define CHUNK                                                                                          \
    "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"          \
    "\"model\":\"bench-1\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\","     \
    "\"choices\":["
#define CHAT_END "data: " CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
#define NAMED(type, members) "event: " type "\ndata: {\"type\":\"" type "\"," members "}\n\n"
#define ITEM "\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[]"
#define PLACE "\"item_id\":\"msg_bench\",\"output_index\":0,\"content_index\":0"
#define RESPONSES_END                                                                                  \
    NAMED("response.output_item.done", "\"output_index\":0,\"item\":{" ITEM ",\"status\":\"completed\"}") \
    NAMED("response.completed", "\"response\":{\"id\":\"resp_bench\",\"object\":\"response\","         \
                                "\"status\":\"completed\",\"model\":\"bench-1\",\"output\":[],\"usage\":{"  \
                                "\"input_tokens\":9,\"output_tokens\":%d,\"total_tokens\":%d}}")
#define MESSAGES_END                                                                                   \
    NAMED("content_block_stop", "\"index\":0")                                                         \
    NAMED("message_delta", "\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"            \
                           "\"usage\":{\"output_tokens\":%d}")                                         \
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
#define HEAD                                                                                           \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"                            \
    "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"

/* What a dialect sends: before the deltas, for each of them (STAMP, 0, word, padding, number), and after them (the
 * number of deltas, and 9 more), without and with usage. `text` stands before a delta's text. */
typedef struct {
    const char *path, *opening, *delta, *text, *endings[2];
} Dialect;

static const Dialect dialects[] = {
    {"/responses ",
     NAMED("response.created", "\"response\":{\"id\":\"resp_bench\",\"object\":\"response\",\"created_at\":1790000000,"
                               "\"status\":\"in_progress\",\"model\":\"bench-1\",\"output\":[]},\"sequence_number\":0")
     NAMED("response.output_item.added", "\"output_index\":0,\"item\":{" ITEM ",\"status\":\"in_progress\"},"
                                         "\"sequence_number\":1")
     NAMED("response.content_part.added", PLACE ",\"part\":{\"type\":\"output_text\",\"annotations\":[],"
                                          "\"logprobs\":[],\"text\":\"\"},\"sequence_number\":2"),
     NAMED("response.output_text.delta", PLACE ",\"delta\":\"%0*d%s\",\"logprobs\":[]%s,\"sequence_number\":%d"),
     "\"delta\":\"",
     {RESPONSES_END, RESPONSES_END}},
    {"/messages ",
     NAMED("message_start", "\"message\":{\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\","
                            "\"model\":\"bench-1\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
                            "\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}")
     NAMED("content_block_start", "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}"),
     NAMED("content_block_delta", "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"%0*d%s\"}%s"),
     "\"text\":\"",
     {MESSAGES_END, MESSAGES_END}},
    {"",
     "data: " CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
     "\"logprobs\":null,\"finish_reason\":null}]}\n\n",
     "data: " CHUNK "{\"index\":0,\"delta\":{\"content\":\"%0*d%s\"},\"logprobs\":null,"
     "\"finish_reason\":null}]%s}\n\n",
     "\"content\":\"",
     {CHAT_END "data: [DONE]\n\n",
      CHAT_END "data: " CHUNK "],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n"
               "data: [DONE]\n\n"}},
};
enum { DIALECTS = sizeof dialects / sizeof *dialects };

typedef struct {
    Span bytes, endings[2];
    int *frames, *stamps; /* where frame i of the answer begins, and its stamp; frame `events` is the end */
} Answer;

typedef struct {
    char *request;
    const Answer *answer;
    int taken, room;
    int next;        /* the next delta to send; -1: no answer under way */
    bool wants_usage;
    char *unsent;    /* what the socket did not take */
    int unsent_at, unsent_end;
    unsigned generation;
} Connection;

typedef struct {
    long due;
    int fd;
    unsigned generation;
} Turn;

static Connection connections[MOST_CONNECTIONS];
static Turn turns[1 << 17]; /* every stream has at most one; the interval is one for all, so they are in order */
static unsigned first_turn, last_turn;
static int poll_fd, events;
static long interval_us;
static Answer answers[DIALECTS];

static void append(Span *to, const char *bytes, int size) {
    to->bytes = checked(realloc(to->bytes, to->size + size));
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void append_chunk(Span *to, const char *data, int size) {
    char framing[32];
    append(to, framing, sprintf(framing, "%x\r\n", size));
    append(to, data, size);
    append(to, "\r\n", 2);
}

static void build(Answer *answer, const Dialect *dialect, const Span *words, int count, bool vary) {
    unsigned noise = 12345;
    char *chunk = checked(malloc(1 << 20));
    answer->frames = checked(malloc(sizeof(int) * (events + 1)));
    answer->stamps = checked(malloc(sizeof(int) * events));
    append(&answer->bytes, HEAD, sizeof HEAD - 1);
    append_chunk(&answer->bytes, dialect->opening, (int)strlen(dialect->opening));
    for (int i = 0; i < events; i++) {
        char padding[40] = "";
        noise = noise * 1103515245 + 12345;
        if (vary) sprintf(padding, ",\"obfuscation\":\"%.*s\"", 1 + (int)(noise >> 16) % 15, "sT4gHk2Lq9XzPw7");
        int size = sprintf(chunk, dialect->delta, STAMP, 0, words[i % count].bytes, padding, i + 3);
        int begin = answer->frames[i] = answer->bytes.size;
        append_chunk(&answer->bytes, chunk, size);
        char *text = memmem(answer->bytes.bytes + begin, answer->bytes.size - begin, dialect->text, strlen(dialect->text));
        answer->stamps[i] = (int)(text - answer->bytes.bytes + strlen(dialect->text));
    }
    answer->frames[events] = answer->bytes.size;
    for (int usage = 0; usage < 2; usage++) {
        append_chunk(&answer->endings[usage], chunk, sprintf(chunk, dialect->endings[usage], events, events + 9));
        append(&answer->endings[usage], "0\r\n\r\n", 5);
    }
    free(chunk);
}

static void drop(int fd) {
    Connection *connection = &connections[fd];
    free(connection->request);
    free(connection->unsent);
    *connection = (Connection){.next = -1, .generation = connection->generation + 1};
    close(fd);
}

static void watch(int fd, uint32_t what) {
    struct epoll_event event = {what, {.fd = fd}};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &event);
}

/* Sends, and keeps what the socket does not take. */
static void send_bytes(int fd, const char *bytes, int size) {
    Connection *connection = &connections[fd];
    if (!connection->unsent) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return; /* the reading side hears of it */
        if (sent < 0) sent = 0;
        bytes += sent;
        size -= (int)sent;
        if (!size) return;
        watch(fd, EPOLLIN | EPOLLOUT);
        connection->unsent_at = connection->unsent_end = 0;
    }
    connection->unsent = checked(realloc(connection->unsent, connection->unsent_end + size));
    memcpy(connection->unsent + connection->unsent_end, bytes, size);
    connection->unsent_end += size;
}

static void send_rest(int fd) {
    Connection *connection = &connections[fd];
    if (!connection->unsent) return;
    ssize_t sent = send(fd, connection->unsent + connection->unsent_at, connection->unsent_end - connection->unsent_at,
                        MSG_NOSIGNAL);
    if (sent > 0) connection->unsent_at += (int)sent;
    if (connection->unsent_at < connection->unsent_end) return;
    free(connection->unsent);
    connection->unsent = NULL;
    watch(fd, EPOLLIN);
}

static void stamp(const Answer *answer, int from, int to, long now) {
    char digits[32];
    sprintf(digits, "%0*ld", STAMP, now);
    for (int i = from; i < to; i++) memcpy(answer->bytes.bytes + answer->stamps[i], digits, STAMP);
}

static void await_turn(int fd, long due) {
    turns[last_turn++ % (sizeof turns / sizeof *turns)] = (Turn){due, fd, connections[fd].generation};
}

static void end_answer(int fd) {
    Span ending = connections[fd].answer->endings[connections[fd].wants_usage];
    send_bytes(fd, ending.bytes, ending.size);
    connections[fd].next = -1;
}

static void begin_answer(int fd, long now) {
    const Answer *answer = connections[fd].answer;
    int first = interval_us ? 1 : events;
    stamp(answer, 0, first, now);
    send_bytes(fd, answer->bytes.bytes, answer->frames[first]);
    connections[fd].next = first;
    if (interval_us)
        await_turn(fd, now + interval_us);
    else
        end_answer(fd);
}

static void go_on(int fd, long due) {
    Connection *connection = &connections[fd];
    if (connection->next == events) {
        end_answer(fd);
        return;
    }
    int i = connection->next++;
    const Answer *answer = connection->answer;
    stamp(answer, i, i + 1, now_us());
    send_bytes(fd, answer->bytes.bytes + answer->frames[i], answer->frames[i + 1] - answer->frames[i]);
    await_turn(fd, due + interval_us);
}

static bool is_whole(Connection *connection) {
    char *bytes = connection->request, *end = memmem(bytes, connection->taken, "\r\n\r\n", 4);
    if (!end) return false;
    bytes[connection->taken] = 0;
    char *length = strcasestr(bytes, "\r\ncontent-length:"), *coding = strcasestr(bytes, "\r\ntransfer-encoding:");
    if (length && length < end) return connection->taken >= end + 4 - bytes + atol(length + 17);
    return !coding || coding > end || !memcmp(bytes + connection->taken - 5, "0\r\n\r\n", 5);
}

/* The answer in the dialect of the path in a request's first line. */
static const Answer *asked_for(const char *request) {
    const char *end = strchr(request, '\r');
    for (int i = 0;; i++)
        if (memmem(request, end - request, dialects[i].path, strlen(dialects[i].path))) return &answers[i];
}

static void receive(int fd) {
    Connection *connection = &connections[fd];
    if (connection->room - connection->taken < 4096) {
        connection->room += 8192;
        connection->request = checked(realloc(connection->request, connection->room));
    }
    ssize_t size = recv(fd, connection->request + connection->taken, connection->room - connection->taken - 1, 0);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    connection->taken += (int)size;
    if (connection->next < 0 && is_whole(connection)) {
        connection->wants_usage = strstr(connection->request, "\"include_usage\"") != NULL;
        connection->answer = asked_for(connection->request);
        connection->taken = 0;
        begin_answer(fd, now_us());
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST_CONNECTIONS) {
            close(fd);
            continue;
        }
        no_delay(fd);
        connections[fd].next = -1;
        struct epoll_event event = {EPOLLIN, {.fd = fd}};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    (void)count;
    raise_file_limit();
    events = (int)number(arguments, "events", NULL);
    interval_us = number(arguments, "interval_us", "0");
    Span *words;
    int word_count = read_lines(option(arguments, "words", NULL), &words);
    for (int i = 0; i < DIALECTS; i++)
        build(&answers[i], &dialects[i], words, word_count, number(arguments, "vary", "0"));
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = loopback(number(arguments, "port", NULL));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) fail("listen");
    poll_fd = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.fd = listener}}, ready[BATCH];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int wait = -1;
        if (first_turn != last_turn) {
            long left = turns[first_turn % (sizeof turns / sizeof *turns)].due - now_us();
            wait = left <= 0 ? 0 : (int)((left + 999) / 1000);
        }
        int found = epoll_wait(poll_fd, ready, BATCH, wait);
        for (int i = 0; i < found; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            if (ready[i].events & EPOLLOUT) send_rest(fd);
            if (ready[i].events & ~EPOLLOUT) receive(fd);
        }
        long now = now_us();
        while (first_turn != last_turn) {
            Turn turn = turns[first_turn % (sizeof turns / sizeof *turns)];
            if (turn.due > now) break;
            first_turn++;
            if (connections[turn.fd].generation == turn.generation && connections[turn.fd].next >= 0)
                go_on(turn.fd, turn.due);
        }
    }
}
