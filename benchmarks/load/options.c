#include "options.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loopback.h"

enum kind { COUNT, NUMBER, TEXT, SWITCH };

struct option {
    const char *name;
    enum kind kind;
    size_t at;
    double least, most;
    const char *help;
};

#define AT(field) offsetof(struct options, field)

static const struct option OPTIONS[] = {
    {"port", COUNT, AT(port), 1, 65535, "of the server, on 127.0.0.1"},
    {"streams", COUNT, AT(streams), 1, 30000, "steady: streams; churn: open at once, at most"},
    {"connections", COUNT, AT(connections), 1, 30000, "closed, probe, idle: kept connections"},
    {"tokens-per-s", NUMBER, AT(tokens_per_s), 0.01, 10000, "steady: pace of each stream"},
    {"ramp-s", NUMBER, AT(ramp_s), 0, 600, "steady: all streams are begun in it"},
    {"measure-s", NUMBER, AT(measure_s), 0.1, 600, "steady, closed: the window"},
    {"hang-up", SWITCH, AT(hang_up), 0, 0, "steady: end the streams after the window"},
    {"begins-per-s", NUMBER, AT(begins_per_s), 0.01, 10000, "churn: streams begun"},
    {"tokens-min", COUNT, AT(tokens_min), 1, 100000, "churn: of a stream, at least"},
    {"tokens-max", COUNT, AT(tokens_max), 1, 100000, "churn: of a stream, at most"},
    {"hang-up-part", NUMBER, AT(hang_up_part), 0, 1, "churn: streams hung up in the middle"},
    {"seed", COUNT, AT(seed), 0, 1e9, "churn: of the lengths that are drawn"},
    {"run-s", NUMBER, AT(run_s), 0.1, 3600, "churn, probe: how long"},
    {"probes-per-s", NUMBER, AT(probes_per_s), 0.1, 10000, "probe: at this fixed rate"},
    {"warm-s", NUMBER, AT(warm_s), 0, 60, "closed: before the window"},
    {"hold-s", NUMBER, AT(hold_s), 0.1, 600, "idle: how long connections are held"},
    {"timeout-s", NUMBER, AT(timeout_s), 0.1, 600, "burst: in all; closed: for the last answers"},
    {"model", TEXT, AT(model), 0, 0, "steady, churn: asked for"},
    {"path", TEXT, AT(path), 0, 0, "of the requests"},
    {"body", TEXT, AT(body), 0, 0, "closed, probe: POST this instead of GET"},
    {"bodies", TEXT, AT(bodies), 0, 0, "burst: a file with one body a line"},
};

#define OPTIONS_COUNT (sizeof OPTIONS / sizeof *OPTIONS)

static _Noreturn void refuse(const char *name, const char *why)
{
    fprintf(stderr, "load: --%s %s; see load --help\n", name, why);
    exit(EXIT_USAGE);
}

static const struct option *find(const char *argument)
{
    for (size_t i = 0; i < OPTIONS_COUNT; i++)
        if (strncmp(argument, "--", 2) == 0 && strcmp(argument + 2, OPTIONS[i].name) == 0)
            return &OPTIONS[i];
    fprintf(stderr, "load: there is no option %s; see load --help\n", argument);
    exit(EXIT_USAGE);
}

static void set_number(struct options *options, const struct option *option, const char *value)
{
    char why[80], *end;
    double number = strtod(value, &end);
    bool is_whole = option->kind == NUMBER || number == floor(number);
    if (end == value || *end || !(number >= option->least && number <= option->most) || !is_whole) {
        snprintf(why, sizeof why, "must be %s from %g to %g",
                 option->kind == COUNT ? "a whole number" : "a number", option->least,
                 option->most);
        refuse(option->name, why);
    }
    char *target = (char *)options + option->at;
    if (option->at == AT(port))
        options->port = (uint16_t)number;
    else if (option->kind == COUNT)
        *(unsigned *)(void *)target = (unsigned)number;
    else
        *(double *)(void *)target = number;
}

void read_options(struct options *options, int count, char **arguments)
{
    *options = (struct options){
        .streams = 100, .connections = 64, .tokens_per_s = 20, .ramp_s = 1, .measure_s = 5,
        .begins_per_s = 20, .tokens_min = 10, .tokens_max = 100, .hang_up_part = 0.25, .seed = 1,
        .run_s = 10, .probes_per_s = 100, .warm_s = 1, .hold_s = 3, .timeout_s = 10,
        .model = "synthetic", .path = "/v1/chat/completions",
    };
    for (int i = 0; i < count; i++) {
        const struct option *option = find(arguments[i]);
        void *target = (char *)options + option->at;
        if (option->kind == SWITCH) {
            *(bool *)target = true;
            continue;
        }
        if (++i == count)
            refuse(option->name, "needs a value");
        if (option->kind == TEXT)
            *(const char **)target = arguments[i];
        else
            set_number(options, option, arguments[i]);
    }
    if (options->port == 0)
        refuse("port", "must be given");
    if (options->tokens_min > options->tokens_max)
        refuse("tokens-min", "must not be above --tokens-max");
}

void print_options(void)
{
    for (size_t i = 0; i < OPTIONS_COUNT; i++)
        printf("  --%-14s %s\n", OPTIONS[i].name, OPTIONS[i].help);
}
