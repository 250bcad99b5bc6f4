/* The load generator: one process that plays every client of a server under test.
 *
 *     load mode=echo pid=SERVER address=unix:PATH|tcp:PORT [key=value ...]
 *
 * It reads the server's processor clock itself, right before and right after the
 * measured operations, so that neither start-up nor warm-up is counted. It prints
 * "operations processor-ns wall-ns". benchmarks/load.py does the same where there
 * is no compiler: keep the two alike.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#define MAX_EVENTS 1024
#define LEAST 100 /* operations, however short of time: fewer say nothing */
#define REST_US 10000
#define PATIENCE_NS 20000000000LL
#define MOST_IN_FLIGHT (1 << 20)

struct connection {
    int fd;
    size_t received;
};

static clockid_t server_clock;
static long long wall_before, cpu_before;

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static long long clock_of(clockid_t which) {
    struct timespec time;
    if (clock_gettime(which, &time)) fail("the server's processor clock");
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long wall(void) { return clock_of(CLOCK_MONOTONIC); }

/* The clock of a process that is running lags by up to a tick of the scheduler; that
 * of one that waits is exact. So it is read only when the server has come to rest. */
static long long server_cpu(void) {
    usleep(REST_US);
    return clock_of(server_clock);
}

static void start_measuring(void) {
    cpu_before = server_cpu();
    wall_before = wall();
}

static void report(long long operations) {
    long long elapsed = wall() - wall_before;
    printf("%lld %lld %lld\n", operations, server_cpu() - cpu_before, elapsed);
    fflush(stdout);
}

static const char *value_of(int count, char **arguments, const char *key,
                            const char *otherwise) {
    size_t length = strlen(key);
    for (int i = 1; i < count; i++)
        if (!strncmp(arguments[i], key, length) && arguments[i][length] == '=')
            return arguments[i] + length + 1;
    return otherwise;
}

static size_t unhex(const char *text, char *into) {
    size_t length = strlen(text) / 2;
    for (size_t i = 0; i < length; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        into[i] = (char)byte;
    }
    return length;
}

static int try_to_connect(const char *address) {
    int fd, done;
    if (!strncmp(address, "unix:", 5)) {
        struct sockaddr_un where = {.sun_family = AF_UNIX};
        strncpy(where.sun_path, address + 5, sizeof where.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        done = connect(fd, (struct sockaddr *)&where, sizeof where);
    } else {
        int yes = 1;
        struct sockaddr_in where = {.sin_family = AF_INET};
        where.sin_port = htons((unsigned short)atoi(address + 4));
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        done = connect(fd, (struct sockaddr *)&where, sizeof where);
    }
    if (fd < 0) fail("socket");
    if (!done) return fd;
    close(fd);
    return -1;
}

/* The server may not be up yet: ask again until it is. */
static int connected(const char *address) {
    long long end = wall() + PATIENCE_NS;
    for (;;) {
        int fd = try_to_connect(address);
        if (fd >= 0) return fd;
        if (errno != ENOENT && errno != ECONNREFUSED) fail("connect");
        if (wall() > end) fail("no server came up");
        usleep(2000);
    }
}

static void send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            poll(&room, 1, -1);
        } else if (sent < 0) {
            fail("send");
        } else {
            data += sent;
            length -= (size_t)sent;
        }
    }
}

static void receive_exactly(int fd, char *into, size_t length) {
    while (length) {
        ssize_t count = recv(fd, into, length, 0);
        if (count <= 0) fail("the server closed a connection");
        length -= (size_t)count;
    }
}

struct load {
    int poller, count;
    struct connection *all;
    const char *message;
    size_t length;
};

/* Each connection has one request under way; a whole answer sends the next. When the
 * time is up all answers are waited for, which leaves the server idle. */
static long long turns(struct load *load, double seconds, long long least) {
    static char scratch[MOST_IN_FLIGHT];
    static struct epoll_event events[MAX_EVENTS];
    long long operations = 0, end = wall() + (long long)(seconds * 1e9);

    for (int i = 0; i < load->count; i++)
        send_all(load->all[i].fd, load->message, load->length);
    for (int under_way = load->count; under_way;) {
        int ready = epoll_wait(load->poller, events, MAX_EVENTS, 10000);
        if (ready <= 0) fail("the server answers no more");
        int is_over = wall() >= end && operations >= least;
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            ssize_t got = recv(connection->fd, scratch, sizeof scratch, MSG_DONTWAIT);
            if (got <= 0) fail("the server closed a connection");
            connection->received += (size_t)got;
            if (connection->received < load->length) continue;
            connection->received = 0;
            operations++;
            if (is_over)
                under_way--;
            else
                send_all(connection->fd, load->message, load->length);
        }
    }
    return operations;
}

static void echo(const char *address, int count, size_t size, double warmup,
                 double seconds, const char *preamble, size_t reply,
                 const char *prefix) {
    static char scratch[MOST_IN_FLIGHT], message[MOST_IN_FLIGHT];
    char greeting[512];
    struct connection *all = calloc((size_t)count, sizeof *all);
    size_t greets = unhex(preamble, greeting);
    size_t length = unhex(prefix, message);
    memset(message + length, 'x', size);
    length += size;
    int poller = epoll_create1(EPOLL_CLOEXEC);

    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = connected(address);
        send_all(all[i].fd, greeting, greets);
        receive_exactly(all[i].fd, scratch, reply);
        epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    struct load load = {poller, count, all, message, length};
    turns(&load, warmup, count);
    start_measuring();
    report(turns(&load, seconds, count + LEAST));
}

static void set_buffer(int fd, int which) {
    int size = 1 << 20;
    setsockopt(fd, SOL_SOCKET, which, &size, sizeof size);
}

/* One stream to the server, until it has read all and closed; an operation is a byte. */
static void sink(const char *address, size_t size, long long total) {
    char *data = calloc(1, size);
    int fd = connected(address);
    set_buffer(fd, SO_SNDBUF);
    start_measuring();
    for (long long left = total; left > 0; left -= (long long)size)
        send_all(fd, data, size);
    shutdown(fd, SHUT_WR);
    if (recv(fd, data, 1, 0) != 0) fail("the server should have closed");
    report(total);
}

/* One stream from the server, until it ends. */
static void source(const char *address, size_t size) {
    char *data = malloc(size);
    long long total = 0;
    int fd = connected(address);
    set_buffer(fd, SO_RCVBUF);
    start_measuring();
    send_all(fd, "x", 1); /* the server waits for it */
    for (ssize_t got; (got = recv(fd, data, size, 0)) != 0; total += got)
        if (got < 0) fail("recv");
    report(total);
}

static void answer_once(const char *address) {
    char byte = 'x';
    int fd = connected(address);
    send_all(fd, &byte, 1);
    receive_exactly(fd, &byte, 1);
    shutdown(fd, SHUT_WR);
    if (recv(fd, &byte, 1, 0) != 0) fail("the server should have closed");
    close(fd);
}

/* Connect, a byte there and back, and a close that both sides know of. */
static void answer(const char *address, double warmup, double seconds) {
    long long operations = 0, end;
    for (end = wall() + (long long)(warmup * 1e9); wall() < end;) answer_once(address);
    start_measuring();
    end = wall() + (long long)(seconds * 1e9);
    for (; wall() < end || operations < LEAST; operations++) answer_once(address);
    report(operations);
}

/* Connections that do nothing, each known to be accepted by the byte it is sent. */
static void hold(const char *address, int count) {
    char byte;
    for (int i = 0; i < count; i++) receive_exactly(connected(address), &byte, 1);
}

int main(int count, char **arguments) {
#define GIVEN(key, otherwise) value_of(count, arguments, key, otherwise)
    const char *mode = GIVEN("mode", "echo"), *address = GIVEN("address", "");
    size_t size = (size_t)atol(GIVEN("size", "64"));
    int core = atoi(GIVEN("core", "-1")), connections = atoi(GIVEN("connections", "1"));
    double warmup = atof(GIVEN("warmup", "0.2")), seconds = atof(GIVEN("seconds", "1"));

    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(core, &cores);
        sched_setaffinity(0, sizeof cores, &cores);
    }
    if (clock_getcpuclockid(atoi(GIVEN("pid", "0")), &server_clock))
        fail("no such server");
    if (!strcmp(mode, "echo")) {
        for (int i = atoi(GIVEN("idle", "0")); i > 0; i--) connected(address);
        echo(address, connections, size, warmup, seconds, GIVEN("preamble", ""),
             (size_t)atol(GIVEN("reply", "0")), GIVEN("prefix", ""));
    } else if (!strcmp(mode, "sink")) {
        sink(address, size, atoll(GIVEN("total", "0")));
    } else if (!strcmp(mode, "source")) {
        source(address, size);
    } else if (!strcmp(mode, "answer")) {
        answer(address, warmup, seconds);
    } else {
        hold(address, 1); /* what the first one brings is no cost of each */
        printf("ready\n");
        fflush(stdout);
        getchar();
        hold(address, connections);
        printf("held\n");
        fflush(stdout);
        getchar();
    }
    return 0;
}
