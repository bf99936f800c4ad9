/* What a module says of itself: each rule refuses the descriptor that breaks it. */
#include "module/desc.c"

#include "../base/unit.h"

static const weir_host host = {.size = sizeof(weir_host), .abi_major = 1};

struct conf {
        weir_str s;
        const weir_regex *re;
        const weir_template *t;
        weir_list lines;
        int32_t e;
};
static const weir_arg line[] = {
        WEIR_ARG(struct conf, e, ENUM, WEIR_VERB, NULL, "", .choices = "a b"),
        WEIR_ARG(struct conf, s, STR, WEIR_BARE, NULL, ""),
};

static weir_module good(const weir_arg *args, size_t n)
{
        return (weir_module){.magic = WEIR_ABI_MAGIC,
                             .abi_major = WEIR_ABI_MAJOR,
                             .size = sizeof(weir_module),
                             .arg_size = sizeof(weir_arg),
                             .case_size = sizeof(weir_case),
                             .host_size_min = sizeof(weir_host),
                             .name = "m",
                             .version = "1",
                             .args = args,
                             .n_args = n,
                             .inst_size = sizeof(struct conf)};
}

static void says(const weir_module *m, const char *what)
{
        struct arena *a = arena_new(0);
        str error = STR_NONE;

        assert_null(desc_adopt(m, STR("m"), &host, a, &error));
        if (str_find(error, str_z(what)) < 0)
                fail_msg("wanted \"%s\", got \"%.*s\"", what, STR_ARG(error));
        arena_free(a);
}

static void heads(void **state)
{
        weir_module m = good(NULL, 0);

        (void)state;
        says(NULL, "returned no module");
        m.magic = 1;
        says(&m, "returned no module");
        m = good(NULL, 0), m.abi_major = 2;
        says(&m, "built for ABI 2.0, this weir has 1.0");
        m = good(NULL, 0), m.size = 8;
        says(&m, "impossible sizes");
        m = good(NULL, 0), m.host_size_min = sizeof(weir_host) + 8;
        says(&m, "needs ABI");
        m = good(NULL, 0), m.name = "other";
        says(&m, "calls itself \"other\"");
        m = good(NULL, 0), m.name = "No";
        says(&m, "no valid name");
        m = good(NULL, 0), m.flags = 1024;
        says(&m, "flags");
        m = good(NULL, 0), m.ctx_size = SIZE_MAX;
        says(&m, "too much memory");
}

static void arguments(void **state)
{
        const weir_arg bad[][2] = {
                {{.name = "s", .type = WEIR_T_STR, .offset = 4}},
                {{.name = "s", .type = WEIR_T_STR, .offset = sizeof(struct conf) - 8}},
                {{.name = "s", .type = 99}},
                {{.name = "timeout", .type = WEIR_T_TIME}},
                {{.name = "e", .type = WEIR_T_ENUM, .offset = offsetof(struct conf, e)}},
                {{.name = "t", .type = WEIR_T_TEMPLATE, .flags = WEIR_CAPTURES}},
                {{.name = "l", .type = WEIR_T_LINE, .flags = WEIR_MANY}},
                {{.name = "s", .type = WEIR_T_STR}, {.name = "s", .type = WEIR_T_STR}},
                {{.name = "l", .type = WEIR_T_STR, .flags = WEIR_MANY | WEIR_BARE},
                 {.name = "s", .type = WEIR_T_STR, .flags = WEIR_BARE}},
                {{.name = "s", .type = WEIR_T_INT, .min = 2, .max = 1}},
                {{.name = "v", .type = WEIR_T_ENUM, .flags = WEIR_VERB, .choices = "a"}},
        };
        const char *const what[] = {"outside of its struct",
                                    "outside of its struct",
                                    "does not know",
                                    "every function has",
                                    "without choices",
                                    "not a TEMPLATE after a REGEX",
                                    "LINE without a table",
                                    "there twice",
                                    "after a bare list",
                                    "min above max",
                                    "must be an ENUM of a line"};

        (void)state;
        for (size_t i = 0; i < COUNT(bad); i++) {
                weir_module m = good(bad[i], bad[i][1].name ? 2 : 1);
                says(&m, what[i]);
        }
}

static void named_blocks_have_no_bare_words(void **state)
{
        const weir_arg args[] = {WEIR_ARG(struct conf, s, STR, WEIR_BARE, NULL, "")};
        weir_module m = good(args, 1);

        (void)state;
        m.named = "limit";
        says(&m, "named blocks");
}

/* An older module's smaller rows are widened, a newer one's larger rows cut. */
static void strides(void **state)
{
        struct wide {
                weir_arg arg;
                uint64_t more;
        } args[2] = {{WEIR_ARG(struct conf, s, STR, 0, "x", "help"), UINT64_MAX},
                     {WEIR_LINES("l", struct conf, lines, 0, struct conf, NULL, 2, "lines"),
                      UINT64_MAX}};
        struct wide wide_line[2] = {{line[0], UINT64_MAX}, {line[1], UINT64_MAX}};
        struct arena *a = arena_new(0);
        str error = STR_NONE;
        weir_module m = good(&args[0].arg, 2);
        const weir_module *got;

        (void)state;
        args[1].arg.line = &wide_line[0].arg;
        m.arg_size = sizeof(struct wide);
        got = desc_adopt(&m, STR("m"), &host, a, &error);
        assert_non_null(got);
        assert_int_equal(got->arg_size, sizeof(weir_arg));
        assert_string_equal(got->args[0].name, "s");
        assert_string_equal(got->args[1].line[1].name, "s");
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(heads),
                cmocka_unit_test(arguments),
                cmocka_unit_test(named_blocks_have_no_bare_words),
                cmocka_unit_test(strides),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
