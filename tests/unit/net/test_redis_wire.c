/*
 * Redis replies: every kind, cut anywhere, and the bounds.
 */
#include "net/redis_wire.c"

#include "pump.h"

static int down(void **state UNUSED)
{
        arena_thread_end();
        buf_thread_end();
        return 0;
}

static void is(const struct redis_reply *r, enum redis_type type, const char *text)
{
        assert_non_null(r);
        assert_int_equal(r->type, type);
        assert_true(str_eq(r->text, str_z(text)));
}

static void test_kinds_cut_anywhere(void **state UNUSED)
{
        static const char bytes[] = "+OK\r\n"
                                    "-ERR no\r\n"
                                    ":-42\r\n"
                                    "$5\r\nhe\0lo\r\n"
                                    "$-1\r\n"
                                    "*3\r\n:1\r\n*2\r\n$1\r\na\r\n$-1\r\n+x\r\n"
                                    "*0\r\n*-1\r\n";

        for (size_t cut = 1; cut < sizeof(bytes); cut++) {
                struct redis_wire *w = redis_wire_new();
                const struct redis_reply *r;
                const char *error = NULL;
                unsigned n = 0;

                for (size_t at = 0; at < sizeof(bytes) - 1; at += cut) {
                        redis_wire_feed(w, str_of(bytes + at, MIN(cut, sizeof(bytes) - 1 - at)));
                        while ((r = redis_wire_next(w, &error)) != NULL) {
                                switch (n++) {
                                case 0:
                                        is(r, REDIS_STATUS, "OK");
                                        break;
                                case 1:
                                        is(r, REDIS_ERROR, "ERR no");
                                        break;
                                case 2:
                                        assert_int_equal(r->type, REDIS_INTEGER);
                                        assert_int_equal(r->integer, -42);
                                        break;
                                case 3:
                                        assert_int_equal(r->text.n, 5);
                                        assert_memory_equal(r->text.p, "he\0lo", 5);
                                        break;
                                case 4:
                                        assert_int_equal(r->type, REDIS_NIL);
                                        break;
                                case 5:
                                        assert_int_equal(r->type, REDIS_ARRAY);
                                        assert_int_equal(r->n, 3);
                                        assert_int_equal(r->elem[0].integer, 1);
                                        assert_int_equal(r->elem[1].n, 2);
                                        is(&r->elem[1].elem[0], REDIS_STRING, "a");
                                        assert_int_equal(r->elem[1].elem[1].type, REDIS_NIL);
                                        is(&r->elem[2], REDIS_STATUS, "x");
                                        break;
                                case 6:
                                        assert_int_equal(r->type, REDIS_ARRAY);
                                        assert_int_equal(r->n, 0);
                                        break;
                                default:
                                        assert_int_equal(r->type, REDIS_NIL);
                                }
                        }
                        assert_null(error);
                }
                assert_int_equal(n, 8);
                redis_wire_free(w);
        }
}

static void breaks(const char *bytes)
{
        struct redis_wire *w = redis_wire_new();
        const char *error = NULL;

        redis_wire_feed(w, str_z(bytes));
        assert_null(redis_wire_next(w, &error));
        assert_non_null(error);
        redis_wire_free(w);
}

static void test_broken(void **state UNUSED)
{
        breaks("hello\r\n");
        breaks("*16385\r\n");
        breaks("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n");
}

static void test_reply_too_large(void **state UNUSED)
{
        struct redis_wire *w = redis_wire_new();
        static char block[64 * KIB];
        const char *error = NULL;
        size_t fed = 0;

        memset(block, 'x', sizeof(block));
        redis_wire_feed(w, STR("$536870912\r\n"));
        while (error == NULL && fed < 100 * MIB) {
                redis_wire_feed(w, str_of(block, sizeof(block)));
                fed += sizeof(block);
                assert_null(redis_wire_next(w, &error));
        }
        assert_non_null(error);
        assert_true(fed <= REDIS_REPLY_MAX + sizeof(block));
        redis_wire_free(w);
        /* Many small ones may be more than that. */
        w = redis_wire_new();
        for (size_t i = 0; i < sizeof(block) / 4; i++)
                memcpy(block + 4 * i, ":1\r\n", 4);
        for (int i = 0; i < 40; i++) {
                redis_wire_feed(w, str_of(block, sizeof(block)));
                while (redis_wire_next(w, &error) != NULL)
                        ;
                assert_null(error);
        }
        redis_wire_free(w);
}

static void test_commands(void **state UNUSED)
{
        struct buf b = BUF_INIT;

        redis_put_array(&b, 2);
        redis_put_word(&b, STR("GET"));
        redis_put_word(&b, str_of("a\r\n", 3));
        assert_true(str_eq(buf_pullup(&b, b.n), STR("*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n")));
        buf_clear(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kinds_cut_anywhere),
                cmocka_unit_test(test_broken),
                cmocka_unit_test(test_reply_too_large),
                cmocka_unit_test(test_commands),
        };
        return cmocka_run_group_tests(tests, NULL, down);
}
