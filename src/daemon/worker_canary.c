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
        gen_trial_begin(w->preparing, l);
        return true;
}

static void begun(struct worker *w, bool ok, void *arg)
{
        (void)ok, (void)arg;
        w->counting = true;
}

void worker_canary_begin(struct worker *w, const struct wire_canary *c)
{
        if (!c || !w->preparing || !w->current || w->trial)
                return;
        w->trial = true;
        w->preparing->share = c->share;
        worker_fan(w, begin_on_loop, begun, NULL);
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
