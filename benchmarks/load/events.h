/* Server-sent events of a completion, one by one, from whatever pieces arrive. Holds no socket.
 *
 * Rule 1: an event counts when its last byte, the empty line, was received.
 * Rule 2: it finds the few fields that the benchmarks look at by their names, and is no JSON
 *         reader: the texts of an engine that counts hold no quotes. */
#ifndef LOAD_EVENTS_H
#define LOAD_EVENTS_H

#include "http.h"

/* Of an event that comes in several pieces. */
#define EVENT_BYTES_MAX 4096

struct events {
    size_t length; /* of the event that is being put together */
    bool is_used;  /* the last event was handed out from there */
    char partial[EVENT_BYTES_MAX];
};

enum event_kind {
    EVENT_COMMENT, /* keeps the connection warm */
    EVENT_CHUNK,
    EVENT_DONE,
    EVENT_ERROR,
    EVENT_BAD, /* nothing that a client could use */
};

struct event {
    enum event_kind kind;
    struct bytes payload;
    struct bytes content; /* of the delta; empty when there is none */
    struct bytes finish;  /* the finish reason; empty when there is none */
    long usage_tokens;    /* usage.completion_tokens, or -1 */
};

void events_begin(struct events *events);

/* Take from the front of `input`. Returns whether there is another whole event; what it points to
 * holds until the next call. */
bool events_next(struct events *events, struct bytes *input, struct event *event);

#endif
