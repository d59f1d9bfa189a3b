/* Burst: one streamed request for each line of a file, all begun at once. Any model may answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loopback.h"
#include "modes.h"
#include "tally.h"

#define STREAMS_MAX 1024
#define BODY_BYTES 16384
#define REQUEST_BYTES (BODY_BYTES + 512)

struct burst {
    int epoll;
    unsigned count, open;
    struct stream streams[STREAMS_MAX];
    char *requests[STREAMS_MAX];
};

static void begin_all(struct burst *burst, const struct options *options, FILE *bodies)
{
    char body[BODY_BYTES], room[REQUEST_BYTES];
    struct bytes requests[STREAMS_MAX];
    while (fgets(body, sizeof body, bodies)) {
        size_t length = strcspn(body, "\n");
        if (burst->count == STREAMS_MAX || length == sizeof body - 1)
            fail("%s: at most %d lines of %d bytes", options->bodies, STREAMS_MAX, BODY_BYTES - 2);
        body[length] = '\0';
        struct bytes request =
            write_request(room, sizeof room, options->port, options->path, body);
        if (!(burst->requests[burst->count] = strdup(room)))
            fail("no memory for a request");
        requests[burst->count] = (struct bytes){burst->requests[burst->count], request.length};
        burst->count++;
    }
    for (unsigned i = 0; i < burst->count; i++)
        burst->open +=
            stream_begin(&burst->streams[i], burst->epoll, options->port, requests[i], 0);
}

static void report(const struct burst *burst)
{
    struct tally tally = {0};
    uint64_t begun_us = UINT64_MAX, ended_us = 0, tokens = 0;
    for (unsigned i = 0; i < burst->count; i++) {
        const struct stream *stream = &burst->streams[i];
        tally_add(&tally, stream);
        begun_us = stream->begun_us < begun_us ? stream->begun_us : begun_us;
        ended_us = stream->ended_us > ended_us ? stream->ended_us : ended_us;
        tokens += stream->usage_tokens > 0 ? (uint64_t)stream->usage_tokens : 0;
    }
    report_begin();
    report_count("streams", tally.streams);
    report_count("whole", tally.whole);
    report_faults(&tally.faults);
    report_count("usage_tokens", tokens);
    report_number("elapsed_s", burst->count ? (double)(ended_us - begun_us) / 1e6 : 0);
    report_percentiles("first_chunk", &tally.first_event);
    report_end();
    tally_free(&tally);
}

int run_burst(const struct options *options)
{
    static struct burst burst;
    FILE *bodies = options->bodies ? fopen(options->bodies, "r") : NULL;
    if (!bodies)
        fail("--bodies %s: %s", options->bodies ? options->bodies : "", strerror(errno));
    allow_descriptors(STREAMS_MAX);
    burst.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (burst.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    uint64_t give_up_us = now_us() + (uint64_t)(options->timeout_s * 1e6);
    begin_all(&burst, options, bodies);
    fclose(bodies);
    while (burst.open && now_us() < give_up_us)
        burst.open -= streams_serve(burst.epoll, 50, NULL);
    for (unsigned i = 0; i < burst.count; i++)
        if (burst.streams[i].descriptor >= 0)
            stream_give_up(&burst.streams[i], "did not end in time");
    report(&burst);
    for (unsigned i = 0; i < burst.count; i++)
        free(burst.requests[i]);
    close(burst.epoll);
    return 0;
}
