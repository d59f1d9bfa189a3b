#include "tally.h"

void tally_add(struct tally *tally, const struct stream *stream)
{
    tally->streams++;
    tally->whole += stream->is_whole;
    tally->hung_up += stream->hung_up;
    tally->tokens += stream->tokens;
    tally->duplicated += stream->duplicated;
    if (stream->token_us)
        tally->lost +=
            stream_lost(stream, stream->hung_up ? stream->next_token : stream->tokens_expected);
    tally->token_events += stream->token_events;
    tally->token_chunks += stream->token_chunks;
    tally->token_receives += stream->token_receives;
    tally->body_bytes += stream->body_bytes;
    if (stream->first_event_us)
        samples_add(&tally->first_event, stream->first_event_us - stream->begun_us);
    if (stream->token_us && stream->token_us[0])
        samples_add(&tally->first_token, stream->token_us[0] - 1);
    if (stream->fault[0])
        faults_add(&tally->faults, stream->fault);
}

static double ratio(uint64_t part, uint64_t whole)
{
    return (double)part / (double)whole; /* NaN of nothing, which is reported as null */
}

void tally_report(struct tally *tally)
{
    report_count("streams", tally->streams);
    report_count("whole", tally->whole);
    report_count("hung_up", tally->hung_up);
    report_count("tokens", tally->tokens);
    report_count("lost", tally->lost);
    report_count("duplicated", tally->duplicated);
    report_faults(&tally->faults);
    report_percentiles("first_chunk", &tally->first_event);
    report_percentiles("first_token", &tally->first_token);
    report_number("tokens_per_event", ratio(tally->tokens, tally->token_events));
    report_number("tokens_per_chunk", ratio(tally->tokens, tally->token_chunks));
    report_number("tokens_per_receive", ratio(tally->tokens, tally->token_receives));
    report_number("bytes_per_token", ratio(tally->body_bytes, tally->tokens));
}

void tally_free(struct tally *tally)
{
    samples_free(&tally->first_event);
    samples_free(&tally->first_token);
}
