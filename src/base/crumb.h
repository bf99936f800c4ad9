/*
 * What a loop is doing, in shared memory, for whoever must explain its death.
 *
 * One for each loop of each worker, written by that loop only, and what it writes all the time in
 * one cache line: which function it is in (three stores), and a beat for each turn of the loop.  A
 * crash handler stores signal, address and pc.  The master and the watchdog read.
 *
 * The difficulty: the names of that function and its route are in memory that dies with the
 * process.  The loop leaves only where they are; the watchdog, a thread of the same process, reads
 * them there, and for the master the handlers copy them at the end.
 */
#ifndef BASE_CRUMB_H
#define BASE_CRUMB_H

#include "base/str.h"

#include <stdatomic.h>

#define CRUMB_FRAMES   24
#define CRUMB_FUNCTION 128
#define CRUMB_ROUTE    96
struct crumb {
        _Alignas(128) _Atomic uint64_t
                where; /* 0: not in a function; else copy id << 32 | instance << 8 | phase */
        _Atomic uint64_t beat;
        _Atomic uint32_t waiting; /* 1 while inside epoll_wait */
        _Atomic uint32_t tid;
        _Atomic uint64_t sig, addr, pc;
        /* Valid while where is not 0, in that process: what its messages call the function, and the
         * route.  NULL: has none. */
        _Atomic(const str *) function, route;
        _Atomic uint64_t frames[CRUMB_FRAMES]; /* of a stalled loop, filled by SIGUSR2 */
        char function_text[CRUMB_FUNCTION], route_text[CRUMB_ROUTE]; /* once the process dies */
};

extern _Thread_local struct crumb
        *crumb_self;             /* never NULL: one that nobody reads until crumb_use */
void crumb_use(struct crumb *c); /* this thread writes here from now on; stores its tid */

/* function, route: as above; they stay at least until the next call of these two and a turn of the
 * thread that watches. */
static inline void crumb_enter(uint32_t copy, uint32_t instance, uint8_t phase, const str *function,
                               const str *route)
{
        struct crumb *c = crumb_self;

        atomic_store_explicit(&c->function, function, memory_order_relaxed);
        atomic_store_explicit(&c->route, route, memory_order_relaxed);
        atomic_store_explicit(&c->where,
                              (uint64_t)copy << 32 | (uint64_t)(instance & 0xffffff) << 8 | phase,
                              memory_order_release);
        atomic_signal_fence(memory_order_seq_cst);
}
static inline void crumb_leave(void)
{
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&crumb_self->where, 0, memory_order_relaxed);
}

/* The names of what c is in, bounded, with an end; empty: nothing, or it has none.  A thread of c's
 * process; on another than c's own the caller knows that both stay for that long. */
void crumb_names(const struct crumb *c, char function[CRUMB_FUNCTION], char route[CRUMB_ROUTE]);

/* Handlers for SEGV BUS ILL FPE ABRT on an alternate stack for the calling thread; write one byte
 * (the signal's number) to notify_fd (-1: none), then let whatever was there before, normally the
 * default action, have the core.  exit() that a function calls leaves its names as well.  Again in
 * a child: with another descriptor. */
void crumb_catch_faults(int notify_fd);
void crumb_thread_stack(void); /* each further thread: its own alternate stack */

/* SIGUSR2, which crumb_ask_dump sends to the thread of c, fills frames of its crumb: frames[0] is
 * the pc, then return addresses as far as the unwinder finds them, then 0; frames[0] is stored
 * last, so whoever waits for it sees all.  Ask from another thread of the process. */
void crumb_catch_dump(void);
void crumb_ask_dump(struct crumb *c);

#endif
