/*
 * The fetcher's life, seen from the master, and its own beginning.
 *
 * The difficulty: a place in the shared memory has one writer, so the old process must be gone
 * before the next configuration's begins; it holds nothing, so it is simply killed.
 */
#include "daemon/fetcher.h"

#include "base/check.h"
#include "base/log.h"
#include "conf/conf.h"
#include "daemon/bundle.h"
#include "daemon/ocsp_fetch.h"
#include "daemon/proc.h"
#include "daemon/ticket_redis.h"
#include "proxy/gen.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define AGAIN (5 * SEC) /* before one that died is replaced */

/* ------------------------------------------------------------------ in the process */

static void master_gone(evutil_socket_t fd, short what, void *arg)
{
        (void)fd;
        (void)what;
        (void)arg;
        _exit(0);
}

static void start_tickets(struct master *m, struct loop *l, const struct conf *conf)
{
        struct report rep = {0};
        struct redis_conf store;

        if (!gen_redis_conf(conf, conf->ticket_store, &store, &rep)) {
                log_error("fetcher", "redis %.*s cannot be used",
                          STR_ARG(conf->ticket_store->name));
                _exit(1);
        }
        ticket_redis_start(l, &store, conf->ticket_prefix, conf->ticket_rotate, m->tickets);
}

static NORETURN void fetcher_run(struct master *m, int lifeline)
{
        struct proc_user user = {m->first.has_user, m->first.uid, m->first.gid};
        int keep[] = {lifeline, m->bundle_fd, m->logs.kept_fd};
        struct metric_slot *slot = metric_slot(m->metrics, m->n_children * (m->loops + 1) + 1);
        struct report rep = {0};
        struct bundle *b;
        struct conf *conf;
        struct loop *l;
        struct event *end;

        proc_child_signals();
        proc_close_others(keep, COUNT(keep));
        if (!proc_drop(&user)) {
                log_error("fetcher", "user: the rights cannot be given up: %s", strerror(errno));
                _exit(1);
        }
        metric_slot_begin(slot);
        tls_staples_use(m->staples);
        l = loop_self = loop_new(~0U, slot);
        end = event_new(l->base, lifeline, EV_READ, master_gone, NULL);
        CHECK(end && event_add(end, NULL) == 0);
        b = bundle_map(m->bundle_fd);
        conf = b ? conf_read_all(bundle_source(b), m->options->config, m->options->prefix, &rep)
                 : NULL;
        if (!conf || rep.errors > 0) {
                log_error("fetcher", "the configuration in force cannot be read");
                _exit(1);
        }
        bundle_free(b);
        ocsp_fetch_start(l, conf);
        if (conf->ticket_store)
                start_tickets(m, l, conf);
        loop_run(l);
        _exit(0);
}

/* ------------------------------------------------------------------ in the master */

void fetcher_claim(struct master *m)
{
        const struct plan *now = m->plan, *next = m->reload.plan;

        tls_staples_claim(m->staples, next->fetches, next->head->n_fetches,
                          now ? now->fetches : NULL, now ? now->head->n_fetches : 0);
}

void fetcher_stop(struct master *m)
{
        master_timer_clear(&m->fetcher_again);
        if (m->fetcher_pid <= 0)
                return;
        kill(m->fetcher_pid, SIGKILL);
        while (waitpid(m->fetcher_pid, NULL, 0) < 0 && errno == EINTR)
                ;
        m->fetcher_pid = 0;
        close(m->fetcher_lifeline);
}

static void fetcher_start(struct master *m)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) != 0) {
                log_error("fetcher", "pipe: %s", strerror(errno));
                return;
        }
        fflush(NULL);
        m->fetcher_pid = fork();
        if (m->fetcher_pid == 0)
                fetcher_run(m, ends[0]);
        close(ends[0]);
        m->fetcher_lifeline = ends[1];
        if (m->fetcher_pid > 0)
                return;
        log_error("fetcher", "fork: %s", strerror(errno));
        close(ends[1]);
}

static void start_again(struct master *m, struct master_timer *t)
{
        (void)t;
        if (m->fetcher_pid <= 0)
                fetcher_start(m);
}

void fetcher_restart(struct master *m)
{
        fetcher_stop(m);
        if (!m->plan)
                return;
        if (m->plan->head->n_fetches > 0 || m->plan->head->ticket_source == PLAN_TICKETS_REDIS)
                fetcher_start(m);
}

bool fetcher_reaped(struct master *m, pid_t pid, int status)
{
        if (pid != m->fetcher_pid)
                return false;
        m->fetcher_pid = 0;
        close(m->fetcher_lifeline);
        if (WIFSIGNALED(status))
                log_error("fetcher", "it ended with signal %d; a new one follows",
                          WTERMSIG(status));
        else
                log_error("fetcher", "it ended with status %d; a new one follows",
                          WEXITSTATUS(status));
        master_timer_set(m, &m->fetcher_again, AGAIN, start_again);
        return true;
}
