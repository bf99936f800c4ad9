/*
 * The master: waits, hears signals, keeps the time, ends.
 *
 *   signal, timer, control client, checker, worker  ->  one callback at a time  ->  back to poll
 *
 * The difficulty is the end, which has many beginnings (TERM, a second TERM, a drain that was asked
 * for, a start that fails): there is one state, which only goes forward, and one question
 * (master_exit_if_empty) asked after whatever may have been the last thing to wait for.
 */
#include "daemon/master.h"

#include "base/check.h"
#include "base/crypto.h"
#include "base/log.h"
#include "conf/conf.h"
#include "daemon/fetcher.h"
#include "daemon/notify.h"
#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HEART      (5 * SEC)
#define STOP_GRACE (2 * SEC) /* between STOP and SIGKILL */

/* ------------------------------------------------------------------ waiting */

void master_watch(struct master *m, int fd, void (*fn)(struct master *, void *), void *arg)
{
        size_t i = 0;

        while (i < m->n_watches && m->watches[i].fd >= 0)
                i++;
        if (i == m->n_watches) {
                if (m->n_watches == m->cap_watches) {
                        m->cap_watches = m->cap_watches ? m->cap_watches * 2 : 32;
                        m->watches = realloc(m->watches, m->cap_watches * sizeof(*m->watches));
                        CHECK(m->watches);
                }
                m->n_watches++;
        }
        m->watches[i] = (struct master_watch){fd, fn, arg};
}

void master_unwatch(struct master *m, int fd)
{
        for (size_t i = 0; fd >= 0 && i < m->n_watches; i++) {
                if (m->watches[i].fd == fd)
                        m->watches[i].fd = -1;
        }
}

void master_timer_set(struct master *m, struct master_timer *t, int64_t in_us,
                      void (*fn)(struct master *, struct master_timer *))
{
        master_timer_clear(t);
        t->at = proc_now() + in_us;
        t->fn = fn;
        list_push(&m->timers, &t->link);
}

void master_timer_clear(struct master_timer *t)
{
        if (list_linked(&t->link))
                list_remove(&t->link);
}

static struct master_timer *earliest(struct master *m)
{
        struct master_timer *first = NULL;

        LIST_EACH (n, &m->timers) {
                struct master_timer *t = CONTAINER_OF(n, struct master_timer, link);
                if (!first || t->at < first->at)
                        first = t;
        }
        return first;
}

static void run_timers(struct master *m)
{
        struct master_timer *t;
        int64_t now = proc_now();

        while ((t = earliest(m)) != NULL && t->at <= now) {
                list_remove(&t->link);
                t->fn(m, t);
        }
}

static void turn(struct master *m)
{
        size_t n = m->n_watches;
        struct pollfd *p = calloc(n, sizeof(*p));
        struct master_timer *t = earliest(m);
        int64_t wait = t ? MAX(t->at - proc_now(), 0) : -1;
        int ready;

        CHECK(p);
        for (size_t i = 0; i < n; i++)
                p[i] = (struct pollfd){.fd = m->watches[i].fd, .events = POLLIN};
        ready = poll(p, n, wait < 0 ? -1 : (int)MIN((wait + MSEC - 1) / MSEC, (int64_t)INT32_MAX));
        for (size_t i = 0; ready > 0 && i < n && !m->done; i++) {
                struct master_watch w = m->watches[i];
                if (p[i].fd >= 0 && p[i].revents && w.fd == p[i].fd)
                        w.fn(m, w.arg);
        }
        free(p);
        run_timers(m);
}

void master_count(struct master *m, unsigned family, const char *label, str value)
{
        struct buf labels = BUF_INIT;

        metric_label(&labels, label, value);
        metric_add(metric_series(m->slot, family, buf_pullup(&labels, labels.n)), 1);
        buf_clear(&labels);
}

/* ------------------------------------------------------------------ the end */

static void kill_all(struct master *m, struct master_timer *t)
{
        (void)t;
        for (unsigned i = 0; i < m->n_children; i++) {
                if (m->children[i].state != CHILD_NONE)
                        children_distrust(m, &m->children[i], "it does not stop");
        }
}

void master_exit_if_empty(struct master *m)
{
        if (!m->leave || m->drain < DRAIN_CLOSED)
                return;
        for (unsigned i = 0; i < m->n_children; i++) {
                const struct child *c = &m->children[i];
                if (c->state != CHILD_NONE && !(m->drain == DRAIN_CLOSED && c->empty))
                        return;
        }
        if (children_alive(m) == 0)
                m->done = true;
        else
                master_stop(m);
}

void master_stop(struct master *m)
{
        if (m->drain == DRAIN_STOPPING)
                return;
        if (!m->leave && m->ready)
                notify_stopping();
        m->leave = true;
        m->drain = DRAIN_STOPPING;
        for (unsigned i = 0; i < m->n_children; i++)
                master_timer_clear(&m->children[i].respawn);
        reload_cancel(m, "weir is stopping");
        children_tell(m, WIRE_STOP, NULL, 0);
        master_timer_set(m, &m->drain_timer, STOP_GRACE, kill_all);
        master_exit_if_empty(m);
}

void master_fail(struct master *m)
{
        m->exit_status = 1;
        master_stop(m);
}

static void shutdown_timed_out(struct master *m, struct master_timer *t)
{
        (void)t;
        log_warn("weir", "shutdown_timeout: what is still open is cut");
        master_stop(m);
}

static void close_listeners(struct master *m, struct master_timer *t)
{
        struct wire_drain d = {.leave = m->leave};

        (void)t;
        m->drain = DRAIN_CLOSED;
        sockets_close_traffic(&m->sockets);
        children_tell(m, WIRE_DRAIN, &d, sizeof(d));
        if (m->leave && m->plan->head->shutdown_timeout > 0)
                master_timer_set(m, &m->drain_timer, m->plan->head->shutdown_timeout,
                                 shutdown_timed_out);
        control_drained(m, true);
        master_exit_if_empty(m);
}

void master_drain(struct master *m, bool leave)
{
        if (m->drain == DRAIN_STOPPING)
                return;
        if (!m->ready) {
                master_stop(m);
                return;
        }
        log_info("weir", leave ? "draining, then the end" : "draining");
        if (leave && !m->leave)
                notify_stopping();
        m->leave = m->leave || leave;
        reload_cancel(m, "a drain was asked for");
        if (m->drain == DRAIN_ANNOUNCED)
                return;
        if (m->drain == DRAIN_CLOSED) {
                close_listeners(m, NULL);
                return;
        }
        m->drain = DRAIN_ANNOUNCED;
        children_tell(m, WIRE_NOT_READY, NULL, 0);
        if (m->plan->head->drain_delay > 0)
                master_timer_set(m, &m->drain_timer, m->plan->head->drain_delay, close_listeners);
        else
                close_listeners(m, NULL);
}

void master_end_drain(struct master *m)
{
        if (m->drain == DRAIN_NO || m->leave)
                return;
        m->drain = DRAIN_NO;
        master_timer_clear(&m->drain_timer);
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->state == CHILD_NONE && !list_linked(&c->respawn.link))
                        children_spawn(m, c);
        }
        control_drained(m, false);
        log_info("weir", "the drain has ended");
}

/* ------------------------------------------------------------------ serving */

void master_pid_file(struct master *m)
{
        const char *path = m->first.pid_file;
        FILE *f;

        if (!path[0])
                return;
        f = fopen(path, "we");
        if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f) != 0)
                log_warn("weir", "pid_file %s: %s", path, strerror(errno));
}

static void pid_file_remove(struct master *m)
{
        const char *path = m->first.pid_file;
        char text[32];
        FILE *f = path[0] && !m->replaced ? fopen(path, "re") : NULL;
        bool ours = f && fgets(text, sizeof(text), f) && atol(text) == (long)getpid();

        if (f)
                fclose(f);
        if (ours)
                unlink(path);
}

static void heart_beats(struct master *m, struct master_timer *t)
{
        static int64_t looked;
        int64_t watchdog = notify_watchdog(), now = proc_now();

        if (watchdog > 0)
                notify_alive();
        if (now - looked >= HEART) {
                looked = now;
                children_look_after(m);
        }
        master_timer_set(m, t, watchdog > 0 ? MIN(watchdog, HEART) : HEART, heart_beats);
}

void master_serving(struct master *m)
{
        m->ready = true;
        if (m->parent_fd >= 0)
                master_pid_file(m); /* until now it was the old one's */
        notify_ready();
        children_tell(m, WIRE_SERVING, NULL, 0); /* who sees /readyz may signal us from now on */
        heart_beats(m, &m->heart);
        if (m->ready_fd >= 0) {
                (void)!write(m->ready_fd, "1", 1);
                close(m->ready_fd);
                m->ready_fd = -1;
        }
        upgrade_ready(m);
}

bool master_reopen(struct master *m, char *err, size_t cap)
{
        bool ok = logs_reopen(&m->logs, err, cap);

        fetcher_restart(m); /* it has the old log */
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->state != CHILD_NONE && (!logs_send(&m->logs, c->channel, false) ||
                                               !logs_send_error(&m->logs, c->channel)))
                        children_distrust(m, c, "it does not listen");
        }
        if (ok)
                log_info("weir", "the logs were opened again");
        else
                log_error("weir", "a log cannot be opened again: %s", err);
        return ok;
}

/* ------------------------------------------------------------------ signals */

static void reap(struct master *m)
{
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                if (pid == m->reload.checker.pid)
                        reload_checker_reaped(m, status);
                else if (pid == m->upgrade_pid)
                        upgrade_reaped(m, status);
                else if (fetcher_reaped(m, pid, status))
                        continue;
                else if (m->store)
                        children_reaped(m, pid, status);
        }
}

static void hear_signal(struct master *m, int sig)
{
        char err[512] = "";

        switch (sig) {
        case SIGCHLD:
                reap(m);
                return;
        case SIGHUP:
                if (!m->leave)
                        reload_ask(m);
                return;
        case SIGUSR1:
                if (m->ready)
                        (void)master_reopen(m, err, sizeof(err));
                return;
        case SIGUSR2:
                if (m->ready && !m->leave)
                        upgrade_start(m);
                return;
        case SIGTERM:
        case SIGQUIT:
                if (m->leave)
                        master_stop(m);
                else
                        master_drain(m, true);
                return;
        default:
                master_stop(m);
        }
}

static void signals_readable(struct master *m, void *arg)
{
        struct signalfd_siginfo si;

        (void)arg;
        while (!m->done && read(m->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
                hear_signal(m, (int)si.ssi_signo);
}

static void take_signals(struct master *m)
{
        static const int heard[] = {SIGCHLD, SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGQUIT, SIGINT};
        sigset_t set;

        sigemptyset(&set);
        for (size_t i = 0; i < COUNT(heard); i++) {
                (void)signal(heard[i], SIG_DFL); /* nohup and its like: ignored ones never arrive */
                sigaddset(&set, heard[i]);
        }
        (void)signal(SIGPIPE, SIG_IGN);
        CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
        m->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        CHECK(m->signal_fd >= 0);
        master_watch(m, m->signal_fd, signals_readable, NULL);
}

/* ------------------------------------------------------------------ life */

/* Descriptors are what connections are made of: as many as the system grants. */
static void raise_files(void)
{
        struct rlimit files;

        if (getrlimit(RLIMIT_NOFILE, &files) != 0)
                return;
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) != 0)
                log_warn("weir", "RLIMIT_NOFILE: %s", strerror(errno));
}

static void begin(struct master *m, const struct options *o, char **argv, int ready_fd)
{
        unsigned n;
        int first;

        m->options = o;
        m->argv = argv;
        m->ready_fd = ready_fd;
        m->plan_fd = m->bundle_fd = m->control_fd = m->next_control_fd = m->upgrade_fd =
                m->parent_fd = -1;
        m->reload.checker.channel = m->reload.plan_fd = m->reload.bundle_fd = -1;
        list_init(&m->timers);
        list_init(&m->clients);
        list_init(&m->server_words);
        list_init(&m->copies.all);
        sockets_init(&m->sockets);
        logs_init(&m->logs);
        strikes_init(&m->strikes);
        rollout_init(&m->rollout);
        watch_begin(m);
        raise_files();
        take_signals(m);
        notify_begin();
        n = notify_sockets(&first);
        for (unsigned i = 0; i < n; i++)
                sockets_give(&m->sockets, first + (int)i, true);
        crypto_init();
        tls_init();
        m->tickets = tls_tickets_new();
        m->staples = tls_staples_new();
        m->replay = tls_replay_new();
        m->checker_board = board_new(1, 0);
        upgrade_take_over(m);
}

static void end(struct master *m)
{
        fetcher_stop(m);
        sockets_end(&m->sockets, !m->replaced);
        pid_file_remove(m);
        copies_close(&m->copies);
        control_ended(m);
        control_close(m);
        log_info("weir", "ended");
}

int master_run(const struct options *o, char **argv, int ready_fd)
{
        static struct master the_one;
        struct master *m = &the_one;

        begin(m, o, argv, ready_fd);
        reload_ask(m);
        while (!m->done)
                turn(m);
        end(m);
        return m->exit_status;
}
