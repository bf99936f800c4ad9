/*
 * The error log.
 *
 * The difficulty: any thread logs at any time, also while the file is being reopened and also just
 * before an abort, so there is no lock.  A reopened file takes over the descriptor *number* of the
 * old one (dup3 is atomic), so a number that a thread has just read never points elsewhere.
 */
#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum log_level log_level = LOG_INFO;
void (*log_tap)(enum log_level level, str line);

static const char *const level_words[] = {"error", "warn", "info", "debug"};

enum { KIND_OTHER, KIND_FILE, KIND_SOCKET }; /* how not to block on it */

static _Atomic int target_fd = STDERR_FILENO;
static _Atomic int target_kind = KIND_OTHER;
static _Atomic uint64_t dropped;

static int kind_of(int fd)
{
        struct stat st;

        if (fstat(fd, &st) != 0)
                return KIND_OTHER;
        if (S_ISREG(st.st_mode))
                return KIND_FILE;
        return S_ISSOCK(st.st_mode) ? KIND_SOCKET : KIND_OTHER;
}

void log_to_fd(int fd, enum log_level level)
{
        int old = atomic_load(&target_fd), kind = kind_of(fd);

        __atomic_store_n(&log_level, level, __ATOMIC_RELAXED);
        if (fd == old) {
                atomic_store(&target_kind, kind);
                return;
        }
        /* While the two differ a thread may use the careful way on a file: harmless. */
        atomic_store(&target_kind, KIND_OTHER);
        if (old == STDERR_FILENO) {
                atomic_store(&target_fd, fd);
        } else {
                while (dup3(fd, old, O_CLOEXEC) < 0 && (errno == EINTR || errno == EBUSY))
                        ;
                if (fd != STDERR_FILENO)
                        close(fd);
        }
        atomic_store(&target_kind, kind);
}

bool log_is_stderr(void)
{
        return atomic_load(&target_fd) == STDERR_FILENO;
}

uint64_t log_dropped(void)
{
        return atomic_load_explicit(&dropped, memory_order_relaxed);
}

bool log_level_parse(str name, enum log_level *out)
{
        for (size_t i = 0; i < COUNT(level_words); i++) {
                if (str_eq(name, str_z(level_words[i]))) {
                        *out = (enum log_level)i;
                        return true;
                }
        }
        return false;
}

/* One write; false when it would block or failed. */
static bool put(const char *p, size_t n)
{
        int fd = atomic_load_explicit(&target_fd, memory_order_relaxed);
        int kind = atomic_load_explicit(&target_kind, memory_order_relaxed);
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        ssize_t r;

        do {
                r = -1;
                if (kind == KIND_SOCKET)
                        r = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                else if (kind == KIND_FILE ||
                         (poll(&poll_fd, 1, 0) == 1 && poll_fd.revents & POLLOUT))
                        r = write(fd, p, n);
                else if (errno != EINTR)
                        return false;
        } while (r < 0 && errno == EINTR);
        return r == (ssize_t)n;
}

/* RFC 3339, UTC, milliseconds: 24 bytes and a space.  Not by gmtime_r, which takes a lock. */
static size_t stamp(char *p, size_t cap)
{
        struct timespec ts;
        int64_t days, era, doe, yoe, doy, mp, year, secs;

        clock_gettime(CLOCK_REALTIME, &ts);
        days = ts.tv_sec / 86400 + 719468; /* since 0000-03-01, so that the leap day comes last */
        secs = ts.tv_sec % 86400;
        era = days / 146097;
        doe = days % 146097;
        yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
        doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        mp = (5 * doy + 2) / 153;
        year = yoe + era * 400 + (mp >= 10);
        return (size_t)snprintf(p, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ ", (int)year,
                                (int)(mp < 10 ? mp + 3 : mp - 9),
                                (int)(doy - (153 * mp + 2) / 5 + 1), (int)(secs / 3600),
                                (int)(secs / 60 % 60), (int)(secs % 60),
                                (int)(ts.tv_nsec / 1000000));
}

/* A line under construction: text[0..n), n <= LOG_LINE - 1 so that the newline fits. */
struct line {
        size_t n;
        bool cut;
        char text[LOG_LINE];
};

static void add_escaped(struct line *l, const char *p, size_t n)
{
        static const char hex[] = "0123456789abcdef";

        for (size_t i = 0; i < n && !l->cut; i++) {
                unsigned char c = (unsigned char)p[i];
                bool ctl = c < 0x20 || c == 0x7f;
                if (l->n + (ctl ? 4 : 1) > LOG_LINE - 1) {
                        l->cut = true;
                } else if (ctl) {
                        l->text[l->n++] = '\\';
                        l->text[l->n++] = 'x';
                        l->text[l->n++] = hex[c >> 4];
                        l->text[l->n++] = hex[c & 15];
                } else {
                        l->text[l->n++] = (char)c;
                }
        }
}

static void line_begin(struct line *l, enum log_level level, const char *subject)
{
        l->cut = false;
        l->n = stamp(l->text, sizeof(l->text));
        l->n += (size_t)snprintf(l->text + l->n, sizeof(l->text) - l->n, "%-5s ",
                                 level_words[level]);
        if (subject) {
                l->text[l->n++] = '[';
                add_escaped(l, subject, strnlen(subject, LOG_LINE / 4));
                l->text[l->n++] = ']';
                l->text[l->n++] = ' ';
        }
}

static void line_end(struct line *l, enum log_level level)
{
        if (l->cut) {
                l->n = MIN(l->n, (size_t)LOG_LINE - 4);
                memcpy(l->text + l->n, "...", 3);
                l->n += 3;
        }
        l->text[l->n] = '\n';
        if (!put(l->text, l->n + 1))
                atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
        if (log_tap)
                log_tap(level, str_of(l->text, l->n));
}

void log_vwrite(enum log_level level, const char *subject, const char *fmt, va_list ap)
{
        char raw[LOG_LINE];
        struct line l;
        int n;

        line_begin(&l, level, subject);
        n = vsnprintf(raw, sizeof(raw), fmt, ap);
        add_escaped(&l, raw, (size_t)MIN(MAX(n, 0), (int)sizeof(raw) - 1));
        line_end(&l, level);
}

static bool is_word(unsigned char c)
{
        return isalnum(c) || c == '_' || c == '-' || c == '.';
}

static bool is_bare(unsigned char c)
{
        return is_word(c) || (c != '\0' && strchr("/:@%+,", c) != NULL);
}

static void add_name(struct line *l, str name)
{
        add_escaped(l, " ", 1);
        for (size_t i = 0; i < name.n; i++)
                add_escaped(l, is_word((unsigned char)name.p[i]) ? name.p + i : "_", 1);
        add_escaped(l, "=", 1);
}

static void add_value(struct line *l, str value)
{
        bool bare = value.n > 0;

        for (size_t i = 0; bare && i < value.n; i++)
                bare = is_bare((unsigned char)value.p[i]);
        if (bare) {
                add_escaped(l, value.p, value.n);
                return;
        }
        add_escaped(l, "\"", 1);
        for (size_t i = 0; i < value.n && !l->cut; i++) {
                if (value.p[i] == '"' || value.p[i] == '\\')
                        add_escaped(l, "\\", 1);
                add_escaped(l, value.p + i, 1);
        }
        add_escaped(l, "\"", 1);
}

void log_write_fields(enum log_level level, const char *subject, str message,
                      const struct log_field *fields, size_t n)
{
        struct line l;

        line_begin(&l, level, subject);
        add_escaped(&l, message.p, message.n);
        for (size_t i = 0; i < n && !l.cut; i++) {
                if (fields[i].value.p == NULL)
                        continue;
                add_name(&l, fields[i].name);
                add_value(&l, fields[i].value);
        }
        line_end(&l, level);
}

void log_write(enum log_level level, const char *subject, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        log_vwrite(level, subject, fmt, ap);
        va_end(ap);
}

uint32_t log_quota_missed(struct log_quota *q)
{
        return __atomic_exchange_n(&q->dropped, 0, __ATOMIC_RELAXED);
}

/* Several threads may share a quota; what they lose to each other is a line more or less. */
static bool window_begins(struct log_quota *q)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
        if (__atomic_load_n(&q->window, __ATOMIC_RELAXED) == ts.tv_sec)
                return false;
        __atomic_store_n(&q->window, ts.tv_sec, __ATOMIC_RELAXED);
        __atomic_store_n(&q->used, 0, __ATOMIC_RELAXED);
        return true;
}

static bool quota_take(struct log_quota *q, uint32_t burst)
{
        if (__atomic_fetch_add(&q->used, 1, __ATOMIC_RELAXED) < burst)
                return true;
        __atomic_fetch_add(&q->dropped, 1, __ATOMIC_RELAXED);
        return false;
}

bool log_quota(struct log_quota *q, uint32_t burst)
{
        uint32_t missed = window_begins(q) ? log_quota_missed(q) : 0;

        if (missed)
                log_warn(NULL, "%u lines like the next one were left out", missed);
        return quota_take(q, burst);
}

bool log_quota_silent(struct log_quota *q, uint32_t burst)
{
        (void)window_begins(q);
        return quota_take(q, burst);
}
