/*
 * Answers that weir makes itself (answer.h).
 *
 * The one difficulty: whose words they are.  What has a text of its own keeps it; all else takes
 * the error page of the status where there is one.
 */
#include "proxy/answer.h"

#include "http/reply.h"
#include "proxy/gen.h"
#include "proxy/upstream.h"
#include "proxy/vars.h"

static const struct error_page *error_page(const struct settings *s, int status)
{
        for (size_t i = 0; i < s->n_error_pages; i++)
                if (s->error_pages[i].status == status)
                        return &s->error_pages[i];
        return NULL;
}

/* body absent: the status' page, or a line of weir's. */
static void fill(struct txn *t, int status, str body)
{
        const struct error_page *page = body.p == NULL ? error_page(t->eff, status) : NULL;

        if (page != NULL)
                reply_fill(t->r, status, t->reason, page->body, page->content_type);
        else
                reply_fill(t->r, status, t->reason, body, STR_NONE);
}

/* When a server may be back, of a 503 for want of one. */
static void say_retry_after(struct txn *t)
{
        struct arena *a = t->r->arena;
        unsigned s = upstream_retry_after(t->gen->upstreams[t->upstream->index], t->r->loop);

        fields_set(a, &t->r->res.fields, FIELD_RETRY_AFTER, field_name_of(FIELD_RETRY_AFTER),
                   arena_printf(a, "%u", s));
}

void answer_refusal(struct txn *t)
{
        fill(t, reason_rows[t->reason].status, STR_NONE);
        if (t->reason == REASON_NO_SERVER || t->reason == REASON_QUEUE_TIMEOUT)
                say_retry_after(t);
}

void answer_respond(struct txn *t)
{
        const struct route_conf *route = t->match.route;
        str body = STR("");

        if (route->body)
                body = vars_expand(t, route->body);
        else if (error_page(t->eff, route->status) != NULL)
                body = STR_NONE; /* what has no text of its own takes the page's */
        fill(t, route->status, body);
}

void answer_redirect(struct txn *t)
{
        struct request *r = t->r;
        const struct route_conf *route = t->match.route;
        str url = vars_clean_uri(r->arena, vars_expand(t, route->body));

        fill(t, route->status, STR_NONE);
        fields_set(r->arena, &r->res.fields, FIELD_LOCATION, field_name_of(FIELD_LOCATION), url);
}
