/*
 * The loop: messages from threads arrive once and in order, deadlines fire on time and in order
 * whatever their number, tasks run after the turn.
 */
#include "net/loop.c"

#include "pump.h"

#include <pthread.h>

static struct loop *l;

static int up(void **state UNUSED)
{
        l = loop_new(0, NULL);
        return 0;
}

static int down(void **state UNUSED)
{
        loop_free(l);
        return 0;
}

/* ---- messages ---- */

#define THREADS 4
#define EACH    5000

struct numbered {
        struct loop_msg msg;
        unsigned thread, i;
};

static unsigned next_of[THREADS], received;

static void take(struct loop_msg *m)
{
        struct numbered *n = (struct numbered *)m;

        assert_ptr_equal(loop_self, l);
        assert_int_equal(n->i, next_of[n->thread]);
        next_of[n->thread]++;
        free(n);
        if (++received == THREADS * EACH)
                loop_stop(l);
}

static void *poster(void *arg)
{
        for (unsigned i = 0; i < EACH; i++) {
                struct numbered *n = malloc(sizeof(*n));
                n->msg.fn = take;
                n->thread = *(unsigned *)arg;
                n->i = i;
                loop_post(l, &n->msg);
        }
        return NULL;
}

static void test_post_from_threads(void **state UNUSED)
{
        pthread_t t[THREADS];
        unsigned id[THREADS];

        received = 0;
        memset(next_of, 0, sizeof(next_of));
        for (unsigned i = 0; i < THREADS; i++) {
                id[i] = i;
                assert_int_equal(pthread_create(&t[i], NULL, poster, &id[i]), 0);
        }
        loop_run(l);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(t[i], NULL);
        assert_int_equal(received, THREADS * EACH);
        assert_null(loop_self);
}

static unsigned wakes;

static void ping(struct loop_msg *m UNUSED)
{
        wakes++;
}

static void test_post_wakes_again_and_again(void **state UNUSED)
{
        struct loop_msg m = {.fn = ping};

        wakes = 0;
        for (unsigned i = 1; i <= 100; i++) {
                loop_post(l, &m);
                PUMP_UNTIL(l, wakes == i);
        }
}

/* ---- deadlines ---- */

struct timed {
        struct deadline d;
        int64_t want;
        int64_t fired;
};

static unsigned fired;

static void on_fire(struct deadline *d)
{
        struct timed *t = (struct timed *)d;

        assert_false(deadline_armed(d));
        t->fired = l->now;
        fired++;
}

static void test_deadlines_in_order(void **state UNUSED)
{
        static const int64_t after[] = {60, 20, 40, 20, 5, 1};
        struct timed t[COUNT(after)] = {0};
        int64_t start;

        fired = 0;
        loop_turn(l, false);
        start = l->now;
        for (size_t i = 0; i < COUNT(after); i++) {
                t[i].want = start + after[i] * MSEC;
                deadline_set(l, &t[i].d, after[i] * MSEC, on_fire);
                assert_true(deadline_armed(&t[i].d));
        }
        PUMP_UNTIL(l, fired == COUNT(after));
        for (size_t i = 0; i < COUNT(after); i++)
                assert_true(t[i].fired >= t[i].want);
        assert_true(t[1].fired <= t[2].fired && t[2].fired <= t[0].fired);
        assert_true(t[4].fired <= t[1].fired && t[5].fired <= t[4].fired);
}

static void test_deadline_moved_and_cleared(void **state UNUSED)
{
        struct timed moved = {0}, cleared = {0}, last = {0};
        int64_t until;

        fired = 0;
        loop_turn(l, false);
        deadline_set(l, &moved.d, 20 * MSEC, on_fire);
        deadline_set(l, &cleared.d, 20 * MSEC, on_fire);
        deadline_set(l, &last.d, 60 * MSEC, on_fire);
        deadline_clear(&cleared.d);
        assert_false(deadline_armed(&cleared.d));
        deadline_clear(&cleared.d);
        /* As long as it is armed again in time it does not fire. */
        until = l->now + 50 * MSEC;
        while (l->now < until) {
                int64_t armed = l->now;
                deadline_set(l, &moved.d, 20 * MSEC, on_fire);
                loop_turn(l, false);
                if (moved.fired != 0)
                        assert_true(l->now >= armed + 20 * MSEC); /* the machine slept */
                moved.fired = 0;
        }
        deadline_set(l, &moved.d, 60 * SEC, on_fire);
        PUMP_UNTIL(l, last.fired != 0);
        assert_int_equal(moved.fired, 0);
        assert_int_equal(cleared.fired, 0);
        deadline_set(l, &moved.d, 0, on_fire); /* 0 clears */
        assert_false(deadline_armed(&moved.d));
}

static struct deadline victim;

static void kill_victim(struct deadline *d UNUSED)
{
        fired++;
        deadline_clear(&victim);
}

static void test_deadline_clears_its_neighbour(void **state UNUSED)
{
        struct deadline first = {0}, after = {0};

        fired = 0;
        loop_turn(l, false);
        deadline_set(l, &first, 10 * MSEC, kill_victim);
        deadline_set(l, &victim, 10 * MSEC, on_fire);
        deadline_set(l, &after, 10 * MSEC, kill_victim);
        PUMP_UNTIL(l, !deadline_armed(&after));
        assert_int_equal(fired, 2);
}

static unsigned repeats;

static void again(struct deadline *d)
{
        if (++repeats < 5)
                deadline_set(l, d, 5 * MSEC, again);
}

static void test_deadline_arms_itself(void **state UNUSED)
{
        struct deadline d = {0};

        repeats = 0;
        deadline_set(l, &d, 5 * MSEC, again);
        PUMP_UNTIL(l, repeats == 5);
}

/* More distinct timeouts than there are exact lists: all fire, none early, none more than 1/16 (and
 * a turn) late. */
static void test_many_distinct_timeouts(void **state UNUSED)
{
        static struct timed t[300];
        int64_t start;

        memset(t, 0, sizeof(t));
        fired = 0;
        loop_turn(l, false);
        start = l->now;
        for (size_t i = 0; i < COUNT(t); i++) {
                t[i].want = start + (int64_t)(i + 1) * 2 * MSEC;
                deadline_set(l, &t[i].d, t[i].want - start, on_fire);
        }
        PUMP_UNTIL(l, fired == COUNT(t));
        for (size_t i = 0; i < COUNT(t); i++) {
                assert_true(t[i].fired >= t[i].want && t[i].fired >= t[i].d.at);
                assert_true(t[i].d.at <= t[i].want + (t[i].want - start) / 16 + 2 * TICK);
        }
}

static void test_coarse_lists(void **state UNUSED)
{
        struct loop_timeouts *t = l->timeouts;
        int64_t before = 0;

        for (int64_t ticks = 1; ticks < TICKS_MAX; ticks += ticks / 37 + 1) {
                int64_t rounded = ticks;
                struct list *h = coarse_list(t, &rounded);
                assert_true(h >= t->coarse && h < t->coarse + COARSE);
                assert_true(rounded >= ticks && rounded <= ticks + ticks / 16);
                assert_true(rounded >= before);
                before = rounded;
        }
        t->coarse_used = false;
}

/* ---- tasks ---- */

static struct loop_task self_task;
static unsigned task_runs, events;

static void run_self(struct loop_task *t)
{
        task_runs++;
        loop_defer(l, t, run_self);
}

static void count_event(struct loop_msg *m UNUSED)
{
        events++;
}

static void test_task_that_adds_itself(void **state UNUSED)
{
        struct loop_msg m = {.fn = count_event};

        events = task_runs = 0;
        loop_defer(l, &self_task, run_self);
        loop_defer(l, &self_task, run_self); /* linked once */
        loop_post(l, &m);
        for (unsigned i = 1; i <= 3; i++) {
                loop_turn(l, true); /* must not wait */
                assert_int_equal(task_runs, i);
        }
        assert_int_equal(events, 1);
        list_remove(&self_task.link);
}

static char order[8];
static struct loop_task soon_task;

static void note(char c)
{
        size_t n = strlen(order);

        assert_true(n + 1 < sizeof(order));
        order[n] = c;
}

static void run_soon(struct loop_task *t UNUSED)
{
        note('s');
}

static void add_soon(struct loop_task *t UNUSED)
{
        note('a');
        loop_soon(l, &soon_task, run_soon);
        loop_soon(l, &soon_task, run_soon); /* linked once */
}

static void add_plain(struct loop_task *t UNUSED)
{
        note('b');
}

static void soon_and_task(struct loop_task *t)
{
        note('t');
        loop_defer(l, t, add_plain);
}

/* What is soon comes before the next task, and what it puts off is done in the same turn. */
static void test_soon_comes_before_tasks(void **state UNUSED)
{
        static struct loop_task first, second;

        memset(order, 0, sizeof(order));
        loop_defer(l, &first, add_soon);
        loop_defer(l, &second, add_plain);
        loop_turn(l, false);
        assert_string_equal(order, "asb");

        memset(order, 0, sizeof(order));
        loop_defer(l, &second, add_plain);
        loop_soon(l, &soon_task, run_soon);
        loop_turn(l, false);
        assert_string_equal(order, "sb");

        memset(order, 0, sizeof(order));
        loop_soon(l, &soon_task, soon_and_task);
        loop_turn(l, false);
        assert_string_equal(order, "tb");
}

static void test_clocks(void **state UNUSED)
{
        struct timespec ts;
        int64_t wall, before = l->now;

        loop_turn(l, false);
        clock_gettime(CLOCK_REALTIME, &ts);
        wall = (int64_t)ts.tv_sec * SEC + ts.tv_nsec / 1000;
        assert_true(l->now >= before);
        assert_true(l->wall < wall + 5 * SEC && l->wall > wall - 5 * SEC);
}

static void test_beat(void **state UNUSED)
{
        uint64_t before = atomic_load(&crumb_self->beat);

        loop_turn(l, false);
        loop_turn(l, false);
        assert_int_equal(atomic_load(&crumb_self->beat), before + 2);
        assert_int_equal(atomic_load(&crumb_self->waiting), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_post_from_threads, up, down),
                cmocka_unit_test_setup_teardown(test_post_wakes_again_and_again, up, down),
                cmocka_unit_test_setup_teardown(test_deadlines_in_order, up, down),
                cmocka_unit_test_setup_teardown(test_deadline_moved_and_cleared, up, down),
                cmocka_unit_test_setup_teardown(test_deadline_clears_its_neighbour, up, down),
                cmocka_unit_test_setup_teardown(test_deadline_arms_itself, up, down),
                cmocka_unit_test_setup_teardown(test_many_distinct_timeouts, up, down),
                cmocka_unit_test_setup_teardown(test_coarse_lists, up, down),
                cmocka_unit_test_setup_teardown(test_task_that_adds_itself, up, down),
                cmocka_unit_test_setup_teardown(test_soon_comes_before_tasks, up, down),
                cmocka_unit_test_setup_teardown(test_clocks, up, down),
                cmocka_unit_test_setup_teardown(test_beat, up, down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
