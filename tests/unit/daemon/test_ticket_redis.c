/*
 * Ticket keys by time: which one seals, which ones still open.
 */
#include "daemon/ticket_redis.c"

#include "../base/unit.h"

/* Keys as "FROM..." with the one that seals in brackets. */
static void holds(const struct tls_ticket_set *set, const char *want)
{
        char have[128] = "", *p = have;

        for (uint32_t i = 0; i < set->n; i++)
                p += sprintf(p, i == set->seal ? "[%d]" : "%d ", (int)set->v[i].from);
        assert_string_equal(have, want);
}

static void merge(struct tls_ticket_set *set, int64_t from, int64_t now)
{
        uint8_t key[TLS_TICKET_KEY_BYTES];

        memset(key, (int)from, sizeof(key));
        ticket_set_merge(set, from, key, now);
        for (uint32_t i = 0; i < set->n; i++)
                assert_int_equal(set->v[i].key[79], (uint8_t)set->v[i].from);
}

static void test_periods(void **state UNUSED)
{
        struct tls_ticket_set set = {.n = 1};

        merge(&set, 20, 15); /* only the next one has come yet */
        holds(&set, "20 [0]");
        merge(&set, 10, 15);
        holds(&set, "20 [10]0 ");
        ticket_set_merge(&set, 0, NULL, 19);
        holds(&set, "20 [10]0 ");
        ticket_set_merge(&set, 0, NULL, 20); /* its time has come, whoever else has gone */
        holds(&set, "[20]10 0 ");
        merge(&set, 30, 20);
        merge(&set, 20, 20);
        holds(&set, "30 [20]10 0 ");
        merge(&set, 40, 30);
        holds(&set, "40 [30]20 10 0 ");
        merge(&set, 50, 40); /* three old ones, no more */
        holds(&set, "50 [40]30 20 10 ");
        merge(&set, 60, 50);
        holds(&set, "60 [50]40 30 20 ");
        ticket_set_merge(&set, 0, NULL, 1000); /* nothing new: the last goes on */
        holds(&set, "[60]50 40 30 ");
        merge(&set, 20, 1000); /* too old */
        holds(&set, "[60]50 40 30 ");
}

static void test_late_ones(void **state UNUSED)
{
        struct tls_ticket_set set = {.n = 1};

        merge(&set, 60, 55);
        merge(&set, 50, 55);
        merge(&set, 30, 55);
        merge(&set, 40, 55);
        merge(&set, 20, 55);
        holds(&set, "60 [50]40 30 20 ");
        merge(&set, 80, 55); /* another grid, or a clock that went back */
        holds(&set, "80 60 [50]40 30 20 ");
        merge(&set, 70, 55);
        holds(&set, "80 70 60 [50]40 30 ");
        assert_true(set.n <= TLS_TICKET_KEYS);
}

static void test_another_key_of_the_same_period(void **state UNUSED)
{
        struct tls_ticket_set set = {.n = 1};
        uint8_t key[TLS_TICKET_KEY_BYTES];

        merge(&set, 10, 15);
        memset(key, 99, sizeof(key));
        ticket_set_merge(&set, 10, key, 15);
        holds(&set, "[10]0 ");
        assert_int_equal(set.v[0].key[0], 99);
}

static void test_texts(void **state UNUSED)
{
        uint8_t key[TLS_TICKET_KEY_BYTES], back[TLS_TICKET_KEY_BYTES];
        char text[TEXT_BYTES];

        for (size_t i = 0; i < sizeof(key); i++)
                key[i] = (uint8_t)(i * 7);
        crypto_hex(text, key, sizeof(key));
        assert_true(key_of(str_of(text, sizeof(text)), back));
        assert_memory_equal(key, back, sizeof(key));
        assert_false(key_of(str_of(text, sizeof(text) - 1), back));
        text[159] = 'g';
        assert_false(key_of(str_of(text, sizeof(text)), back));
        assert_false(key_of(STR(""), back));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_periods),
                cmocka_unit_test(test_late_ones),
                cmocka_unit_test(test_another_key_of_the_same_period),
                cmocka_unit_test(test_texts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
