/*
 * What a loop is doing, and the last words of a process.
 *
 * The difficulty: the handlers run in a process whose heap and stack may be gone.  They use an
 * alternate stack, touch only the crumb, and call nothing but write, sigaction and raise.  A fault
 * recurs when the handler returns; a signal that was *sent* does not, and is raised again.
 */
#include "base/crumb.h"

#include "base/check.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define STACK_BYTES (64 * KIB)

static struct crumb unread;
_Thread_local struct crumb *crumb_self = &unread;

/* Of the thread's stack, for walking it from a handler. */
static _Thread_local uintptr_t stack_low, stack_high;
static _Thread_local bool has_alternate;

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
static struct sigaction before[COUNT(fatal)];
static int notify = -1;

void crumb_use(struct crumb *c)
{
        pthread_attr_t attr;
        void *low;
        size_t n;

        crumb_self = c;
        atomic_store_explicit(&c->tid, (uint32_t)gettid(), memory_order_relaxed);
        if (pthread_getattr_np(pthread_self(), &attr) == 0) {
                if (pthread_attr_getstack(&attr, &low, &n) == 0) {
                        stack_low = (uintptr_t)low;
                        stack_high = (uintptr_t)low + n;
                }
                pthread_attr_destroy(&attr);
        }
}

static void registers(const void *context, uintptr_t *pc, uintptr_t *frame)
{
        const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;

#if defined(__x86_64__)
        *pc = (uintptr_t)m->gregs[REG_RIP];
        *frame = (uintptr_t)m->gregs[REG_RBP];
#elif defined(__aarch64__)
        *pc = (uintptr_t)m->pc;
        *frame = (uintptr_t)m->regs[29];
#else
        (void)m;
        *pc = *frame = 0;
#endif
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
        struct crumb *c = crumb_self;
        unsigned char byte = (unsigned char)sig;
        uintptr_t pc, frame;
        int saved = errno;

        registers(context, &pc, &frame);
        atomic_store_explicit(&c->addr, (uint64_t)(uintptr_t)info->si_addr, memory_order_relaxed);
        atomic_store_explicit(&c->pc, pc, memory_order_relaxed);
        atomic_store_explicit(&c->sig, (uint64_t)sig, memory_order_release);
        if (notify >= 0)
                while (write(notify, &byte, 1) < 0 && errno == EINTR)
                        ;
        for (size_t i = 0; i < COUNT(fatal); i++)
                if (fatal[i] == sig)
                        sigaction(sig, &before[i], NULL);
        if (info->si_code <= 0)
                raise(sig); /* blocked until we return */
        errno = saved;
}

void crumb_thread_stack(void)
{
        size_t page = (size_t)sysconf(_SC_PAGESIZE), n = STACK_BYTES;
        long least = sysconf(_SC_SIGSTKSZ);
        stack_t stack = {0};
        char *p;

        if (has_alternate)
                return;
        if (least > 0)
                n = MAX(n, ((size_t)least + page - 1) & ~(page - 1));
        p = mmap(NULL, n + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p != MAP_FAILED);
        CHECK(mprotect(p, page, PROT_NONE) == 0);
        stack.ss_sp = p + page;
        stack.ss_size = n;
        CHECK(sigaltstack(&stack, NULL) == 0);
        has_alternate = true;
}

void crumb_catch_faults(int notify_fd)
{
        struct sigaction act = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK}, old;

        crumb_thread_stack();
        notify = notify_fd;
        sigemptyset(&act.sa_mask);
        for (size_t i = 0; i < COUNT(fatal); i++) {
                CHECK(sigaction(fatal[i], &act, &old) == 0);
                if (old.sa_sigaction == on_fatal)
                        continue;
                before[i] = old;
                if (old.sa_handler == SIG_IGN)
                        before[i].sa_handler = SIG_DFL;
        }
}

/* Return addresses along the frame pointers, as long as these stay inside the stack and go up;
 * code built without frame pointers ends the walk early, never in a fault. */
static void on_dump(int sig, siginfo_t *info, void *context)
{
        struct crumb *c = crumb_self;
        uintptr_t pc, frame, below = stack_low;

        (void)sig;
        (void)info;
        registers(context, &pc, &frame);
        for (size_t i = 1; i < COUNT(c->frames); i++) {
                uintptr_t address = 0;
                if (frame >= below && frame % sizeof(frame) == 0 &&
                    frame + 2 * sizeof(frame) <= stack_high) {
                        const uintptr_t *at = (const uintptr_t *)frame;
                        below = frame + 1;
                        frame = at[0];
                        address = at[1];
                } else {
                        frame = 0;
                }
                atomic_store_explicit(&c->frames[i], address, memory_order_relaxed);
        }
        atomic_store_explicit(&c->frames[0], pc, memory_order_release);
}

void crumb_catch_dump(void)
{
        struct sigaction act = {.sa_sigaction = on_dump,
                                .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

        sigemptyset(&act.sa_mask);
        CHECK(sigaction(SIGUSR2, &act, NULL) == 0);
}
