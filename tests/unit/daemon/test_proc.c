/* Quotas in words, and what a child keeps. */
#include "daemon/proc.c"

#include "../base/unit.h"

static void quotas(void **state)
{
        static const struct {
                const char *text;
                unsigned cpus;
        } cases[] = {{"max 100000\n", 0}, {"100000 100000\n", 1}, {"150000 100000\n", 2},
                     {"1000 100000", 1},  {"400000 100000\n", 4}, {"", 0},
                     {"0 100000\n", 0},   {"100000 0\n", 0},      {"100000", 0},
                     {"x y\n", 0},        {"-1 100000\n", 0}};

        (void)state;
        for (size_t i = 0; i < COUNT(cases); i++)
                assert_int_equal(proc_quota(str_z(cases[i].text)), cases[i].cpus);
        assert_true(proc_cpus() >= 1);
}

static void closes_all_but(void *arg)
{
        int keep[4], *fds = arg;

        keep[0] = fds[3];
        keep[1] = -1;
        keep[2] = fds[1];
        keep[3] = 1;
        proc_close_others(keep, COUNT(keep));
        for (int i = 0; i < 5; i++) {
                if ((fcntl(fds[i], F_GETFD) >= 0) != (i == 1 || i == 3))
                        _exit(1);
        }
        _exit(fcntl(2, F_GETFD) >= 0 ? 0 : 1);
}

static void only_what_is_kept_stays_open(void **state)
{
        int fds[5];

        (void)state;
        for (int i = 0; i < 5; i++)
                fds[i] = open("/dev/null", O_RDONLY);
        assert_int_equal(in_child(closes_all_but, fds), 0);
        for (int i = 0; i < 5; i++)
                close(fds[i]);
}

static bool capabilities_are_none(void)
{
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct has[2];

        return syscall(SYS_capget, &head, has) == 0 && has[0].permitted == 0 &&
               has[0].effective == 0 && has[1].permitted == 0 && has[1].effective == 0;
}

static void drops(void *arg)
{
        struct proc_user u = {true, 65534, 65534};
        bool was_root = geteuid() == 0;
        uid_t r, e, s;

        (void)arg;
        if (!proc_drop(&u) || !capabilities_are_none() ||
            prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1)
                _exit(1);
        if (was_root && (getresuid(&r, &e, &s) != 0 || r != 65534 || e != 65534 || s != 65534 ||
                         getgroups(0, NULL) != 0 || setuid(0) == 0))
                _exit(2);
        _exit(0);
}

static void rights_do_not_come_back(void **state)
{
        (void)state;
        assert_int_equal(in_child(drops, NULL), 0);
}

static void ignores(void *arg)
{
        sigset_t now;

        (void)arg;
        proc_child_signals();
        sigprocmask(SIG_SETMASK, NULL, &now);
        if (sigismember(&now, SIGTERM))
                _exit(1);
        raise(SIGTERM);
        raise(SIGHUP);
        raise(SIGINT);
        _exit(0);
}

static void the_masters_signals_do_not_touch_a_child(void **state)
{
        (void)state;
        assert_int_equal(in_child(ignores, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(quotas),
                cmocka_unit_test(only_what_is_kept_stays_open),
                cmocka_unit_test(rights_do_not_come_back),
                cmocka_unit_test(the_masters_signals_do_not_touch_a_child),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
