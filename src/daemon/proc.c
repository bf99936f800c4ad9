/*
 * A process of weir after its fork.
 *
 * The difficulty: the order.  Groups go before the user (afterwards there is no right to change
 * them), and a changed user makes the process undumpable, which would take /proc/self/fd and cores
 * away.
 */
#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int int_cmp(const void *a, const void *b)
{
        return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void close_from_to(unsigned from, unsigned to)
{
        if (from > to || syscall(SYS_close_range, from, to, 0) == 0)
                return;
        /* A kernel before 5.9. */
        for (unsigned fd = from; fd <= to && fd < (unsigned)sysconf(_SC_OPEN_MAX); fd++)
                close((int)fd);
}

void proc_close_others(const int *keep, size_t n)
{
        int sorted[16] = {0};
        size_t kept = 0;
        unsigned from = 3;

        for (size_t i = 0; i < n && kept < COUNT(sorted); i++) {
                if (keep[i] > 2)
                        sorted[kept++] = keep[i];
        }
        qsort(sorted, kept, sizeof(sorted[0]), int_cmp);
        for (size_t i = 0; i < kept; i++) {
                if ((unsigned)sorted[i] > from)
                        close_from_to(from, (unsigned)sorted[i] - 1);
                from = (unsigned)sorted[i] + 1;
        }
        close_from_to(from, ~0U);
}

void proc_child_signals(void)
{
        /* A service manager or a terminal signals the whole group: only the master acts on these.
         */
        static const int masters[] = {SIGHUP, SIGUSR1, SIGTERM, SIGQUIT, SIGINT, SIGPIPE};
        sigset_t none;

        for (size_t i = 0; i < COUNT(masters); i++)
                (void)signal(masters[i], SIG_IGN);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool drop_capabilities(void)
{
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        return syscall(SYS_capset, &head, none) == 0;
}

bool proc_drop(const struct proc_user *u)
{
        if (geteuid() == 0) {
                if (u->set && (setgroups(0, NULL) != 0 || setresgid(u->gid, u->gid, u->gid) != 0))
                        return false;
                for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
                        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
                if (u->set && setresuid(u->uid, u->uid, u->uid) != 0)
                        return false;
        }
        return drop_capabilities() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

unsigned proc_quota(str cpu_max)
{
        str quota, period;
        uint64_t q, p;

        cpu_max = str_trim(cpu_max);
        if (cpu_max.n > 0 && cpu_max.p[cpu_max.n - 1] == '\n')
                cpu_max.n--;
        if (!str_cut(cpu_max, ' ', &quota, &period) || !str_u64(quota, UINT32_MAX, &q) ||
            !str_u64(period, UINT32_MAX, &p) || p == 0 || q == 0)
                return 0;
        return (unsigned)((q + p - 1) / p);
}

static str read_small(const char *path, char *buf, size_t cap)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, cap);

        if (fd >= 0)
                close(fd);
        return n < 0 ? STR_NONE : str_of(buf, (size_t)n);
}

/* This process's cgroup (version 2), "/" when there is none. */
static str cgroup_path(char *buf, size_t cap)
{
        str rest = read_small("/proc/self/cgroup", buf, cap), line;

        while (rest.n > 0) {
                str_cut(rest, '\n', &line, &rest);
                if (str_starts(line, STR("0::/")))
                        return str_from(line, 3);
        }
        return STR("/");
}

/* The quota of this cgroup and of those above it: the tightest counts. */
static unsigned cgroup_cpus(void)
{
        char groups[4096], file[4200], text[128];
        unsigned least = 0;

        for (str path = cgroup_path(groups, sizeof(groups));;) {
                ptrdiff_t slash;
                unsigned n;
                snprintf(file, sizeof(file), "/sys/fs/cgroup%.*s/cpu.max", STR_ARG(path));
                n = proc_quota(read_small(file, text, sizeof(text)));
                if (n > 0 && (least == 0 || n < least))
                        least = n;
                slash = str_rchr(path, '/');
                if (slash < 0 || path.n <= 1)
                        return least;
                path = str_head(path, (size_t)MAX(slash, 1));
        }
}

unsigned proc_cpus(void)
{
        cpu_set_t set;
        unsigned n, quota = cgroup_cpus();

        CPU_ZERO(&set);
        n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set)
                                                         : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
        if (quota > 0 && quota < n)
                n = quota;
        return n > 0 ? n : 1;
}

int64_t proc_now(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t)ts.tv_sec * SEC + ts.tv_nsec / 1000;
}
