/*
 * Echo and hello in C, one thread, level-triggered epoll: what the kernel's interface
 * costs, with next to nothing on top.
 *
 *     epoll echo|hello|udp PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 511
#define LARGEST (256 * 1024)
#define BATCH 64
#define DATAGRAM 65536
#define BEFORE "Hello, "
#define BEFORE_SIZE (sizeof BEFORE - 1)

struct connection {
    int fd;
    char *unsent;                      /* while there is any, nothing is read */
    size_t from, to;
};

static int epoll;
static bool hello;

static void fail(const char *what)
{
    fprintf(stderr, "epoll: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void heed(struct connection *one, int operation, int fd, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = one};
    if (epoll_ctl(epoll, operation, fd, &event))
        fail("epoll_ctl");
}

static void end(struct connection *one)
{
    close(one->fd);
    free(one->unsent);
    free(one);
}

static bool say(struct connection *one, const char *data, size_t size)
{
    ssize_t sent = send(one->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < size) {
        one->to = size - sent;
        one->from = 0;
        one->unsent = memcpy(malloc(one->to), data + sent, one->to);
        heed(one, EPOLL_CTL_MOD, one->fd, EPOLLOUT);
    }
    return true;
}

static bool say_the_rest(struct connection *one)
{
    ssize_t sent = send(one->fd, one->unsent + one->from, one->to - one->from,
                        MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    if ((one->from += sent) == one->to) {
        free(one->unsent);
        one->unsent = NULL;
        heed(one, EPOLL_CTL_MOD, one->fd, EPOLLIN);
    }
    return true;
}

static bool listen_to(struct connection *one)
{
    static char buffer[BEFORE_SIZE + LARGEST + 1] = BEFORE;
    char *data = buffer + BEFORE_SIZE;
    ssize_t size = recv(one->fd, data, LARGEST, 0);
    if (size < 0)
        return errno == EAGAIN;
    if (size == 0 || (hello && size == 4 && !memcmp(data, "exit", 4)))
        return false;
    if (!hello)
        return say(one, data, size);
    data[size] = '!';
    return say(one, buffer, BEFORE_SIZE + size + 1);
}

static void welcome(int listening)
{
    int fd, yes = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *one = calloc(1, sizeof *one);
        one->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        heed(one, EPOLL_CTL_ADD, fd, EPOLLIN);
        if (hello && !say(one, "Welcome!", 8))
            end(one);
    }
}

static void serve(int listening)
{
    struct epoll_event events[1024];
    epoll = epoll_create1(EPOLL_CLOEXEC);
    heed(NULL, EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        int count = epoll_wait(epoll, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            struct connection *one = events[i].data.ptr;
            if (!one)
                welcome(listening);
            else if (!(one->unsent ? say_the_rest(one) : listen_to(one)))
                end(one);
        }
    }
}

static void serve_datagrams(int fd)
{
    static char data[BATCH][DATAGRAM];
    static struct sockaddr_in peers[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){data[i], DATAGRAM};
            batch[i].msg_hdr = (struct msghdr){
                .msg_name = &peers[i], .msg_namelen = sizeof peers[i],
                .msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int count = recvmmsg(fd, batch, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++)
            parts[i].iov_len = batch[i].msg_len;
        for (int done = 0; done < count;) {
            int sent = sendmmsg(fd, batch + done, count - done, 0);
            done += sent > 0 ? sent : 1; /* one that cannot be sent is dropped */
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: epoll echo|hello|udp PORT\n", stderr);
        return 2;
    }
    bool udp = !strcmp(argv[1], "udp");
    int yes = 1, fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    hello = !strcmp(argv[1], "hello");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&place, sizeof place))
        fail("bind");
    if (udp)
        serve_datagrams(fd);
    if (listen(fd, BACKLOG))
        fail("listen");
    serve(fd);
}
