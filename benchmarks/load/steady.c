/* Steady: all streams are begun evenly in the ramp, run through a window, and end by themselves.
 *
 * Delay: a stream's own pace grid is anchored at its earliest token, the one that came soonest
 * against the pace: token i is due at anchor + i / pace, and its delay is how much later it came.
 * So no clock of a server is needed, and the same definition holds for every server. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loopback.h"
#include "modes.h"
#include "tally.h"

#define SETTLE_US 500000 /* from the last stream's begin to the window, and after the window */
#define GIVE_UP_FACTOR 3 /* streams that take so many times longer than they should ... */
#define GIVE_UP_US 5000000 /* ... and this are given up */
#define TOKENS_TOTAL_MAX 200000000 /* four bytes are kept for each */
#define REQUEST_BYTES 1024

struct window {
    uint64_t begin_us, end_us;     /* as planned */
    uint64_t begun_us, ended_us;   /* as it was; 0: not yet */
    uint64_t begin_cpu_us, cpu_us; /* of this program */
};

struct steady {
    const struct options *options;
    int epoll;
    uint32_t tokens; /* of each stream */
    struct bytes request;
    struct stream *streams;
    unsigned begun, over;
    uint64_t begun_us, last_begun_us, give_up_us;
    struct window window;
};

static void plan(struct steady *run)
{
    const struct options *options = run->options;
    uint64_t ramp_us = (uint64_t)(options->ramp_s * 1e6);
    uint64_t measure_us = (uint64_t)(options->measure_s * 1e6);
    uint64_t stream_us = ramp_us + measure_us + 2 * SETTLE_US;
    run->tokens = (uint32_t)lround((double)stream_us / 1e6 * options->tokens_per_s);
    if (run->tokens == 0 || (uint64_t)run->tokens * options->streams > TOKENS_TOTAL_MAX)
        fail("%u tokens for each of %u streams: from 1 to %d in all", run->tokens,
             options->streams, TOKENS_TOTAL_MAX);
    run->begun_us = now_us();
    run->window.begin_us = run->begun_us + ramp_us + SETTLE_US;
    run->window.end_us = run->window.begin_us + measure_us;
    run->give_up_us = run->begun_us + GIVE_UP_FACTOR * stream_us + GIVE_UP_US;
}

static void begin_due(struct steady *run, uint64_t now)
{
    double part = run->options->ramp_s > 0
                      ? (double)(now - run->begun_us) / 1e6 / run->options->ramp_s
                      : 1;
    double due = floor(part * run->options->streams) + 1;
    while (run->begun < run->options->streams && run->begun < due) {
        struct stream *stream = &run->streams[run->begun++];
        run->last_begun_us = now_us();
        if (!stream_begin(stream, run->epoll, run->options->port, run->request, run->tokens))
            run->over++;
    }
}

static void hang_up_all(struct steady *run)
{
    for (unsigned i = 0; i < run->begun; i++)
        if (run->streams[i].descriptor >= 0) {
            stream_hang_up(&run->streams[i]);
            run->over++;
        }
}

static void mark_window(struct steady *run, uint64_t now)
{
    struct window *window = &run->window;
    if (!window->begun_us && now >= window->begin_us) {
        window->begun_us = now;
        window->begin_cpu_us = own_cpu_us();
        tell_mark("begin");
    } else if (window->begun_us && !window->ended_us && now >= window->end_us) {
        window->ended_us = now;
        window->cpu_us = own_cpu_us() - window->begin_cpu_us;
        tell_mark("end");
        if (run->options->hang_up)
            hang_up_all(run);
    }
}

static void give_up_open(struct steady *run)
{
    for (unsigned i = 0; i < run->begun; i++)
        if (run->streams[i].descriptor >= 0)
            stream_give_up(&run->streams[i], "did not end in time");
}

static void drive(struct steady *run)
{
    unsigned streams = run->options->streams;
    while (run->begun < streams || run->over < run->begun || !run->window.ended_us) {
        uint64_t now = now_us();
        if (now > run->give_up_us)
            break;
        begin_due(run, now);
        mark_window(run, now);
        /* Streams are begun every 2 ms, and the window is met to 5. */
        run->over += streams_serve(run->epoll, run->begun < streams ? 2 : 5, NULL);
    }
    give_up_open(run);
}

static double against_pace(const struct stream *stream, uint32_t number, double period_us)
{
    return (double)stream->token_us[number] - number * period_us;
}

/* Add the delays of those tokens that came in the window. */
static void add_delays(const struct steady *run, const struct stream *stream,
                       struct samples *delays)
{
    double period_us = 1e6 / run->options->tokens_per_s, anchor = INFINITY;
    for (uint32_t number = 0; number < stream->next_token; number++)
        if (stream->token_us[number])
            anchor = fmin(anchor, against_pace(stream, number, period_us));
    for (uint32_t number = 0; number < stream->next_token; number++) {
        uint64_t came_us = stream->begun_us + stream->token_us[number] - 1;
        if (stream->token_us[number] && came_us >= run->window.begun_us &&
            came_us < run->window.ended_us)
            samples_add(delays, (uint64_t)(against_pace(stream, number, period_us) - anchor));
    }
}

static void report(const struct steady *run)
{
    struct tally tally = {0};
    struct samples delays = {0};
    for (unsigned i = 0; i < run->begun; i++) {
        tally_add(&tally, &run->streams[i]);
        add_delays(run, &run->streams[i], &delays);
    }
    double window_s = (double)(run->window.ended_us - run->window.begun_us) / 1e6;
    double cpu_us = (double)run->window.cpu_us;
    report_begin();
    tally_report(&tally);
    report_count("tokens_expected", run->tokens);
    report_number("offered_per_s", run->options->streams * run->options->tokens_per_s);
    report_count("window_tokens", delays.count);
    report_number("window_s", window_s);
    report_number("delivered_per_s", (double)delays.count / window_s);
    report_percentiles("delay", &delays);
    report_number("ramp_s", (double)(run->last_begun_us - run->begun_us) / 1e6);
    report_number("client_us", cpu_us / (double)delays.count);
    report_number("client_cores", cpu_us / 1e6 / window_s);
    report_end();
    samples_free(&delays);
    tally_free(&tally);
}

int run_steady(const struct options *options)
{
    char body[REQUEST_BYTES / 2], request[REQUEST_BYTES];
    struct steady run = {.options = options, .epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (run.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    allow_descriptors(options->streams);
    run.streams = calloc(options->streams, sizeof *run.streams);
    if (!run.streams)
        fail("no memory for %u streams", options->streams);
    plan(&run);
    write_count_body(body, sizeof body, options->model, run.tokens);
    run.request = write_request(request, sizeof request, options->port, options->path, body);
    drive(&run);
    report(&run);
    for (unsigned i = 0; i < run.begun; i++)
        stream_free(&run.streams[i]);
    free(run.streams);
    close(run.epoll);
    return 0;
}
