#include "loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Beside the connections: standard streams, epoll, timer, and some to spare. */
#define OWN_DESCRIPTORS 32

_Noreturn void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_BROKEN);
}

static uint64_t read_clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t now_us(void)
{
    return read_clock_us(CLOCK_MONOTONIC);
}

uint64_t own_cpu_us(void)
{
    return read_clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

void allow_descriptors(uint64_t wanted)
{
    struct rlimit limit;
    wanted += OWN_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        fail("getrlimit: %s", strerror(errno));
    if (limit.rlim_cur >= wanted)
        return;
    if (limit.rlim_max < wanted)
        fail("%llu descriptors are needed, and this system allows %llu (ulimit -Hn)",
             (unsigned long long)wanted, (unsigned long long)limit.rlim_max);
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        fail("setrlimit: %s", strerror(errno));
}

int connect_loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1;
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0)
        return -1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0 ||
        errno == EINPROGRESS)
        return descriptor;
    int error = errno;
    close(descriptor);
    errno = error;
    return -1;
}

int send_whole(int descriptor, struct bytes request)
{
    ssize_t sent = send(descriptor, request.at, request.length, MSG_NOSIGNAL);
    if (sent < 0)
        return errno;
    return (size_t)sent == request.length ? 0 : EMSGSIZE;
}

struct bytes write_request(char *room, size_t size, uint16_t port, const char *path,
                           const char *body)
{
    int length;
    if (body)
        length = snprintf(room, size,
                          "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\n"
                          "content-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                          path, port, strlen(body), body);
    else
        length = snprintf(room, size, "GET %s HTTP/1.1\r\nhost: 127.0.0.1:%u\r\n\r\n", path, port);
    if (length < 0 || (size_t)length >= size)
        fail("a request may have %zu bytes at most", size - 1);
    return (struct bytes){room, (size_t)length};
}

void write_count_body(char *room, size_t size, const char *model, uint32_t tokens)
{
    int length = snprintf(room, size,
                          "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\","
                          "\"content\":\"count\"}],\"max_tokens\":%u,\"stream\":true}",
                          model, tokens);
    if (length < 0 || (size_t)length >= size)
        fail("--model is too long");
}

void tell_mark(const char *name)
{
    fprintf(stderr, "mark %s\n", name);
    fflush(stderr);
}
