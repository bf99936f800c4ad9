/*
 * What is said and counted when weir answers by itself: the client's line in the log, the reason,
 * the limit that was hit.
 */
#ifndef PROXY_REFUSAL_H
#define PROXY_REFUSAL_H

#include "http/request.h"

/* Says who was refused and why; so many a second. */
void refusal_say(struct request *r, enum reason why);
/* Whether the reason is a setting's limit: its sentence begins with the setting's name then. */
bool refusal_is_limit(enum reason why);
/* Counts one more.  c: where the loop keeps its cell of that reason; made on first use. */
void refusal_count_limit(struct loop *l, metric_cell **c, enum reason why);
void refusal_count_reply(struct loop *l, metric_cell **c, enum reason why);

#endif
