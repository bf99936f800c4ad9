/* Weir's own responses: what they say, and that nothing of an earlier one is left. */
#include "http/reply.c"

#include "../base/unit.h"

static struct loop loop = {.magic = LOOP_MAGIC};

static void expect_body(struct request *r, const char *text)
{
        str got = buf_pullup(&r->res_body.data, r->res_body.data.n);
        if (!str_eq(got, str_z(text)))
                fail_msg("%.*s", STR_ARG(got));
        assert_int_equal(r->res.length, strlen(text));
}

static void replies(void **state)
{
        struct request *r = request_new(&loop, NULL, 0);

        (void)state;
        buf_puts(&r->res_body.data, STR("left over"));
        fields_add(r->arena, &r->res.fields, FIELD_SERVER, STR("Server"), STR("x"));
        reply_fill(r, 503, REASON_NO_SERVER, STR_NONE, STR_NONE);
        assert_int_equal(r->res.status, 503);
        assert_int_equal(r->res.framing, FRAMING_LENGTH);
        assert_true(r->res_body.end);
        expect_body(r, "503 Service Unavailable: no server of the upstream is up\n");
        assert_null(fields_get(&r->res.fields, FIELD_SERVER));
        ASSERT_STR(fields_get(&r->res.fields, FIELD_RETRY_AFTER)->value, "1");
        ASSERT_STR(fields_get(&r->res.fields, FIELD_CONTENT_TYPE)->value, "text/plain");
        ASSERT_STR(fields_get(&r->res.fields, FIELD_DATE)->value, "Thu, 01 Jan 1970 00:00:00 GMT");

        reply_fill(r, 404, REASON_RESPOND, STR_NONE, STR_NONE); /* no words of another status */
        expect_body(r, "404 Not Found\n");
        assert_null(fields_get(&r->res.fields, FIELD_RETRY_AFTER));
        reply_fill(r, 799, REASON_RESPOND, STR_NONE, STR_NONE);
        expect_body(r, "799\n");

        reply_fill(r, 200, REASON_RESPOND, STR("{}"), STR("application/json"));
        expect_body(r, "{}");
        ASSERT_STR(fields_get(&r->res.fields, FIELD_CONTENT_TYPE)->value, "application/json");
        reply_fill(r, 200, REASON_RESPOND, STR(""), STR_NONE);
        expect_body(r, "");
        assert_int_equal(r->res.framing, FRAMING_LENGTH);

        reply_fill(r, 204, REASON_RESPOND, STR("dropped"), STR_NONE);
        expect_body(r, "");
        assert_int_equal(r->res.framing, FRAMING_NONE);
        assert_null(fields_get(&r->res.fields, FIELD_CONTENT_TYPE));
        request_drop(r);
        arena_thread_end();
        buf_thread_end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(replies)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
