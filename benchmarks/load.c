/*
 * Drives one server on loopback, and says in one line of JSON how that went.
 *
 *     load ping|stream|connect|idle|datagrams PORT [options]
 *
 * ping       each connection asks, waits for the answer, and asks again
 * stream     each connection sends without end, and reads what comes back
 * connect    each connection asks once, reads the answer, closes, and is opened anew
 * idle       opens the connections, with one answer each, and holds them until the
 *            end of standard input
 * datagrams  keeps so many datagrams (--window) in flight, over so many sockets
 *
 * --connections N  how many of them (1)
 * --size BYTES     of what is asked (64)
 * --window N       datagrams in flight, of all sockets together (64)
 * --seconds S      of the time that counts (1)
 * --warm-up S      before it (0.5)
 * --hello          first `Welcome!` comes, and the answer to NAME is `Hello, NAME!`
 * --spin           never sleep: for a core that has nothing else to do
 * --watch PID,...  whose processor time counts
 *
 * Every byte that comes back is compared. What is wrong is one line on standard error,
 * and exit status 1. Linux.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define GREETING "Welcome!"
#define MILLISECOND 1000000ull
#define SECOND (1000 * MILLISECOND)
#define PATIENCE (5 * SECOND)          /* without a byte, and the server hangs */
#define LOST (200 * MILLISECOND)       /* without an answer, and a datagram is lost */
#define HOLD_MILLISECONDS 60000        /* of idle connections, at most */
#define OPENING 128                    /* at once: fewer than any server's backlog */
#define SOURCES 250                    /* addresses that we connect from */
#define EVENTS 1024
#define BATCH 64                       /* datagrams a system call */
#define LARGEST 65536                  /* of what is asked */
#define CHUNK (256 * 1024)             /* of a stream, a system call */
#define PERIOD 65521                   /* of a stream: prime, so no chunk fits it */

struct connection {
    int fd;
    enum { CONNECTING, GREETING_DUE, READY } state;
    size_t got;                        /* of the greeting, or of the answer */
    uint64_t since;                    /* when it asked, or connected, or got one */
    uint64_t sent, received;           /* of a stream */
    int in_flight;                     /* datagrams */
};

static struct {
    int port, connections, size, window, watched;
    double seconds, warm_up;
    bool hello, spin;
    pid_t watch[256];
} given = {.connections = 1, .size = 64, .window = 64, .seconds = 1, .warm_up = 0.5};

static struct connection *all;
static int epoll;
static struct epoll_event events[EVENTS];
static char question[LARGEST], answer[LARGEST + 16], buffer[CHUNK];
static size_t answer_size;

static void fail(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* Processor time of the watched. The kernel's clock of a process counts what its
   /proc/PID/stat does, every thread of it, in nanoseconds instead of ticks. */
static double watched_seconds(void)
{
    double sum = 0;
    for (int i = 0; i < given.watched; i++) {
        clockid_t clock;
        struct timespec time;
        if (clock_getcpuclockid(given.watch[i], &clock) || clock_gettime(clock, &time))
            fail("process %d of the server has ended", (int)given.watch[i]);
        sum += time.tv_sec + time.tv_nsec / 1e9;
    }
    return sum;
}

/* Times of answers: 32 counts for each power of two of nanoseconds, so that none is
   told wrong by more than 3 %. */

static uint64_t counts[64][32], counted;

static void count_time(uint64_t nanoseconds)
{
    uint64_t value = nanoseconds < 32 ? 32 : nanoseconds;
    int power = 63 - __builtin_clzll(value);
    counts[power][value >> (power - 5) & 31]++;
    counted++;
}

static double percentile(double share)
{
    uint64_t below = 0;
    for (int power = 5; power < 64; power++)
        for (int part = 0; part < 32; part++)
            if ((below += counts[power][part]) > share * counted)
                return (double)((32ull + part) << (power - 5)) / 1000;
    return 0;
}

/* The time that counts: begins when the server is warm, with all counts at 0. */

static uint64_t messages, bytes, lost, began, ended, progress;
static double watched_before, spent;

static void begin(void)
{
    messages = bytes = lost = counted = 0;
    memset(counts, 0, sizeof counts);
    watched_before = watched_seconds();
    began = now();
}

static void end(void)
{
    ended = now();
    spent = watched_seconds() - watched_before;
}

/* Asked at every turn; the first time tells when the server begins to get warm. */
static bool is_over(void)
{
    static uint64_t warm;
    uint64_t time = now();
    if (!warm)
        warm = progress = time + given.warm_up * SECOND;
    if (time > progress && time - progress > PATIENCE)
        fail("no answer for %llu s", PATIENCE / SECOND);
    if (!began && time >= warm)
        begin();
    if (!began || time < began + given.seconds * SECOND)
        return false;
    end();
    return true;
}

static void tell(void)
{
    printf("{\"messages\": %llu, \"bytes\": %llu, \"lost\": %llu, \"seconds\": %.6f, "
           "\"cpu_seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)messages, (unsigned long long)bytes,
           (unsigned long long)lost, (ended - began) / 1e9, spent, percentile(0.5),
           percentile(0.99));
    fflush(stdout);
}

/* Connections */

static int wait_for_events(void)
{
    int count = epoll_wait(epoll, events, EVENTS, given.spin ? 0 : 50);
    if (count < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    if (count > 0 && now() > progress)
        progress = now();
    return count;
}

static void heed(struct connection *one, int operation, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = one};
    if (epoll_ctl(epoll, operation, one->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

/* From many addresses: each has its own ports, and a closed connection keeps one for a
   minute. */
static void connect_to_server(struct connection *one, int type)
{
    static unsigned turn;
    int yes = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(given.port)};
    source.sin_addr.s_addr = htonl(0x7f010001 + turn++ % SOURCES); /* 127.1.0.1, ... */
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(one, 0, sizeof *one);
    one->fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (one->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (type == SOCK_STREAM)
        setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (bind(one->fd, (struct sockaddr *)&source, sizeof source))
        fail("bind: %s", strerror(errno));
    one->since = now();
    if (connect(one->fd, (struct sockaddr *)&server, sizeof server) &&
        errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    heed(one, EPOLL_CTL_ADD, type == SOCK_STREAM ? EPOLLOUT : EPOLLIN);
}

/* What came, compared with what is due; true once all of it is there. */
static bool has_received(struct connection *one, const char *due, size_t size)
{
    ssize_t count = recv(one->fd, buffer, size - one->got, 0);
    if (count < 0 && errno == EAGAIN)
        return false;
    if (count < 0)
        fail("receiving: %s", strerror(errno));
    if (count == 0)
        fail("the server closed a connection that was in use");
    if (memcmp(buffer, due + one->got, count))
        fail("the answer is not what it should be");
    bytes += count;
    one->got += count;
    if (one->got < size)
        return false;
    one->got = 0;
    return true;
}

static void ask(struct connection *one)
{
    if (send(one->fd, question, given.size, MSG_NOSIGNAL) != given.size)
        fail("sending: %s", strerror(errno));
}

static bool has_answered(struct connection *one)
{
    if (!has_received(one, answer, answer_size))
        return false;
    messages++;
    count_time(now() - one->since);
    return true;
}

/* Take a connection a step further; true once it may ask. */
static bool becomes_ready(struct connection *one)
{
    if (one->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            fail("connecting: %s", strerror(error));
        heed(one, EPOLL_CTL_MOD, EPOLLIN);
        one->state = given.hello ? GREETING_DUE : READY;
    } else if (has_received(one, GREETING, strlen(GREETING)))
        one->state = READY;
    return one->state == READY;
}

static void open_all(bool asking)
{
    int begun = 0, done = 0;
    progress = now();
    while (done < given.connections) {
        while (begun < given.connections && begun - done < OPENING)
            connect_to_server(&all[begun++], SOCK_STREAM);
        int count = wait_for_events();
        if (now() - progress > PATIENCE)
            fail("%d connections are open, and no more for %llu s", done,
                 PATIENCE / SECOND);
        for (int i = 0; i < count; i++) {
            struct connection *one = events[i].data.ptr;
            if (one->state == READY)
                done += has_answered(one);
            else if (becomes_ready(one)) {
                if (asking)
                    ask(one);
                else
                    done++;
            }
        }
    }
}

/* The modes */

static void ping(void)
{
    open_all(false);
    for (int i = 0; i < given.connections; i++) {
        all[i].since = now();
        ask(&all[i]);
    }
    while (!is_over()) {
        int count = wait_for_events();
        for (int i = 0; i < count; i++) {
            struct connection *one = events[i].data.ptr;
            if (has_answered(one)) {
                one->since = now();
                ask(one);
            }
        }
    }
}

static void connect_and_close(void)
{
    for (int i = 0; i < given.connections; i++)
        connect_to_server(&all[i], SOCK_STREAM);
    while (!is_over()) {
        int count = wait_for_events();
        for (int i = 0; i < count; i++) {
            struct connection *one = events[i].data.ptr;
            if (one->state != READY) {
                if (becomes_ready(one))
                    ask(one);
            } else if (has_answered(one)) {
                close(one->fd);
                connect_to_server(one, SOCK_STREAM);
            }
        }
    }
}

static void idle(void)
{
    begin();
    open_all(true);
    end();
}

static char pattern[PERIOD + CHUNK];

static void read_back(struct connection *one)
{
    ssize_t size;
    while ((size = recv(one->fd, buffer, CHUNK, 0)) > 0) {
        if (memcmp(buffer, pattern + one->received % PERIOD, size))
            fail("what comes back is not what was sent");
        one->received += size;
        bytes += size;
    }
    if (size == 0)
        fail("the server closed a connection that was in use");
    if (errno != EAGAIN)
        fail("receiving: %s", strerror(errno));
}

/* As much as there is room for; but a server that keeps up has to be read, too. */
static void send_on(struct connection *one)
{
    for (int chunks = 0; chunks < 4; chunks++) {
        const char *next = pattern + one->sent % PERIOD;
        ssize_t size = send(one->fd, next, CHUNK, MSG_NOSIGNAL);
        if (size < 0 && errno != EAGAIN)
            fail("sending: %s", strerror(errno));
        if (size < 0)
            return;
        one->sent += size;
    }
}

static void stream(void)
{
    for (int i = 0; i < PERIOD + CHUNK; i++)
        pattern[i] = i < PERIOD ? random() >> 8 : pattern[i - PERIOD];
    open_all(false);
    for (int i = 0; i < given.connections; i++)
        heed(&all[i], EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    while (!is_over()) {
        int count = wait_for_events();
        for (int i = 0; i < count; i++) {
            read_back(events[i].data.ptr);
            send_on(events[i].data.ptr);
        }
    }
}

/* A datagram begins with the time it was sent at. */
static void datagrams(void)
{
    static char out[BATCH][LARGEST], in[BATCH][LARGEST];
    static struct iovec out_parts[BATCH], in_parts[BATCH];
    static struct mmsghdr sending[BATCH], receiving[BATCH];
    int share = given.window / given.connections;
    for (int i = 0; i < BATCH; i++) {
        memcpy(out[i], question, given.size);
        out_parts[i] = (struct iovec){out[i], given.size};
        in_parts[i] = (struct iovec){in[i], LARGEST};
        sending[i].msg_hdr = (struct msghdr){.msg_iov = &out_parts[i], .msg_iovlen = 1};
        receiving[i].msg_hdr = (struct msghdr){.msg_iov = &in_parts[i], .msg_iovlen = 1};
    }
    for (int i = 0; i < given.connections; i++)
        connect_to_server(&all[i], SOCK_DGRAM);
    while (!is_over()) {
        for (struct connection *one = all; one < all + given.connections; one++) {
            uint64_t time = now();
            if (one->in_flight && time - one->since > LOST) {
                lost += one->in_flight;
                one->in_flight = 0;
            }
            int due = share - one->in_flight < BATCH ? share - one->in_flight : BATCH;
            for (int i = 0; i < due; i++)
                memcpy(out[i], &time, sizeof time);
            int count = due ? sendmmsg(one->fd, sending, due, 0) : 0;
            if (count < 0 && errno != EAGAIN)
                fail("sending: %s", strerror(errno));
            if (count > 0) {
                one->in_flight += count;
                one->since = time;
            }
        }
        int ready = wait_for_events();
        for (int i = 0; i < ready; i++) {
            struct connection *one = events[i].data.ptr;
            int count = recvmmsg(one->fd, receiving, BATCH, MSG_DONTWAIT, NULL);
            if (count < 0 && errno != EAGAIN)
                fail("receiving: %s", strerror(errno));
            uint64_t sent, time = now();
            for (int j = 0; j < count; j++) {
                if ((int)receiving[j].msg_len != given.size ||
                    memcmp(in[j] + sizeof sent, question + sizeof sent,
                           given.size - sizeof sent))
                    fail("the answer is not what it should be");
                memcpy(&sent, in[j], sizeof sent);
                count_time(time - sent);
                messages++;
                bytes += given.size;
                one->in_flight -= one->in_flight > 0; /* or it had counted as lost */
                one->since = time;
            }
        }
    }
}

/* The command line */

static void watch(char *pids)
{
    for (char *pid = strtok(pids, ","); pid; pid = strtok(NULL, ",")) {
        if (given.watched == sizeof given.watch / sizeof *given.watch)
            fail("too many processes to watch");
        given.watch[given.watched++] = atoi(pid);
    }
}

static const char *parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"connections", required_argument, NULL, 'c'},
        {"size", required_argument, NULL, 's'},
        {"window", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 't'},
        {"warm-up", required_argument, NULL, 'u'},
        {"watch", required_argument, NULL, 'p'},
        {"hello", no_argument, NULL, 'h'},
        {"spin", no_argument, NULL, 'x'},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (option) {
        case 'c': given.connections = atoi(optarg); break;
        case 's': given.size = atoi(optarg); break;
        case 'w': given.window = atoi(optarg); break;
        case 't': given.seconds = atof(optarg); break;
        case 'u': given.warm_up = atof(optarg); break;
        case 'p': watch(optarg); break;
        case 'h': given.hello = true; break;
        case 'x': given.spin = true; break;
        default: exit(2);
        }
    if (argc - optind != 2)
        fail("a mode and a port are needed");
    given.port = atoi(argv[optind + 1]);
    if (given.port < 1 || given.port > 65535)
        fail("a port is 1 to 65535");
    if (given.connections < 1 || given.window < 1)
        fail("one connection, and one datagram, at least");
    if (given.size < 8 || given.size > LARGEST - 1024)
        fail("a size is 8 to %d", LARGEST - 1024);
    return argv[optind];
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } modes[] = {
        {"ping", ping}, {"stream", stream}, {"connect", connect_and_close},
        {"idle", idle}, {"datagrams", datagrams},
    };
    const char *mode = parse(argc, argv);
    for (int i = 0; i < given.size; i++)
        question[i] = 'a' + (i * 7 + i / 26) % 26;
    answer_size = given.hello
        ? (size_t)sprintf(answer, "Hello, %.*s!", given.size, question)
        : (size_t)given.size;
    if (!given.hello)
        memcpy(answer, question, given.size);
    all = calloc(given.connections, sizeof *all);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(mode, modes[i].name)) {
            modes[i].run();
            tell();
            if (modes[i].run == idle)
                poll(&(struct pollfd){.fd = 0, .events = POLLIN}, 1, HOLD_MILLISECONDS);
            return 0;
        }
    fail("no such mode: %s", mode);
}
