/* Fields that functions read and change, and the rules that they cannot break. */
#include "proxy/api_field.c"

#include "function.h"

#include "base/crypto.h"

static void (*body)(weir_req *r); /* of the hook that runs */

HOOK(run)
{
        UNUSED_HOOK;
        body(r);
        return WEIR_CONTINUE;
}

/* What the function is configured with. */
static const str known_name = STR_INIT("X-A"), known_server = STR_INIT("Server"),
                 known_value = STR_INIT("as configured");
static struct arena *configured;

static const struct constants *constants(void)
{
        const struct constant v[] = {
                {known_name.p, (uint32_t)known_name.n, CONSTANT_NAME, FIELD_OTHER},
                {known_server.p, (uint32_t)known_server.n, CONSTANT_NAME, FIELD_SERVER},
                {known_value.p, (uint32_t)known_value.n, CONSTANT_VALUE, 0}};

        configured = arena_new(0);
        return constants_new(configured, v, COUNT(v));
}

static int begin(void **state)
{
        rig_begin(state);
        rig_function((weir_module){.on_request = run, .on_response = run, .on_log = NULL}, NULL)
                ->constants = constants();
        rig_up();
        rig_request(0);
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_HOST, STR("Host"), STR("example.com"));
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_OTHER, STR("X-A"), STR("1"));
        fields_add(rig.req.arena, &rig.req.req.fields, FIELD_OTHER, STR("x-a"), STR("2"));
        return 0;
}
static int end(void **state)
{
        int rc;

        rig_request_end();
        rc = rig_end(state);
        arena_free(configured);
        return rc;
}
static void in_request_hook(void (*fn)(weir_req *))
{
        body = fn;
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
}

#define W(s) WEIR_STR(s)

static void read_fields(weir_req *r)
{
        weir_str v = {NULL, 0};
        weir_kv kv;

        assert_int_equal(weir->header_get(r, WEIR_REQUEST, W("X-a"), &v), 2);
        ASSERT_STR(v, "1");
        assert_int_equal(weir->header_get(r, WEIR_REQUEST, W("x-b"), &v), 0);
        assert_int_equal(weir->header_get(r, WEIR_RESPONSE, W("x-a"), &v), 0);
        assert_int_equal(weir->header_at(r, WEIR_REQUEST, 2, &kv), 1);
        ASSERT_STR(kv.name, "x-a");
        assert_int_equal(weir->header_at(r, WEIR_REQUEST, 3, &kv), 0);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST, W("X-A")), 2);
        assert_int_equal(weir->header_at(r, WEIR_REQUEST, 1, &kv), 0);
}
static void fields_are_read(void **state)
{
        (void)state;
        in_request_hook(read_fields);
}

static void write_fields(weir_req *r)
{
        static const struct {
                weir_str name, value;
                weir_err err;
        } row[] = {
                {{"X-B", 3}, {" v ", 3}, WEIR_OK},
                {{"X-B", 3}, {"a\r\nb", 4}, WEIR_E_INVAL},
                {{"X-B", 3}, {"a\nb", 3}, WEIR_E_INVAL},
                {{"X-B", 3}, {"a\0b", 3}, WEIR_E_INVAL},
                {{"X-B", 3}, {NULL, 0}, WEIR_E_INVAL},
                {{NULL, 0}, {"v", 1}, WEIR_E_INVAL},
                {{"X B", 3}, {"v", 1}, WEIR_E_INVAL},
                {{"", 0}, {"v", 1}, WEIR_E_INVAL},
                {{"content-length", 14}, {"0", 1}, WEIR_E_DENIED},
                {{"Transfer-Encoding", 17}, {"chunked", 7}, WEIR_E_DENIED},
                {{"Connection", 10}, {"close", 5}, WEIR_E_DENIED},
                {{"Host", 4}, {"b", 1}, WEIR_E_DENIED},
                {{"Upgrade", 7}, {"h2c", 3}, WEIR_E_DENIED},
        };
        weir_str v;

        for (size_t i = 0; i < COUNT(row); i++) {
                assert_int_equal(weir->header_set(r, WEIR_REQUEST, row[i].name, row[i].value),
                                 row[i].err);
                assert_int_equal(weir->header_add(r, WEIR_RESPONSE, row[i].name, row[i].value),
                                 row[i].err);
        }
        assert_int_equal(weir->header_get(r, WEIR_REQUEST, W("x-b"), &v), 1);
        ASSERT_STR(v, "v");
        assert_int_equal(weir->header_set(r, 7, W("X-B"), W("v")), WEIR_E_INVAL);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST, W("Host")), WEIR_E_DENIED);
}
static void fields_are_checked(void **state)
{
        (void)state;
        in_request_hook(write_fields);
}

static const struct field *request_field(const char *name)
{
        return fields_find(&rig.req.req.fields, str_z(name));
}

static void write_known(weir_req *r)
{
        const weir_str name = api_weir(known_name), value = api_weir(known_value);
        char own[] = "x-c";

        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, value), WEIR_OK);
        assert_int_equal(fields_count(&rig.req.req.fields, known_name), 1); /* in place of both */
        assert_ptr_equal(request_field("x-a")->name.p, known_name.p);
        assert_ptr_equal(request_field("x-a")->value.p, known_value.p);
        assert_true(request_field("x-a")->flags & FIELD_OWN);
        assert_int_equal(weir->header_add(r, WEIR_REQUEST, name, value), WEIR_OK);
        assert_int_equal(fields_count(&rig.req.req.fields, known_name), 2);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, api_weir(known_server), value), WEIR_OK);
        assert_int_equal(request_field("server")->id, FIELD_SERVER);
        /* One of the two is the function's own, and may change when the call is over. */
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, weir_bytes(own, 3), value), WEIR_OK);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, weir_bytes(own, 3)), WEIR_OK);
        memset(own, '?', 3);
        assert_ptr_equal(request_field("x-c")->value.p, known_value.p);
        ASSERT_STR(request_field("x-a")->value, "x-c");
        /* A value is no name, and part of a string is another one. */
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, value, value), WEIR_E_INVAL);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, weir_bytes(known_value.p, 3)),
                         WEIR_OK);
        ASSERT_STR(request_field("x-a")->value, "as");
        assert_ptr_not_equal(request_field("x-a")->value.p, known_value.p);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, (weir_str){NULL, 0}),
                         WEIR_E_INVAL);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST, name), 1);
        assert_null(request_field("x-a"));
        /* More than there is room for. */
        for (size_t i = 0; i < 100; i++)
                assert_int_equal(weir->header_add(r, WEIR_REQUEST, name, value), WEIR_OK);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST, name), 100);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST_TRAILERS, name, value), WEIR_E_PHASE);
        assert_int_equal(weir->header_set(r, 7, name, value), WEIR_E_INVAL);
        assert_int_equal(weir->header_set(r, WEIR_RESPONSE, name, value), WEIR_OK); /* kept */
        assert_null(fields_find(&rig.req.res.fields, known_name));
}
static void write_known_later(weir_req *r)
{
        const weir_str name = api_weir(known_name), value = api_weir(known_value);
        const struct field *f = fields_find(&rig.req.res.fields, known_name);

        assert_non_null(f);
        assert_ptr_equal(f->value.p, known_value.p);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, value), WEIR_E_PHASE);
        assert_int_equal(weir->header_del(r, WEIR_REQUEST, name), WEIR_E_PHASE);
        assert_int_equal(weir->header_del(r, WEIR_RESPONSE, name), 1);
        rig.req.res_head_sent = true;
        assert_int_equal(weir->header_set(r, WEIR_RESPONSE, name, value), WEIR_E_PHASE);
        assert_int_equal(weir->header_add(r, WEIR_RESPONSE, name, value), WEIR_E_PHASE);
        assert_int_equal(weir->header_del(r, WEIR_RESPONSE, name), WEIR_E_PHASE);
        rig.req.res_head_sent = false;
}
static void known_strings_stay_where_they_are(void **state)
{
        (void)state;
        in_request_hook(write_known);
        body = write_known_later;
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
}

static weir_str expanded(weir_req *r, const char *text)
{
        const struct template_scope scope = {.route_regex = NULL};
        const char *error;
        size_t at;

        return weir->expand(r, (const weir_template *)template_compile(rig.req.arena, str_z(text),
                                                                       &scope, &error, &at));
}
static void write_expanded(weir_req *r)
{
        const weir_str name = api_weir(known_name);
        char own[] = "example.com";
        weir_str first, v;

        first = expanded(r, "$host");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, first), WEIR_OK);
        assert_ptr_equal(request_field("x-a")->value.p, rig.txn.host.p);
        assert_int_equal(weir->header_add(r, WEIR_REQUEST, W("x-b"), first), WEIR_OK);
        assert_ptr_equal(request_field("x-b")->value.p, rig.txn.host.p);
        v = expanded(r, "$method $host");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, v), WEIR_OK);
        assert_ptr_equal(request_field("x-a")->value.p, v.p);
        /* Not what expand said last: it is the function's. */
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, weir_bytes(own, 11)), WEIR_OK);
        memset(own, '?', 11);
        ASSERT_STR(request_field("x-a")->value, "example.com");
        /* What a client sends is checked. */
        rig.txn.host = STR("a\r\nb");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, expanded(r, "$host")),
                         WEIR_E_INVAL);
        rig.txn.host = STR(" a ");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, expanded(r, "$host")), WEIR_OK);
        ASSERT_STR(request_field("x-a")->value, "a");
        ASSERT_STR(expanded(r, ""), "");
        ASSERT_STR(expanded(r, "$header_none"), "");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, name, (weir_str){NULL, 0}),
                         WEIR_E_INVAL);
}
static void expanded_values_are_checked_only(void **state)
{
        (void)state;
        in_request_hook(write_expanded);
}

static void before_the_response(weir_req *r)
{
        weir->header_del(r, WEIR_RESPONSE, W("Server"));
        weir->header_set(r, WEIR_RESPONSE, W("X-B"), W("1"));
        weir->header_add(r, WEIR_RESPONSE, W("X-B"), W("2"));
}
static void after_the_response(weir_req *r)
{
        weir_str v;

        assert_int_equal(weir->header_get(r, WEIR_RESPONSE, W("server"), &v), 0);
        assert_int_equal(weir->header_get(r, WEIR_RESPONSE, W("x-b"), &v), 2);
        ASSERT_STR(v, "1");
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, W("X-B"), W("late")), WEIR_E_PHASE);
}
static void early_changes_are_kept(void **state)
{
        (void)state;
        in_request_hook(before_the_response);
        fields_add(rig.req.arena, &rig.req.res.fields, FIELD_SERVER, STR("Server"), STR("old"));
        body = after_the_response;
        assert_int_equal(chain_response(rig.chain), CHAIN_CONTINUE);
}

/* A handle kept beyond its call is refused, whatever it points to. */
static weir_req *kept;
static void keep(weir_req *r)
{
        kept = r;
}
static void outside_of_its_task(void **state)
{
        weir_str v;

        (void)state;
        in_request_hook(keep);
        assert_int_equal(weir->header_get(kept, WEIR_REQUEST, W("x-a"), &v), 0);
        assert_int_equal(weir->header_set(kept, WEIR_REQUEST, W("x-a"), W("3")), WEIR_E_PHASE);
        assert_int_equal(
                weir->header_set(kept, WEIR_REQUEST, api_weir(known_name), api_weir(known_value)),
                WEIR_E_PHASE);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)
        const struct CMUnitTest tests[] = {
                T(fields_are_read),
                T(fields_are_checked),
                T(early_changes_are_kept),
                T(known_strings_stay_where_they_are),
                T(expanded_values_are_checked_only),
                T(outside_of_its_task),
        };
        weir = &api_host;
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
