/*
 * Request heads: the answer does not depend on how the bytes are cut, and what is let through says
 * the same after it was written anew.
 */
#include "base/check.h"
#include "http/field.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"

static const struct h1_limits limits = {4096, 1024, 24};

/* step 0: all at once. */
static ptrdiff_t scan(str in, size_t step, struct h1_scan *s, enum reason *why)
{
        ptrdiff_t n = 0;
        uint64_t measured;
        *s = (struct h1_scan){.kind = H1_REQUEST};
        for (size_t have = step ? 0 : in.n; n == 0; have += step) {
                n = h1_head_end(s, str_head(in, have), &limits, why, &measured);
                if (have >= in.n)
                        break;
        }
        return n;
}

static void check_fields(const struct fields *fs)
{
        FIELDS_EACH(f, fs)
        {
                CHECK(field_name_ok(f->name) && field_value_ok(f->value));
                CHECK(f->id == field_id_of(f->name));
        }
}

static unsigned live(const struct fields *fs)
{
        unsigned n = 0;
        FIELDS_EACH(f, fs)
        {
                n++;
        }
        return n;
}

static void check_message(struct arena *a, struct msg *m)
{
        CHECK(m->target.p[0] == '/' || str_eq(m->target, STR("*")));
        CHECK(!str_has_ctl(m->target) && str_chr(m->target, ' ') < 0);
        CHECK(m->framing == FRAMING_NONE || m->framing == FRAMING_LENGTH ||
              m->framing == FRAMING_CHUNKED);
        CHECK(!field_list_has(m->upgrade, STR("h2c")));
        check_fields(&m->fields);
        if (!m->authority.p)
                return;
        struct buf out = BUF_INIT;
        struct msg back = {0};
        field_strip_hop(&m->fields);
        fields_del_id(&m->fields, FIELD_HOST);
        fields_del_id(&m->fields, FIELD_CONTENT_LENGTH);
        fields_del_id(&m->fields, FIELD_EXPECT);
        h1_write_request(&out, m, true);
        CHECK(h1_parse_request(a, buf_pullup(&out, out.n), &back) == REASON_NONE);
        CHECK(str_eq(back.method_text, m->method_text) && str_eq(back.target, m->target));
        CHECK(str_eq(back.authority, m->authority) && back.framing == m->framing);
        CHECK(back.length == m->length && str_eq(back.upgrade, m->upgrade));
        unsigned own =
                1 + (m->framing != FRAMING_NONE) + 2 * (m->upgrade.p != NULL) + m->expect_continue;
        CHECK(live(&back.fields) == live(&m->fields) + own);
        buf_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 1)
                return 0;
        str in = str_of(data + 1, size - 1);
        struct h1_scan s, t;
        enum reason why = REASON_NONE, other = REASON_NONE;
        ptrdiff_t n = scan(in, 0, &s, &why);
        CHECK(scan(in, 1 + data[0] % 32, &t, &other) == n && why == other);
        if (n <= 0)
                return 0;
        struct arena *a = arena_new(0);
        struct msg m = {0};
        if (h1_parse_request(a, arena_dup(a, str_from(str_head(in, (size_t)n), s.skip)), &m) ==
            REASON_NONE)
                check_message(a, &m);
        arena_free(a);
        return 0;
}
