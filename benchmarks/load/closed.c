/* Closed loop: each connection sends its next request when the answer to the last has come. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "exchange.h"
#include "loopback.h"
#include "modes.h"

#define READY_MAX 512
#define REQUEST_BYTES 16384

struct closed {
    const struct options *options;
    int epoll;
    struct exchange *exchanges;
    unsigned waiting; /* for an answer */
    uint64_t reconnects;
    uint64_t window_begin_us, window_end_us;
    uint64_t begun_us, ended_us; /* of the window, as it was; 0: not yet */
    uint64_t begin_cpu_us, cpu_us;
    struct samples latencies;
    struct faults faults;
};

static void add_errno(struct closed *run, const char *what, int error)
{
    char fault[FAULT_BYTES_MAX];
    snprintf(fault, sizeof fault, "%s: %s", what, strerror(error));
    faults_add(&run->faults, fault);
}

/* Send the next request, on a new connection if need be. One that cannot connect stays away, so
 * that errors are bounded by the connections. */
static void send_next(struct closed *run, struct exchange *exchange)
{
    int error;
    if (exchange->descriptor < 0) {
        run->reconnects++;
        if ((error = exchange_connect(exchange, run->epoll, run->options->port))) {
            add_errno(run, "connect", error);
            return;
        }
    }
    if ((error = exchange_send(exchange, now_us())))
        add_errno(run, "send", error);
    else
        run->waiting++;
}

static void take(struct closed *run, struct exchange *exchange)
{
    char fault[FAULT_BYTES_MAX];
    bool was_waiting = exchange->is_waiting;
    enum exchange_end end = exchange_ready(exchange, fault);
    if (end == EXCHANGE_GOES_ON)
        return;
    uint64_t now = now_us();
    run->waiting -= was_waiting;
    if (end == EXCHANGE_FAILED)
        faults_add(&run->faults, fault);
    else if (end != EXCHANGE_CLOSED && now >= run->window_begin_us && now < run->window_end_us)
        samples_add(&run->latencies, now - exchange->begun_us);
    if (now < run->window_end_us)
        send_next(run, exchange);
}

static void mark_window(struct closed *run, uint64_t now)
{
    if (!run->begun_us && now >= run->window_begin_us) {
        run->begun_us = now;
        run->begin_cpu_us = own_cpu_us();
        tell_mark("begin");
    } else if (run->begun_us && !run->ended_us && now >= run->window_end_us) {
        run->ended_us = now;
        run->cpu_us = own_cpu_us() - run->begin_cpu_us;
        tell_mark("end");
    }
}

static void connect_all(struct closed *run, struct bytes request)
{
    int error;
    for (unsigned i = 0; i < run->options->connections; i++) {
        run->exchanges[i].request = request;
        if ((error = exchange_connect(&run->exchanges[i], run->epoll, run->options->port)))
            fail("connection %u: %s", i + 1, strerror(error));
    }
}

static void drive(struct closed *run)
{
    const struct options *options = run->options;
    struct epoll_event ready[READY_MAX];
    uint64_t now = now_us();
    run->window_begin_us = now + (uint64_t)(options->warm_s * 1e6);
    run->window_end_us = run->window_begin_us + (uint64_t)(options->measure_s * 1e6);
    uint64_t give_up_us = run->window_end_us + (uint64_t)(options->timeout_s * 1e6);
    for (unsigned i = 0; i < options->connections; i++)
        send_next(run, &run->exchanges[i]);
    while (!run->ended_us || (run->waiting && now < give_up_us)) {
        int count = epoll_wait(run->epoll, ready, READY_MAX, 5);
        for (int i = 0; i < count; i++)
            take(run, ready[i].data.ptr);
        now = now_us();
        mark_window(run, now);
    }
    for (unsigned i = 0; i < options->connections; i++) {
        if (run->exchanges[i].is_waiting)
            faults_add(&run->faults, "not answered in time");
        exchange_close(&run->exchanges[i]);
    }
}

int run_closed(const struct options *options)
{
    static char room[REQUEST_BYTES];
    struct closed run = {.options = options, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (run.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    allow_descriptors(options->connections);
    run.exchanges = calloc(options->connections, sizeof *run.exchanges);
    if (!run.exchanges)
        fail("no memory for %u connections", options->connections);
    connect_all(&run, write_request(room, sizeof room, options->port, options->path, options->body));
    drive(&run);
    double window_s = (double)(run.ended_us - run.begun_us) / 1e6;
    double answers = (double)run.latencies.count;
    report_begin();
    report_count("connections", options->connections);
    report_count("answers", run.latencies.count);
    report_number("requests_per_s", answers / window_s);
    report_percentiles("latency", &run.latencies);
    report_count("reconnects", run.reconnects);
    report_faults(&run.faults);
    report_number("client_us", (double)run.cpu_us / answers);
    report_number("client_cores", (double)run.cpu_us / 1e6 / window_s);
    report_end();
    samples_free(&run.latencies);
    free(run.exchanges);
    close(run.epoll);
    return 0;
}
