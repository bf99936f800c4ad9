/* Words of reasons become labels and log text: unique, lower case, with a status that fits. */
#include "base/reason.c"

#include "unit.h"

static void rows_are_sound(void **state)
{
        (void)state;
        for (int i = 0; i < REASONS; i++) {
                const struct reason_row *r = &reason_rows[i];
                assert_non_null(r->word);
                assert_int_equal(strspn(r->word, "abcdefghijklmnopqrstuvwxyz0123456789_"),
                                 strlen(r->word));
                assert_true(r->status == 0 || (r->status >= 400 && r->status <= 599));
                assert_ptr_equal(reason_word((enum reason)i), r->word);
                for (int k = 0; k < i; k++)
                        assert_string_not_equal(r->word, reason_rows[k].word);
        }
        assert_string_equal(reason_word(REASON_NONE), "none");
        assert_int_equal(reason_rows[REASON_CLIENT_HEAD].status, 408);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(rows_are_sound)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
