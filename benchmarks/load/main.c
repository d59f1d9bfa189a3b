/* The load client of the benchmarks: one thread, one epoll, plain HTTP/1.1 to 127.0.0.1.
 *
 * It prints one JSON object on standard output; "mark begin" and "mark end" on standard error say
 * when its window begins and ends. Exit codes: 0 it ran, 2 usage, 3 it could not run. */
#include <stdio.h>
#include <string.h>

#include "loopback.h"
#include "modes.h"

static const struct {
    const char *name;
    int (*run)(const struct options *);
    const char *help;
} MODES[] = {
    {"steady", run_steady, "streams that all run at once, paced by the server"},
    {"burst", run_burst, "streams that begin at once, with bodies from a file"},
    {"churn", run_churn, "streams that begin, end and hang up at a rate"},
    {"closed", run_closed, "short requests, one after the other on each connection"},
    {"probe", run_probe, "short requests at a fixed rate"},
    {"idle", run_idle, "connections that do nothing"},
};

#define MODES_COUNT (sizeof MODES / sizeof *MODES)

static void print_help(FILE *to)
{
    fprintf(to, "usage: load MODE --port PORT [--name value]...\n\nmodes:\n");
    for (size_t i = 0; i < MODES_COUNT; i++)
        fprintf(to, "  %-8s %s\n", MODES[i].name, MODES[i].help);
    fprintf(to, "\noptions:\n");
    if (to == stdout)
        print_options();
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "--help") == 0) {
        print_help(stdout);
        return 0;
    }
    for (size_t i = 0; count > 1 && i < MODES_COUNT; i++)
        if (strcmp(arguments[1], MODES[i].name) == 0) {
            struct options options;
            read_options(&options, count - 2, arguments + 2);
            return MODES[i].run(&options);
        }
    print_help(stderr);
    return EXIT_USAGE;
}
