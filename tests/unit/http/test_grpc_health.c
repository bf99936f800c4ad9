/* The messages of grpc.health.v1. */
#include "http/grpc_health.c"

#include "../base/unit.h"

#define BODY(text) STR_INIT(text)

static void answers(void **state)
{
        static const struct {
                str body;
                enum grpc_health is;
        } rows[] = {
                {BODY("\0\0\0\0\2\x08\x01"), GRPC_HEALTH_SERVING},
                {BODY("\0\0\0\0\2\x08\x02"), GRPC_HEALTH_NOT_SERVING},
                {BODY("\0\0\0\0\2\x08\x03"), GRPC_HEALTH_SERVICE_UNKNOWN},
                {BODY("\0\0\0\0\2\x08\0"), GRPC_HEALTH_UNKNOWN},
                {BODY("\0\0\0\0\0"), GRPC_HEALTH_UNKNOWN},
                {BODY("\0\0\0\0\2\x08\x04"), GRPC_HEALTH_UNKNOWN},
                {BODY("\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                 GRPC_HEALTH_UNKNOWN},
                /* Twice: the last one counts.  Fields of a later version are passed over. */
                {BODY("\0\0\0\0\4\x08\x02\x08\x01"), GRPC_HEALTH_SERVING},
                {BODY("\0\0\0\0\x06\x12\x02hi\x08\x01"), GRPC_HEALTH_SERVING},
                {BODY("\0\0\0\0\x0b\x19"
                      "abcdefgh\x08\x01"),
                 GRPC_HEALTH_SERVING},
                {BODY("\0\0\0\0\7\x15"
                      "abcd\x08\x01"),
                 GRPC_HEALTH_SERVING},
                {BODY("\0\0\0\0\5\x18\x80\x01\x08\x01"), GRPC_HEALTH_SERVING},
                /* The number 1 of another type is another field. */
                {BODY("\0\0\0\0\3\x0a\x01\x01"), GRPC_HEALTH_UNKNOWN},
                {BODY(""), GRPC_HEALTH_BROKEN},
                {BODY("\0\0\0\0"), GRPC_HEALTH_BROKEN},
                {BODY("\1\0\0\0\2\x08\x01"), GRPC_HEALTH_BROKEN},     /* compressed */
                {BODY("\0\0\0\0\1\x08\x01"), GRPC_HEALTH_BROKEN},     /* more than one message */
                {BODY("\0\0\0\0\3\x08\x01"), GRPC_HEALTH_BROKEN},     /* less */
                {BODY("\0\xff\xff\xff\xff\x08"), GRPC_HEALTH_BROKEN}, /* much less */
                {BODY("\0\0\0\0\1\x08"), GRPC_HEALTH_BROKEN},
                {BODY("\0\0\0\0\2\x08\x80"), GRPC_HEALTH_BROKEN},
                {BODY("\0\0\0\0\2\x12\x09"), GRPC_HEALTH_BROKEN},
                {BODY("\0\0\0\0\2\x19\x09"), GRPC_HEALTH_BROKEN},
                {BODY("\0\0\0\0\2\x0b\x0c"), GRPC_HEALTH_BROKEN}, /* a group */
                {BODY("\0\0\0\0\2\0\x01"), GRPC_HEALTH_BROKEN},   /* no field has the number 0 */
                {BODY("\0\0\0\0\x0d\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
                 GRPC_HEALTH_BROKEN},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++)
                assert_int_equal(grpc_health_answer(rows[i].body), rows[i].is);
}

static void questions(void **state)
{
        struct buf b = BUF_INIT;
        char name[200];

        (void)state;
        grpc_health_ask(&b, STR(""));
        assert_int_equal(b.n, 5);
        assert_memory_equal(buf_pullup(&b, b.n).p, "\0\0\0\0\0", 5);
        buf_clear(&b);
        grpc_health_ask(&b, STR("a.B"));
        assert_int_equal(b.n, 10);
        assert_memory_equal(buf_pullup(&b, b.n).p, "\0\0\0\0\5\x0a\3a.B", 10);
        buf_clear(&b);
        memset(name, 'x', sizeof(name));
        grpc_health_ask(&b, str_of(name, sizeof(name)));
        assert_int_equal(b.n, 5 + 3 + sizeof(name));
        assert_memory_equal(buf_pullup(&b, b.n).p, "\0\0\0\0\xcb\x0a\xc8\x01x", 9);
        buf_clear(&b);
}

static void names(void **state)
{
        (void)state;
        assert_string_equal(grpc_health_name(GRPC_HEALTH_SERVING), "SERVING");
        assert_string_equal(grpc_health_name(GRPC_HEALTH_NOT_SERVING), "NOT_SERVING");
        assert_string_equal(grpc_health_name(GRPC_HEALTH_SERVICE_UNKNOWN), "SERVICE_UNKNOWN");
        assert_string_equal(grpc_health_name(GRPC_HEALTH_UNKNOWN), "UNKNOWN");
        assert_string_equal(grpc_health_name(GRPC_HEALTH_BROKEN), "BROKEN");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(answers),
                cmocka_unit_test(questions),
                cmocka_unit_test(names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
