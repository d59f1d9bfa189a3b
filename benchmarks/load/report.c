#include "report.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool has_fields;

static void name_field(const char *name)
{
    printf("%s\"%s\": ", has_fields ? ", " : "", name);
    has_fields = true;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (byte < 0x20 || byte > 0x7e)
            printf("\\u%04x", byte);
        else
            putchar(byte);
    }
    putchar('"');
}

void report_begin(void)
{
    has_fields = false;
    putchar('{');
}

void report_count(const char *name, uint64_t value)
{
    name_field(name);
    printf("%llu", (unsigned long long)value);
}

void report_number(const char *name, double value)
{
    name_field(name);
    if (isfinite(value))
        printf("%.6g", value);
    else
        printf("null");
}

void report_percentiles(const char *name, struct samples *samples)
{
    static const struct {
        double percent;
        const char *title;
    } asked[] = {{50, "p50"}, {95, "p95"}, {99, "p99"}, {100, "max"}};
    char field[64];
    samples_sort(samples);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        snprintf(field, sizeof field, "%s_%s_ms", name, asked[i].title);
        report_number(field, samples_percentile_ms(samples, asked[i].percent));
    }
}

void report_end(void)
{
    puts("}");
    fflush(stdout);
}

void faults_add(struct faults *faults, const char *what)
{
    unsigned at = 0;
    faults->count++;
    while (at < faults->kinds && strcmp(faults->kind[at].what, what) != 0)
        at++;
    if (at == FAULT_KINDS_MAX)
        at = FAULT_KINDS_MAX - 1;
    else if (at == faults->kinds) {
        const char *kept = at == FAULT_KINDS_MAX - 1 ? "others" : what;
        snprintf(faults->kind[at].what, FAULT_BYTES_MAX, "%s", kept);
        faults->kinds++;
    }
    faults->kind[at].count++;
}

void report_faults(const struct faults *faults)
{
    report_count("errors", faults->count);
    name_field("faults");
    putchar('{');
    for (unsigned at = 0; at < faults->kinds; at++) {
        printf("%s", at ? ", " : "");
        print_text(faults->kind[at].what);
        printf(": %llu", (unsigned long long)faults->kind[at].count);
    }
    putchar('}');
}
