/*
 * The ring of ticket keys: rotation, files, and a reader that meets the writer.
 */
#include "net/tls_ticket.c"

#include "pump.h"

#include <pthread.h>

static void test_rotation(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        struct tls_ticket_set set, later;

        ring_read(t, &set);
        assert_int_equal(set.n, 1);
        for (uint32_t i = 2; i <= TLS_TICKET_OLD + 3; i++) {
                tls_tickets_rotate(t);
                ring_read(t, &later);
                assert_int_equal(later.n, MIN(i, TLS_TICKET_OLD + 1));
                assert_int_equal(later.seal, 0);
                assert_false(same_key(&later.v[0], &set.v[0]));
                assert_true(same_key(&later.v[1], &set.v[0])); /* the newest went one down */
                set = later;
        }
        assert_true(wall_now() - tls_tickets_since(t) < 60 * SEC);
        shm_free(t, sizeof(*t));
}

/* A file of n keys, each one byte repeated. */
static str file_of(const char *keys)
{
        static char file[TLS_TICKET_KEY_BYTES * (TLS_TICKET_FILE_KEYS + 1)];
        size_t n = strlen(keys);

        for (size_t i = 0; i < n; i++)
                memset(file + i * TLS_TICKET_KEY_BYTES, keys[i], TLS_TICKET_KEY_BYTES);
        return str_of(file, n * TLS_TICKET_KEY_BYTES);
}

/* The ring holds these keys, the one in brackets seals. */
static void holds(struct tls_tickets *t, const char *want)
{
        struct tls_ticket_set set;
        char have[2 * TLS_TICKET_KEYS] = "", *p = have;

        ring_read(t, &set);
        for (uint32_t i = 0; i < set.n; i++)
                p += sprintf(p, i == set.seal ? "[%c]" : "%c", set.v[i].key[0]);
        assert_string_equal(have, want);
}

static void test_load(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        struct tls_ticket_set before, after;

        ring_read(t, &before);
        assert_int_equal(tls_tickets_load(t, STR("")), TLS_TICKETS_BROKEN);
        assert_int_equal(tls_tickets_load(t, str_head(file_of("a"), TLS_TICKET_KEY_BYTES - 1)),
                         TLS_TICKETS_BROKEN);
        assert_int_equal(tls_tickets_load(t, str_head(file_of("ab"), TLS_TICKET_KEY_BYTES + 1)),
                         TLS_TICKETS_BROKEN);
        assert_int_equal(tls_tickets_stage(t, file_of("abcdef")), TLS_TICKETS_BROKEN);
        ring_read(t, &after);
        assert_memory_equal(&before, &after, sizeof(before)); /* untouched */
        assert_int_equal(tls_tickets_load(t, file_of("ab")), TLS_TICKETS_ROTATED);
        holds(t, "[a]b");
        assert_int_equal(tls_tickets_load(t, file_of("ac")), TLS_TICKETS_KEPT);
        holds(t, "[a]c");
        shm_free(t, sizeof(*t));
}

static void test_stage(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        char saved[TLS_TICKET_BYTES];
        size_t n;

        assert_int_equal(tls_tickets_load(t, file_of("a")), TLS_TICKETS_ROTATED);
        assert_int_equal(tls_tickets_stage(t, file_of("ba")), TLS_TICKETS_STAGED);
        holds(t, "b[a]");
        assert_int_equal(tls_tickets_stage(t, file_of("ba")), TLS_TICKETS_STAGED); /* still new */
        assert_int_equal(tls_tickets_stage(t, file_of("cb")), TLS_TICKETS_STAGED);
        holds(t, "cb[a]"); /* what seals stays though the file has dropped it */
        n = tls_tickets_save(t, saved);
        assert_int_equal(tls_tickets_load(t, file_of("cb")), TLS_TICKETS_ROTATED);
        holds(t, "[c]b");
        assert_int_equal(tls_tickets_stage(t, file_of("cx")), TLS_TICKETS_KEPT);
        assert_int_equal(tls_tickets_stage(t, file_of("xc")), TLS_TICKETS_ROTATED); /* announced */
        holds(t, "[x]c");
        assert_int_equal(tls_tickets_stage(t, file_of("defgh")), TLS_TICKETS_STAGED);
        holds(t, "defgh[x]");
        tls_tickets_rotate(t); /* from now on our own: what waited is forgotten */
        assert_int_equal(tls_tickets_load(t, str_of(saved, n)), TLS_TICKETS_ROTATED);
        holds(t, "[a]cb");
        shm_free(t, sizeof(*t));
}

static struct tls_tickets *shared;
static _Atomic unsigned writing;

/* Each set of keys is one byte repeated: a torn one shows. */
static void *writer(void *arg)
{
        char file[TLS_TICKET_KEY_BYTES * 2];

        for (int i = 0; i < 10000; i++) {
                memset(file, (i * 2 + *(int *)arg) & 0x7f, sizeof(file));
                CHECK(tls_tickets_load(shared, str_of(file, sizeof(file))) != TLS_TICKETS_BROKEN);
        }
        atomic_fetch_sub(&writing, 1);
        return NULL;
}

static void test_reader_meets_writers(void **state UNUSED)
{
        pthread_t thread[2];
        int id[2] = {0, 1};
        unsigned torn = 0;
        char first[TLS_TICKET_KEY_BYTES] = {0};

        shared = tls_tickets_new();
        assert_int_equal(tls_tickets_load(shared, str_of(first, sizeof(first))),
                         TLS_TICKETS_ROTATED);
        atomic_store(&writing, 2);
        for (int i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&thread[i], NULL, writer, &id[i]), 0);
        while (atomic_load(&writing) > 0) {
                struct tls_ticket_set set;
                ring_read(shared, &set);
                torn += set.n == 0;
                for (uint32_t i = 0; i < set.n; i++)
                        for (size_t j = 0; j < TLS_TICKET_KEY_BYTES; j++)
                                torn += set.v[i].key[j] != set.v[0].key[0];
        }
        for (int i = 0; i < 2; i++)
                pthread_join(thread[i], NULL);
        assert_int_equal(torn, 0);
        assert_int_equal(atomic_load(&shared->seq) & 1, 0);
        shm_free(shared, sizeof(*shared));
}

static void test_writer_that_died(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        struct tls_ticket_set set;

        atomic_fetch_add(&t->seq, 1); /* as if it had died with the lock */
        ring_read(t, &set);
        assert_int_equal(set.n, 1);
        assert_int_equal(tls_tickets_load(t, file_of("z")), TLS_TICKETS_ROTATED);
        assert_int_equal(atomic_load(&t->seq) & 1, 0); /* healed */
        holds(t, "[z]");
        shm_free(t, sizeof(*t));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rotation),
                cmocka_unit_test(test_load),
                cmocka_unit_test(test_stage),
                cmocka_unit_test(test_reader_meets_writers),
                cmocka_unit_test(test_writer_that_died),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
