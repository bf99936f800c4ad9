/* The examples that are installed are read without a word; only the files they name are made up. */
#include "conf/conf.h"

#include "../base/unit.h"

#include <glob.h>
#include <stdlib.h>

static bool example_file(struct source *s, str path, struct arena *a, str *content, str *error)
{
        (void)s;
        if (str_ends(path, STR(".conf")))
                return source_system()->file(source_system(), path, a, content, error);
        *content = STR("made up\n");
        return true;
}

static bool example_glob(struct source *s, str pattern, struct arena *a, str **paths, size_t *n)
{
        (void)s;
        return source_system()->glob(source_system(), pattern, a, paths, n);
}

static bool example_env(struct source *s, str name, str *value)
{
        (void)s;
        (void)name;
        (void)value;
        return false;
}

static bool example_user(struct source *s, str user, str group, uint32_t *uid, uint32_t *gid)
{
        (void)s;
        (void)user;
        (void)group;
        *uid = *gid = 1;
        return true;
}

static void read_without_a_word(void **state)
{
        struct source source = {example_file, example_glob, example_env, example_user};
        const char *top = getenv("top_srcdir");
        char pattern[4096];
        glob_t found;

        (void)state;
        snprintf(pattern, sizeof pattern, "%s/conf/*.conf", top ? top : "..");
        assert_int_equal(glob(pattern, 0, NULL, &found), 0);
        assert_true(found.gl_pathc >= 8);
        for (size_t i = 0; i < found.gl_pathc; i++) {
                struct report rep = {0};
                struct conf *c = conf_read(&source, str_z(found.gl_pathv[i]), STR("/e"), &rep);
                if (!c || rep.out.n)
                        fail_msg("%.*s", STR_ARG(buf_pullup(&rep.out, rep.out.n)));
                assert_true(c->n_listens > 0 && c->n_hosts > 0);
                conf_free(c);
        }
        globfree(&found);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(read_without_a_word),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
