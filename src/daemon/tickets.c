/*
 * Ticket keys, seen from the master.
 *
 *   own:    a new key every `rotate`             file: read every `check`, taken when it changed
 *   redis:  nothing; the fetcher does it
 *
 * The difficulty is a file that is just being written, or broken: what was good goes on, and it is
 * said once, not at every look.  Its bytes are keys of a fixed size; there is nothing to parse.
 */
#include "daemon/tickets.h"

#include "base/log.h"
#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of this process: what was last read, and what is known of it. */
static struct {
        char seen[TLS_TICKET_FILE_KEYS * TLS_TICKET_KEY_BYTES + 1];
        size_t n;
        bool bad;           /* and said so */
        int64_t load_at;    /* a staged key seals from then on; 0: none is */
        int64_t rotated_at; /* own keys: the last time; 0: at the start */
        bool shared;        /* what seals now did not come from weir alone */
} state;

static void look(struct master *m, struct master_timer *t);

static void count_rotation(struct master *m)
{
        metric_add(metric_series(m->slot, METRIC_TICKET_ROTATIONS, STR("")), 1);
}

/* How many bytes the file has, at most cap; -1: errno. */
static ssize_t read_file(const char *path, char *to, size_t cap)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;
        ssize_t n = -1;
        int saved;

        if (fd < 0)
                return -1;
        if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
                errno = EINVAL;
        else
                n = read(fd, to, cap);
        saved = errno;
        close(fd);
        errno = saved;
        return n;
}

static void complain(struct master *m, const char *what)
{
        master_count(m, METRIC_TICKET_FAILURES, "source", STR("file"));
        if (!state.bad)
                log_error("ticket_keys", "%s: %s; the last good keys go on",
                          m->plan->head->ticket_file, what);
        state.bad = true;
}

/* at_once: somebody asked for a reload and knows what he does. */
static void take_file(struct master *m, bool at_once)
{
        char now[sizeof(state.seen)];
        ssize_t n = read_file(m->plan->head->ticket_file, now, sizeof(now));
        enum tls_tickets_result r;
        bool same, due;

        if (n < 0) {
                complain(m, strerror(errno));
                return;
        }
        if (!tls_tickets_file_ok(str_of(now, (size_t)n))) {
                complain(m, "not 1 to 5 keys of 80 bytes");
                explicit_bzero(now, sizeof(now));
                return;
        }
        state.bad = false;
        same = (size_t)n == state.n && memcmp(now, state.seen, state.n) == 0;
        due = same && state.load_at != 0 && proc_now() >= state.load_at;
        if (same && !due && !at_once) {
                explicit_bzero(now, sizeof(now));
                return;
        }
        r = at_once || due ? tls_tickets_load(m->tickets, str_of(now, (size_t)n))
                           : tls_tickets_stage(m->tickets, str_of(now, (size_t)n));
        memcpy(state.seen, now, sizeof(now));
        state.n = (size_t)n;
        explicit_bzero(now, sizeof(now));
        state.load_at = r == TLS_TICKETS_STAGED ? proc_now() + 2 * m->plan->head->ticket_check : 0;
        if (!m->ready) /* nothing was sealed yet */
                return;
        if (r == TLS_TICKETS_ROTATED)
                count_rotation(m);
        if (r != TLS_TICKETS_KEPT)
                log_info("ticket_keys", "%s: %s", m->plan->head->ticket_file,
                         r == TLS_TICKETS_STAGED ? "a new key; it seals two checks from now"
                                                 : "another key seals");
}

static void rotate_own(struct master *m)
{
        int64_t now = proc_now(), rotate = m->plan->head->ticket_rotate;

        if (state.rotated_at == 0)
                state.rotated_at = now;
        if (now - state.rotated_at >= rotate || state.shared) {
                state.shared = false;
                tls_tickets_rotate(m->tickets);
                count_rotation(m);
                state.rotated_at = now;
        }
        master_timer_set(m, &m->rotate, state.rotated_at + rotate - now, look);
}

static void look(struct master *m, struct master_timer *t)
{
        if (m->plan->head->ticket_source == PLAN_TICKETS_FILE) {
                take_file(m, false);
                master_timer_set(m, t, m->plan->head->ticket_check, look);
        } else {
                rotate_own(m);
        }
}

void tickets_adopt(struct master *m)
{
        master_timer_clear(&m->rotate);
        switch ((enum plan_tickets)m->plan->head->ticket_source) {
        case PLAN_TICKETS_OWN:
                rotate_own(m);
                break;
        case PLAN_TICKETS_FILE:
                /* A reload that nobody asked for says nothing of the other machines. */
                take_file(m, !m->watch.ours);
                state.shared = true;
                master_timer_set(m, &m->rotate, m->plan->head->ticket_check, look);
                break;
        case PLAN_TICKETS_REDIS:
                state.shared = true;
                break;
        }
        if (m->plan->head->ticket_source != PLAN_TICKETS_FILE) {
                explicit_bzero(state.seen, sizeof(state.seen));
                state.n = 0;
                state.load_at = 0;
        }
}
