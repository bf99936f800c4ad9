/*
 * What functions read or change of a body, one direction of a request: a row of stages, one for
 * each function that asked, between the pipe that is filled and the pipe that is taken from.
 *
 *    client's codec -> r->req_body -> stage -> stage -> *r->to_server   -> server's codec
 *    client's codec <- r->res_body <- stage <- stage <- *r->from_server <- server's codec
 *
 * txn.filter points to them; NULL: no function asked, and the two pipes of that direction are one.
 */
#ifndef PROXY_FILTER_H
#define PROXY_FILTER_H

#include "proxy/chain.h"
#include "proxy/task.h"

struct filter;
struct stage;

/* ---- What chain calls. */

/* head: the task of a hook that has called body_mode and come to the verdict CONTINUE: its stage is
 * added at the end of the row.  CONTINUE: the next function's turn; WAIT: it wants the body first,
 * then `collected` comes, never from inside this call; RESPOND: user->decided has the answer made
 * already; CUT: t->reason says why. */
typedef void filter_collected(struct weir_task *head, enum chain_result how);
enum chain_result filter_add(struct weir_task *head, const struct chain_user *user,
                             filter_collected *collected);
/* Of that direction, or of both: what is outstanding is dropped, and the pipes are as they were
 * without it.  Fine when there is none. */
void filter_end(struct txn *t, bool response);
static inline void filters_end(struct txn *t)
{
        if (UNLIKELY(t->filter[WEIR_REQUEST] != NULL))
                filter_end(t, false);
        if (UNLIKELY(t->filter[WEIR_RESPONSE] != NULL))
                filter_end(t, true);
}

/* ---- What flow calls. */

/* All stages are there, and the body may pass on: what has come goes through at once, as far as it
 * does.  CONTINUE, or RESPOND and CUT as above. */
enum chain_result filter_open(struct filter *f);
void filter_came(struct filter *f); /* more in the pipe that is filled, or its end */
void filter_room(struct filter *f); /* bytes were taken of the other pipe, or are wanted */
/* The head says how long the body will be: m is what is sent, before anything was taken. */
void filter_frame(const struct filter *f, struct msg *m);

/* ---- Of a task's stage, for host calls; NULL: no body hook is running. */

/* The body's head waits for this hook's verdict. */
bool stage_holds_head(const struct stage *s);
bool stage_has_last(const struct stage *s); /* it looks at the last chunk */
bool stage_replaces(const struct stage *s); /* it may emit, and change trailers */
bool stage_streams(const struct stage *s);  /* it may emit, and wait until that was taken */

weir_err filter_body_mode(weir_req *t, int32_t mode, uint64_t max);
weir_err filter_body_emit(weir_req *t, weir_str data);

#endif
