/* The template is there in full, and its name is nowhere else but where the module's belongs. */
#include "daemon/skeleton.c"

#include "../base/unit.h"

#include <stdlib.h>

static void names(void **state)
{
        static const char *const good[] = {"a", "a1", "a_b", "x9_"};
        static const char *const bad[] = {"", "A", "1a", "_a", "a-b", "a.b", "a/b", "a b", "ä"};
        char longest[MODULE_NAME_MAX + 2];

        (void)state;
        for (size_t i = 0; i < COUNT(good); i++)
                assert_true(name_ok(good[i]));
        for (size_t i = 0; i < COUNT(bad); i++)
                assert_false(name_ok(bad[i]));
        memset(longest, 'a', sizeof(longest) - 1);
        longest[MODULE_NAME_MAX + 1] = 0;
        assert_false(name_ok(longest));
        longest[MODULE_NAME_MAX] = 0;
        assert_true(name_ok(longest));
}

/* What was made into strings is byte for byte what is in the folder. */
static void the_template_is_the_folder(void **state)
{
        const char *top = getenv("top_srcdir");

        (void)state;
        assert_int_equal(COUNT(files), 4);
        for (size_t i = 0; i < COUNT(files); i++) {
                char path[512], *text = calloc(1, 65536);
                FILE *f;
                snprintf(path, sizeof(path), "%s/contrib/module-template/%s", top ? top : ".",
                         files[i].name);
                f = fopen(path, "r");
                assert_non_null(f);
                assert_true(fread(text, 1, 65535, f) > 0);
                fclose(f);
                assert_string_equal(text, files[i].text);
                free(text);
        }
}

static void every_name_is_replaced(void **state)
{
        (void)state;
        for (size_t i = 0; i < COUNT(files); i++) {
                struct buf out = BUF_INIT;
                rename_in(&out, str_z(files[i].text), STR("zz"));
                assert_int_equal(str_find(buf_pullup(&out, out.n), PLACEHOLDER), -1);
                assert_true(str_find(buf_pullup(&out, out.n), STR("zz")) >= 0);
                buf_clear(&out);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names),
                cmocka_unit_test(the_template_is_the_folder),
                cmocka_unit_test(every_name_is_replaced),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
