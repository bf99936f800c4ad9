/*
 * Words that every file uses: attributes, container_of, counting.
 * Nothing here allocates or includes more than the freestanding headers.
 */
#ifndef BASE_DEFS_H
#define BASE_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK        __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define NORETURN          __attribute__((noreturn))
#define UNUSED            __attribute__((unused))
#define COLD              __attribute__((cold, noinline))
#define LIKELY(x)         __builtin_expect(!!(x), 1)
#define UNLIKELY(x)       __builtin_expect(!!(x), 0)

/* Out of its only caller, whose short way is to stay short. */
#define APART __attribute__((noinline))

#define COUNT(a)                     (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(p, type, field) ((type *)((char *)(p)-offsetof(type, field)))
#define MIN(a, b)                    ((a) < (b) ? (a) : (b))
#define MAX(a, b)                    ((a) > (b) ? (a) : (b))

/* Durations and clocks are microseconds in int64_t everywhere; 0 as a timeout means "off". */
#define MSEC INT64_C(1000)
#define SEC  INT64_C(1000000)

#define KIB ((size_t)1024)
#define MIB (KIB * 1024)

#endif
