/* Who speaks gRPC, for how long, and what it is told. */
#include "http/grpc.c"

#include "../base/unit.h"

#define ASSERT_TEXT(s, z) assert_true(str_eq((s), str_z(z)))

static void types(void **state)
{
        static const struct {
                const char *type;
                bool is;
        } rows[] = {
                {"application/grpc", true},
                {"application/grpc+proto", true},
                {"application/grpc+json", true},
                {"application/grpc;charset=x", true},
                {"APPLICATION/GRPC", true},
                {"application/grpc-web", false},
                {"application/grpc-web-text+proto", false},
                {"application/grpc-web+proto", false},
                {"application/grpcx", false},
                {"text/plain", false},
                {"", false},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct arena *a = arena_new(0);
                struct msg m = {0};
                fields_add(a, &m.fields, FIELD_CONTENT_TYPE, STR("content-type"),
                           str_z(rows[i].type));
                assert_int_equal(grpc_is_request(&m), rows[i].is);
                assert_int_equal(grpc_is_web(&m), strstr(rows[i].type, "web") != NULL);
                arena_free(a);
        }
        assert_false(grpc_is_request(&(struct msg){0}));
        assert_false(grpc_is_web(&(struct msg){0}));
}

static void timeouts(void **state)
{
        static const struct {
                const char *text;
                int64_t us; /* 0: refused */
        } rows[] = {
                {"1H", 3600 * SEC},
                {"2M", 120 * SEC},
                {"3S", 3 * SEC},
                {"250m", 250 * MSEC},
                {"7u", 7},
                {"5000n", 5},
                {"1n", 1},
                {"0m", 1},
                {"99999999H", INT64_C(99999999) * 3600 * SEC},
                {"100000000S", 0},
                {"000000001S", 0},
                {"m", 0},
                {"", 0},
                {"5", 0},
                {"5s", 0},
                {"-5S", 0},
                {"+5S", 0},
                {"1.5S", 0},
                {" 5S", 0},
                {"5 S", 0},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                int64_t us = 0;
                assert_int_equal(grpc_timeout(str_z(rows[i].text), &us), rows[i].us != 0);
                assert_int_equal(us, rows[i].us);
        }
}

static void statuses(void **state)
{
        (void)state;
        assert_int_equal(grpc_status_of(503, REASON_NO_SERVER), 14);
        assert_int_equal(grpc_status_of(504, REASON_RESPONSE_TIMEOUT), 14);
        assert_int_equal(grpc_status_of(504, REASON_REQUEST_TIMEOUT), 4);
        assert_int_equal(grpc_status_of(404, REASON_NO_ROUTE), 12);
        assert_int_equal(grpc_status_of(429, REASON_NONE), 8);
        assert_int_equal(grpc_status_of(401, REASON_NONE), 16);
        assert_int_equal(grpc_status_of(403, REASON_NONE), 7);
        assert_int_equal(grpc_status_of(400, REASON_NONE), 13);
        assert_int_equal(grpc_status_of(418, REASON_NONE), 2);
}

static struct request *answered(int status, const char *type, const char *body)
{
        static struct loop l;
        static const struct flow_ops none;
        struct request *r = request_new(&l, &none, 0);

        r->res.status = status;
        r->res.framing = FRAMING_LENGTH;
        r->res.length = strlen(body);
        buf_puts(&r->res_body.data, str_z(body));
        r->res_body.end = true;
        fields_add(r->arena, &r->res.fields, FIELD_CONTENT_TYPE, STR("Content-Type"), str_z(type));
        return r;
}

static str value(struct request *r, const char *name)
{
        const struct field *f = fields_find(&r->res.fields, str_z(name));

        assert_non_null(f);
        return f->value;
}

static void answers(void **state)
{
        struct request *r = answered(503, "text/plain", "503: 100 % away \xc3\xbc\nmore\n");

        (void)state;
        fields_add(r->arena, &r->res.fields, FIELD_RETRY_AFTER, STR("Retry-After"), STR("2"));
        grpc_reply(r, REASON_NO_SERVER);
        assert_int_equal(r->res.status, 200);
        assert_int_equal(r->res.length, 0);
        assert_int_equal(r->res_body.data.n, 0);
        ASSERT_TEXT(value(r, "content-type"), "application/grpc");
        ASSERT_TEXT(value(r, "grpc-status"), "14");
        ASSERT_TEXT(value(r, "grpc-message"), "503: 100 %25 away %C3%BC");
        ASSERT_TEXT(value(r, "retry-after"), "2");
        request_drop(r);
        r = answered(429, "application/json", "{}");
        grpc_reply(r, REASON_NONE);
        ASSERT_TEXT(value(r, "grpc-message"), "Too Many Requests");
        request_drop(r);
}

static void ends(void **state)
{
        static const struct {
                const char *head, *trailer, *pushback;
                int status;
                int64_t us; /* -1: not again */
        } rows[] = {
                {NULL, "0", NULL, 0, 0},         {"14", NULL, NULL, 14, 0},
                {"14", "0", "20", 0, 20 * MSEC}, {NULL, NULL, "0", -1, 0},
                {NULL, "x", "-1", -1, -1},       {NULL, "-1", "", -1, -1},
                {"", NULL, "1s", -1, -1},        {NULL, "99", "99999999999", 99, -1},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct arena *a = arena_new(0);
                struct msg m = {0};
                int64_t us = -1;

                if (rows[i].head)
                        assert_true(fields_set(a, &m.fields, FIELD_OTHER, GRPC_STATUS,
                                               str_z(rows[i].head)));
                if (rows[i].trailer)
                        assert_true(fields_set(a, &m.trailers, FIELD_OTHER, GRPC_STATUS,
                                               str_z(rows[i].trailer)));
                if (rows[i].pushback)
                        assert_true(fields_set(a, &m.trailers, FIELD_OTHER, GRPC_PUSHBACK,
                                               str_z(rows[i].pushback)));
                assert_int_equal(grpc_status_in(&m), rows[i].status);
                assert_int_equal(grpc_pushback(&m, &us), rows[i].us >= 0);
                if (rows[i].us >= 0)
                        assert_int_equal(us, rows[i].us);
                arena_free(a);
        }
        assert_string_equal(grpc_status_name(14), "UNAVAILABLE");
        assert_string_equal(grpc_status_name(0), "OK");
        assert_string_equal(grpc_status_name(17), "?");
        assert_string_equal(grpc_status_name(-1), "?");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(types),   cmocka_unit_test(timeouts), cmocka_unit_test(statuses),
                cmocka_unit_test(answers), cmocka_unit_test(ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
