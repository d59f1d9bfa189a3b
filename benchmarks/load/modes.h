/* The modes: each runs one kind of load, prints one report, and returns the exit code. */
#ifndef LOAD_MODES_H
#define LOAD_MODES_H

#include "options.h"

int run_steady(const struct options *options);
int run_burst(const struct options *options);
int run_churn(const struct options *options);
int run_closed(const struct options *options);
int run_probe(const struct options *options);
int run_idle(const struct options *options);

#endif
