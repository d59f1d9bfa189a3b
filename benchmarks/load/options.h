/* The command line: a mode, then --name value pairs, each within its limits. */
#ifndef LOAD_OPTIONS_H
#define LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
    uint16_t port;
    unsigned streams, connections, tokens_min, tokens_max, seed;
    double tokens_per_s, begins_per_s, probes_per_s;
    double ramp_s, warm_s, measure_s, run_s, hold_s, timeout_s, hang_up_part;
    bool hang_up;
    const char *model, *path, *body, *bodies;
};

/* Read what follows the mode. Ends the program with a message when something is wrong. */
void read_options(struct options *options, int count, char **arguments);

void print_options(void);

#endif
