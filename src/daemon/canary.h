/*
 * Canaries: the terms that somebody asks for, and the verdict on what was counted.  Pure.
 *
 * The new generation is compared with the old one over the same time.  A difference counts when it
 * is larger than what is tolerated and too large to be chance (a likelihood ratio test, which holds
 * for small counts too): nearly certain before the time is over, sure enough at its end.
 */
#ifndef DAEMON_CANARY_H
#define DAEMON_CANARY_H

#include "base/arena.h"
#include "proxy/trial.h"

struct canary_terms {
        uint32_t share;     /* of the clients, in millionths; 0: no canary */
        uint32_t tolerance; /* errors and failures more than the old one's, in millionths */
        int64_t period;     /* us */
};
#define CANARY_PERIOD     (60 * SEC)
#define CANARY_PERIOD_MIN SEC
#define CANARY_PERIOD_MAX (24 * 3600 * SEC)
#define CANARY_TOLERANCE  10000 /* 1 % */

/* "5%", "0.05": more than none and less than all; false: nonsense. */
MUST_CHECK bool canary_share(str text, uint32_t *out);
MUST_CHECK bool canary_tolerance(str text, uint32_t *out); /* 0 .. 100% */
MUST_CHECK bool canary_period(str text, int64_t *out);

enum canary_side { CANARY_OLD, CANARY_NEW, CANARY_SIDES };
enum canary_verdict { CANARY_WAIT, CANARY_PROMOTE, CANARY_BACK };

#define CANARY_REASON 256
/* over: the time is; then the verdict is not WAIT.  reason: one line, in words, unless WAIT. */
enum canary_verdict canary_judge(const struct canary_terms *t,
                                 const struct trial_sum sides[CANARY_SIDES], int64_t elapsed,
                                 bool over, char reason[CANARY_REASON]);

#endif
