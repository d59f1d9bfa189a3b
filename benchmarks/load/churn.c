/* Churn: streams begin at a fixed rate, each with a length of its own, and end by themselves or
 * are hung up in the middle, for a given time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loopback.h"
#include "modes.h"
#include "tally.h"

#define LAST_STREAMS_US 30000000 /* what the last streams may take, once no more are begun */
#define REQUEST_BYTES 1024

struct place {
    struct stream stream; /* first: a stream is its place */
    bool is_taken;
    char request[REQUEST_BYTES];
};

static struct tally tally;

static uint64_t draw(uint64_t *state, uint64_t below)
{
    /* xorshift64*, Vigna, "An experimental exploration of Marsaglia's xorshift generators" */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 2685821657736338717ULL >> 33) % below;
}

static void leave(struct stream *stream)
{
    tally_add(&tally, stream);
    stream_free(stream);
    ((struct place *)(void *)stream)->is_taken = false;
}

/* Returns whether it is open. */
static bool begin(struct place *place, int epoll, const struct options *options, uint64_t *state)
{
    char body[REQUEST_BYTES / 2];
    unsigned span = options->tokens_max - options->tokens_min + 1;
    uint32_t tokens = options->tokens_min + (uint32_t)draw(state, span);
    bool hangs_up = (double)draw(state, 1000000) < options->hang_up_part * 1e6;
    write_count_body(body, sizeof body, options->model, tokens);
    struct bytes request =
        write_request(place->request, sizeof place->request, options->port, options->path, body);
    place->is_taken = true;
    bool is_open = stream_begin(&place->stream, epoll, options->port, request, tokens);
    if (hangs_up && tokens > 1)
        place->stream.hang_up_at_tokens = 1 + (uint32_t)draw(state, tokens - 1);
    if (!is_open)
        leave(&place->stream);
    return is_open;
}

static struct place *free_place(struct place *places, unsigned count, unsigned *next)
{
    for (unsigned tried = 0; tried < count; tried++) {
        struct place *place = &places[(*next)++ % count];
        if (!place->is_taken)
            return place;
    }
    return NULL;
}

int run_churn(const struct options *options)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    allow_descriptors(options->streams);
    struct place *places = calloc(options->streams, sizeof *places);
    if (!places)
        fail("no memory for %u streams", options->streams);
    uint64_t state = options->seed * 0x9e3779b97f4a7c15ULL + 1, due = 0, skipped = 0;
    uint64_t begun_us = now_us(), now = begun_us, end_us = begun_us + (uint64_t)(options->run_s * 1e6);
    unsigned open = 0, open_max = 0, next = 0;
    tell_mark("begin");
    for (; now < end_us || (open && now < end_us + LAST_STREAMS_US); now = now_us()) {
        uint64_t until = now < end_us ? now : end_us;
        for (; due < (double)(until - begun_us) / 1e6 * options->begins_per_s; due++) {
            struct place *place = free_place(places, options->streams, &next);
            skipped += place == NULL;
            open += place && begin(place, epoll, options, &state);
        }
        open_max = open > open_max ? open : open_max;
        open -= streams_serve(epoll, 2, leave);
    }
    tell_mark("end");
    for (unsigned i = 0; i < options->streams; i++)
        if (places[i].is_taken) {
            stream_give_up(&places[i].stream, "did not end in time");
            leave(&places[i].stream);
        }
    report_begin();
    tally_report(&tally);
    report_count("skipped", skipped);
    report_count("open_max", open_max);
    report_number("client_cores", (double)own_cpu_us() / (double)(now_us() - begun_us));
    report_end();
    tally_free(&tally);
    free(places);
    close(epoll);
    return 0;
}
