/* One answer of HTTP/1.1, read from whatever pieces arrive. Holds no socket.
 *
 * Rule 1: it reads what the benchmarks' servers write: a length, chunks, or a body until the
 *         connection closes. What it cannot read is `HTTP_BROKEN`, never a guess.
 * Rule 2: a body is handed out in place; only header and chunk-size lines are copied. */
#ifndef LOAD_HTTP_H
#define LOAD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longer lines are read to their end, but only their beginning is looked at. */
#define HTTP_LINE_MAX 512

enum http_state {
    HTTP_STATUS_LINE,
    HTTP_HEADERS,
    HTTP_BODY_BY_LENGTH,
    HTTP_BODY_UNTIL_CLOSE,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_BODY,
    HTTP_CHUNK_END,
    HTTP_TRAILERS,
    HTTP_COMPLETE,
    HTTP_BROKEN,
};

struct bytes {
    const char *at;
    size_t length;
};

struct http_answer {
    enum http_state state;
    int status;
    bool is_chunked;
    bool has_length;
    bool closes;     /* the server closes the connection after this answer */
    uint64_t left;   /* of the body, or of the chunk that is being read */
    uint64_t chunks; /* that had data */
    size_t line_length;
    char line[HTTP_LINE_MAX];
};

void http_begin(struct http_answer *answer);

/* Take from the front of `input`. Returns the next piece of the body; an empty one when the input
 * is used up, or the answer is complete or broken. */
struct bytes http_next(struct http_answer *answer, struct bytes *input);

/* The connection ended: an answer that had no length is complete, any other is broken. */
void http_end(struct http_answer *answer);

#endif
