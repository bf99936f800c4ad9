/* Opening and closing: sharing, versions side by side, names, and what stays behind. */
#include "module/module.c"

#include "fixture.h"

static const weir_host host = {.size = sizeof(weir_host), .abi_major = 1};

#define HOOK(n)                                                                                    \
        "static weir_rc hook(weir_req *r, const void *i, void *c) {"                               \
        " (void)r; (void)i; (void)c; return " #n "; }"

static struct module *open_from(struct fixture *f, const char *name, const char *flags,
                                const char *source, str *error, struct arena *a)
{
        char *path = fixture_build(f, flags, source);
        str bytes = fixture_read(path);
        struct module_file file = {.name = str_z(name),
                                   .origin = STR("/usr/lib/weir/modules/m.so"),
                                   .bytes = bytes,
                                   .path = path};
        struct module *m = module_open(&file, &host, a, error);

        free((char *)bytes.p);
        free(path);
        return m;
}

static void versions_live_side_by_side(void **state)
{
        struct arena *a = arena_new(0);
        str error = STR_NONE;
        struct module *one = open_from(
                *state, "m", "", FIXTURE_MODULE("m", HOOK(1), ", .on_request = hook"), &error, a);
        struct module *two = open_from(
                *state, "m", "", FIXTURE_MODULE("m", HOOK(2), ", .on_request = hook"), &error, a);
        const struct module *list[4];

        assert_non_null(one);
        assert_non_null(two);
        assert_int_equal(one->desc->on_request(NULL, NULL, NULL), 1);
        assert_int_equal(two->desc->on_request(NULL, NULL, NULL), 2);
        assert_string_not_equal(one->id, two->id);
        assert_ptr_equal(module_by_copy(two->copy), two);
        assert_int_equal(module_list(list, 4), 2);
        module_drop(one);
        assert_int_equal(two->desc->on_request(NULL, NULL, NULL), 2);
        module_drop(two);
        assert_int_equal(module_list(list, 4), 0);
        assert_int_equal(module_leaked(), 0);
        arena_free(a);
}

static void same_content_is_shared(void **state)
{
        struct arena *a = arena_new(0);
        str error = STR_NONE;
        char *path =
                fixture_build(*state, "", FIXTURE_MODULE("m", HOOK(1), ", .on_request = hook"));
        str bytes = fixture_read(path);
        struct module_file file = {
                .name = STR("m"), .origin = STR("/x/m.so"), .bytes = bytes, .path = path};
        struct module *one = module_open(&file, &host, a, &error), *two;

        file.path = "/nonexistent: not opened again";
        two = module_open(&file, &host, a, &error);
        assert_non_null(one);
        assert_ptr_equal(one, two);
        module_drop(one);
        assert_int_equal(two->desc->on_request(NULL, NULL, NULL), 1);
        module_drop(two);
        free((char *)bytes.p);
        free(path);
        arena_free(a);
}

static void refusals_name_the_file_and_the_rule(void **state)
{
        static const struct {
                const char *flags, *source, *says;
        } row[] = {
                {"", "__attribute__((visibility(\"default\"))) int a;",
                 "module m: /usr/lib/weir/modules/m.so does not export weir_module_entry"},
                {"", FIXTURE_MODULE("n", "", ""), "/usr/lib/weir/modules/m.so calls itself \"n\""},
                {"-Wl,-z,execstack", FIXTURE_MODULE("m", "", ""),
                 "/usr/lib/weir/modules/m.so asks for an executable stack"},
                {"", FIXTURE_MODULE("m", "void not_there(void); void (*p)(void) = not_there;", ""),
                 "cannot be opened: "},
        };
        const struct module *list[1];

        for (size_t i = 0; i < COUNT(row); i++) {
                struct arena *a = arena_new(0);
                str error = STR_NONE;
                assert_null(open_from(*state, "m", row[i].flags, row[i].source, &error, a));
                if (str_find(error, str_z(row[i].says)) < 0)
                        fail_msg("wanted \"%s\", got \"%.*s\"", row[i].says, STR_ARG(error));
                arena_free(a);
        }
        assert_int_equal(module_list(list, 1), 0);
        assert_int_equal(module_leaked(), 0);
}

static void pinned_ones_stay_and_are_found_again(void **state)
{
        struct arena *a = arena_new(0);
        str error = STR_NONE;
        static const char source[] =
                FIXTURE_MODULE("m", HOOK(3), ", .on_request = hook, .flags = WEIR_PINNED");
        struct module *m = open_from(*state, "m", "", source, &error, a);

        assert_non_null(m);
        assert_string_equal(m->pinned, "it says so itself");
        module_drop(m);
        assert_int_equal(m->desc->on_request(NULL, NULL, NULL), 3);
        assert_ptr_equal(open_from(*state, "m", "", source, &error, a), m);
        module_drop(m);
        assert_int_equal(module_leaked(), 0);
        arena_free(a);
}

/* The module that ships: opened as weir does. */
static void headers_opens(void **state)
{
        struct arena *a = arena_new(0);
        const char *top = getenv("top_builddir");
        str error = STR_NONE,
            path = arena_printf(a, "%s/modules/.libs/headers.so", top ? top : "."), bytes;
        struct module_file file = {.name = STR("headers"), .origin = path, .path = path.p};
        struct module *m;

        (void)state;
        bytes = fixture_read(path.p);
        file.bytes = bytes;
        m = module_open(&file, &host, a, &error);
        if (m == NULL)
                fail_msg("%.*s", STR_ARG(error));
        assert_null(m->pinned);
        assert_non_null(m->desc->on_response);
        module_drop(m);
        assert_int_equal(module_leaked(), 0);
        free((char *)bytes.p);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(versions_live_side_by_side),
                cmocka_unit_test(same_content_is_shared),
                cmocka_unit_test(refusals_name_the_file_and_the_rule),
                cmocka_unit_test(pinned_ones_stay_and_are_found_again),
                cmocka_unit_test(headers_opens),
        };
        crypto_init();
        return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
