/*
 * Tokens: how they are divided, what a header may say, and what claims must.
 */
#include "../base/unit.h"

#include "one_arena.h"
#include "pure_host.h"

#include "../../../modules/jwt_token.c"

#define ALL ((1u << JWT_ALGORITHMS) - 1)

static const weir_value *json(const char *text)
{
        return pure_json_parse(pure_task(arena), weir_bytes(text, strlen(text)));
}

static int split(const char *text, struct jwt_parts *p)
{
        return jwt_split(weir_bytes(text, strlen(text)), p);
}

static void test_parts(void **state)
{
        struct jwt_parts p;

        (void)state;
        assert_true(split("ab.c.def", &p));
        ASSERT_STR(p.header, "ab");
        ASSERT_STR(p.payload, "c");
        ASSERT_STR(p.signature, "def");
        ASSERT_STR(p.input, "ab.c");
        assert_true(split("..", &p));
        ASSERT_STR(p.input, ".");
        assert_int_equal(p.header.n + p.payload.n + p.signature.n, 0);
        assert_false(split("", &p));
        assert_false(split("ab", &p));
        assert_false(split("ab.c", &p));
        assert_false(split("a.b.c.", &p));
        assert_false(split("a.b.c.d.e", &p)); /* an encrypted one has five parts */
}

static const char *header(const char *text, uint32_t allowed, struct jwt_token *token)
{
        *token = (struct jwt_token){.payload = {NULL, 0}};
        return jwt_header(json(text), allowed, token);
}

static void test_headers(void **state)
{
        static const char *const bad[] = {
                "",
                "[]",
                "1",
                "\"HS256\"",
                "{}",
                "{\"alg\":1}",
                "{\"alg\":null}",
                "{\"alg\":\"HS256\",\"kid\":1}",
                "{\"alg\":\"HS256\",\"kid\":null}",
                "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        };
        struct jwt_token t;

        (void)state;
        for (size_t i = 0; i < WEIR_COUNT(bad); i++)
                assert_string_equal(header(bad[i], ALL, &t), "the token is malformed");
        assert_null(header("{\"alg\":\"EdDSA\",\"typ\":\"JWT\",\"kid\":\"a b\"}", ALL, &t));
        ASSERT_STR(t.algorithm, "EdDSA");
        ASSERT_STR(t.id, "a b");
        assert_null(header("{\"alg\":\"HS256\"}", 1, &t));
        assert_null(t.id.p);
        assert_string_equal(header("{\"alg\":\"HS384\"}", 1, &t),
                            "the token's algorithm is not allowed");
        assert_string_equal(header("{\"alg\":\"none\"}", ALL, &t),
                            "the token's algorithm is not allowed");
        assert_string_equal(header("{\"alg\":\"HS256\",\"crit\":[]}", ALL, &t),
                            "the token uses an extension");
        assert_string_equal(header("{\"alg\":\"HS256\",\"b64\":true}", ALL, &t),
                            "the token uses an extension");
}

static const char *claims(const struct jwt_conf *c, const char *text, int64_t *until)
{
        return jwt_claims(c, json(text), PURE_WALL_US, until); /* 1700000000 s */
}

static void test_times(void **state)
{
        struct jwt_conf c = {.leeway = 10000000};
        int64_t until;

        (void)state;
        assert_string_equal(claims(&c, "{}", &until), "the token does not expire");
        assert_null(claims(&c, "{\"exp\":1700000060}", &until));
        assert_int_equal(until, INT64_C(1700000070000000)); /* with the leeway */
        assert_null(claims(&c, "{\"exp\":1e300}", &until));
        assert_int_equal(until, PURE_WALL_US + KEPT_US);
        assert_null(claims(&c, "{\"exp\":1699999991}", &until));
        assert_string_equal(claims(&c, "{\"exp\":1699999990}", &until), "the token has expired");
        assert_string_equal(claims(&c, "{\"exp\":-1e300}", &until), "the token has expired");
        assert_null(claims(&c, "{\"exp\":1700000060,\"nbf\":1700000010}", &until));
        assert_string_equal(claims(&c, "{\"exp\":1700000060,\"nbf\":1700000010.5}", &until),
                            "the token is not valid yet");
        assert_string_equal(claims(&c, "{\"exp\":\"1700000060\"}", &until),
                            "the token is malformed");
        assert_string_equal(claims(&c, "{\"exp\":1700000060,\"nbf\":null}", &until),
                            "the token is malformed");
        assert_string_equal(claims(&c, "[]", &until), "the token is malformed");
        assert_string_equal(claims(&c, "{", &until), "the token is malformed");
        c.exp = 1;
        assert_null(claims(&c, "{}", &until));
        assert_int_equal(until, PURE_WALL_US + KEPT_US);
}

static void test_who_it_is_from_and_for(void **state)
{
        static const weir_str names[] = {{"a", 1}, {"b", 1}};
        static const char *const others[] = {"{}", "{\"aud\":\"ab\"}", "{\"aud\":[]}",
                                             "{\"aud\":[[\"a\"],1]}", "{\"aud\":{\"a\":\"a\"}}"};
        struct jwt_conf c = {.exp = 1, .issuer = {names, 2}};
        int64_t until;

        (void)state;
        assert_null(claims(&c, "{\"iss\":\"b\"}", &until));
        assert_string_equal(claims(&c, "{\"iss\":\"c\"}", &until),
                            "the token is from another issuer");
        assert_string_equal(claims(&c, "{\"iss\":[\"a\"]}", &until),
                            "the token is from another issuer");
        c = (struct jwt_conf){.exp = 1, .audience = {names, 2}};
        assert_null(claims(&c, "{\"aud\":\"a\"}", &until));
        assert_null(claims(&c, "{\"aud\":[1,\"x\",\"b\"]}", &until));
        for (size_t i = 0; i < WEIR_COUNT(others); i++)
                assert_string_equal(claims(&c, others[i], &until),
                                    "the token is for another audience");
}

/* Of the whole: the encoding is strict, and the length is bounded. */
static void test_as_it_was_sent(void **state)
{
        struct jwt_conf c = {.max_token = 64, .allowed = ALL, .exp = 1};
        struct jwt_token t;
        int64_t until;

        (void)state;
        assert_null(jwt_read(pure_task(arena), &c, WEIR_STR("eyJhbGciOiJIUzI1NiJ9.e30.AAE"), &t));
        ASSERT_STR(t.input, "eyJhbGciOiJIUzI1NiJ9.e30");
        ASSERT_STR(t.signature, "\0\1");
        assert_null(t.claims);
        assert_null(jwt_check(pure_task(arena), &c, &t, &until));
        assert_int_equal(t.claims->type, WEIR_V_OBJECT);
        assert_string_equal(
                jwt_read(pure_task(arena), &c, WEIR_STR("eyJhbGciOiJIUzI1NiJ9.e30.AAF"), &t),
                "the token is malformed"); /* the last bits mean nothing */
        assert_string_equal(
                jwt_read(pure_task(arena), &c, WEIR_STR("eyJhbGciOiJIUzI1NiJ9=.e30.AAE"), &t),
                "the token is malformed");
        assert_null(jwt_read(pure_task(arena), &c, WEIR_STR("eyJhbGciOiJIUzI1NiJ9.!.AAE"), &t));
        assert_string_equal(jwt_check(pure_task(arena), &c, &t, &until), "the token is malformed");
        c.max_token = 27;
        assert_string_equal(
                jwt_read(pure_task(arena), &c, WEIR_STR("eyJhbGciOiJIUzI1NiJ9.e30.AAE"), &t),
                "the token is too long");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parts),
                cmocka_unit_test(test_headers),
                cmocka_unit_test(test_times),
                cmocka_unit_test(test_who_it_is_from_and_for),
                cmocka_unit_test(test_as_it_was_sent),
        };
        return cmocka_run_group_tests(tests, up, down);
}
