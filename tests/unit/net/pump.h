/*
 * Turning a loop in a test until something has become true, and no longer than half a minute.
 */
#ifndef TESTS_NET_PUMP_H
#define TESTS_NET_PUMP_H

#include "net/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline void pump_nothing(struct deadline *d UNUSED)
{
}

#define PUMP_UNTIL(l, cond)                                                                        \
        do {                                                                                       \
                struct deadline pump_tick_ = {0};                                                  \
                int64_t pump_end_;                                                                 \
                loop_turn((l), false);                                                             \
                pump_end_ = (l)->now + 30 * SEC;                                                   \
                while (!(cond)) {                                                                  \
                        if ((l)->now > pump_end_)                                                  \
                                fail_msg("not within 30 s: %s", #cond);                            \
                        deadline_set((l), &pump_tick_, 5 * MSEC, pump_nothing);                    \
                        loop_turn((l), true);                                                      \
                }                                                                                  \
                deadline_clear(&pump_tick_);                                                       \
        } while (0)

/* Some turns in which what must not happen could. */
static inline void pump_turns(struct loop *l, unsigned n)
{
        while (n-- > 0)
                loop_turn(l, false);
}

#endif
