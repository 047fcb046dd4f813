/* A set of borrowed sockets (epoll), and reads and writes without the transports that opened them. On systems without
 * epoll GAI_CAN_WATCH is 0, and no other function is called.
 *
 * The set is edge-triggered, as nginx's: it reports a socket once for all bytes that have come, so read until there are
 * no more, let it rest, or give it back. With a level-triggered set a lone token costs 3 % more, because the system
 * checks the socket twice for each read. A socket may rest: the set does not report its bytes until it is woken. A
 * timer in the set ends the rests.
 *
 * Sockets that are read far less often than once per token have another set, which is level-triggered: it reports
 * unread bytes again.
 */
#ifndef GAI_SOCKETS_H
#define GAI_SOCKETS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

typedef struct {
    void *whose;
    int ends; /* the peer has closed its side, or the socket is broken: its transport must handle that */
} gai_ready;

enum {
    GAI_READY = 64, /* the most sockets reported by one call; the next call reports others */
};

/* Returns the number of bytes read, less than `size` if there are no more; 0 if the peer has closed its side; otherwise
 * the negative error: -EAGAIN if no bytes have come. */
static inline ptrdiff_t gai_receive(int socket, void *to, size_t size) {
    ptrdiff_t got;
    do {
        got = recv(socket, to, size, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    return got >= 0 ? got : -errno;
}

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* Returns the number of bytes sent, or the negative error: -EAGAIN if the socket is full. */
static inline ptrdiff_t gai_transmit(int socket, const void *data, size_t size) {
    ptrdiff_t sent;
    do {
        sent = send(socket, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent >= 0 ? sent : -errno;
}

#ifdef __linux__

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { GAI_CAN_WATCH = 1 };

/* Opens a set of sockets, which is readable while one of its sockets is. Returns -1 if the process or the system has no
 * descriptor left. */
static inline int gai_open_set(void) { return epoll_create1(EPOLL_CLOEXEC); }

static inline void gai_close(int set_or_timer) { close(set_or_timer); }

enum {
    GAI_BYTES = EPOLLIN | EPOLLRDHUP | EPOLLET,
    GAI_ENDS = EPOLLRDHUP | EPOLLET,
};

/* Adds a socket to a set. Returns -1 if the system cannot watch more sockets. */
static inline int gai_watch(int set, int socket, void *whose) {
    struct epoll_event event = {.events = GAI_BYTES, .data = {.ptr = whose}};
    return epoll_ctl(set, EPOLL_CTL_ADD, socket, &event);
}

/* Lets a socket rest: the set reports its end, but not its bytes. Returns -1 if it failed: the set reports both. */
static inline int gai_rest(int set, int socket, void *whose) {
    struct epoll_event event = {.events = GAI_ENDS, .data = {.ptr = whose}};
    return epoll_ctl(set, EPOLL_CTL_MOD, socket, &event);
}

/* Wakes a resting socket: the set reports its bytes again, at once if bytes have come. Returns -1 if it failed. */
static inline int gai_wake(int set, int socket, void *whose) {
    struct epoll_event event = {.events = GAI_BYTES, .data = {.ptr = whose}};
    return epoll_ctl(set, EPOLL_CTL_MOD, socket, &event);
}

/* Opens a timer in a set. `gai_take_ready` reports it once when it is due; for an event loop that watches the set, the
 * set is readable until the timer is set again. Returns -1 if the process or the system has no descriptor left. */
static inline int gai_open_timer(int set) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.ptr = NULL}};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, timer, &event) < 0) {
        close(timer);
        return -1;
    }
    return timer;
}

/* Sets a timer to so many nanoseconds from now, less than a second; with 0 it is due at once. */
static inline void gai_set_timer(int timer, long nanoseconds) {
    struct itimerspec due = {.it_value = {.tv_nsec = nanoseconds > 0 ? nanoseconds : 1}};
    timerfd_settime(timer, 0, &due, NULL);
}

static inline void gai_forget(int set, int socket) { epoll_ctl(set, EPOLL_CTL_DEL, socket, NULL); }

/* Returns the number of sockets in `ready` that can be read, without waiting; sets whether the set's timer is due. */
static inline int gai_take_ready(int set, gai_ready ready[GAI_READY], int *is_due) {
    struct epoll_event events[GAI_READY];
    int count = epoll_wait(set, events, GAI_READY, 0), sockets = 0;
    *is_due = 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == NULL) {
            *is_due = 1;
            continue;
        }
        ready[sockets++] = (gai_ready){events[i].data.ptr, (events[i].events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0};
    }
    return sockets;
}

/* Watches a socket level-triggered, for `gai_take_readable`. Does nothing if the set watches the socket already. Returns
 * -1 if the system cannot watch more sockets. */
static inline int gai_watch_reader(int set, int socket) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = socket}};
    int added = epoll_ctl(set, EPOLL_CTL_ADD, socket, &event);
    return added < 0 && errno == EEXIST ? 0 : added;
}

/* Returns the number of sockets in `readable` that can be read, at most `most`, without waiting. Successive calls
 * report all sockets in turn. */
static inline int gai_take_readable(int set, int readable[GAI_READY], int most) {
    struct epoll_event events[GAI_READY];
    int count = epoll_wait(set, events, most, 0);
    for (int i = 0; i < count; i++) {
        readable[i] = events[i].data.fd;
    }
    return count < 0 ? 0 : count;
}

/* Returns the number of bytes sent; 0 if the socket is full or broken. */
static inline ptrdiff_t gai_send(int socket, const void *data, size_t size) {
    ptrdiff_t sent = gai_transmit(socket, data, size);
    return sent < 0 ? 0 : sent;
}

/* Sends several parts; returns the number of bytes sent, 0 if the socket is full or broken. */
static inline ptrdiff_t gai_send_parts(int socket, struct iovec *parts, int count) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ptrdiff_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? 0 : sent;
}

#else

enum { GAI_CAN_WATCH = 0 };

static inline int gai_open_set(void) { return -1; }
static inline void gai_close(int set_or_timer) { (void)set_or_timer; }
static inline int gai_watch(int set, int socket, void *whose) { return (void)set, (void)socket, (void)whose, -1; }
static inline int gai_rest(int set, int socket, void *whose) { return (void)set, (void)socket, (void)whose, -1; }
static inline int gai_wake(int set, int socket, void *whose) { return (void)set, (void)socket, (void)whose, -1; }
static inline int gai_open_timer(int set) { return (void)set, -1; }
static inline void gai_set_timer(int timer, long nanoseconds) { (void)timer, (void)nanoseconds; }
static inline void gai_forget(int set, int socket) { (void)set, (void)socket; }
static inline int gai_take_ready(int set, gai_ready ready[GAI_READY], int *is_due) {
    return (void)set, (void)ready, *is_due = 0;
}
static inline int gai_watch_reader(int set, int socket) { return (void)set, (void)socket, -1; }
static inline int gai_take_readable(int set, int readable[GAI_READY], int most) {
    return (void)set, (void)readable, (void)most, 0;
}
static inline ptrdiff_t gai_send(int socket, const void *data, size_t size) {
    return (void)socket, (void)data, (void)size, 0;
}
static inline ptrdiff_t gai_send_parts(int socket, struct iovec *parts, int count) {
    return (void)socket, (void)parts, (void)count, 0;
}

#endif
#endif
