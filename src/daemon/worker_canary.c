/*
 * A canary in a worker: what was prepared gets its share on every loop, and loses it again.
 *
 * The difficulty: both sides are read while the loops count.  So it is only looked at their tallies
 * once all loops have begun, and no longer when the end is on its way.
 */
#include "daemon/worker.h"

static bool begin_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        gen_trial_begin(w->preparing, l, &w->share);
        return true;
}

static void begun(struct worker *w, bool ok, void *arg)
{
        (void)ok, (void)arg;
        w->counting = true;
}

static bool share_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        gen_trial_share(w->preparing, l, &w->share);
        return true;
}

static void shared(struct worker *w, bool ok, void *arg)
{
        (void)w, (void)ok, (void)arg;
}

void worker_canary_share(struct worker *w, const struct wire_canary *c)
{
        bool first = !w->trial;

        if (!c || !w->preparing || !w->current)
                return;
        w->trial = true;
        w->share = c->share;
        worker_fan(w, first ? begin_on_loop : share_on_loop, first ? begun : shared, NULL);
}

static bool end_on_loop(struct worker *w, struct loop *l, void *arg)
{
        (void)arg;
        gen_trial_end(w->preparing, l);
        return true;
}

/* It goes away by itself, after its last request. */
static void ended(struct worker *w, bool ok, void *arg)
{
        (void)ok, (void)arg;
        w->preparing = NULL;
        w->trial = false;
        entrance_undo(w);
}

void worker_canary_end(struct worker *w)
{
        w->counting = false;
        worker_fan(w, end_on_loop, ended, NULL);
}

void worker_canary_count(struct worker *w)
{
        struct trial_sum sides[CANARY_SIDES];

        if (!w->counting)
                return;
        memset(sides, 0, sizeof(sides));
        for (unsigned i = 0; i < w->n_loops; i++) {
                trial_add(&sides[CANARY_OLD], w->current->per_loop[i].tally);
                trial_add(&sides[CANARY_NEW], w->preparing->per_loop[i].tally);
        }
        board_count(w->board, w->index, w->preparing->number, sides);
}
