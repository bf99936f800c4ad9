/*
 * Binary upgrade: the file that is now at weir's own path takes the listening sockets over, and
 * this process drains once the new one serves.
 *
 *   old: fork, exec with WEIR_TAKE_OVER="READY:KEYS:STAPLES:FD,..."      new: binds nothing that
 * it was given, says READY, goes on
 *
 * The difficulty: until the new one is ready everything must stay as it is, and from then on the
 * files with the well-known names (pid file, control socket, unix listeners) are its own.
 */
#include "daemon/master.h"

#include "base/check.h"
#include "base/log.h"
#include "daemon/memfd.h"
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define VARIABLE "WEIR_TAKE_OVER"

/* The ticket keys, so that tickets stay good; -1: the new one makes its own. */
static int keys_fd(struct master *m)
{
        char keys[TLS_TICKET_BYTES];
        str text = str_of(keys, tls_tickets_save(m->tickets, keys));
        int fd = memfd_make("weir-keys", &text, 1);

        explicit_bzero(keys, sizeof(keys));
        return fd;
}

static void take_keys(struct master *m, int fd)
{
        str text = memfd_map(fd);

        if (!text.p || tls_tickets_load(m->tickets, text) == TLS_TICKETS_BROKEN)
                log_warn("weir", "upgrade: the ticket keys did not come along");
        memfd_unmap(text);
        close(fd);
}

/* The OCSP responses, so that clients go on getting them; -1: the new one fetches its own. */
static int staples_fd(struct master *m)
{
        struct buf b = BUF_INIT;
        str text;
        int fd;

        tls_staples_save(m->staples, &b);
        text = buf_pullup(&b, b.n);
        fd = memfd_make("weir-staples", &text, 1);
        buf_clear(&b);
        return fd;
}

static void take_staples(struct master *m, int fd)
{
        str text = memfd_map(fd);

        if (!text.p || !tls_staples_load(m->staples, text))
                log_warn("weir", "upgrade: the OCSP responses did not come along");
        memfd_unmap(text);
        close(fd);
}

static NORETURN void execute(struct master *m, int ready_fd)
{
        struct buf text = BUF_INIT;
        int keys = keys_fd(m), staples = staples_fd(m);
        sigset_t none;

        buf_printf(&text, "%d:%d:%d:", ready_fd, MAX(keys, 0), MAX(staples, 0));
        (void)fcntl(ready_fd, F_SETFD, 0);
        if (keys >= 0)
                (void)fcntl(keys, F_SETFD, 0);
        if (staples >= 0)
                (void)fcntl(staples, F_SETFD, 0);
        LIST_EACH (n, &m->sockets.all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                for (unsigned i = 0; i < set->n; i++) {
                        (void)fcntl(set->fds[i], F_SETFD, 0);
                        buf_printf(&text, "%d,", set->fds[i]);
                }
        }
        buf_put(&text, "", 1);
        setenv(VARIABLE, buf_pullup(&text, text.n).p, 1);
        notify_pass_on();
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        (void)signal(SIGPIPE, SIG_DFL);
        execv(m->binary, m->argv);
        log_error("weir", "upgrade: %s: %s", m->binary, strerror(errno));
        _exit(127);
}

static void new_one_speaks(struct master *m, void *arg)
{
        char word;
        ssize_t n = read(m->upgrade_fd, &word, 1);

        (void)arg;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        master_unwatch(m, m->upgrade_fd);
        close(m->upgrade_fd);
        m->upgrade_fd = -1;
        if (n != 1)
                return; /* it failed: SIGCHLD says how */
        log_info("weir", "upgrade: %d serves, this one drains", (int)m->upgrade_pid);
        notify_main_pid((int)m->upgrade_pid);
        m->replaced = true;
        master_drain(m, true);
}

void upgrade_start(struct master *m)
{
        int ready[2];

        if (m->upgrade_pid > 0 || m->reload.state != RELOAD_IDLE) {
                log_warn("weir", "upgrade: not while %s is under way",
                         m->upgrade_pid > 0 ? "another" : "a reload");
                return;
        }
        if (!m->binary || pipe2(ready, O_CLOEXEC | O_NONBLOCK) != 0) {
                log_error("weir", "upgrade: %s",
                          m->binary ? strerror(errno) : "weir does not know its own path");
                return;
        }
        log_info("weir", "upgrade: running %s", m->binary);
        fflush(NULL);
        tls_replay_pause(m->replay, true); /* the new one does not know what was taken here */
        m->upgrade_pid = fork();
        if (m->upgrade_pid == 0)
                execute(m, ready[1]);
        close(ready[1]);
        if (m->upgrade_pid < 0) {
                log_error("weir", "upgrade: fork: %s", strerror(errno));
                m->upgrade_pid = 0;
                tls_replay_pause(m->replay, false);
                close(ready[0]);
                return;
        }
        m->upgrade_fd = ready[0];
        master_watch(m, ready[0], new_one_speaks, NULL);
}

void upgrade_reaped(struct master *m, int status)
{
        if (WIFSIGNALED(status))
                log_error("weir", "upgrade: the new one ended with signal %d, this one goes on",
                          WTERMSIG(status));
        else
                log_error("weir", "upgrade: the new one ended with status %d, this one goes on",
                          WEXITSTATUS(status));
        m->upgrade_pid = 0;
        tls_replay_pause(m->replay, m->replaced);
}

bool upgrade_is_one(void)
{
        return getenv(VARIABLE) != NULL;
}

static bool take_number(str *text, char end, int *out)
{
        str number;
        uint64_t v;

        if (!str_cut(*text, end, &number, text) || !str_u64(number, 1 << 20, &v))
                return false;
        *out = (int)v;
        return true;
}

void upgrade_take_over(struct master *m)
{
        static char path[4096];
        const char *given = getenv(VARIABLE);
        str text = str_z(given);
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        int fd;

        if (n > 0) {
                path[n] = 0;
                m->binary = path;
        }
        if (!given || !take_number(&text, ':', &fd) || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
                return;
        m->parent_fd = fd;
        if (take_number(&text, ':', &fd) && fd > 2)
                take_keys(m, fd);
        if (take_number(&text, ':', &fd) && fd > 2)
                take_staples(m, fd);
        while (take_number(&text, ',', &fd)) {
                if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0)
                        sockets_give(&m->sockets, fd, false);
        }
        unsetenv(VARIABLE);
}

void upgrade_ready(struct master *m)
{
        if (m->parent_fd < 0)
                return;
        (void)!write(m->parent_fd, "1", 1);
        close(m->parent_fd);
        m->parent_fd = -1;
}
