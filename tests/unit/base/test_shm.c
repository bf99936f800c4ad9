/* The store: against a map, over the borders, and with processes that die with a set in their
 * hands. */
#include "base/shm.c"

#include "unit.h"

#include <stdlib.h>

static struct store *store;
static struct arena *arena;

static int make_store(void **state)
{
        (void)state;
        store = store_new(256 * KIB);
        arena = arena_new(0);
        return 0;
}

static int drop_store(void **state)
{
        (void)state;
        store_free(store);
        arena_free(arena);
        arena_thread_end();
        return 0;
}

static str got(str key, int64_t now)
{
        str value = STR_NONE;

        return store_get(store, key, now, arena, &value) ? value : STR_NONE;
}

static str key_of(int i)
{
        return arena_printf(arena, "key-%d", i);
}

static void values(void **state)
{
        char big[STORE_VALUE_MAX + 1];
        str v;

        (void)state;
        memset(big, 'b', sizeof(big));
        assert_null(got(STR("a"), 1).p);
        assert_true(store_set(store, STR("a"), STR("one"), 1, 0));
        ASSERT_STR(got(STR("a"), INT64_MAX), "one");
        assert_true(store_set(store, STR("a"), STR("longer than it was"), 1, 0));
        ASSERT_STR(got(STR("a"), 1), "longer than it was");
        assert_true(store_set(store, STR("a"), STR_NONE, 1, 0));
        v = got(STR("a"), 1);
        assert_true(v.p != NULL && v.n == 0);
        assert_true(store_set(store, STR_NONE, STR("empty key"), 1, 0));
        ASSERT_STR(got(STR(""), 1), "empty key");
        store_del(store, STR("a"));
        store_del(store, STR("never there"));
        assert_null(got(STR("a"), 1).p);
        assert_true(
                store_set(store, str_of(big, STORE_KEY_MAX), str_of(big, STORE_VALUE_MAX), 1, 0));
        assert_int_equal(got(str_of(big, STORE_KEY_MAX), 1).n, STORE_VALUE_MAX);
        assert_false(store_set(store, str_of(big, STORE_KEY_MAX + 1), STR("x"), 1, 0));
        assert_false(store_set(store, STR("x"), str_of(big, STORE_VALUE_MAX + 1), 1, 0));
        assert_null(got(str_of(big, STORE_KEY_MAX + 1), 1).p);
        store_del(store, str_of(big, STORE_KEY_MAX + 1));
        assert_int_equal(store_evictions(store), 0);
}

static void no_room_for_the_copy(void **state)
{
        struct arena *small = arena_new(16);
        str v = STR("kept");

        (void)state;
        assert_true(store_set(store, STR("a"), STR("sixteen bytes and more"), 1, 0));
        assert_false(store_get(store, STR("a"), 1, small, &v));
        ASSERT_STR(v, "kept");
        arena_free(small);
}

static void times(void **state)
{
        (void)state;
        assert_true(store_set(store, STR("a"), STR("x"), 1000, 50));
        ASSERT_STR(got(STR("a"), 1049), "x");
        assert_null(got(STR("a"), 1050).p);
        assert_null(got(STR("a"), 1049).p); /* gone for good */
        assert_true(store_set(store, STR("a"), STR("y"), 2000, 50));
        assert_true(store_set(store, STR("a"), STR("z"), 2040, 50));
        ASSERT_STR(got(STR("a"), 2080), "z");
        assert_true(store_set(store, STR("a"), STR("z"), 2080, 0));
        ASSERT_STR(got(STR("a"), INT64_MAX), "z");
}

static void add(void *record, void *arg)
{
        *(uint64_t *)record += *(uint64_t *)arg;
}

static uint64_t counter(str key, int64_t now)
{
        str v = got(key, now);
        uint64_t n = 0;

        if (v.n == sizeof(n))
                memcpy(&n, v.p, sizeof(n));
        return n;
}

static void updates(void **state)
{
        uint64_t one = 1, five = 5;

        (void)state;
        assert_true(store_update(store, STR("n"), 8, 100, 10, add, &one));
        assert_true(store_update(store, STR("n"), 8, 109, 10, add, &five));
        assert_int_equal(counter(STR("n"), 118), 6);
        assert_true(store_update(store, STR("n"), 8, 119, 10, add, &five)); /* expired: anew */
        assert_int_equal(counter(STR("n"), 119), 5);
        assert_true(store_update(store, STR("n"), 16, 120, 10, add, &one)); /* another size */
        assert_int_equal(got(STR("n"), 120).n, 16);
        assert_false(store_update(store, STR("n"), STORE_VALUE_MAX + 1, 1, 0, add, &one));
        assert_int_equal(got(STR("n"), 120).n, 16);
}

/* Random records of every size, four times what fits: whatever is still there is right, what was
 * just written is there, and the sets stay whole. */
static void bounded(void **state)
{
        static unsigned version[400];
        static char want[STORE_VALUE_MAX];
        uint64_t x = 88172645463325252u;
        unsigned live = 0;

        (void)state;
        for (int round = 0; round < 20000; round++) {
                struct arena *a = arena_new(0);
                unsigned k;
                char key[16];
                size_t n;
                str v;
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                k = (unsigned)(x % COUNT(version));
                version[k] = (unsigned)round;
                n = (k * 7919 + version[k]) % (k % 4 ? 200 : STORE_VALUE_MAX);
                memset(want, (int)version[k] & 0xff, n);
                snprintf(key, sizeof(key), "%u", k);
                assert_true(store_set(store, str_z(key), str_of(want, n), round, 0));
                assert_true(store_get(store, str_z(key), round, a, &v));
                k = (unsigned)(x >> 32) % COUNT(version);
                snprintf(key, sizeof(key), "%u", k);
                if (store_get(store, str_z(key), round, a, &v)) {
                        n = (k * 7919 + version[k]) % (k % 4 ? 200 : STORE_VALUE_MAX);
                        memset(want, (int)version[k] & 0xff, n);
                        assert_int_equal(v.n, n);
                        assert_memory_equal(v.p, want, n);
                        live++;
                }
                arena_free(a);
        }
        assert_true(live > 4000);
        assert_true(store_evictions(store) > 1000);
        for (uint32_t i = 0; i < store->sets; i++) {
                bool taken[GRANULES] = {0};
                struct set *set = set_at(store, i);
                assert_true((char *)set >= (char *)&store->gate[store->sets]);
                for (uint32_t w = 0; w < WAYS; w++)
                        for (unsigned g = 0; set->hash[w] && g < set->entry[w].count; g++) {
                                assert_true(set->entry[w].start + g < GRANULES);
                                assert_false(taken[set->entry[w].start + g]);
                                taken[set->entry[w].start + g] = true;
                        }
        }
}

/* What expired goes first and is no eviction, then what was used least recently. */
static void order_of_leaving(void **state)
{
        const int n = 600; /* more than three sets' ways */

        (void)state;
        store_free(store);
        store = store_new(64 * KIB);
        for (int i = 0; i < n; i++) {
                assert_true(store_set(store, key_of(i), STR("x"), 1000, 10));
                assert_true(store_set(store, STR("hot"), STR("x"), 1000, 0));
        }
        assert_true(store_evictions(store) > 0); /* live ones had to go */
        ASSERT_STR(got(STR("hot"), 1000), "x");
        store_free(store);
        store = store_new(64 * KIB);
        for (int i = 0; i < n; i++)
                assert_true(store_set(store, key_of(i), STR("x"), 1000 + i * 100, 10));
        assert_int_equal(store_evictions(store), 0);
}

#define CHILDREN 4
#define ADDS     5000

static void add_many(int keys)
{
        uint64_t one = 1;

        for (int i = 0; i < ADDS; i++) {
                char key[16];
                int n = snprintf(key, sizeof(key), "key-%d", i % keys);
                if (!store_update(store, str_of(key, (size_t)n), 8, 1, 0, add, &one))
                        _exit(1);
        }
        _exit(0);
}

static void die(void *record, void *arg)
{
        (void)arg;
        *(uint64_t *)record = UINT64_MAX; /* half done */
        raise(SIGKILL);
}

/* A child that dies inside the lock of key's set; returns its process id once it is a zombie. */
static pid_t die_holding(str key)
{
        siginfo_t info;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                if (!store_update(store, key, 8, 1, 0, die, NULL))
                        _exit(1);
                _exit(2);
        }
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        assert_int_equal(info.si_code, CLD_KILLED);
        return pid;
}

static void exact_over_processes(void **state)
{
        uint64_t sum = 0, one = 1;
        pid_t pids[CHILDREN], victim;
        const int keys = 10;
        int status;

        (void)state;
        fflush(NULL);
        for (int i = 0; i < keys; i++)
                assert_true(store_update(store, key_of(i), 8, 1, 0, add, &one));
        victim = die_holding(STR("victim"));
        for (int i = 0; i < CHILDREN; i++) {
                pids[i] = fork();
                assert_true(pids[i] >= 0);
                if (pids[i] == 0)
                        add_many(keys);
        }
        /* some of them now wait for the dead one's set, as loops do until the master knows */
        assert_int_equal(waitpid(victim, &status, 0), victim);
        store_clear_dead(store, victim);
        for (int i = 0; i < CHILDREN; i++) {
                assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
                assert_int_equal(status, 0);
        }
        for (int i = 0; i < keys; i++)
                sum += counter(key_of(i), 1);
        assert_int_equal(sum, CHILDREN * ADDS + keys);
        assert_null(got(STR("victim"), 1).p);
}

static void dead_holders(void **state)
{
        uint64_t one = 1;
        int status;
        pid_t pid;

        (void)state;
        /* its neighbours in all sets stay */
        for (int i = 0; i < 300; i++)
                assert_true(store_update(store, key_of(i), 8, 1, 0, add, &one));
        for (int i = 0; i < 300; i += 30) {
                pid = die_holding(key_of(i));
                assert_int_equal(waitpid(pid, &status, 0), pid);
                if (i % 60 == 0)
                        store_clear_dead(store, pid);
                /* else who comes next finds out by itself */
                assert_null(got(key_of(i), 1).p);
                assert_true(store_update(store, key_of(i), 8, 1, 0, add, &one));
        }
        for (int i = 0; i < 300; i++)
                assert_int_equal(counter(key_of(i), 1), 1);
        store_clear_dead(store, getpid()); /* of one that holds nothing */
        assert_int_equal(counter(key_of(0), 1), 1);
}

static void *add_in_thread(void *arg)
{
        uint64_t one = 1;

        for (int i = 0; i < ADDS; i++)
                if (!store_update(store, STR("shared"), 8, 1, 0, add, &one))
                        abort();
        return arg;
}

static void exact_over_threads(void **state)
{
        pthread_t threads[CHILDREN];

        (void)state;
        for (int i = 0; i < CHILDREN; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, add_in_thread, NULL), 0);
        for (int i = 0; i < CHILDREN; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(counter(STR("shared"), 1), CHILDREN * ADDS);
}

static void memory_is_shared_and_lazy(void **state)
{
        char *p = shm_new(1024 * MIB);
        pid_t pid = fork();
        int status;

        (void)state;
        assert_true(pid >= 0);
        if (pid == 0) {
                p[1000 * MIB] = 'x';
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(p[1000 * MIB], 'x');
        assert_int_equal(p[500 * MIB], 0);
        shm_free(p, 1024 * MIB);
        shm_free(NULL, 1);
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, make_store, drop_store)

int main(void)
{
        const struct CMUnitTest tests[] = {
                STORE_TEST(values),
                STORE_TEST(no_room_for_the_copy),
                STORE_TEST(times),
                STORE_TEST(updates),
                STORE_TEST(bounded),
                STORE_TEST(order_of_leaving),
                STORE_TEST(exact_over_processes),
                STORE_TEST(dead_holders),
                STORE_TEST(exact_over_threads),
                cmocka_unit_test(memory_is_shared_and_lazy),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
