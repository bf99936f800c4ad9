/*
 * One thread, one event_base: waiting, deadlines, tasks, messages from other threads.
 *
 *    one turn:  tasks -> wait (epoll) -> callbacks of what is ready: sockets, inbox, timer
 *
 * The difficulty is that libevent goes from waiting straight into the callbacks, so there is no
 * place to read the clock once for all of them: the first callback of a turn does it (loop_woke).
 *
 * Deadlines of one timeout form a list that is in order by itself, because now never goes back:
 * arming is a move to the tail, expiry a look at the heads.  One libevent timer stands at the
 * earliest head ever armed; heads that have moved on since cost one wake-up each time the timer
 * comes round, not one timer operation per I/O.
 */
#include "net/loop.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/crumb.h"
#include "base/log.h"
#include "base/page.h"
#include "base/slab.h"

#include <errno.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

_Thread_local struct loop *loop_self;

#define TICK        (5 * MSEC)
#define TICKS_MAX   ((int64_t)1 << 36) /* ten years: longer timeouts are cut to it */
#define TRIM        SEC
#define TRIM_BYTES  (32 * KIB)
#define TRIM_REST   (4 * KIB)
#define EXACT       64             /* lists for exact timeouts */
#define COARSE      (32 + 32 * 16) /* lists for timeouts rounded up to five significant bits */
#define WALL_REREAD (100 * MSEC)

/* Treiber stack of messages; the loop takes all at once and turns them round.  Only the push onto
 * an empty stack writes to the eventfd, which is edge-triggered and never read. */
struct loop_inbox {
        _Atomic(struct loop_msg *) top;
        struct event ev;
        int fd;
};

/* Invariant: each list is sorted by at; timer_at is never later than the earliest at (outside of a
 * sweep). */
struct loop_timeouts {
        struct event timer;
        int64_t timer_at; /* INT64_MAX: not set */
        bool sweeping;
        bool coarse_used;
        unsigned n;
        int64_t ticks[EXACT];
        struct list exact[EXACT];
        struct list coarse[COARSE];
};

/* ---- clock ---- */

int64_t loop_clock(clockid_t id)
{
        struct timespec ts;

        clock_gettime(id, &ts);
        return (int64_t)ts.tv_sec * SEC + ts.tv_nsec / 1000;
}

/* The distance of the two clocks; read again where the thread lost the CPU in between. */
static void read_wall(struct loop *l)
{
        for (int tries = 0; tries < 3; tries++) {
                int64_t wall = loop_clock(CLOCK_REALTIME), after = loop_clock(CLOCK_MONOTONIC);
                int64_t took = after - l->now;

                l->wall_offset = wall - after;
                l->wall_read = l->now = after;
                if (took < MSEC)
                        return;
        }
}

void loop_begin_turn_(struct loop *l)
{
        l->now = loop_clock(CLOCK_MONOTONIC);
        if (l->now - l->wall_read >= WALL_REREAD)
                read_wall(l);
        l->wall = l->now + l->wall_offset;
        l->awake = true;
        atomic_store_explicit(&crumb_self->waiting, 0, memory_order_relaxed);
        atomic_store_explicit(&crumb_self->beat,
                              atomic_load_explicit(&crumb_self->beat, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

/* ---- deadlines ---- */

static void timer_set(struct loop *l, int64_t at)
{
        int64_t in = MAX(at - l->now, MSEC);
        struct timeval tv = {.tv_sec = (time_t)(in / SEC), .tv_usec = (suseconds_t)(in % SEC)};

        l->timeouts->timer_at = at;
        CHECK(event_add(&l->timeouts->timer, &tv) == 0);
}

/* The list for exactly this timeout; NULL when all are taken by others that are in use. */
static struct list *exact_list(struct loop_timeouts *t, int64_t ticks)
{
        for (unsigned i = 0; i < t->n; i++)
                if (t->ticks[i] == ticks)
                        return &t->exact[i];
        if (t->n < EXACT) {
                t->ticks[t->n] = ticks;
                return &t->exact[t->n++];
        }
        for (unsigned i = 0; i < t->n; i++) {
                if (list_empty(&t->exact[i])) {
                        t->ticks[i] = ticks;
                        return &t->exact[i];
                }
        }
        return NULL;
}

/* The list for *ticks rounded up to five significant bits, so that there are few of them. */
static struct list *coarse_list(struct loop_timeouts *t, int64_t *ticks)
{
        int shift;
        int64_t m;

        t->coarse_used = true;
        if (*ticks < 32)
                return &t->coarse[*ticks];
        shift = 63 - __builtin_clzll((unsigned long long)*ticks) - 4;
        m = (*ticks + ((int64_t)1 << shift) - 1) >> shift;
        if (m == 32) {
                m = 16;
                shift++;
        }
        *ticks = m << shift;
        return &t->coarse[32 + (shift - 1) * 16 + (m - 16)];
}

static int64_t round_up(int64_t us)
{
        return (us + TICK - 1) / TICK * TICK;
}

void deadline_set(struct loop *l, struct deadline *d, int64_t timeout_us,
                  void (*fn)(struct deadline *))
{
        struct loop_timeouts *t = l->timeouts;
        struct list *h;
        int64_t ticks;

        if (timeout_us <= 0) {
                deadline_clear(d);
                return;
        }
        ticks = MIN((timeout_us - 1) / TICK + 1, TICKS_MAX);
        d->fn = fn;
        /* In whichever list it is, it stands where it must. */
        if (list_linked(&d->link) && d->at == round_up(l->now + ticks * TICK))
                return;
        deadline_clear(d);
        h = exact_list(t, ticks);
        if (UNLIKELY(h == NULL))
                h = coarse_list(t, &ticks);
        d->at = round_up(l->now + ticks * TICK);
        list_push(h, &d->link);
        if (d->at < t->timer_at && !t->sweeping)
                timer_set(l, d->at);
}

/* Calls what has expired in one list; returns when its new head does, or INT64_MAX. */
static int64_t sweep(struct loop *l, struct list *h)
{
        while (!list_empty(h)) {
                struct deadline *d = CONTAINER_OF(h->next, struct deadline, link);
                if (d->at > l->now)
                        return d->at;
                list_remove(&d->link);
                d->fn(d);
        }
        return INT64_MAX;
}

static void on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
        struct loop *l = CAST(struct loop, LOOP_MAGIC, arg);
        struct loop_timeouts *t = l->timeouts;
        int64_t next = INT64_MAX;

        loop_woke(l);
        t->sweeping = true;
        for (unsigned i = 0; i < t->n; i++)
                sweep(l, &t->exact[i]);
        for (unsigned i = 0; t->coarse_used && i < COARSE; i++)
                sweep(l, &t->coarse[i]);
        t->sweeping = false;
        /* Functions may have armed anything meanwhile, in lists already passed too. */
        for (unsigned i = 0; i < t->n; i++)
                if (!list_empty(&t->exact[i]))
                        next = MIN(next, CONTAINER_OF(t->exact[i].next, struct deadline, link)->at);
        for (unsigned i = 0; t->coarse_used && i < COARSE; i++)
                if (!list_empty(&t->coarse[i]))
                        next = MIN(next,
                                   CONTAINER_OF(t->coarse[i].next, struct deadline, link)->at);
        t->timer_at = INT64_MAX;
        if (next != INT64_MAX)
                timer_set(l, next);
}

/* ---- messages ---- */

void loop_post(struct loop *l, struct loop_msg *m)
{
        struct loop_msg *top = atomic_load_explicit(&l->inbox->top, memory_order_relaxed);
        uint64_t one = 1;

        do
                m->next = top;
        while (!atomic_compare_exchange_weak_explicit(&l->inbox->top, &top, m, memory_order_release,
                                                      memory_order_relaxed));
        if (top != NULL)
                return;
        while (write(l->inbox->fd, &one, sizeof(one)) < 0)
                CHECK(errno == EINTR);
}

static void inbox_take(struct loop *l)
{
        struct loop_msg *m, *first = NULL;

        m = atomic_exchange_explicit(&l->inbox->top, NULL, memory_order_acquire);
        while (m != NULL) { /* newest first: turn them round */
                struct loop_msg *next = m->next;
                m->next = first;
                first = m;
                m = next;
        }
        while (first != NULL) {
                m = first;
                first = m->next; /* fn may free m */
                m->fn(m);
        }
}

static void on_inbox(evutil_socket_t fd UNUSED, short what UNUSED, void *arg)
{
        struct loop *l = CAST(struct loop, LOOP_MAGIC, arg);

        loop_woke(l);
        inbox_take(l);
}

/* ---- turns ---- */

void loop_run_soon_(struct loop *l)
{
        struct list *n;

        while ((n = list_pop(&l->soon)) != NULL) {
                struct loop_task *t = CONTAINER_OF(n, struct loop_task, link);
                t->fn(t);
        }
}

/* Runs the tasks that are there now; what they add runs in the next turn, so that one that adds
 * itself stops nobody. */
static void run_tasks(struct loop *l)
{
        struct list batch;

        loop_run_soon(l);
        if (list_empty(&l->tasks))
                return;
        batch = l->tasks;
        batch.next->prev = batch.prev->next = &batch;
        list_init(&l->tasks);
        while (!list_empty(&batch)) {
                struct loop_task *t = CONTAINER_OF(list_pop(&batch), struct loop_task, link);
                t->fn(t);
                loop_run_soon(l);
        }
}

void loop_turn(struct loop *l, bool wait)
{
        int flags = EVLOOP_ONCE;

        l->handshake_us = 0;
        run_tasks(l);
        if (!wait || l->stop || !list_empty(&l->tasks))
                flags |= EVLOOP_NONBLOCK;
        l->awake = false;
        atomic_store_explicit(&crumb_self->waiting, 1, memory_order_relaxed);
        CHECK(event_base_loop(l->base, flags) >= 0);
        loop_woke(l);
}

/* Memory of a burst does not stay: each second what was not needed in it is freed, until nothing is
 * left and the loop may sleep. */
static void trim_due(struct deadline *d)
{
        struct loop *l = CONTAINER_OF(d, struct loop, trim);
        size_t some = buf_thread_trim() + arena_thread_trim() + slab_thread_trim();

        l->trimmed += some;
        /* After a burst only: at its height, and when it has ebbed away. */
        if (l->trimmed < (some > 0 ? TRIM_BYTES : TRIM_REST))
                return;
        page_trim_heap(); /* the pages go back to the system */
        l->trimmed = 0;
}

static void keep_trimming(struct loop *l)
{
        if (l->trimmed >= TRIM_REST ||
            buf_thread_kept() + arena_thread_kept() + slab_thread_kept() > 0)
                deadline_set(l, &l->trim, TRIM, trim_due);
}

void loop_run(struct loop *l)
{
        CHECK_OBJ(l, LOOP_MAGIC);
        loop_self = l;
        l->stop = false;
        loop_begin_turn_(l);
        while (!l->stop) {
                loop_turn(l, true);
                if (UNLIKELY(!deadline_armed(&l->trim)))
                        keep_trimming(l);
        }
        deadline_clear(&l->trim);
        /* What the last turn buried goes with it. */
        while (!list_empty(&l->tasks))
                run_tasks(l);
        loop_self = NULL;
}

void loop_advance(struct loop *l, int64_t us)
{
        int64_t end = l->now + us;

        l->awake = true;
        do {
                int64_t at = MAX(l->now, MIN(l->timeouts->timer_at, end));
                l->wall += at - l->now;
                l->now = at;
                if (l->timeouts->timer_at <= at)
                        on_timer(-1, 0, l);
                inbox_take(l);
                run_tasks(l);
        } while (l->now < end);
}

void loop_stop(struct loop *l)
{
        l->stop = true;
}

static struct event_base *base_new(void)
{
        struct event_config *cfg = event_config_new();
        struct event_base *base;

        CHECK(cfg != NULL);
        CHECK(event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK) == 0);
        CHECK(event_config_set_flag(cfg, EVENT_BASE_FLAG_IGNORE_ENV) == 0);
        CHECK(event_config_require_features(cfg, EV_FEATURE_ET | EV_FEATURE_O1) == 0);
        base = event_base_new_with_config(cfg);
        event_config_free(cfg);
        CHECK(base != NULL);
        return base;
}

static void *zalloc(size_t n)
{
        void *p = calloc(1, n);

        CHECK(p != NULL);
        return p;
}

struct loop *loop_new(unsigned index, struct metric_slot *metrics)
{
        struct loop *l = zalloc(sizeof(*l));

        l->magic = LOOP_MAGIC;
        l->index = index;
        l->metrics = metrics;
        l->base = base_new();
        list_init(&l->tasks);
        list_init(&l->soon);
        list_init(&l->lingering);
        list_init(&l->acceptors);
        list_init(&l->redises);

        l->inbox = zalloc(sizeof(*l->inbox));
        l->inbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        CHECK(l->inbox->fd >= 0);
        event_assign(&l->inbox->ev, l->base, l->inbox->fd, EV_READ | EV_PERSIST | EV_ET, on_inbox,
                     l);
        CHECK(event_add(&l->inbox->ev, NULL) == 0);

        l->timeouts = zalloc(sizeof(*l->timeouts));
        l->timeouts->timer_at = INT64_MAX;
        evtimer_assign(&l->timeouts->timer, l->base, on_timer, l);
        for (unsigned i = 0; i < EXACT; i++)
                list_init(&l->timeouts->exact[i]);
        for (unsigned i = 0; i < COARSE; i++)
                list_init(&l->timeouts->coarse[i]);

        l->wall_read = INT64_MIN / 2;
        loop_begin_turn_(l);
        return l;
}

void loop_free(struct loop *l)
{
        CHECK_OBJ(l, LOOP_MAGIC);
        inbox_take(l);
        while (!list_empty(&l->tasks))
                run_tasks(l);
        CHECK(list_empty(&l->soon));
        CHECK(list_empty(&l->lingering) && list_empty(&l->acceptors) && list_empty(&l->redises));
        for (unsigned i = 0; i < l->timeouts->n; i++)
                CHECK(list_empty(&l->timeouts->exact[i]));
        event_del(&l->timeouts->timer);
        event_del(&l->inbox->ev);
        close(l->inbox->fd);
        event_base_free(l->base);
        free(l->timeouts);
        free(l->inbox);
        free(l->closes);
        l->magic = DEAD_MAGIC;
        free(l);
}
