/* What the Priority field says. */
#include "http/h2_priority.c"

#include "../base/unit.h"

static void fields(void **state)
{
        static const struct {
                const char *field;
                uint8_t urgency;
                bool incremental;
        } rows[] = {
                {"", 3, false},
                {"u=0", 0, false},
                {"u=7, i", 7, true},
                {"i,u=1", 1, true},
                {" u=2 ,\ti=?1 ", 2, true},
                {"i, i=?0", 3, false},
                {"u=5, u=6", 6, false},
                {"u=8", 3, false},
                {"u=-1", 3, false},
                {"u=10", 3, false},
                {"u=1.0", 3, false},
                {"u", 3, false},
                {"U=1", 3, false},
                {"i=1", 3, false},
                {"i=", 3, false},
                {"u=4;x=1, i;y", 4, true},
                {"x=(1 2), u=1", 1, false},
                {"uu=1, ii", 3, false},
                {",,u=2,,", 2, false},
                {"=u=1", 3, false},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                struct h2_priority p = H2_PRIORITY_DEFAULT;
                h2_priority_read(&p, str_z(rows[i].field));
                if (p.urgency != rows[i].urgency || p.incremental != rows[i].incremental)
                        fail_msg("%s: u=%u i=%d", rows[i].field, p.urgency, p.incremental);
        }
}

static void what_is_not_said_stays(void **state)
{
        struct h2_priority p = {.urgency = 6, .incremental = true};

        (void)state;
        h2_priority_read(&p, STR("u=1"));
        assert_int_equal(p.urgency, 1);
        assert_true(p.incremental);
        h2_priority_read(&p, STR("i=?0"));
        assert_int_equal(p.urgency, 1);
        assert_false(p.incremental);
        h2_priority_read(&p, STR_NONE);
        assert_int_equal(p.urgency, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(fields),
                cmocka_unit_test(what_is_not_said_stays),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
