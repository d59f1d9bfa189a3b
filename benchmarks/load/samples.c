#include "samples.h"

#include <math.h>
#include <stdlib.h>

#include "loopback.h"

void samples_add(struct samples *samples, uint64_t us)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 1024;
        samples->us = realloc(samples->us, samples->room * sizeof *samples->us);
        if (!samples->us)
            fail("no memory for %zu samples", samples->room);
    }
    samples->us[samples->count++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

void samples_sort(struct samples *samples)
{
    if (samples->count)
        qsort(samples->us, samples->count, sizeof *samples->us, compare);
}

double samples_percentile_ms(const struct samples *samples, double percent)
{
    if (samples->count == 0)
        return NAN;
    size_t rank = (size_t)ceil((double)samples->count * percent / 100);
    return samples->us[rank ? rank - 1 : 0] / 1000.0;
}

void samples_free(struct samples *samples)
{
    free(samples->us);
    *samples = (struct samples){0};
}
