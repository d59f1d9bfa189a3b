/* The result: one JSON object on standard output, written field by field. */
#ifndef LOAD_REPORT_H
#define LOAD_REPORT_H

#include <stdint.h>

#include "samples.h"

void report_begin(void);
void report_count(const char *name, uint64_t value);
void report_number(const char *name, double value); /* null when it is not finite */

/* `NAME_p50_ms`, `_p95_ms`, `_p99_ms` and `_max_ms`. Sorts the samples. */
void report_percentiles(const char *name, struct samples *samples);

void report_end(void);

/* What went wrong, each kind with its count; kinds beyond the first few are put together. */
#define FAULT_KINDS_MAX 8
#define FAULT_BYTES_MAX 160

struct faults {
    uint64_t count;
    unsigned kinds;
    struct {
        uint64_t count;
        char what[FAULT_BYTES_MAX];
    } kind[FAULT_KINDS_MAX];
};

void faults_add(struct faults *faults, const char *what);
void report_faults(const struct faults *faults); /* as `errors` and `faults` */

#endif
