#include "stream.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loopback.h"

#define RECEIVE_BYTES 65536
#define READY_MAX 512

static void end(struct stream *stream)
{
    close(stream->descriptor); /* which also takes it from the epoll */
    stream->descriptor = -1;
    stream->ended_us = now_us();
}

static bool __attribute__((format(printf, 2, 3)))
end_with_fault(struct stream *stream, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(stream->fault, sizeof stream->fault, format, arguments);
    va_end(arguments);
    end(stream);
    return true;
}

bool stream_begin(struct stream *stream, int epoll, uint16_t port, struct bytes request,
                  uint32_t tokens_expected)
{
    uint32_t *token_us = tokens_expected ? calloc(tokens_expected, sizeof *token_us) : NULL;
    if (tokens_expected && !token_us)
        fail("no memory for the times of %u tokens", tokens_expected);
    *stream = (struct stream){.request = request, .tokens_expected = tokens_expected,
                              .token_us = token_us, .usage_tokens = -1};
    http_begin(&stream->http);
    events_begin(&stream->events);
    stream->begun_us = now_us();
    stream->descriptor = connect_loopback(port);
    if (stream->descriptor < 0) {
        snprintf(stream->fault, sizeof stream->fault, "connect: %s", strerror(errno));
        return false;
    }
    struct epoll_event watched = {.events = EPOLLOUT, .data.ptr = stream};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, stream->descriptor, &watched) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    return true;
}

static bool send_request(struct stream *stream, int epoll)
{
    int error = send_whole(stream->descriptor, stream->request);
    if (error)
        return end_with_fault(stream, "send: %s", strerror(error));
    struct epoll_event watched = {.events = EPOLLIN, .data.ptr = stream};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, stream->descriptor, &watched) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    stream->has_sent = true;
    return false;
}

/* Returns whether it is a token that may be there. */
static bool take_token(struct stream *stream, unsigned long number, uint64_t came_us)
{
    if (number >= stream->tokens_expected)
        return false;
    if (number < stream->next_token)
        stream->duplicated++;
    if (!stream->token_us[number]) {
        stream->token_us[number] = (uint32_t)(came_us - stream->begun_us + 1);
        stream->tokens++;
    }
    if (number >= stream->next_token)
        stream->next_token = (uint32_t)number + 1;
    return true;
}

/* Numbers, each with a space behind it. Returns whether it is nothing else. */
static bool take_content(struct stream *stream, struct bytes content, uint64_t came_us)
{
    const char *at = content.at, *stop = content.at + content.length;
    while (at < stop) {
        char *number_end;
        if (*at < '0' || *at > '9')
            return false;
        unsigned long number = strtoul(at, &number_end, 10);
        if (*number_end != ' ' || !take_token(stream, number, came_us))
            return false;
        at = number_end + 1;
    }
    if (content.length) {
        stream->token_events++;
        if (stream->http.chunks != stream->last_token_chunk)
            stream->token_chunks++;
        stream->last_token_chunk = stream->http.chunks;
    }
    return true;
}

/* Returns NULL, or what is wrong with the event. */
static const char *take_event(struct stream *stream, const struct event *event, uint64_t came_us)
{
    switch (event->kind) {
    case EVENT_COMMENT: return NULL;
    case EVENT_DONE: stream->is_done = true; return NULL;
    case EVENT_ERROR: return "error event";
    case EVENT_BAD: return "event is no chunk";
    case EVENT_CHUNK: break;
    }
    if (!stream->first_event_us)
        stream->first_event_us = came_us;
    if (event->usage_tokens >= 0)
        stream->usage_tokens = event->usage_tokens;
    if (event->finish.length) {
        stream->has_finish = true;
        if (stream->tokens_expected &&
            (event->finish.length != 6 || memcmp(event->finish.at, "length", 6) != 0))
            return "another finish_reason than length";
    }
    if (stream->tokens_expected && !take_content(stream, event->content, came_us))
        return "content is not the next numbers";
    return NULL;
}

/* The body of an answer with an error status is not read: its status says enough. */
static bool take_input(struct stream *stream, struct bytes input, uint64_t came_us)
{
    while (input.length && stream->http.state != HTTP_COMPLETE) {
        struct bytes piece = http_next(&stream->http, &input);
        if (stream->http.state == HTTP_BROKEN)
            return end_with_fault(stream, "no answer of HTTP/1.1");
        if (stream->http.status != 200 && stream->http.state > HTTP_HEADERS)
            return end_with_fault(stream, "status %d", stream->http.status);
        struct event event;
        stream->body_bytes += piece.length;
        while (events_next(&stream->events, &piece, &event)) {
            const char *wrong = take_event(stream, &event, came_us);
            if (wrong)
                return end_with_fault(stream, "%s: %.*s", wrong,
                                      (int)(event.payload.length < 100 ? event.payload.length : 100),
                                      event.payload.at);
        }
    }
    return false;
}

static bool finish(struct stream *stream)
{
    if (stream->http.state == HTTP_BROKEN)
        return end_with_fault(stream, "cut");
    if (!stream->is_done)
        return end_with_fault(stream, "no [DONE]");
    if (!stream->has_finish)
        return end_with_fault(stream, "no finish_reason");
    stream->is_whole = true;
    end(stream);
    return true;
}

bool stream_ready(struct stream *stream, int epoll, uint32_t ready)
{
    static char room[RECEIVE_BYTES];
    if (!stream->has_sent && (ready & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
        return send_request(stream, epoll);
    ssize_t received = recv(stream->descriptor, room, sizeof room, 0);
    uint64_t came_us = now_us();
    if (received < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return false;
        return end_with_fault(stream, "recv: %s", strerror(errno));
    }
    uint32_t tokens_before = stream->tokens;
    if (received == 0)
        http_end(&stream->http);
    else if (take_input(stream, (struct bytes){room, (size_t)received}, came_us))
        return true;
    stream->token_receives += stream->tokens != tokens_before;
    if (stream->http.state >= HTTP_COMPLETE)
        return finish(stream);
    if (stream->hang_up_at_tokens && stream->tokens >= stream->hang_up_at_tokens) {
        stream_hang_up(stream);
        return true;
    }
    return false;
}

void stream_hang_up(struct stream *stream)
{
    stream->hung_up = true;
    end(stream);
}

void stream_give_up(struct stream *stream, const char *why)
{
    end_with_fault(stream, "%s", why);
}

uint32_t stream_lost(const struct stream *stream, uint32_t expected)
{
    uint32_t lost = 0;
    for (uint32_t number = 0; number < expected; number++)
        lost += stream->token_us[number] == 0;
    return lost;
}

void stream_free(struct stream *stream)
{
    free(stream->token_us);
    stream->token_us = NULL;
}

unsigned streams_serve(int epoll, int timeout_ms, void (*ended)(struct stream *))
{
    struct epoll_event ready[READY_MAX];
    unsigned over = 0;
    int count = epoll_wait(epoll, ready, READY_MAX, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct stream *stream = ready[i].data.ptr;
        if (!stream_ready(stream, epoll, ready[i].events))
            continue;
        over++;
        if (ended)
            ended(stream);
    }
    return over;
}
