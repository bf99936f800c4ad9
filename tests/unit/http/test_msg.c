/* Names to ids and back, methods, and the field array. */
#include "http/msg.c"

#include "../base/unit.h"

static void every_name_has_its_id(void **state)
{
        (void)state;
        for (int id = 1; id < FIELD_IDS; id++) {
                str name = field_name_of((enum field_id)id);
                char text[64];
                assert_int_equal(field_id_of(name), id);
                for (size_t i = 0; i < name.n; i++)
                        text[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32
                                                                              : name.p[i]);
                assert_int_equal(field_id_of(str_of(text, name.n)), id);
                for (size_t i = 0; i < name.n; i++)
                        text[i] = str_lower(name.p[i]);
                assert_int_equal(field_id_of(str_of(text, name.n)), id);
                for (size_t i = 0; i < name.n; i++) {
                        char was = text[i];
                        text[i] = '~';
                        assert_int_equal(field_id_of(str_of(text, name.n)), FIELD_OTHER);
                        text[i] = was;
                }
                assert_int_equal(field_id_of(str_head(name, name.n - 1)), FIELD_OTHER);
        }
        assert_int_equal(field_id_of(STR("")), FIELD_OTHER);
        assert_int_equal(field_id_of(STR("X")), FIELD_OTHER);
        assert_true(field_flags_of(FIELD_TRANSFER_ENCODING) & FIELD_F_HOP);
        assert_int_equal(field_flags_of(FIELD_OTHER), 0);
}

static void methods(void **state)
{
        static const struct {
                const char *text;
                enum method m;
                bool safe;
        } rows[] = {
                {"GET", METHOD_GET, true},          {"HEAD", METHOD_HEAD, true},
                {"POST", METHOD_POST, false},       {"PUT", METHOD_PUT, false},
                {"DELETE", METHOD_DELETE, false},   {"OPTIONS", METHOD_OPTIONS, true},
                {"PATCH", METHOD_PATCH, false},     {"TRACE", METHOD_TRACE, true},
                {"CONNECT", METHOD_CONNECT, false}, {"get", METHOD_OTHER, false},
                {"PROPFIND", METHOD_OTHER, false},  {"GETS", METHOD_OTHER, false},
        };
        (void)state;
        for (size_t i = 0; i < COUNT(rows); i++) {
                assert_int_equal(method_of(str_z(rows[i].text)), rows[i].m);
                assert_int_equal(method_safe(rows[i].m), rows[i].safe);
        }
}

static void arrays(void **state)
{
        struct arena *a = arena_new(0);
        struct fields f = {0};

        (void)state;
        assert_null(fields_get(&f, FIELD_COOKIE));
        assert_null(fields_join(a, &f, FIELD_COOKIE).p);
        for (int i = 0; i < 100; i++) {
                str name = arena_printf(a, "X-%d", i);
                assert_non_null(fields_add(a, &f, FIELD_OTHER, name, STR("v")));
        }
        assert_int_equal(f.n, 100);
        ASSERT_STR(fields_find(&f, STR("x-99"))->name, "X-99");
        assert_int_equal(fields_count(&f, STR("x-42")), 1);
        fields_add(a, &f, FIELD_VIA, STR("Via"), STR("1.1 a"));
        ASSERT_STR(fields_join(a, &f, FIELD_VIA), "1.1 a");
        fields_add(a, &f, FIELD_VIA, STR("via"), STR(""));
        fields_add(a, &f, FIELD_VIA, STR("VIA"), STR("1.0 b"));
        ASSERT_STR(fields_join(a, &f, FIELD_VIA), "1.1 a, , 1.0 b");
        assert_int_equal(fields_count(&f, STR("via")), 3);

        assert_true(fields_set(a, &f, FIELD_VIA, STR("Via"), STR("c")));
        assert_int_equal(fields_count(&f, STR("via")), 1);
        ASSERT_STR(fields_get(&f, FIELD_VIA)->value, "c");
        assert_int_equal(fields_del_id(&f, FIELD_VIA), 1);
        assert_int_equal(fields_del_id(&f, FIELD_VIA), 0);
        assert_null(fields_find(&f, STR("Via")));
        assert_int_equal(fields_del(&f, STR("x-7")), 1);
        assert_null(fields_find(&f, STR("X-7")));
        assert_true(fields_set(a, &f, FIELD_OTHER, STR("x-7"), STR("new")));
        ASSERT_STR(fields_find(&f, STR("X-7"))->value, "new");
        unsigned live = 0;
        FIELDS_EACH(g, &f)
        {
                live++;
        }
        assert_int_equal(live, 100);
        arena_free(a);
}

/* Alone, so that nothing but its own bit says that it is there. */
static void every_id_is_found(void **state)
{
        struct arena *a = arena_new(0);

        (void)state;
        for (int i = 0; i < FIELD_IDS; i++) {
                enum field_id id = (enum field_id)i;
                str name = id == FIELD_OTHER ? STR("X-Y") : field_name_of(id);
                struct fields f = {0}, copy;
                assert_null(fields_get(&f, id));
                assert_null(fields_find(&f, name));
                assert_int_equal(fields_del(&f, name), 0);
                fields_add(a, &f, id, name, STR("1"));
                copy = f;
                ASSERT_STR(fields_get(&copy, id)->value, "1");
                ASSERT_STR(fields_find(&f, name)->value, "1");
                assert_true(fields_set(a, &f, id, name, STR("2")));
                assert_int_equal(fields_count(&f, name), 1);
                assert_int_equal(fields_del(&f, name), 1);
                assert_null(fields_find(&f, name));
                assert_true(fields_set(a, &f, id, name, STR("3")));
                ASSERT_STR(fields_find(&f, name)->value, "3");
        }
        arena_free(a);
}

static void a_full_arena_changes_nothing(void **state)
{
        struct arena *a = arena_new(3000);
        struct fields f = {0};

        (void)state;
        for (int i = 0; i < 24; i++)
                assert_non_null(fields_add(a, &f, FIELD_OTHER, STR("a"), STR("b")));
        while (arena_alloc(a, 16))
                continue;
        assert_null(fields_add(a, &f, FIELD_OTHER, STR("a"), STR("b")));
        assert_false(fields_set(a, &f, FIELD_OTHER, STR("c"), STR("b")));
        assert_true(fields_set(a, &f, FIELD_OTHER, STR("a"), STR("z")));
        assert_int_equal(f.n, 24);
        arena_free(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_name_has_its_id),
                cmocka_unit_test(methods),
                cmocka_unit_test(arrays),
                cmocka_unit_test(every_id_is_found),
                cmocka_unit_test(a_full_arena_changes_nothing),
        };
        int failed = cmocka_run_group_tests(tests, NULL, NULL);
        arena_thread_end();
        return failed;
}
