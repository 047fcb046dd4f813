/* sockets.h: a call that a signal interrupted is made again; nothing else is. */
#define _POSIX_C_SOURCE 200809L /* as Python.h, which the kernels include first */
#include <errno.h>
#include <sys/socket.h>

#include "check.h"

static int interruptions, fails_with, calls;

static ssize_t fake(size_t size) {
    calls++;
    if (interruptions) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    errno = fails_with;
    return fails_with ? -1 : (ssize_t)size;
}

static ssize_t fake_recv(int socket, void *to, size_t size, int flags) {
    (void)socket, (void)flags;
    memset(to, 'x', size);
    return fake(size);
}

static ssize_t fake_send(int socket, const void *data, size_t size, int flags) {
    return (void)socket, (void)data, (void)flags, fake(size);
}

#define recv fake_recv
#define send fake_send
#include "sockets.h"

static void after(int interrupted, int failure) {
    interruptions = interrupted;
    fails_with = failure;
    calls = 0;
}

int main(void) {
    char memory[8];
    if (!GAI_CAN_WATCH) {
        return 0;
    }
    after(3, 0);
    CHECK(gai_receive(0, memory, sizeof memory) == sizeof memory && calls == 4, "%d calls", calls);
    after(3, 0);
    CHECK(gai_send(0, memory, sizeof memory) == sizeof memory && calls == 4, "%d calls", calls);
    after(1, EAGAIN);
    CHECK(gai_receive(0, memory, sizeof memory) == -EAGAIN && calls == 2, "%d calls", calls);
    after(0, ECONNRESET);
    CHECK(gai_receive(0, memory, sizeof memory) == -ECONNRESET && calls == 1, "%d calls", calls);
    after(0, EPIPE);
    CHECK(gai_send(0, memory, sizeof memory) == 0 && calls == 1, "%d calls", calls);
    return 0;
}
