#include "exchange.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loopback.h"

#define RECEIVE_BYTES 65536
#define CONNECT_TIMEOUT_MS 10000

static int wait_connected(int descriptor)
{
    struct pollfd waited = {.fd = descriptor, .events = POLLOUT};
    int error = 0;
    socklen_t length = sizeof error;
    int ready = poll(&waited, 1, CONNECT_TIMEOUT_MS);
    if (ready <= 0)
        return ready ? errno : ETIMEDOUT;
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) ? errno : error;
}

int exchange_connect(struct exchange *exchange, int epoll, uint16_t port)
{
    exchange->is_waiting = false;
    exchange->descriptor = connect_loopback(port);
    int error = exchange->descriptor < 0 ? errno : wait_connected(exchange->descriptor);
    struct epoll_event watched = {.events = EPOLLIN, .data.ptr = exchange};
    if (!error && epoll_ctl(epoll, EPOLL_CTL_ADD, exchange->descriptor, &watched) != 0)
        error = errno;
    if (error)
        exchange_close(exchange);
    return error;
}

int exchange_send(struct exchange *exchange, uint64_t begun_us)
{
    http_begin(&exchange->http);
    exchange->begun_us = begun_us;
    exchange->is_waiting = true;
    int error = send_whole(exchange->descriptor, exchange->request);
    if (error)
        exchange_close(exchange);
    return error;
}

void exchange_close(struct exchange *exchange)
{
    if (exchange->descriptor >= 0)
        close(exchange->descriptor);
    exchange->descriptor = -1;
    exchange->is_waiting = false;
}

static enum exchange_end finish(struct exchange *exchange, char fault[FAULT_BYTES_MAX])
{
    bool is_last = exchange->http.closes;
    exchange->is_waiting = false;
    if (is_last || exchange->http.state == HTTP_BROKEN || exchange->http.status != 200)
        exchange_close(exchange);
    if (exchange->http.state == HTTP_BROKEN)
        snprintf(fault, FAULT_BYTES_MAX, "no whole answer of HTTP/1.1");
    else if (exchange->http.status != 200)
        snprintf(fault, FAULT_BYTES_MAX, "status %d", exchange->http.status);
    else
        return is_last ? EXCHANGE_ANSWERED_LAST : EXCHANGE_ANSWERED;
    return EXCHANGE_FAILED;
}

enum exchange_end exchange_ready(struct exchange *exchange, char fault[FAULT_BYTES_MAX])
{
    static char room[RECEIVE_BYTES];
    ssize_t received = recv(exchange->descriptor, room, sizeof room, 0);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return EXCHANGE_GOES_ON;
    if (received < 0) {
        snprintf(fault, FAULT_BYTES_MAX, "recv: %s", strerror(errno));
        exchange_close(exchange);
        return EXCHANGE_FAILED;
    }
    if (!exchange->is_waiting) {
        exchange_close(exchange);
        snprintf(fault, FAULT_BYTES_MAX, "bytes that no request asked for");
        return received ? EXCHANGE_FAILED : EXCHANGE_CLOSED;
    }
    struct bytes input = {room, (size_t)received};
    if (received == 0) {
        http_end(&exchange->http);
        exchange->http.closes = true;
    }
    while (input.length && exchange->http.state < HTTP_COMPLETE)
        http_next(&exchange->http, &input);
    if (exchange->http.state < HTTP_COMPLETE)
        return EXCHANGE_GOES_ON;
    if (input.length)
        exchange->http.state = HTTP_BROKEN; /* more than the answer */
    return finish(exchange, fault);
}
