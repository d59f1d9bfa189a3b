/* One streamed completion on a connection of its own, from the connect to its end.
 *
 * Rule 1: the answer counts "0 1 2 ..."; a token that is lost, doubled or out of turn shows.
 * Rule 2: a token came when its whole event was received: at the return of that `recv`. */
#ifndef LOAD_STREAM_H
#define LOAD_STREAM_H

#include "events.h"
#include "report.h"

struct stream {
    int descriptor; /* -1 when the stream is over */
    bool has_sent;
    bool hung_up;  /* the client ended it, as it was told to */
    bool is_whole; /* it ended as it should */
    struct bytes request;
    uint32_t tokens_expected;   /* 0: the answer does not count */
    uint32_t hang_up_at_tokens; /* 0: never */
    uint64_t begun_us;
    uint64_t first_event_us; /* 0: none came */
    uint64_t ended_us;
    uint32_t tokens;       /* different ones */
    uint32_t next_token;   /* one more than the highest that came */
    uint32_t duplicated;   /* or out of turn */
    uint32_t token_events; /* events, chunks of HTTP and calls of recv that brought tokens */
    uint32_t token_chunks;
    uint32_t token_receives;
    uint64_t last_token_chunk;
    uint64_t body_bytes;
    long usage_tokens; /* as the answer itself tells; -1: it does not */
    bool has_finish;
    bool is_done;
    /* When each token came, in microseconds from the stream's begin, plus 1; 0: not yet. */
    uint32_t *token_us;
    char fault[FAULT_BYTES_MAX];
    struct http_answer http;
    struct events events;
};

/* Begin to connect, and watch the connection by `epoll`. The request goes out when the connection
 * is made. Returns false when the stream is over already: see `fault`. */
bool stream_begin(struct stream *stream, int epoll, uint16_t port, struct bytes request,
                  uint32_t tokens_expected);

/* Do what the connection is ready for. Returns whether the stream is over now. */
bool stream_ready(struct stream *stream, int epoll, uint32_t ready);

/* The client ends it: as it was told to, or because it gives up and says why. */
void stream_hang_up(struct stream *stream);
void stream_give_up(struct stream *stream, const char *why);

/* Tokens that did not come, of those up to `expected`. */
uint32_t stream_lost(const struct stream *stream, uint32_t expected);

void stream_free(struct stream *stream);

/* Wait up to `timeout_ms` for streams to be ready, and serve them.
 * Returns how many ended; for each of them `ended` is called, unless it is NULL. */
unsigned streams_serve(int epoll, int timeout_ms, void (*ended)(struct stream *));

#endif
