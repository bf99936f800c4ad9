/*
 * A canary as the master runs it: begins on all workers at one moment, is looked at four times a
 * second, and ends in a promotion or in the old configuration.
 *
 *   prepared everywhere -> its share -- verdict --> everybody | nobody --> commit | abort
 *                              `------- a worker died, another reload, a drain ... --> abort
 *
 * The difficulty is that nobody may see both versions in turns: so the workers are told a moment
 * ahead when the share changes, and all of them are needed from the beginning to the end.
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

/* Returns when that is. */
static int64_t share(struct master *m, uint32_t before, uint32_t then)
{
        int64_t at = proc_now() + AHEAD;
        struct wire_canary said;

        memset(&said, 0, sizeof(said));
        memcpy(said.share.key, m->rollout.key, sizeof(said.share.key));
        said.share.before = trial_below(before);
        said.share.then = trial_below(then);
        said.share.at = at;
        children_tell(m, WIRE_CANARY, &said, sizeof(said));
        return at;
}

/* By now everybody has one version. */
static void carry_out(struct master *m, struct master_timer *t)
{
        char why[CANARY_REASON];

        (void)t;
        memcpy(why, m->rollout.note.reason, sizeof(why));
        if (m->rollout.verdict == CANARY_PROMOTE) {
                reload_promote(m, why);
                return;
        }
        m->rollout.rejected = true;
        reload_roll_back(m, why);
}

static void decide(struct master *m, enum canary_verdict v)
{
        struct board_canary *n = &m->rollout.note;
        char err[CANARY_REASON - 32] = "";

        if (v == CANARY_PROMOTE && !reload_prepare_promotion(m, err, sizeof(err))) {
                v = CANARY_BACK;
                snprintf(n->reason, sizeof(n->reason), "it cannot be promoted: %s", err);
        }
        m->rollout.verdict = v;
        (void)share(m, n->terms.share, v == CANARY_PROMOTE ? TRIAL_PARTS : 0);
        master_timer_set(m, &m->rollout.look, 2 * AHEAD, carry_out);
}

static void look(struct master *m, struct master_timer *t)
{
        struct board_canary *n = &m->rollout.note;
        enum canary_verdict v;

        count(m);
        v = canary_judge(&n->terms, n->sides, n->elapsed, n->elapsed >= n->terms.period, n->reason);
        board_put_canary(m->board, n);
        if (v == CANARY_WAIT)
                master_timer_set(m, t, LOOK, look);
        else
                decide(m, v);
}

static void gauge(struct master *m, uint32_t number)
{
        metric_set(metric_series(m->slot, METRIC_CANARY, STR("")), number);
}

void rollout_begin(struct master *m)
{
        struct rollout *r = &m->rollout;
        struct timespec now;
        char period[VALUE_TEXT];
        str text;

        m->reload.state = RELOAD_CANARY;
        r->verdict = CANARY_WAIT;
        clock_gettime(CLOCK_REALTIME, &now);
        r->note = (struct board_canary){.number = m->reload.number,
                                        .terms = m->reload.terms,
                                        .since = (int64_t)now.tv_sec * SEC + now.tv_nsec / 1000};
        r->from = share(m, 0, r->note.terms.share);
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
