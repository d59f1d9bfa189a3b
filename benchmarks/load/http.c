#include "http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct bytes NOTHING = {NULL, 0};

void http_begin(struct http_answer *answer)
{
    answer->state = HTTP_STATUS_LINE;
    answer->status = 0;
    answer->is_chunked = answer->has_length = answer->closes = false;
    answer->left = answer->chunks = 0;
    answer->line_length = 0;
}

void http_end(struct http_answer *answer)
{
    if (answer->state == HTTP_BODY_UNTIL_CLOSE)
        answer->state = HTTP_COMPLETE;
    else if (answer->state != HTTP_COMPLETE)
        answer->state = HTTP_BROKEN;
}

/* Whether a whole line was taken; it is then in `line`, without its end. */
static bool take_line(struct http_answer *answer, struct bytes *input)
{
    const char *end = memchr(input->at, '\n', input->length);
    size_t length = end ? (size_t)(end - input->at) : input->length;
    size_t room = HTTP_LINE_MAX - 1 - answer->line_length;
    size_t kept = length < room ? length : room;
    memcpy(answer->line + answer->line_length, input->at, kept);
    answer->line_length += kept;
    input->at += end ? length + 1 : length;
    input->length -= end ? length + 1 : length;
    if (!end)
        return false;
    if (answer->line_length && answer->line[answer->line_length - 1] == '\r')
        answer->line_length--;
    answer->line[answer->line_length] = '\0';
    answer->line_length = 0;
    return true;
}

static enum http_state read_status(struct http_answer *answer)
{
    if (strncmp(answer->line, "HTTP/1.1 ", 9) != 0)
        return HTTP_BROKEN;
    answer->status = atoi(answer->line + 9);
    return answer->status >= 100 && answer->status <= 599 ? HTTP_HEADERS : HTTP_BROKEN;
}

/* The value of the header, or NULL when the line is another. */
static const char *header_value(const char *line, const char *name)
{
    size_t length = strlen(name);
    if (strncasecmp(line, name, length) != 0 || line[length] != ':')
        return NULL;
    return line + length + 1 + strspn(line + length + 1, " \t");
}

static enum http_state read_header(struct http_answer *answer)
{
    const char *value;
    if (answer->line[0] == '\0') {
        if (answer->status < 200) {
            http_begin(answer); /* an interim answer; the real one follows */
            return HTTP_STATUS_LINE;
        }
        if (answer->is_chunked)
            return HTTP_CHUNK_SIZE;
        if (!answer->has_length)
            return HTTP_BODY_UNTIL_CLOSE;
        return answer->left ? HTTP_BODY_BY_LENGTH : HTTP_COMPLETE;
    }
    if ((value = header_value(answer->line, "transfer-encoding")))
        answer->is_chunked = strcasecmp(value, "chunked") == 0;
    else if ((value = header_value(answer->line, "content-length"))) {
        char *end;
        answer->left = strtoull(value, &end, 10);
        answer->has_length = true;
        if (end == value || *end != '\0')
            return HTTP_BROKEN;
    } else if ((value = header_value(answer->line, "connection")))
        answer->closes = strcasecmp(value, "close") == 0;
    return HTTP_HEADERS;
}

static enum http_state read_chunk_size(struct http_answer *answer)
{
    char *end;
    answer->left = strtoull(answer->line, &end, 16);
    if (end == answer->line || (*end != '\0' && *end != ';'))
        return HTTP_BROKEN;
    if (answer->left == 0)
        return HTTP_TRAILERS;
    answer->chunks++;
    return HTTP_CHUNK_BODY;
}

static enum http_state read_line(struct http_answer *answer)
{
    switch (answer->state) {
    case HTTP_STATUS_LINE: return read_status(answer);
    case HTTP_HEADERS: return read_header(answer);
    case HTTP_CHUNK_SIZE: return read_chunk_size(answer);
    case HTTP_CHUNK_END: return answer->line[0] ? HTTP_BROKEN : HTTP_CHUNK_SIZE;
    case HTTP_TRAILERS: return answer->line[0] ? HTTP_TRAILERS : HTTP_COMPLETE;
    default: return HTTP_BROKEN;
    }
}

static struct bytes take_body(struct http_answer *answer, struct bytes *input)
{
    struct bytes piece = *input;
    if (answer->state != HTTP_BODY_UNTIL_CLOSE) {
        if (piece.length > answer->left)
            piece.length = answer->left;
        answer->left -= piece.length;
        if (answer->left == 0)
            answer->state = answer->is_chunked ? HTTP_CHUNK_END : HTTP_COMPLETE;
    }
    input->at += piece.length;
    input->length -= piece.length;
    return piece;
}

struct bytes http_next(struct http_answer *answer, struct bytes *input)
{
    while (input->length) {
        switch (answer->state) {
        case HTTP_COMPLETE:
        case HTTP_BROKEN: return NOTHING;
        case HTTP_BODY_BY_LENGTH:
        case HTTP_BODY_UNTIL_CLOSE:
        case HTTP_CHUNK_BODY: return take_body(answer, input);
        default:
            if (take_line(answer, input))
                answer->state = read_line(answer);
        }
    }
    return NOTHING;
}
