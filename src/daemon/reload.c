/*
 * Reloads, the first start among them: check, prepare, commit, one at a time.
 *
 *   IDLE -> CHECKING (a checker reads and proves) -> WAITING (a worker is just starting) ->
 * PREPARING (every worker builds)
 *        -> CANARY (if asked for: rollout.c) -> COMMITTING (every loop switches) -> IDLE
 *
 * The difficulty is that anything may end at any time: the checker, a worker, the wish itself.
 * Until the commit there is one way back (fail), and after it only one way forward: a worker that
 * dies then is replaced from the new configuration.
 */
#include "daemon/master.h"

#include "base/check.h"
#include "base/log.h"
#include "base/page.h"
#include "conf/conf.h"
#include "daemon/bundle.h"
#include "daemon/fetcher.h"
#include "daemon/memfd.h"
#include "daemon/notify.h"
#include "daemon/proc.h"
#include "daemon/tickets.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void apply(struct master *m);
static void begin(struct master *m, const struct canary_terms *terms);
static void rebuild(struct master *m);

/* ------------------------------------------------------------------ the end of one */

/* The report, line by line, so that each line of the log stays one. */
static void log_text(enum log_level level, str text)
{
        while (text.n > 0) {
                str line;
                str_cut(text, '\n', &line, &text);
                if (line.n > 0)
                        LOG(level, "configuration", "%.*s", STR_ARG(line));
        }
}

static void drop_checker(struct master *m)
{
        struct reload *r = &m->reload;

        if (r->checker.channel >= 0) {
                master_unwatch(m, r->checker.channel);
                close(r->checker.channel);
                r->checker.channel = -1;
        }
        if (r->checker.pid > 0)
                kill(r->checker.pid, SIGKILL); /* it has nothing left to say */
        master_timer_clear(&r->wall);
}

static void clear(struct master *m)
{
        struct reload *r = &m->reload;

        drop_checker(m);
        if (r->plan_fd >= 0)
                close(r->plan_fd);
        if (r->bundle_fd >= 0)
                close(r->bundle_fd);
        plan_free(r->plan);
        buf_clear(&r->text);
        r->plan_fd = r->bundle_fd = -1;
        r->plan = NULL;
        r->state = RELOAD_IDLE;
        page_trim_heap(); /* what a reload takes must not add up over a thousand of them */
}

static void count_end(struct master *m, enum reload_end how)
{
        master_count(m, METRIC_RELOADS, "result",
                     how == RELOAD_DONE      ? STR("ok")
                     : how == RELOAD_REFUSED ? STR("failed")
                                             : STR("rolled_back"));
}

static void finish(struct master *m, enum reload_end how)
{
        struct reload *r = &m->reload;
        bool ok = how == RELOAD_DONE;
        str text = buf_pullup(&r->text, r->text.n);
        uint32_t number = r->number;
        double ms = (double)(proc_now() - r->began) / 1000.0;

        if (m->ready || !log_is_stderr())
                log_text(ok ? LOG_WARN : LOG_ERROR, text);
        if (!m->ready)
                fwrite(text.p, 1, text.n, stderr);
        if (m->ready && !r->rebuilding)
                count_end(m, how);
        if (ok)
                log_info("weir", "configuration %u is in force after %.1f ms%s", number, ms,
                         r->rebuilding ? ": the same, built again" : "");
        else if (how == RELOAD_REFUSED)
                log_error("weir", "configuration %u was refused%s", number,
                          m->ready ? ": nothing was changed" : "");
        if (r->rebuilding) {
                control_cleared(m, ok, text);
        } else {
                watch_reload_done(m, ok);
                if (m->ready)
                        notify_ready();
                control_reload_done(m, number, how, text);
        }
        r->rebuilding = r->put_back = false;
        clear(m);
        if (!ok && !m->ready) {
                master_fail(m);
                return;
        }
        if (ok && !m->ready)
                master_serving(m);
        if (m->leave || m->done)
                return;
        if (r->rebuild)
                rebuild(m);
        else if (r->again)
                begin(m, NULL);
}

static void fail(struct master *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void fail(struct master *m, const char *fmt, ...)
{
        struct reload *r = &m->reload;
        bool canary = r->state == RELOAD_CANARY;
        char line[1024];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(line, sizeof(line), fmt, ap);
        va_end(ap);
        if (canary)
                rollout_end(m, CANARY_BACK, line);
        else if (line[0])
                buf_printf(&r->text, "%s\n", line);
        if (canary || r->state == RELOAD_PREPARING) {
                uint32_t number = r->number;
                children_tell(m, WIRE_ABORT, &number, sizeof(number));
                sockets_abort(&m->sockets);
                logs_abort(&m->logs);
                control_abort(m);
        }
        finish(m, canary ? RELOAD_ROLLED_BACK : RELOAD_REFUSED);
        children_sweep_copies(m);
}

void reload_roll_back(struct master *m, const char *why)
{
        fail(m, "%s", why);
}

void reload_cancel(struct master *m, const char *why)
{
        m->reload.again = m->reload.rebuild = false;
        if (m->reload.state != RELOAD_IDLE && m->reload.state != RELOAD_COMMITTING)
                fail(m, "%s", why);
}

/* ------------------------------------------------------------------ checking */

static void take_plan(struct master *m, struct wire *w)
{
        struct reload *r = &m->reload;

        if (r->plan_fd >= 0 || w->n_fds != 2)
                return; /* only the first counts: it was sent before any module ran */
        r->plan_fd = wire_take(w, 0);
        r->bundle_fd = wire_take(w, 1);
}

static void take_report(struct reload *r, struct wire *w)
{
        int fd = wire_take(w, 0);
        str text = fd >= 0 ? memfd_map(fd) : STR_NONE;

        buf_put(&r->text, text.p, MIN(text.n, MIB));
        if (text.n > 0 && text.p[text.n - 1] != '\n')
                buf_put(&r->text, "\n", 1);
        memfd_unmap(text);
        if (fd >= 0)
                close(fd);
}

static void take_verdict(struct master *m, struct wire *w)
{
        struct reload *r = &m->reload;
        const struct wire_verdict *v = wire_data(w, sizeof(*v));
        bool ok = v && v->ok;

        take_report(r, w);
        wire_close(w);
        drop_checker(m);
        if (!ok) {
                fail(m, "%s", "");
                return;
        }
        r->plan = r->plan_fd >= 0 ? plan_map(r->plan_fd) : NULL;
        if (!r->plan) {
                fail(m, "the check brought no plan");
                return;
        }
        r->state = RELOAD_WAITING;
        apply(m);
}

void reload_checker_reaped(struct master *m, int status)
{
        m->reload.checker.pid = 0;
        m->reload.checker_reaped = true;
        m->reload.checker_status = status;
}

/* Its end may be known before the end of its channel is, or after. */
static void checker_gone(struct master *m)
{
        struct reload *r = &m->reload;
        char how[BOARD_OBITUARY] = "it was gone";
        int status;

        drop_checker(m);
        if (r->checker.pid > 0 && waitpid(r->checker.pid, &status, 0) == r->checker.pid)
                reload_checker_reaped(m, status);
        r->checker.pid = 0;
        if (r->checker_reaped)
                board_obituary(m->checker_board, 0, r->checker_status, how);
        fail(m, "the check ended without a verdict: %s", how);
}

static void checker_readable(struct master *m, void *arg)
{
        struct reload *r = &m->reload;
        static struct wire w; /* one thread, and it is large */

        (void)arg;
        switch (wire_recv(r->checker.channel, &w)) {
        case WIRE_NONE:
                return;
        case WIRE_END:
                checker_gone(m);
                return;
        case WIRE_GOT:
                break;
        }
        if (w.type == WIRE_PLAN)
                take_plan(m, &w);
        else if (w.type == WIRE_VERDICT) {
                take_verdict(m, &w);
                return;
        }
        wire_close(&w);
}

static void checker_late(struct master *m, struct master_timer *t)
{
        (void)t;
        fail(m, "the check took longer than %d s", (int)(CHECKER_WALL / SEC));
}

static void begin(struct master *m, const struct canary_terms *terms)
{
        struct reload *r = &m->reload;

        r->again = r->checker_reaped = false;
        r->terms = terms ? *terms : (struct canary_terms){0};
        r->number = ++m->last_number;
        r->began = proc_now();
        r->plan_fd = r->bundle_fd = -1;
        r->state = RELOAD_CHECKING;
        if (m->ready) {
                notify_reloading();
                log_info("weir", "reload %u", r->number);
        }
        if (!checker_start(m->options, r->number, m->checker_board, m->logs.kept_fd, false,
                           &r->checker)) {
                r->checker = (struct checker){0, -1};
                fail(m, "fork: %s", strerror(errno));
                return;
        }
        master_watch(m, r->checker.channel, checker_readable, NULL);
        master_timer_set(m, &r->wall, CHECKER_WALL, checker_late);
}

/* Under way, and not yet decided to be promoted: then it is in force already, all but in name. */
static bool on_trial(const struct master *m)
{
        return m->reload.state == RELOAD_CANARY && m->rollout.verdict != CANARY_PROMOTE;
}

/* The canary under way, if there is one, ends for what was asked now. */
static void end_canary(struct master *m)
{
        if (on_trial(m))
                fail(m, "another reload was asked for");
}

bool reload_takes_canary(const struct master *m)
{
        return m->ready && m->drain == DRAIN_NO && (m->reload.state == RELOAD_IDLE || on_trial(m));
}

void reload_ask(struct master *m)
{
        end_canary(m);
        if (m->reload.state == RELOAD_IDLE)
                begin(m, NULL);
        else
                m->reload.again = true;
}

void reload_ask_canary(struct master *m, const struct canary_terms *terms)
{
        end_canary(m);
        CHECK(reload_takes_canary(m));
        begin(m, terms);
}

/* ------------------------------------------------------------------ building again */

/* What was proven when it came needs no check: it is prepared like what is new. */
static void begin_known(struct master *m, struct plan *plan, int plan_fd, int bundle_fd)
{
        struct reload *r = &m->reload;

        r->number = ++m->last_number;
        r->began = proc_now();
        r->terms = (struct canary_terms){0};
        r->checker = (struct checker){0, -1};
        r->plan = plan;
        r->plan_fd = plan_fd;
        r->bundle_fd = bundle_fd;
        r->state = RELOAD_WAITING;
        if (!plan || bundle_fd < 0)
                fail(m, "the configuration in force cannot be read again: %s", strerror(errno));
        else
                apply(m);
}

static void rebuild(struct master *m)
{
        struct reload *r = &m->reload;
        int plan_fd = fcntl(m->plan_fd, F_DUPFD_CLOEXEC, 3);
        int bundle_fd = fcntl(m->bundle_fd, F_DUPFD_CLOEXEC, 3);

        r->rebuild = false;
        r->rebuilding = true;
        begin_known(m, plan_fd >= 0 ? plan_map(plan_fd) : NULL, plan_fd, bundle_fd);
}

void reload_put_back(struct master *m, struct plan *plan, int plan_fd, int bundle_fd)
{
        CHECK(m->reload.state == RELOAD_IDLE);
        m->reload.put_back = true;
        begin_known(m, plan, plan_fd, bundle_fd);
}

void reload_rebuild(struct master *m)
{
        m->reload.rebuild = true;
        if (m->reload.state == RELOAD_IDLE)
                rebuild(m);
}

/* ------------------------------------------------------------------ preparing */

static void say_fixed(struct reload *r, const char *setting)
{
        buf_printf(&r->text, "%s is fixed at start: the change was left out until a restart\n",
                   setting);
}

static void compare_fixed(struct master *m)
{
        const struct plan_head *a = &m->first, *b = m->reload.plan->head;

        if (a->threads != b->threads)
                say_fixed(&m->reload, "threads");
        if (a->workers != b->workers)
                say_fixed(&m->reload, "workers");
        if (a->has_user != b->has_user || a->uid != b->uid || a->gid != b->gid)
                say_fixed(&m->reload, "user");
        if (a->store_size != b->store_size)
                say_fixed(&m->reload, "store_size");
        if (strcmp(a->pid_file, b->pid_file) != 0)
                say_fixed(&m->reload, "pid_file");
}

static bool prepare_control(struct master *m, char *err, size_t cap)
{
        const char *path = m->reload.plan->head->control;

        if (strcmp(path, m->control_path) == 0 || control_prepare(m, path, err, cap))
                return true;
        if (strcmp(path, CONF_CONTROL_DEFAULT) != 0)
                return false;
        log_warn("weir", "%s: weir -s and weir server will not work",
                 err); /* nobody asked for it */
        err[0] = 0;
        return true;
}

/* The copies that this plan's modules will be opened from. */
static bool make_copies(struct master *m, char *err, size_t cap)
{
        const struct plan *p = m->reload.plan;
        struct bundle *b;
        struct arena *a;
        bool ok = true;

        if (p->head->n_modules == 0 || !m->copies.usable)
                return true;
        b = bundle_map(m->reload.bundle_fd);
        if (!b) {
                snprintf(err, cap, "the check brought no bundle");
                return false;
        }
        a = arena_new(0);
        for (uint32_t i = 0; ok && i < p->head->n_modules; i++) {
                str bytes, error = STR("");
                struct source *src = bundle_source(b);
                ok = src->file(src, str_z(p->modules[i].path), a, &bytes, &error);
                if (ok)
                        (void)copies_make(&m->copies, p->modules[i].name, p->modules[i].sha, bytes);
                else
                        snprintf(err, cap, "module %s: %.*s", p->modules[i].name, STR_ARG(error));
        }
        arena_free(a);
        bundle_free(b);
        return ok;
}

static bool tell_sockets(struct master *m, int channel)
{
        LIST_EACH (n, &m->sockets.all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                if (set->fresh && !sockets_send(set, channel))
                        return false;
                if (set->leaving && !sockets_send_id(set, channel))
                        return false;
        }
        return true;
}

static void tell_prepare(struct master *m, struct child *c)
{
        struct reload *r = &m->reload;
        uint32_t canary = r->terms.share > 0;

        c->ready = c->committed = false;
        if (!tell_sockets(m, c->channel) || !logs_send(&m->logs, c->channel, true) ||
            !children_send_copies(m, c->channel, r->plan, c) ||
            !wire_send_fds(c->channel, WIRE_PREPARE, r->number, &canary, sizeof(canary),
                           &r->bundle_fd, 1))
                children_distrust(m, c, "it does not take a reload");
}

static void commit(struct master *m);

static bool all(const struct master *m, bool committed)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                const struct child *c = &m->children[i];
                if (c->state == CHILD_SERVING && !(committed ? c->committed : c->ready))
                        return false;
        }
        return true;
}

/* The new configuration becomes the one in force; what is started from now on starts from it. */
static void adopt(struct master *m)
{
        struct reload *r = &m->reload;

        fallback_keep(m);
        m->plan = r->plan;
        m->plan_fd = r->plan_fd;
        m->bundle_fd = r->bundle_fd;
        m->number = r->number;
        r->plan = NULL;
        r->plan_fd = r->bundle_fd = -1;
        if (!r->rebuilding) /* else the files still say what was rolled back */
                m->rollout.rejected = r->put_back;
        logs_commit(&m->logs, m->plan);
        fetcher_stop(m); /* it may write what tickets_adopt does */
        tickets_adopt(m);
        control_commit(m);
        watch_adopted(m);
        metric_set(metric_series(m->slot, METRIC_GENERATION, STR("")), m->number);
}

static bool prepare_all(struct master *m)
{
        char err[512] = "";

        if (!sockets_prepare(&m->sockets, m->reload.plan, err, sizeof(err))) {
                fail(m, "%s", err);
                return false;
        }
        if (m->reload.terms.share > 0) /* it could be done, and will be when it is promoted */
                sockets_abort(&m->sockets);
        if (!logs_prepare(&m->logs, m->reload.plan, err, sizeof(err))) {
                sockets_abort(&m->sockets);
                fail(m, "%s", err);
                return false;
        }
        if (!make_copies(m, err, sizeof(err)) || !prepare_control(m, err, sizeof(err))) {
                sockets_abort(&m->sockets);
                logs_abort(&m->logs);
                fail(m, "%s", err);
                return false;
        }
        return true;
}

/* The checker has agreed. */
static void apply(struct master *m)
{
        struct reload *r = &m->reload;
        bool first = m->plan == NULL;

        if (children_starting(m))
                return; /* goes on when it serves, or is gone */
        if (r->terms.share > 0 && !children_serving(m)) {
                fail(m, "a worker is being replaced, and a canary needs all of them");
                return;
        }
        if (first)
                children_prepare_house(m, r->plan->head);
        else
                compare_fixed(m);
        fetcher_claim(m);
        if (!prepare_all(m))
                return;
        if (first) { /* the workers start from it: COMMITTING until all serve */
                sockets_commit(&m->sockets);
                sockets_drop_given(&m->sockets);
                adopt(m);
                r->state = RELOAD_COMMITTING;
                if (m->parent_fd < 0)
                        master_pid_file(m);
                children_start(m);
                fetcher_restart(m);
                return;
        }
        r->state = RELOAD_PREPARING;
        for (unsigned i = 0; i < m->n_children && r->state == RELOAD_PREPARING; i++) {
                if (m->children[i].state == CHILD_SERVING)
                        tell_prepare(m, &m->children[i]);
        }
        if (r->state == RELOAD_PREPARING && all(m, false))
                commit(m); /* nobody is there to prepare: it counts from the next start on */
}

/* ------------------------------------------------------------------ committing */

static bool in_plan(void *ctx, const uint8_t sha[32])
{
        const struct plan *p = ctx;

        for (uint32_t i = 0; i < p->head->n_modules; i++) {
                if (memcmp(p->modules[i].sha, sha, 32) == 0)
                        return true;
        }
        return false;
}

static void committed(struct master *m)
{
        strikes_forget(&m->strikes, in_plan, m->plan);
        children_show_strikes(m);
        finish(m, RELOAD_DONE);
        children_sweep_copies(m);
}

static void commit(struct master *m)
{
        struct reload *r = &m->reload;
        uint32_t number = r->number;

        r->state = RELOAD_COMMITTING;
        adopt(m);
        children_tell(m, WIRE_COMMIT, &number, sizeof(number));
        children_tell_error_log(m);
        fetcher_restart(m);
        sockets_commit(&m->sockets);
        master_end_drain(m);
        if (m->reload.state == RELOAD_COMMITTING && all(m, true))
                committed(m);
}

void reload_child_ready(struct master *m, struct child *c, bool ok, str report)
{
        struct reload *r = &m->reload;

        if (r->state != RELOAD_PREPARING)
                return;
        if (!ok) {
                buf_puts(&r->text, report);
                fail(m, "worker %u could not prepare it", c->index);
                return;
        }
        c->ready = true;
        if (!all(m, false))
                return;
        if (r->terms.share == 0) {
                commit(m);
                return;
        }
        rollout_begin(m);
        if (r->again)
                end_canary(m);
}

bool reload_prepare_promotion(struct master *m, char *err, size_t cap)
{
        if (!sockets_prepare(&m->sockets, m->reload.plan, err, cap))
                return false;
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->state == CHILD_SERVING && !tell_sockets(m, c->channel))
                        children_distrust(m, c, "it does not listen");
        }
        return true;
}

void reload_promote(struct master *m, const char *why)
{
        rollout_end(m, CANARY_PROMOTE, why);
        commit(m);
}

void reload_child_committed(struct master *m, struct child *c)
{
        c->committed = true;
        if (m->reload.state == RELOAD_WAITING) {
                apply(m);
                return;
        }
        if (m->reload.state == RELOAD_COMMITTING && !children_starting(m) && all(m, true))
                committed(m);
}

void reload_child_gone(struct master *m, struct child *c, bool started)
{
        switch (m->reload.state) {
        case RELOAD_PREPARING:
                fail(m, "worker %u died while it prepared", c->index);
                return;
        case RELOAD_CANARY:
                fail(m, "worker %u died", c->index);
                return;
        case RELOAD_WAITING:
                apply(m);
                return;
        case RELOAD_COMMITTING:
                if (!m->ready && !started) {
                        fail(m, "worker %u could not start", c->index);
                        return;
                }
                if (!children_starting(m) && all(m, true))
                        committed(m);
                return;
        case RELOAD_IDLE:
        case RELOAD_CHECKING:
                return;
        }
}
