/*
 * Budgets against abuse of HTTP/2: how many of the frames that cost more than they say a peer may
 * send in ten seconds.
 */
#ifndef HTTP_H2_GUARD_H
#define HTTP_H2_GUARD_H

#include "base/reason.h"
#include "http/downstream.h"

#include <nghttp2/nghttp2.h>

#define H2_GUARD_WINDOW  (10 * SEC)
#define H2_GUARD_UPDATES 10 /* for a DATA frame; a careful client sends two */

enum h2_abuse {
        H2_RESETS,
        H2_PINGS,
        H2_SETTINGS,
        H2_PRIORITIES,
        H2_EMPTY_DATA,
        H2_WINDOW_UPDATES,
        H2_UNKNOWN,
        H2_ABUSES
};

/* Of one connection.  Zero it. */
struct h2_guard {
        int64_t since;
        uint32_t used[H2_ABUSES];
        uint32_t updates_due;     /* WINDOW_UPDATE frames that DATA frames account for */
        uint64_t measured, limit; /* when a budget was exceeded */
};

/* One more of that kind.  REASON_NONE, or whose budget is used up. */
MUST_CHECK enum reason h2_guard_count(struct h2_guard *g, const struct h2_limits *lim, int64_t now,
                                      enum h2_abuse what);
/* The same for what a frame that begins is, if it is anything. */
MUST_CHECK enum reason h2_guard_frame(struct h2_guard *g, const struct h2_limits *lim, int64_t now,
                                      const nghttp2_frame_hd *hd);
/* A DATA frame has gone to the peer: it may answer with window updates. */
static inline void h2_guard_data_sent(struct h2_guard *g)
{
        g->updates_due = MIN(g->updates_due + H2_GUARD_UPDATES, 1000000);
}
/* Log line and metric, both with the setting's name. */
void h2_guard_say(const struct h2_guard *g, struct loop *l, const struct addr *peer,
                  enum reason why);

#endif
