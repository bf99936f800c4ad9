/* Heads and bodies of gRPC-Web, as a client's and a server's codec leave them in a request. */
#include "proxy/bridge.c"

#include "../base/unit.h"

static struct request *asked(const char *type, const char *accept)
{
        static struct loop l;
        static const struct flow_ops none;
        struct request *r = request_new(&l, &none, 0);

        fields_add(r->arena, &r->req.fields, FIELD_CONTENT_TYPE, STR("Content-Type"), str_z(type));
        if (accept)
                fields_add(r->arena, &r->req.fields, FIELD_OTHER, STR("accept"), str_z(accept));
        r->req.framing = FRAMING_LENGTH;
        r->req.length = 100;
        return r;
}

static str value(const struct fields *fs, const char *name)
{
        const struct field *f = fields_find(fs, str_z(name));

        assert_non_null(f);
        return f->value;
}

static void come(struct pipe *p, str bytes, bool end)
{
        buf_puts(&p->data, bytes);
        p->passed += bytes.n;
        p->end = end;
}

static str all(struct pipe *p)
{
        return buf_pullup(&p->data, p->data.n);
}

static void heads(void **state)
{
        static const struct {
                const char *type, *accept, *sent, *got, *back;
                bool counted;
        } rows[] = {
                {"application/grpc-web", NULL, "application/grpc", "application/grpc",
                 "application/grpc-web", true},
                {"application/grpc-web+proto", NULL, "application/grpc+proto", "application/grpc",
                 "application/grpc-web+proto", true},
                {"application/grpc-web+json ; x=1", "*/*", "application/grpc+json",
                 "application/grpc+proto;x", "application/grpc-web+proto", true},
                {"application/grpc-web-text", NULL, "application/grpc", "application/grpc",
                 "application/grpc-web-text", false},
                {"application/grpc-web-text+proto", "application/grpc-web",
                 "application/grpc+proto", "application/grpc", "application/grpc-web+proto", false},
                {"application/grpc-web", "text/html, application/grpc-web-text;q=1",
                 "application/grpc", "application/grpc", "application/grpc-web-text", true},
                {"application/grpc-web", NULL, "application/grpc", "text/html", "text/html", true},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct request *r = asked(rows[i].type, rows[i].accept);
                struct bridge *b = bridge_new(r);
                struct msg sent = r->req;

                bridge_request_head(b, &sent);
                assert_true(str_eq(value(&sent.fields, "content-type"), str_z(rows[i].sent)));
                assert_int_equal(sent.framing, rows[i].counted ? FRAMING_LENGTH : FRAMING_CHUNKED);
                r->res.status = 200;
                r->res.framing = FRAMING_CHUNKED;
                fields_add(r->arena, &r->res.fields, FIELD_CONTENT_TYPE, STR("content-type"),
                           str_z(rows[i].got));
                assert_true(bridge_response_head(b));
                assert_true(str_eq(value(&r->res.fields, "content-type"), str_z(rows[i].back)));
                request_drop(r);
        }
}

static void requests(void **state)
{
        struct request *r = asked("application/grpc-web-text", NULL);
        struct bridge *b = bridge_new(r);
        struct pipe *p = &r->req_body;

        (void)state;
        assert_true(bridge_request(b));
        come(p, STR("aGVsbG8"), false);
        assert_true(bridge_request(b));
        ASSERT_STR(all(p), "hel");
        assert_true(bridge_request(b)); /* nothing new: nothing is turned twice */
        ASSERT_STR(all(p), "hel");
        buf_drain(&p->data, 2);
        come(p, STR("=aGk="), true);
        assert_true(bridge_request(b));
        ASSERT_STR(all(p), "llohi");
        request_drop(r);
        r = asked("application/grpc-web-text", NULL);
        b = bridge_new(r);
        come(&r->req_body, STR("aGVsbG8"), true);
        assert_false(bridge_request(b));
        request_drop(r);
        r = asked("application/grpc-web", NULL);
        b = bridge_new(r);
        come(&r->req_body, STR("not base64"), true);
        assert_true(bridge_request(b));
        ASSERT_STR(all(&r->req_body), "not base64");
        request_drop(r);
}

static struct bridge *answered(struct request *r)
{
        r->res.status = 200;
        fields_add(r->arena, &r->res.fields, FIELD_CONTENT_TYPE, STR("content-type"),
                   STR("application/grpc"));
        return bridge_new(r);
}

static void responses(void **state)
{
        struct request *r = asked("application/grpc-web", NULL);
        struct bridge *b = answered(r);
        struct pipe *p = &r->res_body;

        (void)state;
        fields_add(r->arena, &r->res.fields, FIELD_CONTENT_LENGTH, STR("Content-Length"), STR("7"));
        come(p, str_of("\0\0\0\0\2a", 6), false);
        assert_true(bridge_response_head(b));
        assert_null(fields_get(&r->res.fields, FIELD_CONTENT_LENGTH));
        assert_int_equal(r->res.framing, FRAMING_CHUNKED);
        come(p, STR("b"), true);
        fields_add(r->arena, &r->res.trailers, FIELD_OTHER, STR("grpc-status"), STR("0"));
        assert_true(bridge_response(b));
        assert_int_equal(r->res.trailers.n, 0);
        assert_int_equal(p->data.n, 7 + 5 + 16);
        assert_memory_equal(all(p).p, "\0\0\0\0\2ab\x80\0\0\0\x10grpc-status: 0\r\n", p->data.n);
        assert_true(bridge_response(b)); /* and only one end */
        assert_int_equal(p->data.n, 7 + 5 + 16);
        request_drop(r);
        r = asked("application/grpc-web", NULL);
        b = answered(r);
        come(&r->res_body, str_of("\0\0\0\0\2a", 6), true);
        assert_false(bridge_response_head(b));
        request_drop(r);
}

/* Trailers-Only: the fields of gRPC move, the service's own are said twice, those of CORS stay. */
static void only_a_head(void **state)
{
        struct request *r = asked("application/grpc-web", NULL);
        struct bridge *b = answered(r);
        static const char want[] = "grpc-status: 5\r\nx-why: because\r\n";

        (void)state;
        fields_add(r->arena, &r->res.fields, FIELD_OTHER, STR("grpc-status"), STR("5"));
        fields_add(r->arena, &r->res.fields, FIELD_OTHER, STR("X-Why"), STR("because"));
        fields_add(r->arena, &r->res.fields, FIELD_OTHER, STR("Access-Control-Allow-Origin"),
                   STR("*"));
        r->res_body.end = true;
        assert_true(bridge_response_head(b));
        assert_null(fields_find(&r->res.fields, STR("grpc-status")));
        ASSERT_STR(value(&r->res.fields, "x-why"), "because");
        ASSERT_STR(value(&r->res.fields, "access-control-allow-origin"), "*");
        assert_int_equal(r->res_body.data.n, 5 + sizeof(want) - 1);
        assert_memory_equal(all(&r->res_body).p + 5, want, sizeof(want) - 1);
        request_drop(r);
}

static void own_answers(void **state)
{
        struct request *r = asked("application/grpc-web-text+proto", NULL);

        (void)state;
        r->res.status = 503;
        fields_add(r->arena, &r->res.fields, FIELD_RETRY_AFTER, STR("Retry-After"), STR("2"));
        r->res_body.end = true;
        bridge_reply(r, REASON_NO_SERVER);
        assert_int_equal(r->res.status, 200);
        ASSERT_STR(value(&r->res.fields, "content-type"), "application/grpc-web-text+proto");
        ASSERT_STR(value(&r->res.fields, "retry-after"), "2");
        assert_null(fields_find(&r->res.fields, STR("grpc-status")));
        assert_int_equal(r->res.framing, FRAMING_LENGTH);
        assert_int_equal(r->res.length, r->res_body.data.n);
        assert_memory_equal(all(&r->res_body).p, "gAAAADRncnBjLXN0YXR1czogMTQN", 28);
        request_drop(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(heads),       cmocka_unit_test(requests),
                cmocka_unit_test(responses),   cmocka_unit_test(only_a_head),
                cmocka_unit_test(own_answers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
