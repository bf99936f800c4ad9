/*
 * What the unit tests of base share: cmocka with its preludes, strings compared as text, and a
 * child that must die of a signal.
 */
#ifndef UNIT_BASE_UNIT_H
#define UNIT_BASE_UNIT_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASSERT_STR(s, lit)                                                                         \
        do {                                                                                       \
                assert_int_equal((s).n, sizeof(lit) - 1);                                          \
                assert_memory_equal((s).p, lit, sizeof(lit) - 1);                                  \
        } while (0)

/* Runs fn(arg) in a child whose standard error is thrown away; returns its wait status. */
__attribute__((unused)) static int in_child(void (*fn)(void *), void *arg)
{
        int status;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct rlimit no_core = {0, 0};
                int null = open("/dev/null", O_WRONLY);
                setrlimit(RLIMIT_CORE, &no_core);
                signal(SIGABRT, SIG_DFL);
                dup2(null, STDERR_FILENO);
                fn(arg);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

#define ASSERT_ABORTS(fn, arg)                                                                     \
        do {                                                                                       \
                int status_ = in_child((fn), (arg));                                               \
                assert_true(WIFSIGNALED(status_));                                                 \
                assert_int_equal(WTERMSIG(status_), SIGABRT);                                      \
        } while (0)

#endif
