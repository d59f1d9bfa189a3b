/* What many streams came to, together. */
#ifndef LOAD_TALLY_H
#define LOAD_TALLY_H

#include "stream.h"

struct tally {
    uint64_t streams, whole, hung_up;
    uint64_t tokens, lost, duplicated;
    uint64_t token_events, token_chunks, token_receives, body_bytes;
    struct samples first_event; /* from the begin of the connect */
    struct samples first_token;
    struct faults faults;
};

/* Add a stream that is over. Of one that was hung up, tokens count as lost only before its last. */
void tally_add(struct tally *tally, const struct stream *stream);

void tally_report(struct tally *tally);
void tally_free(struct tally *tally);

#endif
