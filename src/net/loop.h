/*
 * One thread with one event_base: the one place where a thread waits.
 *
 * Nothing here is shared between threads but the inbox (loop_post).  libevent runs without locks.
 * Deadlines are lists of equal timeouts swept by one timer, so that setting one is O(1) and no
 * timer is touched per I/O.  Objects die in loop_defer callbacks, after the turn in which they were
 * closed.
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/check.h"
#include "base/list.h"
#include "base/metric.h"

#include <event2/event.h>
#include <time.h>

#define LOOP_MAGIC UINT32_C(0x4c4f4f50)

/* A message from another thread.  Owned by the inbox until fn is called on the loop's thread. */
struct loop_msg {
        struct loop_msg *next;
        void (*fn)(struct loop_msg *);
};

/* Work for the end of this turn (same thread): destroying objects, one flush for many commands. */
struct loop_task {
        struct list link;
        void (*fn)(struct loop_task *);
};

/* One deadline.  Invariant: linked in at most one list; fn is called once, unlinked, from the top
 * level of the loop. */
struct deadline {
        struct list link;
        int64_t at; /* loop time, us */
        void (*fn)(struct deadline *);
};

#define LOOP_SLOTS 8 /* per-loop state of upper layers, by a small constant each owns */
enum {
        LOOP_SLOT_PROXY,
        LOOP_SLOT_GEN,
        LOOP_SLOT_STATE,
        LOOP_SLOT_LOG,
        LOOP_SLOT_HTTP,
        LOOP_SLOT_API,
        LOOP_SLOT_H2_CLIENT
};

struct loop_inbox;
struct loop_timeouts;

struct loop {
        uint32_t magic;
        unsigned index; /* 0.. in this worker; the control thread has its own, index UINT_MAX */
        struct event_base *base;
        int64_t now;  /* CLOCK_MONOTONIC us, read once per turn after waiting */
        int64_t wall; /* CLOCK_REALTIME us, the same moment */
        struct metric_slot *metrics;
        void *slot[LOOP_SLOTS];
        struct list tasks; /* of loop_task, run before waiting */
        struct list soon;  /* of loop_task, run when the callback has returned that added them */
        struct loop_inbox *inbox;
        struct loop_timeouts *timeouts;
        bool stop;
        bool awake;                     /* this turn has begun: now is fresh */
        int64_t handshake_us;           /* spent in handshakes in this turn, see io.c */
        int64_t wall_offset, wall_read; /* wall - now, and when it was last taken */
        struct list lingering;          /* of io_close_lingering */
        uint32_t n_lingering;
        metric_cell **closes;  /* by reason, made on first use */
        struct list redises;   /* of redis_get */
        struct list acceptors; /* of listen_start */
        bool accept_stopped;   /* their events are out until a connection closes */
        struct deadline accept_retry;
        struct deadline trim; /* what was recycled and is no longer needed goes back */
        size_t trimmed;       /* bytes of it that the allocator still has */
        /* Load of this loop, for handing connections over; written by its thread only, relaxed. */
        _Atomic uint32_t connections, handshakes;
};

struct loop *loop_new(unsigned index,
                      struct metric_slot *metrics); /* aborts when the system refuses */
void loop_run(struct loop *l); /* until loop_stop; sets crumb beat and waiting each turn */
void loop_turn(struct loop *l,
               bool wait); /* one turn, waiting for something to happen or not (loop_run, tests) */
/* Time passes for a loop that is not run: its clock is set us further, and what is due on the way
 * happens in order (deadlines, messages, tasks; no sockets).  For functions' test cases. */
void loop_advance(struct loop *l, int64_t us);
void loop_stop(struct loop *l); /* this thread only; others post a message that calls it */
void loop_free(struct loop *l); /* nothing may be linked any more */

/* Every callback of an event begins with this: the first one in a turn reads the clock. */
void loop_begin_turn_(struct loop *l);
static inline void loop_woke(struct loop *l)
{
        if (!l->awake)
                loop_begin_turn_(l);
}

int64_t loop_clock(clockid_t id); /* us at this moment, where a turn's now will not do */

extern _Thread_local struct loop *loop_self; /* the loop this thread runs, or NULL */

/* Any thread.  One eventfd write at most until the loop has woken. */
void loop_post(struct loop *l, struct loop_msg *m);

static inline void loop_defer(struct loop *l, struct loop_task *t, void (*fn)(struct loop_task *))
{
        t->fn = fn;
        if (!list_linked(&t->link))
                list_push(&l->tasks, &t->link);
}

/* Work for when the callback of the event that is handled now has returned: early enough to find in
 * the CPU's caches what that left there, and with nobody else on the stack.  Callbacks of sockets
 * that can be read see to it; from anywhere else it is done at the end of this turn, before the
 * tasks. */
static inline void loop_soon(struct loop *l, struct loop_task *t, void (*fn)(struct loop_task *))
{
        t->fn = fn;
        if (!list_linked(&t->link))
                list_push(&l->soon, &t->link);
}
void loop_run_soon_(struct loop *l);
static inline void loop_run_soon(struct loop *l)
{
        if (!list_empty(&l->soon))
                loop_run_soon_(l);
}

/* (Re)arms d to fire timeout_us from now (rounded up to 5 ms); timeout 0 clears it.  Cheap when the
 * same d is armed again with the same timeout.  While more than 64 different timeouts are in use at
 * once, those beyond fire up to 1/16 late. */
void deadline_set(struct loop *l, struct deadline *d, int64_t timeout_us,
                  void (*fn)(struct deadline *));
static inline void deadline_clear(struct deadline *d)
{
        if (list_linked(&d->link))
                list_remove(&d->link);
}
static inline bool deadline_armed(const struct deadline *d)
{
        return list_linked(&d->link);
}

#endif
