/* Last words: who was running, on which loop, and what is said of it. */
#include "daemon/board.c"

#include "../base/unit.h"

static void put_copy(struct board *b, unsigned row, unsigned at, uint32_t copy, const char *name)
{
        struct board_copy *c = &row_of(b, row)->copies[at];

        strcpy(c->name, name);
        memset(c->sha, (int)copy, sizeof(c->sha));
        atomic_store(&c->copy, copy);
}

static void crash(struct board *b, unsigned row, unsigned loop, uint32_t copy, uint64_t sig)
{
        struct crumb *c = board_crumb(b, row, loop);

        atomic_store(&c->where, (uint64_t)copy << 32 | 5 << 8 | 2);
        atomic_store(&c->sig, sig);
        atomic_store(&c->pc, 0x1234);
}

static void nothing_is_known_of_the_silent(void **state)
{
        struct board *b = board_new(2, 2);
        struct board_word w = {.loop = 77};
        char how[BOARD_OBITUARY];

        (void)state;
        assert_false(board_last_words(b, 0, &w));
        assert_int_equal(w.loop, 77); /* untouched */
        board_obituary(b, 0, SIGKILL, how);
        assert_string_equal(how, "signal 9 (Killed)");
        board_obituary(b, 0, 3 << 8, how);
        assert_string_equal(how, "exit status 3");
        board_free(b);
}

static void the_loop_with_the_signal_speaks(void **state)
{
        struct board *b = board_new(2, 3);
        struct board_word w;
        char how[BOARD_OBITUARY], place[BOARD_PLACE];

        (void)state;
        put_copy(b, 1, 0, 7, "lua");
        put_copy(b, 1, 1, 8, "jwt");
        crash(b, 1, 0, 7, 0); /* busy, but not the one */
        crash(b, 1, 2, 8, SIGSEGV);
        assert_true(board_last_words(b, 1, &w));
        assert_int_equal(w.loop, 2);
        assert_int_equal(w.sig, SIGSEGV);
        assert_true(w.known);
        assert_string_equal(w.name, "jwt");
        assert_int_equal(w.sha[0], 8);
        board_obituary(b, 1, SIGSEGV, how);
        assert_non_null(strstr(how, "signal 11"));
        assert_non_null(strstr(how, "in module jwt: create of function 5, on loop 2, pc 0x1234"));
        strcpy(board_crumb(b, 1, 2)->function_text, "jwt users (weir.conf:3)");
        strcpy(board_crumb(b, 1, 2)->route_text, "/users");
        board_obituary(b, 1, SIGSEGV, how);
        assert_non_null(strstr(how, "in module jwt: create of function jwt users (weir.conf:3) on "
                                    "route /users, on loop 2, pc 0x1234"));
        memset(board_crumb(b, 1, 2)->function_text, 'f', CRUMB_FUNCTION); /* no end */
        memset(board_crumb(b, 1, 2)->route_text, 'r', CRUMB_ROUTE);
        assert_true(board_last_words(b, 1, &w));
        assert_int_equal(strlen(w.function), CRUMB_FUNCTION - 1);
        assert_int_equal(strlen(w.route), CRUMB_ROUTE - 1);
        memset(w.name, 'm', MODULE_NAME_MAX);
        board_put_place(&w, place);
        assert_string_equal(place + strlen(place) - 3, "rrr"); /* the longest has room */
        assert_false(board_last_words(b, 0, &w));              /* rows do not mix */
        board_clear(b, 1);
        assert_false(board_last_words(b, 1, &w));
        board_free(b);
}

/* While the process lives its own thread reads the names where they are. */
static void where_a_loop_is(void **state)
{
        struct board *b = board_new(1, 2);
        struct crumb *before = crumb_self;
        const str function = STR_INIT("jwt users (weir.conf:3)"), route = STR_INIT("/users");
        struct board_word w;
        char place[BOARD_PLACE];

        (void)state;
        put_copy(b, 0, 0, 8, "jwt");
        assert_false(board_where(b, 0, 1, &w));
        board_put_place(&w, place);
        assert_string_equal(place, "in no function");
        crumb_self = board_crumb(b, 0, 1);
        crumb_enter(8, 5, MODULE_REQUEST, &function, &route);
        assert_true(board_where(b, 0, 1, &w));
        assert_int_equal(w.sha[0], 8);
        board_put_place(&w, place);
        assert_string_equal(place, "in module jwt: on_request of function jwt users (weir.conf:3) "
                                   "on route /users");
        crumb_enter(8, 5, MODULE_WORK, &function, NULL);
        assert_true(board_where(b, 0, 1, &w));
        board_put_place(&w, place);
        assert_string_equal(place,
                            "in module jwt: background work of function jwt users (weir.conf:3)");
        crumb_leave();
        assert_false(board_where(b, 0, 1, &w));
        crumb_self = before;
        board_free(b);
}

static void who_was_busy_speaks_without_a_signal(void **state)
{
        struct board *b = board_new(1, 2);
        struct board_word w;

        (void)state;
        crash(b, 0, 1, 9, 0);
        assert_true(board_last_words(b, 0, &w));
        assert_int_equal(w.loop, 1);
        assert_false(w.known); /* copy 9 is on no row */
        put_copy(b, 0, 3, 9, "late");
        assert_true(board_last_words(b, 0, &w));
        assert_true(w.known);
        assert_string_equal(w.name, "late");
        board_free(b);
}

static void a_crash_of_the_control_thread_is_heard(void **state)
{
        struct board *b = board_new(1, 1);
        struct board_word w;
        char name[MODULE_NAME_MAX + 1];
        uint8_t sha[32];

        (void)state;
        crash(b, 0, BOARD_CONTROL, 0, SIGABRT);
        assert_true(board_last_words(b, 0, &w));
        assert_true(w.loop == BOARD_CONTROL);
        assert_false(board_module(b, 0, 0, name, sha));
        assert_false(board_module(b, 0, 5, name, sha));
        board_free(b);
}

/* Summed over the rows that speak of it. */
static void what_a_canary_has_counted(void **state)
{
        struct board *b = board_new(3, 1);
        struct trial_sum said[CANARY_SIDES] = {{{0}}, {{0}}}, sum[CANARY_SIDES] = {{{0}}, {{0}}};

        (void)state;
        said[CANARY_OLD].cells[0] = 10;
        said[CANARY_NEW].cells[TRIAL_CELLS - 1] = 1;
        board_count(b, 0, 7, said);
        board_count(b, 1, 7, said);
        board_count(b, 2, 6, said); /* another one's */
        for (unsigned i = 0; i < 3; i++)
                board_counted(b, i, 7, sum);
        assert_int_equal(sum[CANARY_OLD].cells[0], 20);
        assert_int_equal(sum[CANARY_NEW].cells[TRIAL_CELLS - 1], 2);
        board_clear(b, 0);
        memset(sum, 0, sizeof(sum));
        board_counted(b, 0, 7, sum);
        assert_int_equal(sum[CANARY_OLD].cells[0], 0);
        board_free(b);
}

static void the_last_canary_is_shown(void **state)
{
        struct board *b = board_new(1, 1);
        struct board_canary c = {.number = 7, .over = true, .verdict = CANARY_BACK}, got;

        (void)state;
        assert_false(board_get_canary(b, &got)); /* there was none */
        memset(c.reason, 'x', sizeof(c.reason));
        board_put_canary(b, &c);
        assert_true(board_get_canary(b, &got));
        assert_int_equal(got.number, 7);
        assert_int_equal(got.verdict, CANARY_BACK);
        assert_int_equal(strlen(got.reason), CANARY_REASON - 1);
        b->note->turn++; /* the master is writing */
        assert_false(board_get_canary(b, &got));
        board_free(b);
}

static void a_name_without_an_end_is_bounded(void **state)
{
        struct board *b = board_new(1, 1);
        char name[MODULE_NAME_MAX + 1];
        uint8_t sha[32];

        (void)state;
        memset(row_of(b, 0)->copies[0].name, 'x', sizeof(name));
        atomic_store(&row_of(b, 0)->copies[0].copy, 4);
        assert_true(board_module(b, 0, 4, name, sha));
        assert_int_equal(strlen(name), MODULE_NAME_MAX);
        board_free(b);
}

static void modules_and_how_they_are_used(void **state)
{
        struct board *b = board_new(2, 1);
        struct board_module m[4];

        (void)state;
        assert_int_equal(board_modules(b, 0, m, COUNT(m)), 0);
        put_copy(b, 0, 0, 7, "lua");
        put_copy(b, 0, 2, 9, "jwt");
        board_note_use(b, 0, 9, 2, 30);
        board_note_use(b, 0, 8, 1, 1); /* not open */
        assert_int_equal(board_modules(b, 1, m, COUNT(m)), 0);
        assert_int_equal(board_modules(b, 0, m, 1), 1);
        assert_int_equal(board_modules(b, 0, m, COUNT(m)), 2);
        assert_string_equal(m[0].name, "lua");
        assert_int_equal(m[0].generations, 0);
        assert_string_equal(m[1].name, "jwt");
        assert_int_equal(m[1].sha[31], 9);
        assert_int_equal(m[1].generations, 2);
        assert_int_equal(m[1].requests, 30);
        board_free(b);
}

static void strikes_are_the_masters(void **state)
{
        struct board *b = board_new(1, 1);
        static const uint8_t one[32] = {1}, two[32] = {2};
        bool quarantined = true;

        (void)state;
        assert_int_equal(board_strikes(b, one, &quarantined), 0);
        assert_false(quarantined);
        board_strikes_begin(b);
        board_note_strikes(b, one, 3, true);
        board_note_strikes(b, two, 1, false);
        board_clear(b, 0); /* another worker takes the row */
        assert_int_equal(board_strikes(b, one, &quarantined), 3);
        assert_true(quarantined);
        assert_int_equal(board_strikes(b, two, &quarantined), 1);
        assert_false(quarantined);
        board_strikes_begin(b);
        for (int i = 0; i < BOARD_COPIES + 3; i++)
                board_note_strikes(b, two, 2, true);
        assert_int_equal(board_strikes(b, one, &quarantined), 0);
        assert_int_equal(board_strikes(b, two, &quarantined), 2);
        board_free(b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(nothing_is_known_of_the_silent),
                cmocka_unit_test(the_loop_with_the_signal_speaks),
                cmocka_unit_test(where_a_loop_is),
                cmocka_unit_test(who_was_busy_speaks_without_a_signal),
                cmocka_unit_test(a_crash_of_the_control_thread_is_heard),
                cmocka_unit_test(what_a_canary_has_counted),
                cmocka_unit_test(the_last_canary_is_shown),
                cmocka_unit_test(modules_and_how_they_are_used),
                cmocka_unit_test(strikes_are_the_masters),
                cmocka_unit_test(a_name_without_an_end_is_bounded),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
