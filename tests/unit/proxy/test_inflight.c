/*
 * Counts in flight: shared by workers, never above a maximum, taken out again when a worker has
 * died.
 */
#include "proxy/inflight.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void workers_see_each_other(void **state)
{
        struct inflight_region *r = inflight_region_new(2);
        struct inflight a, b, other;

        (void)state;
        inflight_open(&a, r, 0, 77);
        inflight_open(&b, r, 1, 77);
        inflight_open(&other, r, 1, 78);
        inflight_add(&a);
        inflight_add(&b);
        inflight_add(&b);
        assert_int_equal(inflight_total(&a), 3);
        assert_int_equal(inflight_total(&b), 3);
        assert_int_equal(inflight_own(&b), 2);
        assert_int_equal(inflight_total(&other), 0);
        assert_false(inflight_try(&a, 3));
        assert_int_equal(inflight_total(&a), 3);
        assert_true(inflight_try(&a, 4));
        inflight_sub(&a);
        inflight_sub(&a);
        inflight_say_idle(&a, 3);
        inflight_say_idle(&b, 4);
        assert_int_equal(inflight_idle(&a), 7);
        assert_int_equal(inflight_idle(&other), 0);
        /* Worker 1 dies: what it had in flight is gone, and its lock. */
        region_lock(r, 1);
        inflight_clear(r, 1);
        assert_int_equal(inflight_total(&a), 0);
        assert_int_equal(inflight_idle(&a), 3);
        inflight_open(&b, r, 1, 77);
        assert_ptr_equal(b.cells, a.cells);
}

static void places_are_used_again(void **state)
{
        struct inflight_region *r = inflight_region_new(2);
        struct inflight a, b, c;

        (void)state;
        inflight_open(&a, r, 0, 1);
        inflight_open(&b, r, 0, 1); /* a second use */
        inflight_close(&b, r);
        inflight_open(&b, r, 1, 2);
        assert_ptr_not_equal(a.cells, b.cells);
        inflight_open(&c, r, 1, 1);
        inflight_close(&a, r);
        inflight_open(&a, r, 0, 3);
        assert_ptr_not_equal(a.cells, c.cells); /* the other worker still has it */
        inflight_close(&c, r);
        inflight_open(&c, r, 1, 4);
        assert_int_equal(c.slot, 0);
}

static void a_full_region_counts_by_itself(void **state)
{
        struct inflight_region *r = inflight_region_new(1);
        struct inflight f;

        (void)state;
        r->high = INFLIGHT_SERVERS;
        for (uint32_t i = 0; i < INFLIGHT_SERVERS; i++) {
                r->keys[i] = i + 100;
                r->uses[i] = 1;
        }
        inflight_open(&f, r, 0, 1);
        assert_int_equal(f.slot, UINT32_MAX);
        inflight_add(&f);
        assert_int_equal(inflight_total(&f), 1);
        inflight_close(&f, r);
}

#define THREADS 4
#define ROUNDS  20000
#define MAXIMUM 3

struct racer {
        struct inflight_region *r;
        unsigned worker;
        _Atomic int *holders;
        unsigned won, broken;
};

static void *race(void *arg)
{
        struct racer *me = arg;
        struct inflight f;

        inflight_open(&f, me->r, me->worker, 5);
        for (unsigned i = 0; i < ROUNDS; i++) {
                if (!inflight_try(&f, MAXIMUM))
                        continue;
                me->won++;
                if (atomic_fetch_add(me->holders, 1) >= MAXIMUM)
                        me->broken++;
                atomic_fetch_sub(me->holders, 1);
                inflight_sub(&f);
        }
        inflight_close(&f, me->r);
        return NULL;
}

/* Two workers with two loops each; here they are threads. */
static void no_race_exceeds_the_maximum(void **state)
{
        struct inflight_region *r = inflight_region_new(2);
        _Atomic int holders = 0;
        pthread_t threads[THREADS];
        struct racer racers[THREADS];
        unsigned won = 0;

        (void)state;
        for (unsigned i = 0; i < THREADS; i++) {
                racers[i] = (struct racer){.r = r, .worker = i / 2, .holders = &holders};
                assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
                pthread_join(threads[i], NULL);
                assert_int_equal(racers[i].broken, 0);
                won += racers[i].won;
        }
        assert_true(won > 0);
        assert_false(slot_used(r, 0));
        assert_int_equal(atomic_load(&r->cells[0].n) + atomic_load(&r->cells[1].n), 0);
}

static void it_is_shared_over_fork(void **state)
{
        struct inflight_region *r = inflight_region_new(2);
        struct inflight f;
        int status;
        pid_t pid;

        (void)state;
        inflight_open(&f, r, 0, 9);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct inflight child;
                inflight_open(&child, r, 1, 9);
                inflight_add(&child);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(inflight_total(&f), 1);
        inflight_clear(r, 1);
        assert_int_equal(inflight_total(&f), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(workers_see_each_other),
                cmocka_unit_test(places_are_used_again),
                cmocka_unit_test(a_full_region_counts_by_itself),
                cmocka_unit_test(no_race_exceeds_the_maximum),
                cmocka_unit_test(it_is_shared_over_fork),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
