/*
 * A canary as the master runs it: begins on all workers at one moment, is looked at four times a
 * second, and ends in a promotion or in the old configuration.
 *
 *   prepared everywhere -> CANARY -- verdict, or the time is over --> commit | abort
 *                             `----- a worker died, another reload, a drain ... --> abort
 *
 * The difficulty is that nobody may see both versions in turns: so the workers are told when it
 * begins, a moment ahead, and it needs all of them from the beginning to the end.
 */
#include "daemon/master.h"

#include "base/crypto.h"
#include "base/log.h"
#include "conf/value.h"
#include "daemon/notify.h"
#include "daemon/proc.h"

#include <stdio.h>
#include <time.h>

#define LOOK  (250 * MSEC)
#define AHEAD (50 * MSEC)

void rollout_init(struct rollout *r)
{
        crypto_random(r->key, sizeof(r->key));
}

static void count(struct master *m)
{
        struct board_canary *n = &m->rollout.note;

        memset(n->sides, 0, sizeof(n->sides));
        for (unsigned i = 0; i < m->n_children; i++)
                board_counted(m->board, i, n->number, n->sides);
        n->elapsed = MAX(proc_now() - m->rollout.from, 0);
}

static void look(struct master *m, struct master_timer *t)
{
        struct board_canary *n = &m->rollout.note;
        char why[CANARY_REASON];

        count(m);
        switch (canary_judge(&n->terms, n->sides, n->elapsed, n->elapsed >= n->terms.period, why)) {
        case CANARY_WAIT:
                board_put_canary(m->board, n);
                master_timer_set(m, t, LOOK, look);
                return;
        case CANARY_PROMOTE:
                reload_promote(m, why);
                return;
        case CANARY_BACK:
                m->rollout.rejected = true;
                reload_roll_back(m, why);
                return;
        }
}

static void gauge(struct master *m, uint32_t number)
{
        metric_set(metric_series(m->slot, METRIC_CANARY, STR("")), number);
}

static void tell(struct master *m)
{
        struct wire_canary said;

        memset(&said, 0, sizeof(said));
        memcpy(said.share.key, m->rollout.key, sizeof(said.share.key));
        said.share.below = trial_below(m->reload.terms.share);
        said.share.from = m->rollout.from;
        children_tell(m, WIRE_CANARY, &said, sizeof(said));
}

void rollout_begin(struct master *m)
{
        struct rollout *r = &m->rollout;
        struct timespec now;
        char period[VALUE_TEXT];
        str text;

        m->reload.state = RELOAD_CANARY;
        clock_gettime(CLOCK_REALTIME, &now);
        r->from = proc_now() + AHEAD;
        r->note = (struct board_canary){.number = m->reload.number,
                                        .terms = m->reload.terms,
                                        .since = (int64_t)now.tv_sec * SEC + now.tv_nsec / 1000};
        tell(m);
        board_put_canary(m->board, &r->note);
        gauge(m, r->note.number);
        notify_ready(); /* a service manager does not wait for the verdict */
        text = value_time_text(r->note.terms.period, period);
        log_info("canary", "configuration %u gets %.4g %% of the clients for %.*s", r->note.number,
                 100.0 * r->note.terms.share / TRIAL_PARTS, STR_ARG(text));
        master_timer_set(m, &r->look, LOOK, look);
}

void rollout_end(struct master *m, enum canary_verdict v, const char *why)
{
        struct board_canary *n = &m->rollout.note;

        master_timer_clear(&m->rollout.look);
        count(m);
        n->over = true;
        n->verdict = v;
        snprintf(n->reason, sizeof(n->reason), "%s", why);
        board_put_canary(m->board, n);
        gauge(m, 0);
        if (v == CANARY_PROMOTE)
                log_info("canary", "configuration %u is promoted: %s", n->number, why);
        else
                log_error("canary", "configuration %u is rolled back: %s", n->number, why);
}
