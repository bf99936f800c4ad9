/* Records keep their borders, their order and their descriptors. */
#include "daemon/wire.c"

#include "../base/unit.h"

#include <fcntl.h>

static void records_and_descriptors_arrive(void **state)
{
        int pair[2], pipes[2];
        static struct wire w;
        char byte;
        const uint64_t number = 77;

        (void)state;
        assert_true(wire_pair(pair));
        assert_int_equal(wire_recv(pair[0], &w), WIRE_NONE);
        assert_int_equal(pipe(pipes), 0);
        assert_true(wire_send_fds(pair[1], WIRE_LOG, 5, "path", 4, &pipes[1], 1));
        assert_true(wire_send(pair[1], WIRE_COMMIT, 6, &number, sizeof(number)));
        close(pipes[1]);
        assert_int_equal(wire_recv(pair[0], &w), WIRE_GOT);
        assert_int_equal(w.type, WIRE_LOG);
        assert_int_equal(w.number, 5);
        assert_int_equal(w.n, 4);
        assert_memory_equal(w.data, "path", 4);
        assert_null(wire_data(&w, 5));
        assert_int_equal(w.n_fds, 1);
        assert_true(fcntl(w.fds[0], F_GETFD) & FD_CLOEXEC);
        int fd = wire_take(&w, 0);
        assert_int_equal(wire_take(&w, 0), -1);
        assert_int_equal(wire_take(&w, 1), -1);
        wire_close(&w);
        assert_int_equal(write(fd, "x", 1), 1);
        assert_int_equal(read(pipes[0], &byte, 1), 1);
        close(fd);
        assert_int_equal(read(pipes[0], &byte, 1), 0);
        assert_int_equal(wire_recv(pair[0], &w), WIRE_GOT);
        assert_int_equal(*(const uint64_t *)wire_data(&w, sizeof(number)), 77);
        close(pair[1]);
        assert_int_equal(wire_recv(pair[0], &w), WIRE_END);
        assert_false(wire_send(pair[0], WIRE_STOP, 0, NULL, 0));
        close(pair[0]);
        close(pipes[0]);
}

static void descriptors_nobody_takes_are_closed(void **state)
{
        int pair[2], pipes[2];
        static struct wire w;
        char byte;

        (void)state;
        assert_true(wire_pair(pair));
        assert_int_equal(pipe(pipes), 0);
        int both[2] = {pipes[1], pipes[1]};
        assert_true(wire_send_fds(pair[1], WIRE_PLAN, 0, NULL, 0, both, 2));
        close(pipes[1]);
        assert_int_equal(wire_recv(pair[0], &w), WIRE_GOT);
        wire_close(&w);
        assert_int_equal(read(pipes[0], &byte, 1), 0);
        close(pipes[0]);
        close(pair[0]);
        close(pair[1]);
}

static void malformed_records_end_it(void **state)
{
        struct wire_head lies = {WIRE_LOG, 0, 100, 0}, fds = {WIRE_LOG, 0, 0, 3};
        const void *records[] = {"x", &lies, &fds};
        size_t sizes[] = {1, sizeof(lies), sizeof(fds)};
        static struct wire w;

        (void)state;
        for (size_t i = 0; i < COUNT(records); i++) {
                int pair[2];
                assert_true(wire_pair(pair));
                assert_int_equal(send(pair[1], records[i], sizes[i], 0), sizes[i]);
                assert_int_equal(wire_recv(pair[0], &w), WIRE_END);
                close(pair[0]);
                close(pair[1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(records_and_descriptors_arrive),
                cmocka_unit_test(descriptors_nobody_takes_are_closed),
                cmocka_unit_test(malformed_records_end_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
