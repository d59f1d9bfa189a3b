/* Probe: requests at a fixed rate, whatever the server does. A probe that finds no free connection
 * waits for one, and its time runs from when it was due: a server that stands still shows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "exchange.h"
#include "loopback.h"
#include "modes.h"

#define READY_MAX 64
#define REQUEST_BYTES 16384

struct probe {
    const struct options *options;
    int epoll, timer;
    struct exchange *exchanges;
    uint64_t begun_us, end_us;
    uint64_t due, sent, answered; /* probes so far */
    struct samples latencies;
    struct faults faults;
};

static uint64_t due_us(const struct probe *run, uint64_t number)
{
    return run->begun_us + (uint64_t)((double)number * 1e6 / run->options->probes_per_s);
}

static int start_timer(double per_s)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    uint64_t period_ns = (uint64_t)(1e9 / per_s);
    struct timespec period = {(time_t)(period_ns / 1000000000), (long)(period_ns % 1000000000)};
    struct itimerspec times = {period, period};
    if (timer < 0 || timerfd_settime(timer, 0, &times, NULL) != 0)
        fail("timerfd: %s", strerror(errno));
    return timer;
}

/* Send the probes that are due, as far as connections are free. */
static void send_due(struct probe *run)
{
    uint64_t now = now_us();
    for (; due_us(run, run->due) <= now && due_us(run, run->due) < run->end_us; run->due++) {
    }
    for (unsigned i = 0; i < run->options->connections && run->sent < run->due; i++) {
        struct exchange *exchange = &run->exchanges[i];
        if (exchange->is_waiting)
            continue;
        /* The timer rings a little late: that is no fault of the server's. */
        uint64_t waited_us = now - due_us(run, run->sent);
        bool was_kept = waited_us > (uint64_t)(1e6 / run->options->probes_per_s);
        run->sent++;
        int error = exchange->descriptor < 0
                        ? exchange_connect(exchange, run->epoll, run->options->port)
                        : 0;
        if (!error)
            error = exchange_send(exchange, was_kept ? due_us(run, run->sent - 1) : now);
        if (error)
            faults_add(&run->faults, strerror(error));
    }
}

static void take(struct probe *run, struct exchange *exchange)
{
    char fault[FAULT_BYTES_MAX];
    enum exchange_end end = exchange_ready(exchange, fault);
    if (end == EXCHANGE_FAILED)
        faults_add(&run->faults, fault);
    if (end != EXCHANGE_ANSWERED && end != EXCHANGE_ANSWERED_LAST)
        return;
    run->answered++;
    samples_add(&run->latencies, now_us() - exchange->begun_us);
}

static void drive(struct probe *run)
{
    struct epoll_event ready[READY_MAX];
    uint64_t give_up_us = run->end_us + (uint64_t)(run->options->timeout_s * 1e6), now;
    while ((now = now_us()) < run->end_us ||
           (run->answered + run->faults.count < run->due && now < give_up_us)) {
        int count = epoll_wait(run->epoll, ready, READY_MAX, 100);
        for (int i = 0; i < count; i++)
            if (ready[i].data.ptr) {
                take(run, ready[i].data.ptr);
            } else {
                uint64_t rings;
                if (read(run->timer, &rings, sizeof rings) < 0 && errno != EAGAIN)
                    fail("timerfd: %s", strerror(errno));
            }
        send_due(run);
    }
    for (uint64_t missing = run->answered + run->faults.count; missing < run->due; missing++)
        faults_add(&run->faults, "not answered in time");
}

int run_probe(const struct options *options)
{
    static char room[REQUEST_BYTES];
    struct probe run = {.options = options, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (run.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    allow_descriptors(options->connections);
    run.exchanges = calloc(options->connections, sizeof *run.exchanges);
    if (!run.exchanges)
        fail("no memory for %u connections", options->connections);
    struct bytes request =
        write_request(room, sizeof room, options->port, options->path, options->body);
    for (unsigned i = 0; i < options->connections; i++)
        run.exchanges[i] = (struct exchange){.descriptor = -1, .request = request};
    run.timer = start_timer(options->probes_per_s);
    struct epoll_event watched = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, run.timer, &watched) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    run.begun_us = now_us();
    run.end_us = run.begun_us + (uint64_t)(options->run_s * 1e6);
    drive(&run);
    report_begin();
    report_count("probes", run.due);
    report_count("answers", run.answered);
    report_percentiles("latency", &run.latencies);
    report_faults(&run.faults);
    report_end();
    for (unsigned i = 0; i < options->connections; i++)
        exchange_close(&run.exchanges[i]);
    samples_free(&run.latencies);
    free(run.exchanges);
    close(run.timer);
    close(run.epoll);
    return 0;
}
