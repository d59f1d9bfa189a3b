#include "events.h"

#include <stdlib.h>
#include <string.h>

void events_begin(struct events *events)
{
    events->length = 0;
    events->is_used = false;
}

static void skip(struct bytes *input, size_t length)
{
    input->at += length;
    input->length -= length;
}

static bool begins_with(struct bytes text, const char *prefix)
{
    size_t length = strlen(prefix);
    return text.length >= length && memcmp(text.at, prefix, length) == 0;
}

/* What stands behind `"name":`, or NULL. */
static const char *field(struct bytes payload, const char *name)
{
    size_t length = strlen(name);
    const char *end = payload.at + payload.length;
    const char *at = memmem(payload.at, payload.length, name, length);
    if (!at)
        return NULL;
    for (at += length; at < end && *at == ' '; at++) {
    }
    return at < end ? at : NULL;
}

static struct bytes text_field(struct bytes payload, const char *name)
{
    struct bytes none = {NULL, 0};
    const char *at = field(payload, name);
    if (!at || *at != '"')
        return none;
    at++;
    const char *end = memchr(at, '"', (size_t)(payload.at + payload.length - at));
    if (!end)
        return none;
    return (struct bytes){at, (size_t)(end - at)};
}

static void read_payload(struct event *event)
{
    struct bytes payload = event->payload;
    if (payload.length == 6 && begins_with(payload, "[DONE]")) {
        event->kind = EVENT_DONE;
        return;
    }
    if (!begins_with(payload, "{") || payload.at[payload.length - 1] != '}') {
        event->kind = EVENT_BAD;
        return;
    }
    if (field(payload, "\"error\":")) {
        event->kind = EVENT_ERROR;
        return;
    }
    event->kind = EVENT_CHUNK;
    event->content = text_field(payload, "\"content\":");
    event->finish = text_field(payload, "\"finish_reason\":");
    const char *usage = field(payload, "\"completion_tokens\":");
    /* The payload ends with a brace, where a number stops at the latest. */
    event->usage_tokens = usage ? strtol(usage, NULL, 10) : -1;
}

/* An event is lines; the one that counts begins with "data:". */
static void read_event(struct bytes text, struct event *event)
{
    *event = (struct event){.kind = EVENT_COMMENT, .payload = text, .usage_tokens = -1};
    bool is_error = false;
    while (text.length) {
        const char *end = memchr(text.at, '\n', text.length);
        struct bytes line = {text.at, end ? (size_t)(end - text.at) : text.length};
        skip(&text, end ? line.length + 1 : line.length);
        if (begins_with(line, "data:")) {
            skip(&line, begins_with(line, "data: ") ? 6 : 5);
            event->payload = line;
            read_payload(event);
        } else if (begins_with(line, "event: error")) {
            is_error = true;
        } else if (line.length && line.at[0] != ':') {
            event->kind = EVENT_BAD;
            return;
        }
    }
    if (is_error)
        event->kind = EVENT_ERROR;
}

/* Put another piece to the event that had begun. Returns whether that made it whole. */
static bool complete_partial(struct events *events, struct bytes *input, struct event *event)
{
    size_t before = events->length, room = EVENT_BYTES_MAX - before;
    size_t taken = input->length < room ? input->length : room;
    memcpy(events->partial + before, input->at, taken);
    size_t from = before ? before - 1 : 0;
    const char *end = memmem(events->partial + from, before + taken - from, "\n\n", 2);
    if (end) {
        size_t length = (size_t)(end - events->partial);
        skip(input, length + 2 - before);
        read_event((struct bytes){events->partial, length}, event);
        events->is_used = true;
        return true;
    }
    skip(input, taken);
    events->length = before + taken;
    if (events->length < EVENT_BYTES_MAX)
        return false;
    *event = (struct event){.kind = EVENT_BAD, .payload = {events->partial, 40}};
    events->is_used = true;
    return true;
}

bool events_next(struct events *events, struct bytes *input, struct event *event)
{
    if (events->is_used)
        events_begin(events);
    if (input->length == 0)
        return false;
    if (events->length == 0) {
        const char *end = memmem(input->at, input->length, "\n\n", 2);
        if (end) {
            struct bytes text = {input->at, (size_t)(end - input->at)};
            skip(input, text.length + 2);
            read_event(text, event);
            return true;
        }
    }
    return complete_partial(events, input, event);
}
