/* The limit of the machine: a level-triggered epoll echo server.
 *
 *     echo_server unix:PATH|tcp:PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_EVENTS 512
#define BACKLOG 4096

static int listening(const char *address) {
    int fd, bound, yes = 1;
    if (!strncmp(address, "unix:", 5)) {
        struct sockaddr_un where = {.sun_family = AF_UNIX};
        strncpy(where.sun_path, address + 5, sizeof where.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        bound = bind(fd, (struct sockaddr *)&where, sizeof where);
    } else {
        struct sockaddr_in where = {.sin_family = AF_INET};
        where.sin_port = htons((unsigned short)atoi(address + 4));
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        bound = bind(fd, (struct sockaddr *)&where, sizeof where);
    }
    if (bound || listen(fd, BACKLOG)) {
        perror("echo_server");
        exit(1);
    }
    return fd;
}

int main(int count, char **arguments) {
    static struct epoll_event events[MAX_EVENTS];
    static char data[65536];
    int home = listening(count > 1 ? arguments[1] : "");
    int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = home};
    epoll_ctl(poller, EPOLL_CTL_ADD, home, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, MAX_EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == home) {
                event.data.fd = accept(home, NULL, NULL);
                epoll_ctl(poller, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            ssize_t got = recv(fd, data, sizeof data, 0);
            if (got <= 0 || send(fd, data, (size_t)got, MSG_NOSIGNAL) != got) close(fd);
        }
    }
}
