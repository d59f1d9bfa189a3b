/* Durations that were measured, kept whole: a percentile is one of them, never an estimate. */
#ifndef LOAD_SAMPLES_H
#define LOAD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct samples {
    uint32_t *us;
    size_t count;
    size_t room;
};

void samples_add(struct samples *samples, uint64_t us);

/* After this, percentiles may be asked for. */
void samples_sort(struct samples *samples);

/* In milliseconds: the smallest sample that is not below `percent` of them; NaN of none. */
double samples_percentile_ms(const struct samples *samples, double percent);

void samples_free(struct samples *samples);

#endif
