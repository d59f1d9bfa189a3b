/* One request and its answer, again and again, on a connection that is kept. */
#ifndef LOAD_EXCHANGE_H
#define LOAD_EXCHANGE_H

#include "http.h"
#include "report.h"

struct exchange {
    int descriptor; /* -1: not connected */
    bool is_waiting; /* for an answer */
    uint64_t begun_us; /* when the request that waits was due or sent */
    struct bytes request;
    struct http_answer http;
};

/* Connect, and wait until it is done; the connection is watched by `epoll` from then on.
 * Returns 0 or the errno. */
int exchange_connect(struct exchange *exchange, int epoll, uint16_t port);

/* Send the request. Returns 0 or the errno; the connection is closed then. */
int exchange_send(struct exchange *exchange, uint64_t begun_us);

enum exchange_end {
    EXCHANGE_GOES_ON,
    EXCHANGE_ANSWERED, /* with status 200; the connection is kept */
    EXCHANGE_ANSWERED_LAST, /* with status 200; the server closes the connection, as it said */
    EXCHANGE_CLOSED, /* while no request was waiting */
    EXCHANGE_FAILED, /* see `fault`; the connection is closed */
};

/* Receive what is there. */
enum exchange_end exchange_ready(struct exchange *exchange, char fault[FAULT_BYTES_MAX]);

void exchange_close(struct exchange *exchange);

#endif
