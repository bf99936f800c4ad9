/*
 * The watchdog: the control thread looks whether the loops turn.
 *
 *   without a beat, outside of epoll_wait
 *   100 ms   counted and logged with the function's name; a loop that turns serves its sockets
 *   1 s      logged with its stack
 *   10 s     abort on that very thread, so that the core shows the culprit
 *
 * The difficulty is not to cry wolf: two looks in a row must agree, and when this thread itself
 * comes late (a stopped or starved machine) it believes nothing.
 */
#include "daemon/worker.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK       (50 * MSEC)
#define LATE       (2 * LOOK) /* between two looks: this thread was not scheduled */
#define STALL      (100 * MSEC)
#define DUMP_AFTER SEC
#define KILL_AFTER (10 * SEC)

/* What was seen of one loop. */
struct watched {
        uint64_t beat;
        int64_t since; /* loop time of the first look at which it stood still; 0: it turns */
        bool stalled;  /* counted and logged */
        bool asked;    /* for its stack */
        bool dumped;   /* and that was logged */
        bool aborted;  /* that was logged */
        struct loop *adopter;
};

struct watchdog {
        struct worker *w;
        struct deadline look;
        int64_t looked;
        struct watched loops[];
};

/* A request to a loop that turns: accept for another, or stop doing so. */
struct favour {
        struct loop_msg msg;
        struct worker *w;
        unsigned other;
};

static void adopt_on_loop(struct loop_msg *msg)
{
        struct favour *f = CONTAINER_OF(msg, struct favour, msg);

        entrance_adopt(f->w, loop_self, entrance_place(f->w, f->w->index, f->other), true);
        free(f);
}

static void return_on_loop(struct loop_msg *msg)
{
        struct favour *f = CONTAINER_OF(msg, struct favour, msg);

        entrance_return(f->w, loop_self, entrance_place(f->w, f->w->index, f->other));
        free(f);
}

static void ask(struct watchdog *d, unsigned other, void (*fn)(struct loop_msg *))
{
        struct favour *f = calloc(1, sizeof(*f));

        CHECK(f);
        f->w = d->w;
        f->other = other;
        f->msg.fn = fn;
        loop_post(d->loops[other].adopter, &f->msg);
}

static void find_adopter(struct watchdog *d, unsigned other)
{
        struct watched *v = &d->loops[other];

        for (unsigned i = 1; i < d->w->n_loops && !v->adopter; i++) {
                unsigned k = (other + i) % d->w->n_loops;
                if (d->loops[k].since == 0)
                        v->adopter = d->w->loops[k];
        }
        if (v->adopter)
                ask(d, other, adopt_on_loop);
}

/* Where a loop is.  What has the names is freed by this very thread, later. */
static void put_place(struct watchdog *d, unsigned i, char place[BOARD_PLACE])
{
        struct board_word w;

        (void)board_where(d->w->board, d->w->index, i, &w);
        board_put_place(&w, place);
}

static void say_stalled(struct watchdog *d, unsigned i)
{
        char place[BOARD_PLACE];

        put_place(d, i, place);
        metric_add(metric_series(d->w->house.control->metrics, METRIC_STALLS, STR("")), 1);
        log_warn("watchdog", "loop %u of worker %u does not turn: %s", i, d->w->index, place);
}

static void say_stack(struct watchdog *d, unsigned i, struct crumb *c)
{
        char place[BOARD_PLACE];
        struct buf b = BUF_INIT;
        str text;

        put_place(d, i, place);
        for (size_t k = 0; k < COUNT(c->frames); k++) {
                uint64_t address = atomic_load(&c->frames[k]);
                if (address == 0)
                        break;
                buf_puts(&b, k > 0 ? STR(" < ") : STR(""));
                module_put_place(&b, (const void *)(uintptr_t)address);
        }
        text = buf_pullup(&b, b.n);
        log_warn("watchdog", "loop %u of worker %u has not turned for %d s: %s; it is in %.*s", i,
                 d->w->index, (int)(DUMP_AFTER / SEC), place, STR_ARG(text));
        buf_clear(&b);
}

static void kill_on(struct watchdog *d, unsigned i, struct crumb *c)
{
        char place[BOARD_PLACE];

        if (!d->loops[i].aborted) { /* else it is busy with its core */
                put_place(d, i, place);
                log_error("watchdog",
                          "loop %u of worker %u has not turned for %d s: %s; the worker is aborted",
                          i, d->w->index, (int)(KILL_AFTER / SEC), place);
        }
        d->loops[i].aborted = true;
        syscall(SYS_tgkill, getpid(), (pid_t)atomic_load(&c->tid), SIGABRT);
}

static void turns(struct watchdog *d, unsigned i)
{
        struct watched *v = &d->loops[i];

        if (v->stalled)
                log_info("watchdog", "loop %u of worker %u turns again", i, d->w->index);
        if (v->adopter)
                ask(d, i, return_on_loop);
        v->adopter = NULL;
        v->stalled = v->asked = v->dumped = v->aborted = false;
        v->since = 0;
}

static void look_at(struct watchdog *d, unsigned i, int64_t now)
{
        struct crumb *c = board_crumb(d->w->board, d->w->index, i);
        struct watched *v = &d->loops[i];
        uint64_t beat = atomic_load_explicit(&c->beat, memory_order_relaxed);

        if (beat != v->beat || atomic_load_explicit(&c->waiting, memory_order_relaxed) ||
            beat == 0) {
                v->beat = beat;
                turns(d, i);
                return;
        }
        if (v->since == 0) {
                v->since = now;
                return;
        }
        if (now - v->since >= STALL && !v->stalled) {
                v->stalled = true;
                say_stalled(d, i);
                find_adopter(d, i);
        }
        if (v->asked && !v->dumped && atomic_load(&c->frames[0]) != 0) {
                v->dumped = true;
                say_stack(d, i, c);
        }
        if (now - v->since >= DUMP_AFTER && !v->asked) {
                v->asked = true;
                crumb_ask_dump(c);
        }
        if (now - v->since >= KILL_AFTER)
                kill_on(d, i, c);
}

static void look(struct deadline *deadline)
{
        struct watchdog *d = CONTAINER_OF(deadline, struct watchdog, look);
        int64_t now = d->w->house.control->now;
        bool late = d->looked != 0 && now - d->looked > LATE;

        for (unsigned i = 0; i < d->w->n_loops; i++) {
                if (late && !d->loops[i].stalled)
                        d->loops[i].since = 0;
                look_at(d, i, now);
        }
        d->looked = now;
        export_news(d->w);
        deadline_set(d->w->house.control, &d->look, LOOK, look);
}

struct watchdog *watchdog_new(struct worker *w)
{
        struct watchdog *d = calloc(1, sizeof(*d) + w->n_loops * sizeof(d->loops[0]));

        CHECK(d);
        d->w = w;
        deadline_set(w->house.control, &d->look, LOOK, look);
        return d;
}
