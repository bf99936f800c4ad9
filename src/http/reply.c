/*
 * Responses that weir makes itself.
 */
#include "http/reply.h"

#include "base/check.h"
#include "http/field.h"
#include "http/h1_write.h"

#define RETRY_AFTER_S "1" /* what is gone comes back within a probe's interval or two */

/* "503 Service Unavailable: no server of the upstream is up\n" */
static void default_body(struct buf *out, int status, enum reason why)
{
        str phrase = h1_status_phrase(status);
        buf_printf(out, "%d%s%.*s", status, phrase.n ? " " : "", STR_ARG(phrase));
        if (reason_rows[why].status == status)
                buf_printf(out, ": %s", reason_rows[why].text);
        buf_put(out, "\n", 1);
}

static void add(struct request *r, enum field_id id, str value)
{
        (void)!fields_add(r->arena, &r->res.fields, id, field_name_of(id), value);
}

void reply_fill(struct request *r, int status, enum reason why, str body, str content_type)
{
        struct pipe *p = &r->res_body;
        bool bodiless = status == 204 || status == 304;

        CHECK(status >= 200 && status <= 999);
        buf_clear(&p->data);
        if (body.p)
                buf_puts(&p->data, body);
        else if (!bodiless)
                default_body(&p->data, status, why);
        if (bodiless)
                buf_clear(&p->data);
        p->end = true;
        p->stalled = false;
        p->passed = p->data.n;
        r->res = (struct msg){
                .status = status,
                .version = 11,
                .framing = bodiless ? FRAMING_NONE : FRAMING_LENGTH,
                .length = p->data.n,
                .keep_alive = true,
        };
        add(r, FIELD_DATE, arena_dup(r->arena, field_date(r->loop->wall)));
        if (p->data.n > 0)
                add(r, FIELD_CONTENT_TYPE, content_type.p ? content_type : STR("text/plain"));
        if (status == 503)
                add(r, FIELD_RETRY_AFTER, STR(RETRY_AFTER_S));
}
