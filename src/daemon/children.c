/*
 * The workers, seen from the master: starting them, hearing them, burying them.
 *
 * The difficulty is the death of one: its place in shared memory passes to its replacement at once,
 * while the dead process may still be writing a core, so what it held (locks of the store) is
 * cleared when it has really gone, and its crumbs are read before the next one writes them.
 */
#include "daemon/master.h"

#include "base/check.h"
#include "base/log.h"
#include "daemon/memfd.h"
#include "daemon/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOT_BYTES  (8 * MIB) /* address space for one loop's metrics */
#define STILL_LIMIT 6         /* beats of the heart without one of a control thread: it hangs */

static void spawn_later(struct master *m, struct master_timer *t);

/* ------------------------------------------------------------------ the house */

void children_prepare_house(struct master *m, const struct plan_head *h)
{
        unsigned auto_threads;

        if (m->metrics)
                return;
        m->first = *h;
        m->n_children = MAX(h->workers, 1U);
        auto_threads = MAX(proc_cpus() / m->n_children, 1U);
        m->loops = h->threads > 0 ? h->threads : auto_threads;
        m->sockets.places = m->n_children * m->loops;
        m->children = calloc(m->n_children, sizeof(*m->children));
        CHECK(m->children);
        for (unsigned i = 0; i < m->n_children; i++) {
                m->children[i].index = i;
                m->children[i].channel = m->children[i].crash_fd = -1;
        }
        /* Each loop's and control thread's, then the master's and the fetcher's. */
        m->metrics = metric_region_new(m->n_children * (m->loops + 1) + 2, SLOT_BYTES);
        m->slot = metric_slot(m->metrics, m->n_children * (m->loops + 1));
        metric_slot_begin(m->slot);
        m->inflight = inflight_region_new(m->n_children);
        m->store = store_new((size_t)MAX(h->store_size, (uint64_t)(64 * KIB)));
        m->board = board_new(m->n_children, m->loops);
        copies_open(&m->copies, h->has_user, h->gid);
        if (geteuid() == 0 && !h->has_user)
                log_warn("weir", "started as root without a `user` line: the workers run as root, "
                                 "without its capabilities");
}

/* ------------------------------------------------------------------ speaking */

void children_distrust(struct master *m, struct child *c, const char *why)
{
        (void)m;
        log_error("weir", "worker %u (%d) is killed: %s", c->index, (int)c->pid, why);
        kill(c->pid, SIGKILL);
}

void children_tell(struct master *m, enum wire_type type, const void *data, size_t n)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->state != CHILD_NONE && !wire_send(c->channel, type, 0, data, n))
                        children_distrust(m, c, "it does not listen");
        }
}

void children_tell_error_log(struct master *m)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->state != CHILD_NONE && !logs_send_error(&m->logs, c->channel))
                        children_distrust(m, c, "it does not listen");
        }
}

bool children_send_copies(struct master *m, int channel, const struct plan *p, struct child *c)
{
        (void)c;
        for (uint32_t i = 0; i < p->head->n_modules; i++) {
                struct wire_copy w;
                memset(&w, 0, sizeof(w));
                w.first = i == 0;
                memcpy(w.sha, p->modules[i].sha, sizeof(w.sha));
                w.quarantined = strikes_quarantined(&m->strikes, w.sha);
                LIST_EACH (n, &m->copies.all) {
                        struct copy *copy = CONTAINER_OF(n, struct copy, link);
                        if (memcmp(copy->sha, w.sha, sizeof(w.sha)) == 0)
                                memcpy(w.path, copy->path, sizeof(w.path));
                }
                if (!wire_send(channel, WIRE_COPY, 0, &w, sizeof(w)))
                        return false;
        }
        return true;
}

static bool wants(const struct plan *p, const uint8_t sha[32])
{
        for (uint32_t i = 0; p && i < p->head->n_modules; i++) {
                if (memcmp(p->modules[i].sha, sha, 32) == 0)
                        return true;
        }
        return false;
}

static bool mapped_somewhere(void *ctx, const uint8_t sha[32])
{
        const struct master *m = ctx;

        for (unsigned i = 0; i < m->n_children; i++) {
                const struct child *c = &m->children[i];
                for (uint32_t k = 0; c->state != CHILD_NONE && k < c->n_alive; k++) {
                        if (memcmp(c->alive[k], sha, 32) == 0)
                                return true;
                }
        }
        return false;
}

void children_sweep_copies(struct master *m)
{
        LIST_EACH (n, &m->copies.all) {
                struct copy *copy = CONTAINER_OF(n, struct copy, link);
                copy->wanted = wants(m->plan, copy->sha) || wants(m->reload.plan, copy->sha);
        }
        copies_sweep(&m->copies, mapped_somewhere, m);
}

/* ------------------------------------------------------------------ hearing */

static void note_alive(struct child *c, const struct wire *w)
{
        const struct wire_copies_alive *a = wire_data(w, sizeof(*a));

        if (!a || a->n > WIRE_COPIES)
                return;
        c->n_alive = a->n;
        memcpy(c->alive, a->sha, sizeof(c->alive));
}

/* The others accept from the sockets of one that is not there, and no longer when it is back. */
static void cover(struct master *m, struct child *c, bool absent)
{
        struct wire_cover said = {c->index, absent};

        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *other = &m->children[i];
                if (other != c && other->state != CHILD_NONE &&
                    !wire_send(other->channel, WIRE_COVER, 0, &said, sizeof(said)))
                        children_distrust(m, other, "it does not listen");
        }
}

/* A worker that starts needs nobody's leave to commit what is already in force. */
static void started_ready(struct master *m, struct child *c, struct wire *w, bool ok)
{
        uint32_t number = w->number;

        if (!ok)
                children_distrust(m, c, "it could not build the configuration in force");
        else if (!wire_send(c->channel, WIRE_COMMIT, number, &number, sizeof(number)))
                children_distrust(m, c, "it does not listen");
}

static void hear_ready(struct master *m, struct child *c, struct wire *w, bool ok)
{
        int fd = wire_take(w, 0);
        str text = fd >= 0 ? memfd_map(fd) : STR_NONE;

        if (c->state == CHILD_STARTING) {
                if (text.n > 0)
                        log_error("configuration", "%.*s", STR_ARG(text));
                started_ready(m, c, w, ok);
        } else if (w->number == m->reload.number) {
                reload_child_ready(m, c, ok, text);
        }
        memfd_unmap(text);
        if (fd >= 0)
                close(fd);
}

static void hear_committed(struct master *m, struct child *c)
{
        if (c->state == CHILD_STARTING) {
                c->state = CHILD_SERVING;
                c->still = 0;
                cover(m, c, false);
                LIST_EACH (n, &m->server_words) {
                        struct server_word *s = CONTAINER_OF(n, struct server_word, link);
                        (void)wire_send(c->channel, WIRE_SERVER, 0, &s->said, sizeof(s->said));
                }
                if (m->ready)
                        (void)wire_send(c->channel, WIRE_SERVING, 0, NULL, 0);
                if (m->drain != DRAIN_NO)
                        (void)wire_send(c->channel, WIRE_NOT_READY, 0, NULL, 0);
        }
        reload_child_committed(m, c);
}

static void hear_words(struct master *m, struct child *c, struct wire *w)
{
        int fd = wire_take(w, 0);
        str text = fd >= 0 ? memfd_map(fd) : STR_NONE;

        control_words(m, w->number, c, text);
        memfd_unmap(text);
        if (fd >= 0)
                close(fd);
}

static void hear(struct master *m, struct child *c, struct wire *w)
{
        const uint32_t *flag = wire_data(w, sizeof(*flag));

        switch ((enum wire_type)w->type) {
        case WIRE_READY:
        case WIRE_FAILED:
                note_alive(c, w);
                hear_ready(m, c, w, w->type == WIRE_READY);
                return;
        case WIRE_COMMITTED:
                note_alive(c, w);
                hear_committed(m, c);
                return;
        case WIRE_ENDED:
                note_alive(c, w);
                children_sweep_copies(m);
                return;
        case WIRE_EMPTY:
                c->empty = true;
                master_exit_if_empty(m);
                return;
        case WIRE_ANSWER:
                control_answer(m, w->number, c, flag && *flag == 1);
                return;
        case WIRE_WORDS:
                hear_words(m, c, w);
                return;
        default:
                children_distrust(m, c, "it says what no worker says");
        }
}

static void child_readable(struct master *m, void *arg)
{
        struct child *c = arg;
        static struct wire w; /* one thread, and it is large */

        switch (wire_recv(c->channel, &w)) {
        case WIRE_NONE:
                return;
        case WIRE_END: /* its end is near: SIGCHLD says how */
                master_unwatch(m, c->channel);
                kill(c->pid, SIGKILL);
                return;
        case WIRE_GOT:
                break;
        }
        hear(m, c, &w);
        wire_close(&w);
}

/* ------------------------------------------------------------------ birth */

static void crash_readable(struct master *m, void *arg);

static bool introduce(struct master *m, struct child *c)
{
        LIST_EACH (n, &m->sockets.all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                if (!set->fresh && !sockets_send(set, c->channel))
                        return false;
        }
        for (unsigned i = 0; i < m->n_children; i++) {
                struct wire_cover said = {i, 1};
                if (i != c->index && m->ready && m->children[i].state == CHILD_NONE &&
                    !wire_send(c->channel, WIRE_COVER, 0, &said, sizeof(said)))
                        return false;
        }
        return logs_send(&m->logs, c->channel, false) && logs_send_error(&m->logs, c->channel) &&
               children_send_copies(m, c->channel, m->plan, c) &&
               wire_send_fds(c->channel, WIRE_PREPARE, m->number, NULL, 0, &m->bundle_fd, 1);
}

void children_spawn(struct master *m, struct child *c)
{
        int pair[2], crash[2];

        master_timer_clear(&c->respawn);
        if (!wire_pair(pair))
                goto failed;
        if (pipe2(crash, O_CLOEXEC | O_NONBLOCK) != 0) {
                close(pair[0]);
                close(pair[1]);
                goto failed;
        }
        inflight_clear(m->inflight, c->index);
        board_clear(m->board, c->index);
        fflush(NULL);
        c->pid = fork();
        if (c->pid == 0) {
                struct worker_gift g = {m, c->index, pair[1], crash[1]};
                worker_main(&g);
        }
        close(pair[1]);
        close(crash[1]);
        if (c->pid < 0) {
                close(pair[0]);
                close(crash[0]);
                goto failed;
        }
        c->channel = pair[0];
        c->crash_fd = crash[0];
        c->state = CHILD_STARTING;
        c->ready = c->committed = c->empty = false;
        c->n_alive = 0;
        c->still = 0;
        master_watch(m, c->channel, child_readable, c);
        master_watch(m, c->crash_fd, crash_readable, c);
        if (!introduce(m, c))
                children_distrust(m, c, "it does not listen");
        return;
failed:
        log_error("weir", "worker %u cannot be started: %s", c->index, strerror(errno));
        c->pid = 0;
        master_timer_set(m, &c->respawn, SEC, spawn_later);
}

static void spawn_later(struct master *m, struct master_timer *t)
{
        if (m->reload.state == RELOAD_PREPARING) { /* it would begin with what is about to go */
                master_timer_set(m, t, 10 * MSEC, spawn_later);
                return;
        }
        children_spawn(m, CONTAINER_OF(t, struct child, respawn));
}

/* Detached: from here on nobody reads what is written there. */
static void detach_stdio(const struct master *m)
{
        int null = m->ready_fd >= 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;

        for (int fd = 0; null >= 0 && fd <= 2; fd++)
                dup2(null, fd);
        if (null >= 0)
                close(null);
}

void children_start(struct master *m)
{
        detach_stdio(m);
        for (unsigned i = 0; i < m->n_children; i++)
                children_spawn(m, &m->children[i]);
}

/* ------------------------------------------------------------------ death */

/* Whether that version is quarantined now. */
static bool strike(struct master *m, const struct board_word *w)
{
        bool quarantined = strikes_add(&m->strikes, w->sha, proc_now());
        char label[MODULE_NAME_MAX + 1];

        snprintf(label, sizeof(label), "%s", w->name);
        master_count(m, METRIC_FUNCTION_STRIKES, "module", str_z(label));
        if (quarantined)
                log_error("weir",
                          "module %s was running in %d deaths within a minute: it is quarantined "
                          "until a reload brings another version or `weir functions clear %s` ends "
                          "that, its uses answer by on_error",
                          w->name, STRIKES_LIMIT, w->name);
        children_show_strikes(m);
        return quarantined;
}

static void show_strike(void *board, const uint8_t sha[32], uint32_t n, bool quarantined)
{
        board_note_strikes(board, sha, n, quarantined);
}

void children_show_strikes(struct master *m)
{
        board_strikes_begin(m->board);
        strikes_each(&m->strikes, show_strike, m->board);
}

static void let_go(struct master *m, struct child *c)
{
        master_unwatch(m, c->channel);
        master_unwatch(m, c->crash_fd);
        close(c->channel);
        close(c->crash_fd);
        c->channel = c->crash_fd = -1;
        c->state = CHILD_NONE;
        c->pid = 0;
        c->n_alive = 0;
        atomic_store(&board_news(m->board, c->index)->pid, 0);
}

/* Counts the death, and says when the next one comes.  Whether a version of a module is quarantined
 * for it: that in w. */
static bool mourn(struct master *m, struct child *c, const char *how, const char *cause,
                  struct board_word *w)
{
        bool quarantined;
        int64_t pause;

        master_count(m, METRIC_WORKER_DEATHS, "cause", str_z(cause));
        quarantined = board_last_words(m->board, c->index, w) && w->where != 0 && w->known &&
                      strike(m, w);
        pause = pace_next(&m->pace, proc_now());
        log_error("weir", "worker %u (%d) ended: %s; %s", c->index, (int)c->pid, how,
                  pause > 0 ? "a new one follows after a pause" : "a new one is started");
        let_go(m, c);
        cover(m, c, true);
        if (pause > 0)
                master_timer_set(m, &c->respawn, pause, spawn_later);
        else
                children_spawn(m, c);
        return quarantined;
}

/* A worker that cannot even start is not tried again while weir itself is starting: that ends in a
 * refusal. */
static bool replace_wanted(const struct master *m, bool started)
{
        return (m->ready || started) && !m->leave && !m->done && m->drain != DRAIN_CLOSED;
}

static void gone(struct master *m, struct child *c, const char *how, const char *cause)
{
        bool started = c->state == CHILD_SERVING, quarantined = false;
        struct board_word w;

        if (replace_wanted(m, started)) {
                quarantined = mourn(m, c, how, cause, &w);
        } else {
                if (strcmp(cause, "exit") != 0 || !m->leave)
                        log_error("weir", "worker %u (%d) ended: %s", c->index, (int)c->pid, how);
                let_go(m, c);
        }
        control_child_gone(m, c);
        reload_child_gone(m, c, started);
        /* The other workers still have what is quarantined now.  (A reload would end a drain.) */
        if (quarantined && m->drain == DRAIN_NO && !fallback_try(m, w.sha) && m->n_children > 1)
                reload_rebuild(m);
        children_sweep_copies(m);
        master_exit_if_empty(m);
}

/* The crash handler of a worker: it is about to die, perhaps slowly, with a core. */
static void crash_readable(struct master *m, void *arg)
{
        struct child *c = arg;
        char how[BOARD_OBITUARY];
        unsigned char sig;
        ssize_t n = read(c->crash_fd, &sig, 1);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n != 1) { /* the end of the file: an ordinary death, which SIGCHLD reports */
                master_unwatch(m, c->crash_fd);
                return;
        }
        board_obituary(m->board, c->index, sig & 0x7f, how);
        gone(m, c, how, "signal");
}

void children_reaped(struct master *m, pid_t pid, int status)
{
        char how[BOARD_OBITUARY];

        store_clear_dead(m->store, (int)pid);
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                if (c->pid != pid || c->state == CHILD_NONE)
                        continue;
                board_obituary(m->board, i, status, how);
                gone(m, c, how, WIFSIGNALED(status) ? "signal" : "exit");
                return;
        }
}

unsigned children_alive(const struct master *m)
{
        unsigned n = 0;

        for (unsigned i = 0; i < m->n_children; i++)
                n += m->children[i].state != CHILD_NONE;
        return n;
}

bool children_starting(const struct master *m)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                if (m->children[i].state == CHILD_STARTING)
                        return true;
        }
        return false;
}

bool children_serving(const struct master *m)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                if (m->children[i].state != CHILD_SERVING)
                        return false;
        }
        return true;
}

void children_look_after(struct master *m)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *c = &m->children[i];
                uint64_t beat;
                if (c->state != CHILD_SERVING)
                        continue;
                beat = atomic_load_explicit(&board_crumb(m->board, i, BOARD_CONTROL)->beat,
                                            memory_order_relaxed);
                c->still = beat == c->beat ? c->still + 1 : 0;
                c->beat = beat;
                if (c->still < STILL_LIMIT)
                        continue;
                log_error("weir", "the control thread of worker %u (%d) does not turn", i,
                          (int)c->pid);
                kill(c->pid, SIGABRT);
                c->still = 0;
        }
}
