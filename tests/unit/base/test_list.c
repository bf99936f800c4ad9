/* The intrusive list: order, unlinking, and unlinking while it is visited. */
#include "base/list.h"

#include "unit.h"

struct item {
        struct list node;
        int id;
};

static struct list head;
static struct item items[5];

static int fill(void **state)
{
        (void)state;
        list_init(&head);
        for (int i = 0; i < 5; i++) {
                items[i].id = i;
                list_push(&head, &items[i].node);
        }
        return 0;
}

/* The ids in order as one decimal number, read backwards too. */
static int ids(void)
{
        int forward = 0, backward = 0, unit = 1;

        LIST_EACH (n, &head)
                forward = forward * 10 + CONTAINER_OF(n, struct item, node)->id + 1;
        for (struct list *n = head.prev; n != &head; n = n->prev, unit *= 10)
                backward += unit * (CONTAINER_OF(n, struct item, node)->id + 1);
        assert_int_equal(forward, backward);
        return forward;
}

static void keeps_order(void **state)
{
        (void)state;
        assert_int_equal(ids(), 12345);
        list_remove(&items[2].node);
        assert_false(list_linked(&items[2].node));
        assert_true(list_linked(&items[1].node));
        assert_int_equal(ids(), 1245);
        list_push_front(&head, &items[2].node);
        assert_int_equal(ids(), 31245);
        assert_ptr_equal(list_pop(&head), &items[2].node);
        for (int i = 0; i < 4; i++)
                assert_non_null(list_pop(&head));
        assert_true(list_empty(&head));
        assert_null(list_pop(&head));
        assert_int_equal(ids(), 0);
}

static void body_may_unlink(void **state)
{
        (void)state;
        LIST_EACH (n, &head)
                if (CONTAINER_OF(n, struct item, node)->id % 2 == 0)
                        list_remove(n);
        assert_int_equal(ids(), 24);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(keeps_order, fill),
                cmocka_unit_test_setup(body_may_unlink, fill),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
