/* Memory bounds, the local store, encodings, JSON, clocks. */
#include "proxy/api.c"

#include "function.h"

static void (*body)(weir_req *r);

HOOK(run)
{
        UNUSED_HOOK;
        body(r);
        return WEIR_CONTINUE;
}
static int begin(void **state)
{
        rig_begin(state);
        rig_function((weir_module){.on_request = run}, NULL)->memory = 4096;
        rig_up();
        rig_request(0);
        return 0;
}
static int end(void **state)
{
        rig_request_end();
        return rig_end(state);
}
static void in_hook(void (*fn)(weir_req *))
{
        body = fn;
        assert_int_equal(chain_request(rig.chain), CHAIN_CONTINUE);
}

#define W(s) WEIR_STR(s)

static void use_up(weir_req *r)
{
        weir_str failed = {NULL, 0};

        assert_non_null(weir->alloc(r, 3000));
        assert_null(weir->alloc(r, 3000));
        assert_non_null(weir->alloc(r, 500));
        assert_non_null(weir->alloc(r, 500));
        assert_null(weir->alloc(r, 500));
        assert_null(weir->format(r, "%500s", "").p);
        assert_null(weir->dup(r, W("once more")).p);
        assert_null(weir->encode(r, WEIR_HEX, failed).p);
        assert_int_equal(weir->header_set(r, WEIR_REQUEST, W("x"), W("y")), WEIR_E_NOMEM);
}
static void memory_is_bounded(void **state)
{
        (void)state;
        in_hook(use_up);
}

static void bounded_by_the_request(void **state)
{
        (void)state;
        rig.function[0].memory = 0;
        rig.route.eff.request_memory = arena_used(rig.txn.r->arena) + 4096;
        in_hook(use_up);
        rig.route.eff.request_memory = 0;
}

static void codes(weir_req *r)
{
        static const struct {
                int32_t how;
                const char *plain, *coded;
        } row[] = {
                {WEIR_HEX, "a\xff", "61ff"},          {WEIR_BASE64, "a\xff>", "Yf8+"},
                {WEIR_BASE64URL, "a\xff>", "Yf8-"},   {WEIR_PERCENT, "a b/", "a%20b%2F"},
                {WEIR_JSON, "a\"\n", "\"a\\\"\\n\""},
        };
        static const struct {
                int32_t how;
                const char *bad;
        } bad[] = {{WEIR_HEX, "6"},       {WEIR_HEX, "6g"},     {WEIR_BASE64, "Yf8-"},
                   {WEIR_BASE64, "Y"},    {WEIR_PERCENT, "%"},  {WEIR_PERCENT, "%2"},
                   {WEIR_PERCENT, "%zz"}, {WEIR_JSON, "\"a\""}, {99, "a"}};

        for (size_t i = 0; i < COUNT(row); i++) {
                weir_str coded =
                        weir->encode(r, row[i].how, weir_bytes(row[i].plain, strlen(row[i].plain)));
                assert_true(str_eq(api_str(coded), str_z(row[i].coded)));
                if (row[i].how != WEIR_JSON)
                        assert_true(str_eq(api_str(weir->decode(r, row[i].how, coded)),
                                           str_z(row[i].plain)));
        }
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_null(
                        weir->decode(r, bad[i].how, weir_bytes(bad[i].bad, strlen(bad[i].bad))).p);
        assert_null(weir->encode(r, 99, W("a")).p);
}
static void encodings(void **state)
{
        (void)state;
        in_hook(codes);
}

static void json(weir_req *r)
{
        const weir_value *v = weir->json_parse(r, W("{\"a\": [1, \"x\", null], \"b\": true}"));

        assert_non_null(v);
        assert_int_equal(v->type, WEIR_V_OBJECT);
        assert_int_equal(weir_get(v, W("a"))->elem[0]->integer, 1);
        ASSERT_STR(weir_get(v, W("a"))->elem[1]->str, "x");
        assert_int_equal(weir_get(v, W("b"))->integer, 1);
        assert_null(weir->json_parse(r, W("{\"a\": 1, \"a\": 2}")));
        assert_null(weir->json_parse(r, W("[1")));
}

#define V(t, ...) ((weir_value){.size = sizeof(weir_value), .type = WEIR_V_##t, __VA_ARGS__})

static weir_str text_of(const char *s)
{
        return weir_bytes(s, strlen(s));
}

static void json_out(weir_req *r)
{
        static const char *const kept[] = {
                "{\"a\":[1,-2.5,\"x\\n\",null,true,false],\"\":{}}",
                "[]",
                "\"\"",
                "0",
        };
        weir_value one = V(INTEGER, .integer = 7, .name = W("n")),
                   error = V(ERROR, .str = W("ERR"), .name = W("e")), small = one, deep[40];
        const weir_value *members[] = {&one, &one}, *wrong[] = {&one, &error}, *none[] = {NULL},
                         *chain[40];

        for (size_t i = 0; i < COUNT(kept); i++)
                assert_true(weir_eq(weir->json_write(r, weir->json_parse(r, text_of(kept[i]))),
                                    text_of(kept[i])));
        ASSERT_STR(weir->json_write(r, &V(OBJECT, .n = 2, .elem = members)), "{\"n\":7,\"n\":7}");
        ASSERT_STR(weir->json_write(r, &V(STRING, .str = W("\xff"))), "\"\xef\xbf\xbd\"");
        assert_null(weir->json_write(r, NULL).p);
        assert_null(weir->json_write(r, &V(OBJECT, .n = 2, .elem = wrong)).p);
        assert_null(weir->json_write(r, &V(ARRAY, .n = 1, .elem = none)).p);
        assert_null(weir->json_write(r, &V(ARRAY, .n = 1)).p);
        small.size = 8;
        assert_null(weir->json_write(r, &small).p);
        for (int i = 0; i < 40; i++) {
                chain[i] = &deep[i];
                deep[i] = i == 0 ? one : V(ARRAY, .n = 1, .elem = &chain[i - 1]);
        }
        assert_non_null(weir->json_write(r, &deep[32]).p);
        assert_null(weir->json_write(r, &deep[33]).p);
}
static void values(void **state)
{
        (void)state;
        in_hook(json);
        in_hook(json_out);
}

static void add_one(void *record, void *arg)
{
        *(int64_t *)arg = ++*(int64_t *)record;
}
static void store(weir_req *r)
{
        char longer[600];
        int64_t got = 0;
        weir_str v;

        memset(longer, 'k', sizeof(longer));
        assert_int_equal(weir->local_get(r, W("k"), &v), 0);
        assert_int_equal(weir->local_set(r, W("k"), W("v"), 0), WEIR_OK);
        assert_int_equal(weir->local_get(r, W("k"), &v), 1);
        ASSERT_STR(v, "v");
        assert_int_equal(weir->local_set(r, weir_bytes(longer, 600), W("long"), 0), WEIR_OK);
        assert_int_equal(weir->local_get(r, weir_bytes(longer, 599), &v), 0);
        assert_int_equal(weir->local_get(r, weir_bytes(longer, 600), &v), 1);
        ASSERT_STR(v, "long");
        assert_int_equal(weir->local_del(r, W("k")), WEIR_OK);
        assert_int_equal(weir->local_get(r, W("k"), &v), 0);
        for (int i = 1; i <= 3; i++) {
                assert_int_equal(weir->local_update(r, W("n"), sizeof(int64_t), 0, add_one, &got),
                                 WEIR_OK);
                assert_int_equal(got, i);
        }
        assert_int_equal(weir->local_set(r, W("k"), W("v"), -1), WEIR_E_INVAL);
        assert_int_equal(weir->local_set(r, W("big"), weir_bytes(weir->alloc(r, 1), 1 << 20), 0),
                         WEIR_E_FULL);
}
static void the_local_store(void **state)
{
        struct arena *a = arena_new(0);
        str v;

        (void)state;
        in_hook(store);
        assert_false(store_get(rig.store, STR("n"), 0, a, &v)); /* a module's keys are its own */
        arena_free(a);
}

static void clocks(weir_req *r)
{
        int64_t left = weir->time_left(r);

        assert_true(left <= 10000);
        assert_int_equal(weir->now_us(), rig.loop->now);
        assert_int_equal(weir->wall_us(), rig.loop->wall);
        assert_int_equal(weir->equal(W("a"), W("a")), 1);
        assert_int_equal(weir->equal(W("a"), W("b")), 0);
}
static void time_and_secrets(void **state)
{
        (void)state;
        in_hook(clocks);
}

/* RFC 8037 A.4 */
static void keys(weir_req *r)
{
        weir_str none = {NULL, 0},
                 data = W("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"),
                 sig = weir->decode(
                         r, WEIR_BASE64URL,
                         W("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGj"
                           "g5BhVsPt9g7sVvpAr_MuM0KAg"));
        weir_key *k = weir->key_new(r, W("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxC"
                                         "rfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}"));

        assert_non_null(k);
        assert_int_equal(weir->key_verify(k, W("EdDSA"), data, sig), 1);
        assert_int_equal(weir->key_verify(k, W("ES256"), data, sig), 0);
        assert_int_equal(weir->key_verify(k, none, data, sig), 0);
        assert_int_equal(weir->key_verify(k, W("EdDSA"), none, sig), 0);
        assert_int_equal(weir->key_verify(k, W("EdDSA"), data, none), 0);
        assert_int_equal(weir->key_verify(NULL, W("EdDSA"), data, sig), 0);
        weir->key_free(k);
        weir->key_free(NULL);
        assert_null(weir->key_new(r, W("no key")));
        assert_null(weir->key_new(r, none));
        assert_null(weir->key_new(NULL, W("{}"))); /* not in a task */
}
static void keys_verify(void **state)
{
        (void)state;
        in_hook(keys);
}

/* Every row of the table is there. */
static void the_table_is_full(void **state)
{
        void (*const *row)(void) = (void (*const *)(void))(const void *)&api_host.alloc;

        (void)state;
        assert_int_equal(api_host.size, sizeof(weir_host));
        for (size_t i = 0; i < (sizeof(api_host) - offsetof(weir_host, alloc)) / sizeof(void *);
             i++)
                assert_true(row[i] != NULL);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)
        const struct CMUnitTest tests[] = {
                T(memory_is_bounded), T(bounded_by_the_request),
                T(encodings),         T(values),
                T(the_local_store),   T(time_and_secrets),
                T(keys_verify),       cmocka_unit_test(the_table_is_full),
        };
        weir = &api_host;
        crypto_init();
        log_level = LOG_ERROR;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
