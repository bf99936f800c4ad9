/*
 * Response heads: what is let through says the same after it was written anew.
 */
#include "base/check.h"
#include "http/field.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"

static void check_message(struct arena *a, struct msg *m, enum method method)
{
        CHECK(m->status >= 100 && m->status <= 999);
        CHECK(!str_has_ctl(m->phrase));
        if (m->status < 200)
                CHECK(m->framing == (m->status == 101 ? FRAMING_TUNNEL : FRAMING_NONE));
        FIELDS_EACH(f, &m->fields)
        {
                CHECK(field_name_ok(f->name) && field_value_ok(f->value));
        }
        if (m->status < 200)
                return;
        bool no_body = method == METHOD_HEAD || m->status == 304;
        struct h1_response_form form = {
                .version = 11, .keep_alive = true, .no_body = no_body, .framing = m->framing};
        struct buf out = BUF_INIT;
        struct msg back = {0};
        field_strip_hop(&m->fields);
        h1_write_response(&out, m, &form);
        CHECK(h1_parse_response(a, buf_pullup(&out, out.n), method, &back) == REASON_NONE);
        CHECK(back.status == m->status && back.length == m->length);
        if (m->framing == FRAMING_NONE && !no_body && m->status != 204)
                CHECK(back.framing == FRAMING_LENGTH && back.length == 0);
        else
                CHECK(back.framing == m->framing);
        buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const struct h1_limits limits = {4096, 1024, 24};
        if (size < 1)
                return 0;
        enum method method = data[0] & 1 ? METHOD_HEAD : METHOD_GET;
        str in = str_of(data + 1, size - 1);
        struct h1_scan s = {.kind = H1_RESPONSE};
        enum reason why;
        uint64_t measured;
        ptrdiff_t n = h1_head_end(&s, in, &limits, &why, &measured);
        if (n <= 0)
                return 0;
        struct arena *a = arena_new(0);
        struct msg m = {0};
        if (h1_parse_response(a, arena_dup(a, str_head(in, (size_t)n)), method, &m) == REASON_NONE)
                check_message(a, &m, method);
        arena_free(a);
        return 0;
}
