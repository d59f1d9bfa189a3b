/* Sockets to 127.0.0.1, the clock, descriptors, and how the program gives up. */
#ifndef LOAD_LOOPBACK_H
#define LOAD_LOOPBACK_H

#include <stdint.h>

#include "http.h"

/* Exit codes: 1 is left to the benchmarks, for a result that is not whole. */
#define EXIT_USAGE 2
#define EXIT_BROKEN 3

/* Say why on standard error, and end the program. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_us(void);     /* of the monotonic clock */
uint64_t own_cpu_us(void); /* CPU time of this process */

/* Raise the limit of open descriptors, if it must be; fail where the system forbids it. */
void allow_descriptors(uint64_t wanted);

/* Begin to connect. Returns the descriptor, or -1 with errno. */
int connect_loopback(uint16_t port);

/* Send a small request whole. Returns 0, or the errno; EMSGSIZE when the kernel took a part. */
int send_whole(int descriptor, struct bytes request);

/* Write a whole request of HTTP/1.1 into `room`: a POST when there is a body, else a GET. */
struct bytes write_request(char *room, size_t size, uint16_t port, const char *path,
                           const char *body);

/* The body of a streamed chat completion that asks an engine without a model to count. */
void write_count_body(char *room, size_t size, const char *model, uint32_t tokens);

/* Tell the program that started this one where the run is: one line on standard error. */
void tell_mark(const char *name);

#endif
