/*
 * What a loop is doing, and the last words of a process.
 *
 * The difficulty: the handlers run in a process whose heap and stack may be gone.  They use an
 * alternate stack, touch only the crumb and the names that it points to, and call nothing but
 * write, sigaction, raise and the unwinder.  A fault recurs when the handler returns; a signal that
 * was *sent* does not, and is raised again.
 */
#include "base/crumb.h"

#include "base/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#define STACK_BYTES (64 * KIB)

static struct crumb unread;
_Thread_local struct crumb *crumb_self = &unread;

static _Thread_local bool has_alternate;

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
static struct sigaction before[COUNT(fatal)];
static int notify = -1;

void crumb_use(struct crumb *c)
{
        crumb_self = c;
        atomic_store_explicit(&c->tid, (uint32_t)gettid(), memory_order_relaxed);
}

static void put_name(char *to, size_t cap, const str *s)
{
        size_t n = s ? MIN(s->n, cap - 1) : 0;

        if (n > 0)
                memcpy(to, s->p, n);
        to[n] = 0;
}

void crumb_names(const struct crumb *c, char function[CRUMB_FUNCTION], char route[CRUMB_ROUTE])
{
        const str *f = NULL, *r = NULL;

        if (atomic_load_explicit(&c->where, memory_order_acquire) != 0) {
                f = atomic_load_explicit(&c->function, memory_order_relaxed);
                r = atomic_load_explicit(&c->route, memory_order_relaxed);
        }
        put_name(function, CRUMB_FUNCTION, f);
        put_name(route, CRUMB_ROUTE, r);
}

/* For the master.  Whoever wrote over the crumb has the names' addresses wrong as well: then this
 * is a second fault, which the kernel ends at once. */
static void leave_names(void)
{
        crumb_names(crumb_self, crumb_self->function_text, crumb_self->route_text);
}

static uintptr_t program_counter(const void *context)
{
        const mcontext_t *m = &((const ucontext_t *)context)->uc_mcontext;

#if defined(__x86_64__)
        return (uintptr_t)m->gregs[REG_RIP];
#elif defined(__aarch64__)
        return (uintptr_t)m->pc;
#else
        (void)m;
        return 0;
#endif
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
        struct crumb *c = crumb_self;
        unsigned char byte = (unsigned char)sig;
        int saved = errno;

        atomic_store_explicit(&c->addr, (uint64_t)(uintptr_t)info->si_addr, memory_order_relaxed);
        atomic_store_explicit(&c->pc, program_counter(context), memory_order_relaxed);
        atomic_store_explicit(&c->sig, (uint64_t)sig, memory_order_release);
        leave_names();
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
        CHECK(atexit(leave_names) == 0);
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

/* What an interrupted thread was in, innermost first. */
struct trace {
        void *at[CRUMB_FRAMES + 8];
        int n;
};

/* Code that was made at run time has no rules of unwinding, or some that the unwinder aborts
 * over. */
static bool is_loaded(void *pc)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE /* glibc 2.35 */
        struct dl_find_object found;
        return _dl_find_object(pc, &found) == 0;
#else
        (void)pc;
        return true;
#endif
}

static _Unwind_Reason_Code add_frame(struct _Unwind_Context *context, void *arg)
{
        struct trace *t = arg;
        void *pc = (void *)_Unwind_GetIP(context);

        if (t->n == COUNT(t->at))
                return _URC_END_OF_STACK;
        t->at[t->n++] = pc;
        return is_loaded(pc) ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* The unwinder's own code: perhaps with its lock held. */
static bool is_unwinder(void *pc)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE
        struct dl_find_object it, unwinder, program;
        return _dl_find_object(pc, &it) == 0 &&
               _dl_find_object((void *)_Unwind_Backtrace, &unwinder) == 0 &&
               _dl_find_object((void *)is_unwinder, &program) == 0 &&
               it.dlfo_link_map == unwinder.dlfo_link_map &&
               it.dlfo_link_map != program.dlfo_link_map;
#else
        (void)pc;
        return false;
#endif
}

/* The unwinder takes no memory once it has sorted what code made at run time has registered (as
 * that of LuaJIT does), which crumb_ask_dump sees to; its lock is held by nobody who waits for this
 * thread. What lies below the interrupted function is this handler's own. */
static void on_dump(int sig, siginfo_t *info, void *context)
{
        struct crumb *c = crumb_self;
        struct trace t = {.n = 0};
        int from = 0, saved = errno;
        uintptr_t pc = program_counter(context);

        (void)sig;
        (void)info;
        if (!is_unwinder((void *)pc))
                (void)_Unwind_Backtrace(add_frame, &t);
        while (from < t.n && (uintptr_t)t.at[from] != pc)
                from++;
        for (size_t i = 1; i < COUNT(c->frames); i++)
                atomic_store_explicit(&c->frames[i],
                                      from + (int)i < t.n ? (uint64_t)(uintptr_t)t.at[from + (int)i]
                                                          : 0,
                                      memory_order_relaxed);
        atomic_store_explicit(&c->frames[0], pc, memory_order_release);
        errno = saved;
}

static void prepare_unwinder(void)
{
        struct trace warm = {.n = 0};

        (void)_Unwind_Backtrace(add_frame, &warm); /* its first use prepares tables */
}

void crumb_ask_dump(struct crumb *c)
{
        prepare_unwinder();
        atomic_store(&c->frames[0], 0);
        syscall(SYS_tgkill, getpid(), (pid_t)atomic_load(&c->tid), SIGUSR2);
}

void crumb_catch_dump(void)
{
        struct sigaction act = {.sa_sigaction = on_dump,
                                .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

        prepare_unwinder();
        sigemptyset(&act.sa_mask);
        CHECK(sigaction(SIGUSR2, &act, NULL) == 0);
}
