/* Idle: connections that are opened, answered once each, and then held without a request.
 * Between the marks "begin" and "end" all of them are open. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "exchange.h"
#include "loopback.h"
#include "modes.h"

#define REQUEST_BYTES 1024

struct idle {
    int epoll;
    unsigned open;
    struct faults faults;
};

/* Ask once, so that the server has read from the connection, and wait for the answer. */
static void ask_once(struct idle *run, struct exchange *exchange, const struct options *options)
{
    char fault[FAULT_BYTES_MAX];
    struct epoll_event ready;
    uint64_t give_up_us = now_us() + (uint64_t)(options->timeout_s * 1e6);
    int error = exchange_connect(exchange, run->epoll, options->port);
    if (!error)
        error = exchange_send(exchange, now_us());
    if (error) {
        faults_add(&run->faults, strerror(error));
        return;
    }
    run->open++;
    while (exchange->is_waiting && now_us() < give_up_us)
        if (epoll_wait(run->epoll, &ready, 1, 100) == 1) {
            struct exchange *other = ready.data.ptr;
            enum exchange_end end = exchange_ready(other, fault);
            run->open -= other->descriptor < 0;
            if (end == EXCHANGE_FAILED)
                faults_add(&run->faults, fault);
        }
    if (exchange->is_waiting)
        faults_add(&run->faults, "not answered in time");
}

/* Returns when the time is over; connections that the server closes meanwhile are counted out. */
static void hold(struct idle *run, uint64_t end_us)
{
    char fault[FAULT_BYTES_MAX];
    struct epoll_event ready;
    while (now_us() < end_us)
        if (epoll_wait(run->epoll, &ready, 1, 100) == 1) {
            struct exchange *exchange = ready.data.ptr;
            exchange_ready(exchange, fault);
            run->open -= exchange->descriptor < 0;
        }
}

int run_idle(const struct options *options)
{
    static char room[REQUEST_BYTES];
    struct idle run = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (run.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    allow_descriptors(options->connections);
    struct exchange *exchanges = calloc(options->connections, sizeof *exchanges);
    if (!exchanges)
        fail("no memory for %u connections", options->connections);
    struct bytes request =
        write_request(room, sizeof room, options->port, options->path, options->body);
    for (unsigned i = 0; i < options->connections; i++) {
        exchanges[i].request = request;
        ask_once(&run, &exchanges[i], options);
    }
    unsigned opened = run.open;
    tell_mark("begin");
    hold(&run, now_us() + (uint64_t)(options->hold_s * 1e6));
    tell_mark("end");
    report_begin();
    report_count("connections", options->connections);
    report_count("open_at_begin", opened);
    report_count("open_at_end", run.open);
    report_faults(&run.faults);
    report_end();
    for (unsigned i = 0; i < options->connections; i++)
        exchange_close(&exchanges[i]);
    free(exchanges);
    close(run.epoll);
    return 0;
}
