/*
 * The ring of ticket keys: rotation, files, and a reader that meets the writer.
 */
#include "net/tls_ticket.c"

#include "pump.h"

#include <pthread.h>

static void test_rotation(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        struct ticket_key k[TLS_TICKET_KEYS], later[TLS_TICKET_KEYS];

        assert_int_equal(ring_read(t, k), 1);
        for (uint32_t i = 2; i <= TLS_TICKET_KEYS + 2; i++) {
                tls_tickets_rotate(t);
                assert_int_equal(ring_read(t, later), MIN(i, TLS_TICKET_KEYS));
                assert_memory_not_equal(&later[0], &k[0], sizeof(k[0]));
                assert_memory_equal(&later[1], &k[0], sizeof(k[0])); /* the newest went one down */
                memcpy(k, later, sizeof(k));
        }
        shm_free(t, sizeof(*t));
}

static void test_load(void **state UNUSED)
{
        struct tls_tickets *t = tls_tickets_new();
        struct ticket_key k[TLS_TICKET_KEYS], before;
        char file[KEY_BYTES * (TLS_TICKET_KEYS + 1)];

        for (size_t i = 0; i < sizeof(file); i++)
                file[i] = (char)(i / KEY_BYTES + 1);
        assert_int_equal(ring_read(t, k), 1);
        before = k[0];
        assert_false(tls_tickets_load(t, str_of(file, 0)));
        assert_false(tls_tickets_load(t, str_of(file, KEY_BYTES - 1)));
        assert_false(tls_tickets_load(t, str_of(file, KEY_BYTES + 1)));
        assert_false(tls_tickets_load(t, str_of(file, sizeof(file))));
        assert_int_equal(ring_read(t, k), 1);
        assert_memory_equal(&k[0], &before, sizeof(before)); /* untouched */
        assert_true(tls_tickets_load(t, str_of(file, 2 * KEY_BYTES)));
        assert_int_equal(ring_read(t, k), 2);
        assert_int_equal(k[0].name[0], 1);
        assert_int_equal(k[1].cipher[31], 2);
        shm_free(t, sizeof(*t));
}

static struct tls_tickets *shared;
static _Atomic unsigned writing;

/* Each set of keys is one byte repeated: a torn one shows. */
static void *writer(void *arg)
{
        char file[KEY_BYTES * 2];

        for (int i = 0; i < 10000; i++) {
                memset(file, (i * 2 + *(int *)arg) & 0x7f, sizeof(file));
                CHECK(tls_tickets_load(shared, str_of(file, sizeof(file))));
        }
        atomic_fetch_sub(&writing, 1);
        return NULL;
}

static void test_reader_meets_writers(void **state UNUSED)
{
        pthread_t thread[2];
        int id[2] = {0, 1};
        unsigned torn = 0;
        char first[KEY_BYTES] = {0};

        shared = tls_tickets_new();
        assert_true(tls_tickets_load(shared, str_of(first, sizeof(first))));
        atomic_store(&writing, 2);
        for (int i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&thread[i], NULL, writer, &id[i]), 0);
        while (atomic_load(&writing) > 0) {
                struct ticket_key k[TLS_TICKET_KEYS];
                uint32_t n = ring_read(shared, k);
                for (uint32_t i = 0; i < n; i++)
                        for (size_t j = 0; j < KEY_BYTES; j++)
                                torn += ((char *)&k[i])[j] != ((char *)&k[0])[0];
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
        struct ticket_key k[TLS_TICKET_KEYS];
        char file[KEY_BYTES];

        atomic_fetch_add(&t->seq, 1); /* as if it had died with the lock */
        assert_int_equal(ring_read(t, k), 1);
        memset(file, 9, sizeof(file));
        assert_true(tls_tickets_load(t, str_of(file, sizeof(file))));
        assert_int_equal(atomic_load(&t->seq) & 1, 0); /* healed */
        assert_int_equal(ring_read(t, k), 1);
        assert_int_equal(k[0].name[0], 9);
        shm_free(t, sizeof(*t));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rotation),
                cmocka_unit_test(test_load),
                cmocka_unit_test(test_reader_meets_writers),
                cmocka_unit_test(test_writer_that_died),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
