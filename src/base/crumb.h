/*
 * What a loop is doing, in shared memory, for whoever must explain its death.
 *
 * One cache line for each loop of each worker, written by that loop only: which function it is in
 * (compiler barrier only, 0.4 ns), and a beat for each turn of the loop.  A crash handler stores
 * signal, address and pc.  The master and the watchdog read.
 */
#ifndef BASE_CRUMB_H
#define BASE_CRUMB_H

#include "base/defs.h"

#include <stdatomic.h>

#define CRUMB_FRAMES 24
struct crumb {
        _Alignas(128) _Atomic uint64_t
                where; /* 0: not in a function; else copy id << 32 | instance << 8 | phase */
        _Atomic uint64_t beat;
        _Atomic uint32_t waiting; /* 1 while inside epoll_wait */
        _Atomic uint32_t tid;
        _Atomic uint64_t sig, addr, pc;
        _Atomic uint64_t frames[CRUMB_FRAMES]; /* of a stalled loop, filled by SIGUSR2 */
};

extern _Thread_local struct crumb
        *crumb_self;             /* never NULL: one that nobody reads until crumb_use */
void crumb_use(struct crumb *c); /* this thread writes here from now on; stores its tid */

static inline void crumb_enter(uint32_t copy, uint32_t instance, uint8_t phase)
{
        atomic_store_explicit(&crumb_self->where,
                              (uint64_t)copy << 32 | (uint64_t)(instance & 0xffffff) << 8 | phase,
                              memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
}
static inline void crumb_leave(void)
{
        atomic_signal_fence(memory_order_seq_cst);
        atomic_store_explicit(&crumb_self->where, 0, memory_order_relaxed);
}

/* Handlers for SEGV BUS ILL FPE ABRT on an alternate stack for the calling thread; write one byte
 * (the signal's number) to notify_fd (-1: none), then let whatever was there before, normally the
 * default action, have the core.  Again in a child: with another descriptor. */
void crumb_catch_faults(int notify_fd);
void crumb_thread_stack(void); /* each further thread: its own alternate stack */

/* SIGUSR2, sent to one thread, fills frames of its crumb: frames[0] is the pc, then return
 * addresses as far as the unwinder finds them, then 0; frames[0] is stored last, so whoever waits
 * for it sees all. */
void crumb_catch_dump(void);

#endif
