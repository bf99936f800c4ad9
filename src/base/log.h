/*
 * The error log: one line per event, each about an object, never blocking for long.
 *
 *     2026-11-23T10:00:00.123Z warn  [upstream users] server 10.0.0.1:8080 is down: connect timeout
 *
 * A line is built on the stack (at most LOG_LINE bytes, cut with "...") and written with one
 * write(2).  Control bytes of input are escaped as \xHH.  Thread-safe.  Writing to a file that
 * would block (a full pipe) drops the line and counts it.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/str.h"

#include <stdarg.h>

#define LOG_LINE 2048

enum log_level { LOG_NONE = -1, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

extern enum log_level log_level; /* lines above it are not built; set by log_to_fd, at any time */

void log_to_fd(int fd,
               enum log_level level); /* takes fd over (not 2); atomically replaces the old one */
bool log_level_parse(str name, enum log_level *out); /* error warn info debug */

/* subject: what the line is about, e.g. "upstream users" or "client 10.0.0.1:4711"; NULL: none. */
void log_write(enum log_level level, const char *subject, const char *fmt, ...) PRINTF_LIKE(3, 4);
void log_vwrite(enum log_level level, const char *subject, const char *fmt, va_list ap);

/* A message, and behind it what is known by name, for programs that read the log:
 *     ... the token was refused reason=expired issuer="https://id.example/\"a\""
 * A name's bytes other than letters, digits and _ - . become _.  A value stands in quotes, with \"
 * and
 * \\ for these two, unless it is all letters, digits and _ - . / : @ % + ,  An absent one is left
 * out. */
struct log_field {
        str name, value;
};
void log_write_fields(enum log_level level, const char *subject, str message,
                      const struct log_field *fields, size_t n);

static inline bool log_wants(enum log_level level) /* lines of this level are built; any thread */
{
        return (int)level <= (int)__atomic_load_n(&log_level, __ATOMIC_RELAXED);
}

#define LOG(level, subject, ...)                                                                   \
        do {                                                                                       \
                if (log_wants(level))                                                              \
                        log_write((level), (subject), __VA_ARGS__);                                \
        } while (0)
#define log_error(subject, ...) LOG(LOG_ERROR, subject, __VA_ARGS__)
#define log_warn(subject, ...)  LOG(LOG_WARN, subject, __VA_ARGS__)
#define log_info(subject, ...)  LOG(LOG_INFO, subject, __VA_ARGS__)
#define log_debug(subject, ...) LOG(LOG_DEBUG, subject, __VA_ARGS__)

/* Allows `burst` lines of one kind per second, then says how many were left out:
 *     static struct log_quota q;  if (log_quota(&q, 10)) log_warn(...);            */
struct log_quota {
        int64_t window;
        uint32_t used, dropped;
};
bool log_quota(struct log_quota *q, uint32_t burst);
/* The same without a word: whoever asks also says, later, how many were left out since then. */
bool log_quota_silent(struct log_quota *q, uint32_t burst);
uint32_t log_quota_missed(struct log_quota *q); /* and begins to count anew */

uint64_t log_dropped(void); /* lines that could not be written, since the process began */
bool log_is_stderr(void);   /* nothing else was given by log_to_fd yet */

/* A copy of every line (without its newline) goes here too when set (used by the checker to hand
 * its report over). */
extern void (*log_tap)(enum log_level level, str line);

#endif
