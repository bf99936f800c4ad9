/* Last words: children that die of every kind of fault must leave their record and still die of it.
 */
#include "base/crumb.c"

#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

static struct crumb *shared;
static int notes[2];
static const str function = STR_INIT("the function"), route = STR_INIT("/a/route");

static int make_shared(void **state)
{
        (void)state;
        shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_true(shared != MAP_FAILED);
        assert_int_equal(pipe(notes), 0);
        return 0;
}

static int drop_shared(void **state)
{
        (void)state;
        munmap(shared, sizeof(*shared));
        close(notes[0]);
        close(notes[1]);
        return 0;
}

/* In a child: what a worker's loop does before it calls a function, with the plain default action
 * behind the handlers also where a sanitizer has put its own. */
static void begin(void)
{
        for (size_t i = 0; i < COUNT(fatal); i++)
                signal(fatal[i], SIG_DFL);
        crumb_use(shared);
        crumb_catch_faults(notes[1]);
        crumb_catch_faults(notes[1]); /* again is fine */
        crumb_enter(7, 3, 2, &function, &route);
}

static char *volatile nowhere = (char *)16;

static void segv(void *arg)
{
        (void)arg;
        begin();
        *nowhere = 1;
}

static void ill(void *arg)
{
        (void)arg;
        begin();
        __builtin_trap();
}

static void aborts(void *arg)
{
        (void)arg;
        begin();
        abort();
}

static void killed(void *arg)
{
        begin();
        kill(getpid(), *(int *)arg);
        pause();
}

__attribute__((noinline)) static int deeper(volatile char *above, int n)
{
        volatile char here[4096];

        memset((char *)here, n, sizeof(here));
        return n > 1 << 20 ? above[0] : deeper(here, n + 1) + here[n % 4096];
}

static void overflow(void *arg)
{
        (void)arg;
        begin();
        setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 1 << 20});
        _exit(deeper(NULL, 0));
}

static void astray(void *arg)
{
        begin();
        atomic_store(&crumb_self->function, (const str *)16); /* was written over */
        *(char *volatile)arg = 1;
}

static void exits(void *arg)
{
        begin();
        exit(*(int *)arg);
}

static void *thread_segv(void *arg)
{
        crumb_thread_stack();
        crumb_use(shared);
        crumb_enter(9, 1, 1, &function, NULL);
        *(char *volatile)arg = 1;
        return NULL;
}

static void other_thread(void *arg)
{
        pthread_t t;

        (void)arg;
        crumb_catch_faults(notes[1]);
        for (size_t i = 0; i < COUNT(fatal); i++)
                before[i].sa_handler = SIG_DFL;
        pthread_create(&t, NULL, thread_segv, nowhere);
        pthread_join(t, NULL);
}

static void dies(void (*fn)(void *), void *arg, int sig, uint64_t where)
{
        unsigned char note = 0;
        int status;

        memset(shared, 0, sizeof(*shared));
        status = in_child(fn, arg);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), sig);
        assert_int_equal(shared->sig, sig);
        assert_int_not_equal(shared->pc, 0);
        assert_int_not_equal(shared->tid, 0);
        assert_int_equal(shared->where, where);
        assert_int_equal(read(notes[0], &note, 1), 1);
        assert_int_equal(note, sig);
        assert_string_equal(shared->function_text, "the function");
        assert_string_equal(shared->route_text, fn == other_thread ? "" : "/a/route");
}

/* Then the record lacks names, but all is over as it should be. */
static void wrong_names_do_no_harm(void **state)
{
        int status;

        (void)state;
        memset(shared, 0, sizeof(*shared));
        status = in_child(astray, nowhere);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
        assert_int_equal(shared->sig, SIGSEGV);
        assert_int_not_equal(shared->where, 0);
        assert_string_equal(shared->function_text, "");
}

static void exit_leaves_names(void **state)
{
        int three = 3, status;

        (void)state;
        memset(shared, 0, sizeof(*shared));
        status = in_child(exits, &three);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 3);
        assert_int_not_equal(shared->where, 0);
        assert_string_equal(shared->function_text, "the function");
}

static void names_of_what_it_is_in(void **state)
{
        char long_name[300], f[CRUMB_FUNCTION], r[CRUMB_ROUTE];
        str name = {long_name, sizeof(long_name)};
        struct crumb c = {0}, *before_it = crumb_self;

        (void)state;
        memset(long_name, 'x', sizeof(long_name));
        crumb_self = &c;
        crumb_enter(1, 2, 3, &name, &name);
        crumb_names(&c, f, r);
        assert_int_equal(strlen(f), CRUMB_FUNCTION - 1);
        assert_int_equal(strlen(r), CRUMB_ROUTE - 1);
        crumb_leave(); /* from here on the names may go */
        crumb_names(&c, f, r);
        assert_string_equal(f, "");
        assert_string_equal(r, "");
        crumb_self = before_it;
}

static void every_fault_leaves_a_record(void **state)
{
        static int sent[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
        const uint64_t where = UINT64_C(7) << 32 | 3 << 8 | 2;

        (void)state;
        dies(segv, NULL, SIGSEGV, where);
        assert_int_equal(shared->addr, 16);
        dies(ill, NULL, SIGILL, where);
        dies(aborts, NULL, SIGABRT, where);
        for (size_t i = 0; i < COUNT(sent); i++)
                dies(killed, &sent[i], sent[i], where);
        dies(other_thread, NULL, SIGSEGV, UINT64_C(9) << 32 | 1 << 8 | 1);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        dies(overflow, NULL, SIGSEGV, where);
#else
        (void)overflow; /* the sanitizers' stack frames do not end where the limit says */
#endif
}

static void enter_and_leave(void **state)
{
        (void)state;
        assert_non_null(crumb_self);
        crumb_enter(1, 0x1000002, 3, NULL, NULL);
        assert_int_equal(crumb_self->where, UINT64_C(1) << 32 | 2 << 8 | 3);
        crumb_leave();
        assert_int_equal(crumb_self->where, 0);
        assert_int_equal(sizeof(struct crumb) % 128, 0);
}

static void *where_it_stalls;

static __attribute__((noinline)) void stuck(void)
{
        where_it_stalls = __builtin_return_address(0);
        atomic_store(&shared->waiting, 1);
        while (atomic_load(&shared->frames[0]) == 0)
                ;
}

static void *stalls(void *arg)
{
        crumb_use(shared);
        stuck();
        return arg;
}

static void stalled_thread_says_where(void **state)
{
        pthread_t t;

        (void)state;
        memset(shared, 0, sizeof(*shared));
        crumb_catch_dump();
        assert_int_equal(pthread_create(&t, NULL, stalls, NULL), 0);
        while (atomic_load(&shared->waiting) == 0)
                sched_yield();
        crumb_ask_dump(shared);
        pthread_join(t, NULL); /* ends only when frames[0] was stored */
        assert_int_not_equal(shared->frames[0], 0);
        /* the function itself, its caller, then what began the thread */
        assert_int_equal(shared->frames[1], (uint64_t)(uintptr_t)where_it_stalls);
        assert_int_not_equal(shared->frames[2], 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(every_fault_leaves_a_record, make_shared,
                                                drop_shared),
                cmocka_unit_test_setup_teardown(wrong_names_do_no_harm, make_shared, drop_shared),
                cmocka_unit_test_setup_teardown(exit_leaves_names, make_shared, drop_shared),
                cmocka_unit_test(names_of_what_it_is_in),
                cmocka_unit_test(enter_and_leave),
                cmocka_unit_test_setup_teardown(stalled_thread_says_where, make_shared,
                                                drop_shared),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
