/* The command line, word by word. */
#include "daemon/options.c"

#include "../base/unit.h"

struct line {
        int argc;
        char *argv[12];
};

static bool parse(struct arena *a, const char *text, struct options *o, str *error)
{
        struct line l = {.argc = 0};
        char *copy = arena_dupz(a, str_z(text));

        for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
                l.argv[l.argc++] = word;
        return options_parse(l.argc, l.argv, a, o, error);
}

static void what_is_asked_for(void **state)
{
        static const struct {
                const char *text;
                enum options_action action;
                bool detach;
                const char *config, *prefix, *command;
        } cases[] = {
                {"weir", OPTIONS_RUN, false, WEIR_SYSCONFDIR "/weir.conf", WEIR_SYSCONFDIR, NULL},
                {"weir -c /a/b.conf", OPTIONS_RUN, false, "/a/b.conf", "/a", NULL},
                {"weir -c/b.conf -d", OPTIONS_RUN, true, "/b.conf", "/", NULL},
                {"weir -t -c /a/b.conf", OPTIONS_TEST, false, "/a/b.conf", "/a", NULL},
                {"weir -T -c /a/b.conf -p /x/y", OPTIONS_DUMP, false, "/a/b.conf", "/x/y", NULL},
                {"weir -tT -c /a/b.conf", OPTIONS_DUMP, false, "/a/b.conf", "/a", NULL},
                {"weir -s reload -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a", "reload"},
                {"weir -s stop -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a", "stop"},
                {"weir -s reload --canary 5% -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a",
                 "reload canary 50000 60000000 10000"},
                {"weir --canary=0.5 --for 2m --tolerance 0 -s reload -c /a/b", OPTIONS_CONTROL,
                 false, "/a/b", "/a", "reload canary 500000 120000000 0"},
                {"weir server u 1.2.3.4:80 down -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a",
                 "server u 1.2.3.4:80 down"},
                {"weir -c /a/b server u unix:/x up", OPTIONS_CONTROL, false, "/a/b", "/a",
                 "server u unix:/x up"},
                {"weir functions -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a", "functions"},
                {"weir functions --json -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a",
                 "functions json"},
                {"weir functions clear jwt -c /a/b", OPTIONS_CONTROL, false, "/a/b", "/a",
                 "functions clear jwt"},
                {"weir -v", OPTIONS_VERSION, false, WEIR_SYSCONFDIR "/weir.conf", WEIR_SYSCONFDIR,
                 NULL},
                {"weir -V", OPTIONS_BUILD, false, WEIR_SYSCONFDIR "/weir.conf", WEIR_SYSCONFDIR,
                 NULL},
                {"weir -h", OPTIONS_HELP, false, WEIR_SYSCONFDIR "/weir.conf", WEIR_SYSCONFDIR,
                 NULL},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                struct options o;
                str error;
                assert_true(parse(a, cases[i].text, &o, &error));
                assert_int_equal(o.action, cases[i].action);
                assert_int_equal(o.detach, cases[i].detach);
                assert_true(str_eq(o.config, str_z(cases[i].config)));
                assert_true(str_eq(o.prefix, str_z(cases[i].prefix)));
                assert_true(str_eq(o.command, str_z(cases[i].command)));
                arena_free(a);
        }
}

static void what_is_wrong_is_named(void **state)
{
        static const char *const cases[][2] = {
                {"weir -x", "-x"},
                {"weir -c", "-c"},
                {"weir -s", "-s"},
                {"weir -s dance", "dance"},
                {"weir run", "run"},
                {"weir -s reload --canary", "--canary"},
                {"weir -s reload --canary 100%", "--canary 100%"},
                {"weir -s reload --canary 5% --for 1ms", "--for 1ms"},
                {"weir -s reload --canary 5% --tolerance x", "--tolerance x"},
                {"weir -s reload --for 60s", "--canary"},
                {"weir -s stop --canary 5%", "-s reload"},
                {"weir --canary 5%", "-s reload"},
                {"weir --canaries 5%", "--canaries"},
                {"weir server u", "server"},
                {"weir server u a sideways", "sideways"},
                {"weir server u a up more", "server"},
                {"weir -s relod", "did you mean \"reload\"?"},
                {"weir server u a dwon", "did you mean \"down\"?"},
                {"weir functons", "did you mean \"functions\"?"},
                {"weir functions claer x", "did you mean \"clear\"?"},
                {"weir functions clear", "wants the NAME"},
                {"weir functions clear a b", "wants the NAME"},
                {"weir functions --json clear a", "wants the NAME"},
                {"weir --json", "weir functions"},
                {"weir --json server u a up", "weir functions"},
                {"weir --jsom", "--jsom is not an option"},
                {"weir module", "one of check new test"},
                {"weir module tets a", "did you mean \"test\"?"},
                {"weir module check", "wants a FILE.so"},
                {"weir module check a b", "wants a FILE.so"},
                {"weir module new", "wants a NAME"},
                {"weir module new a b c", "wants a NAME"},
                {"weir module test", "wants a FILE.so"},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                struct options o = {.action = OPTIONS_HELP};
                str error = STR_NONE;
                assert_false(parse(a, cases[i][0], &o, &error));
                assert_true(str_find(error, str_z(cases[i][1])) >= 0);
                assert_int_equal(o.action, OPTIONS_HELP); /* untouched */
                arena_free(a);
        }
}

static void words_of_a_module(void **state)
{
        static const struct {
                const char *text;
                enum options_action action;
                const char *words[2];
        } cases[] = {
                {"weir module check a.so", OPTIONS_MODULE_CHECK, {"a.so", NULL}},
                {"weir module new a", OPTIONS_MODULE_NEW, {"a", NULL}},
                {"weir module new a /b", OPTIONS_MODULE_NEW, {"a", "/b"}},
                {"weir module test a.so", OPTIONS_MODULE_TEST, {"a.so", NULL}},
                {"weir module test a.so b.cases", OPTIONS_MODULE_TEST, {"a.so", "b.cases"}},
        };

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++) {
                struct arena *a = arena_new(0);
                struct options o;
                str error;
                assert_true(parse(a, cases[i].text, &o, &error));
                assert_int_equal(o.action, cases[i].action);
                for (size_t k = 0; k < COUNT(cases[i].words); k++)
                        assert_true(str_eq(str_z(o.words[k]), str_z(cases[i].words[k])));
                arena_free(a);
        }
}

static void relative_paths_are_taken_from_here(void **state)
{
        struct arena *a = arena_new(0);
        char *cwd = getcwd(NULL, 0);
        struct options o;
        str error;

        (void)state;
        assert_true(parse(a, "weir -c conf/x.conf -p ./y", &o, &error));
        assert_true(str_eq(o.config, arena_printf(a, "%s/conf/x.conf", cwd)));
        assert_true(str_eq(o.prefix, arena_printf(a, "%s/y", cwd)));
        free(cwd);
        arena_free(a);
}

static void words_with_controls_are_not_sent(void **state)
{
        struct arena *a = arena_new(0);
        char weir[] = "weir", server[] = "server", u[] = "u\nstop", addr[] = "a", up[] = "up",
             empty[] = "";
        char *argv[] = {weir, server, u, addr, up, NULL};
        struct options o;
        str error;

        (void)state;
        assert_false(options_parse(5, argv, a, &o, &error));
        argv[2] = empty;
        assert_false(options_parse(5, argv, a, &o, &error));
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_asked_for),
                cmocka_unit_test(what_is_wrong_is_named),
                cmocka_unit_test(words_of_a_module),
                cmocka_unit_test(relative_paths_are_taken_from_here),
                cmocka_unit_test(words_with_controls_are_not_sent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
