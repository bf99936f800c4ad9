/*
 * The control socket: who may open it (mode 0600) may command weir.
 *
 * The difficulty: an asker waits for the outcome, which may take a reload or a drain; so a client
 * is an entry that says what it waits for.  A client that says nonsense, too much or nothing costs
 * a bounded amount and is closed.
 */
#include "daemon/ask.h"

#include "base/check.h"
#include "base/log.h"
#include "conf/report.h"
#include "daemon/master.h"
#include "daemon/proc.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define CLIENT_TIME (10 * SEC) /* for its line */

enum control_wait {
        WAIT_LINE,
        WAIT_RELOAD,
        WAIT_CLEAR,
        WAIT_SERVER,
        WAIT_WORDS,
        WAIT_CLOSED,
        WAIT_END
};

/* One asker.  Owned by master.clients from accept until the answer. */
struct control_client {
        struct list link;
        struct master *m;
        int fd;
        enum control_wait wait;
        uint32_t number;                /* of the reload or question */
        bool *asked;                    /* WAIT_SERVER: by worker, those that have not answered */
        bool json;                      /* WAIT_WORDS */
        unsigned worker;                /* WAIT_WORDS: who was asked */
        char name[MODULE_NAME_MAX + 1]; /* WAIT_CLEAR: of the module */
        bool failed;
        struct master_timer timer;
        size_t n;
        char line[ASK_LINE];
};

static void do_functions(struct master *m, struct control_client *c, bool json);

/* ------------------------------------------------------------------ answering */

static void client_free(struct master *m, struct control_client *c)
{
        master_unwatch(m, c->fd);
        master_timer_clear(&c->timer);
        list_remove(&c->link);
        close(c->fd);
        free(c->asked);
        free(c);
}

/* All of it or nothing: the socket's buffer is larger than any sensible report, and the master does
 * not wait. */
static void answer_word(struct master *m, struct control_client *c, enum ask_outcome word, str text)
{
        str first = ask_outcomes[word];
        struct iovec iov[3] = {{(void *)(uintptr_t)first.p, first.n},
                               {(void *)(uintptr_t) "\n", 1},
                               {(void *)(uintptr_t)text.p, MIN(text.n, 128 * KIB)}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = COUNT(iov)};

        (void)sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        client_free(m, c);
}

static void answer(struct master *m, struct control_client *c, bool ok, str text)
{
        answer_word(m, c, ok ? ASK_OK : ASK_FAILED, text);
}

static void answerf(struct master *m, struct control_client *c, bool ok, const char *fmt, ...)
        PRINTF_LIKE(4, 5);
static void answerf(struct master *m, struct control_client *c, bool ok, const char *fmt, ...)
{
        char text[1024];
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        answer(m, c, ok, str_z(text));
}

static void say_end(const struct master *m, uint32_t number, enum reload_end how, struct buf *out)
{
        const char *why = m->rollout.note.reason;

        if (how == RELOAD_ROLLED_BACK)
                buf_printf(out, "reload %u: rolled back: %s\n", number, why);
        else if (how == RELOAD_REFUSED)
                buf_printf(out, "reload %u: refused, nothing was changed\n", number);
        else if (m->reload.terms.share > 0)
                buf_printf(out, "reload %u: promoted: %s\n", number, why);
        else
                buf_printf(out, "reload %u: done\n", number);
}

void control_reload_done(struct master *m, uint32_t number, enum reload_end how, str text)
{
        static const enum ask_outcome words[] = {[RELOAD_DONE] = ASK_OK,
                                                 [RELOAD_REFUSED] = ASK_FAILED,
                                                 [RELOAD_ROLLED_BACK] = ASK_ROLLED_BACK};

        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                struct buf out = BUF_INIT;
                if (c->wait != WAIT_RELOAD || c->number > number)
                        continue;
                buf_puts(&out, text);
                say_end(m, number, how, &out);
                answer_word(m, c, words[how], buf_pullup(&out, out.n));
                buf_clear(&out);
        }
}

void control_cleared(struct master *m, bool ok, str text)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                if (c->wait != WAIT_CLEAR)
                        continue;
                if (ok)
                        answerf(m, c, true, "module %s serves again\n", c->name);
                else
                        answerf(m, c, false,
                                "module %s: the quarantine has ended, but the workers could not "
                                "build it: a reload or their next start will\n%.*s",
                                c->name, STR_ARG(text));
        }
}

void control_words(struct master *m, uint32_t question, struct child *child, str text)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                if (c->wait == WAIT_WORDS && c->number == question && c->worker == child->index)
                        answer(m, c, text.p != NULL, text);
        }
}

static void server_answered(struct master *m, struct control_client *c)
{
        for (unsigned i = 0; i < m->n_children; i++) {
                if (c->asked[i])
                        return;
        }
        answerf(m, c, !c->failed, "%s", c->failed ? "no such upstream or server\n" : "");
}

void control_answer(struct master *m, uint32_t question, struct child *child, bool ok)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                if (c->wait != WAIT_SERVER || c->number != question || question == 0)
                        continue;
                c->asked[child->index] = false;
                c->failed = c->failed || !ok;
                server_answered(m, c);
        }
}

void control_child_gone(struct master *m, struct child *child)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                if (c->wait == WAIT_WORDS && c->worker == child->index) {
                        do_functions(m, c, c->json);
                        continue;
                }
                if (c->wait != WAIT_SERVER || !c->asked[child->index])
                        continue;
                c->asked[child->index] = false; /* its replacement is told on its start */
                server_answered(m, c);
        }
}

void control_ended(struct master *m)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                answerf(m, c, c->wait == WAIT_END, "%s",
                        c->wait == WAIT_END ? "" : "weir has ended\n");
        }
}

void control_drained(struct master *m, bool closed)
{
        LIST_EACH (n, &m->clients) {
                struct control_client *c = CONTAINER_OF(n, struct control_client, link);
                if (c->wait == WAIT_CLOSED)
                        answerf(m, c, closed,
                                closed ? "the listeners are closed; a reload opens them again\n"
                                       : "a reload has ended the drain\n");
        }
}

/* ------------------------------------------------------------------ doing */

static void remember_server(struct master *m, const struct wire_server *said)
{
        struct server_word *w;

        LIST_EACH (n, &m->server_words) {
                w = CONTAINER_OF(n, struct server_word, link);
                if (strcmp(w->said.upstream, said->upstream) == 0 &&
                    strcmp(w->said.server, said->server) == 0) {
                        w->said = *said;
                        return;
                }
        }
        w = calloc(1, sizeof(*w));
        CHECK(w);
        w->said = *said;
        list_push(&m->server_words, &w->link);
}

static uint32_t next_question(void)
{
        static uint32_t question;

        return ++question ? question : ++question;
}

/* Any worker knows of all. */
static void do_functions(struct master *m, struct control_client *c, bool json)
{
        uint32_t as_json = json;

        c->wait = WAIT_WORDS;
        c->number = next_question();
        c->json = json;
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *child = &m->children[i];
                if (child->state != CHILD_SERVING ||
                    !wire_send(child->channel, WIRE_FUNCTIONS, c->number, &as_json,
                               sizeof(as_json)))
                        continue;
                c->worker = i;
                return;
        }
        answerf(m, c, false, "no worker serves at the moment\n");
}

static void no_such_module(struct master *m, struct control_client *c, str name)
{
        uint32_t n = m->plan->head->n_modules;
        str *names = calloc(n + 1, sizeof(*names)), near;

        CHECK(names);
        for (uint32_t i = 0; i < n; i++)
                names[i] = str_z(m->plan->modules[i].name);
        near = report_nearest(name, names, n);
        free(names);
        answerf(m, c, false,
                near.p ? "there is no module %.*s (did you mean \"%.*s\"?)\n"
                       : "there is no module %.*s%.*s\n",
                STR_ARG(name), STR_ARG(near));
}

static void do_clear(struct master *m, struct control_client *c, str name)
{
        bool known = false, was = false;

        if (!m->ready || m->leave || m->drain != DRAIN_NO) {
                answerf(m, c, false, "weir is %s\n", m->ready ? "draining" : "starting");
                return;
        }
        if (m->reload.state != RELOAD_IDLE && m->reload.terms.share > 0) {
                answerf(m, c, false, "a canary is under way: ask again when it is over\n");
                return;
        }
        for (uint32_t i = 0; i < m->plan->head->n_modules; i++) {
                const struct plan_module *p = &m->plan->modules[i];
                if (!str_eq(str_z(p->name), name))
                        continue;
                known = true;
                was = strikes_clear(&m->strikes, p->sha) || was;
        }
        if (!known) {
                no_such_module(m, c, name);
                return;
        }
        children_show_strikes(m);
        if (!was) {
                answerf(m, c, false, "module %.*s is not quarantined\n", STR_ARG(name));
                return;
        }
        log_warn("weir", "module %.*s: its quarantine was ended by hand", STR_ARG(name));
        c->wait = WAIT_CLEAR;
        snprintf(c->name, sizeof(c->name), "%.*s", STR_ARG(name));
        reload_rebuild(m);
}

static void do_server(struct master *m, struct control_client *c, const struct ask_words *w)
{
        struct wire_server said;

        memset(&said, 0, sizeof(said));
        if (!str_copyz(said.upstream, sizeof(said.upstream), w->upstream) ||
            !str_copyz(said.server, sizeof(said.server), w->server) ||
            !str_copyz(said.state, sizeof(said.state), w->state)) {
                answerf(m, c, false, "no such upstream or server\n");
                return;
        }
        c->wait = WAIT_SERVER;
        c->number = next_question();
        c->asked = calloc(m->n_children, sizeof(*c->asked));
        CHECK(c->asked);
        for (unsigned i = 0; i < m->n_children; i++) {
                struct child *child = &m->children[i];
                c->asked[i] =
                        child->state == CHILD_SERVING &&
                        wire_send(child->channel, WIRE_SERVER, c->number, &said, sizeof(said));
        }
        remember_server(m, &said);
        server_answered(m, c);
}

static void status_canary(const struct master *m, struct buf *out)
{
        const struct board_canary *n = &m->rollout.note;
        double share = 100.0 * n->terms.share / TRIAL_PARTS;

        if (n->number != 0 && !n->over)
                buf_printf(out,
                           "canary: configuration %u has %.4g %% of the clients, %lld s are left\n",
                           n->number, share,
                           (long long)(MAX(n->terms.period - n->elapsed, 0) / SEC));
        else if (n->number != 0)
                buf_printf(out, "last canary: configuration %u with %.4g %% was %s: %s\n",
                           n->number, share,
                           n->verdict == CANARY_PROMOTE ? "promoted" : "rolled back", n->reason);
}

static void do_status(struct master *m, struct control_client *c)
{
        struct buf out = BUF_INIT;

        buf_printf(&out, "version %s\nconfiguration %u\nworkers %u of %u, %u loops each\n%s",
                   WEIR_VERSION, m->number, children_alive(m), m->n_children, m->loops,
                   m->drain != DRAIN_NO ? "draining\n" : "");
        status_canary(m, &out);
        answer(m, c, true, buf_pullup(&out, out.n));
        buf_clear(&out);
}

static void do_reload(struct master *m, struct control_client *c, const struct ask_words *w)
{
        bool canary = w->terms.share > 0;

        if (m->leave) {
                answerf(m, c, false, "weir is stopping\n");
                return;
        }
        if (canary && !reload_takes_canary(m)) {
                answerf(m, c, false, "no canary while %s is under way\n",
                        !m->ready              ? "the start"
                        : m->drain != DRAIN_NO ? "a drain"
                                               : "another reload");
                return;
        }
        c->wait = WAIT_RELOAD;
        c->number = m->last_number + 1; /* known before, for it may be refused at once */
        if (canary)
                reload_ask_canary(m, &w->terms);
        else
                reload_ask(m);
}

static void do_words(struct master *m, struct control_client *c, const struct ask_words *w)
{
        char err[512] = "";

        switch (w->verb) {
        case ASK_RELOAD:
                do_reload(m, c, w);
                return;
        case ASK_REOPEN: {
                bool ok = master_reopen(m, err, sizeof(err));
                answerf(m, c, ok, "%s%s", err, ok ? "" : "\n");
                return;
        }
        case ASK_DRAIN:
                if (!m->ready || m->leave) {
                        answerf(m, c, false, "weir is %s\n", m->leave ? "stopping" : "starting");
                        return;
                }
                c->wait = WAIT_CLOSED;
                master_drain(m, false);
                return;
        case ASK_QUIT:
                c->wait = WAIT_END;
                master_drain(m, true);
                return;
        case ASK_STOP:
                c->wait = WAIT_END;
                master_stop(m);
                return;
        case ASK_STATUS:
                do_status(m, c);
                return;
        case ASK_FUNCTIONS:
        case ASK_FUNCTIONS_JSON:
                do_functions(m, c, w->verb == ASK_FUNCTIONS_JSON);
                return;
        case ASK_CLEAR:
                do_clear(m, c, w->name);
                return;
        case ASK_SERVER:
                do_server(m, c, w);
                return;
        }
}

/* ------------------------------------------------------------------ clients */

static void client_late(struct master *m, struct master_timer *t)
{
        answerf(m, CONTAINER_OF(t, struct control_client, timer), false, "no command came\n");
}

static void client_line(struct master *m, struct control_client *c, size_t end)
{
        struct ask_words w;
        str line = str_of(c->line, end);

        master_timer_clear(&c->timer);
        if (!ask_parse(line, &w)) {
                answerf(m, c, false, "not a command\n");
                return;
        }
        log_info("control", "%.*s", STR_ARG(line));
        do_words(m, c, &w);
}

static void client_readable(struct master *m, void *arg)
{
        struct control_client *c = arg;
        char drop[256];
        bool whole = c->wait != WAIT_LINE;
        ssize_t n = whole ? read(c->fd, drop, sizeof(drop))
                          : read(c->fd, c->line + c->n, sizeof(c->line) - c->n);
        char *end;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0 &&
            whole) { /* it does not wait any longer; what it asked for happens all the same */
                client_free(m, c);
                return;
        }
        if (whole)
                return;
        if (n <= 0) {
                client_free(m, c);
                return;
        }
        c->n += (size_t)n;
        end = memchr(c->line, '\n', c->n);
        if (end)
                client_line(m, c, (size_t)(end - c->line));
        else if (c->n == sizeof(c->line))
                answerf(m, c, false, "not a command\n");
}

static void accept_client(struct master *m, void *arg)
{
        struct control_client *c;
        unsigned count = 0;
        int fd = accept4(m->control_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        (void)arg;
        if (fd < 0)
                return;
        LIST_EACH (n, &m->clients)
                count++;
        if (count >= CLIENTS_MAX) {
                close(fd);
                return;
        }
        c = calloc(1, sizeof(*c));
        CHECK(c);
        c->m = m;
        c->fd = fd;
        list_push(&m->clients, &c->link);
        master_watch(m, fd, client_readable, c);
        master_timer_set(m, &c->timer, CLIENT_TIME, client_late);
}

/* ------------------------------------------------------------------ the socket */

/* The name under which a socket is bound until it takes its place: the path always leads to
 * somebody who answers. */
MUST_CHECK static bool waiting_name(const char *path, char *out, size_t cap)
{
        int n = snprintf(out, cap, "%s.%d", path, (int)getpid());
        return n > 0 && (size_t)n < cap;
}

static int bind_path(const char *path, char *err, size_t cap)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        mode_t mask;
        bool ok, fits = waiting_name(path, a.sun_path, sizeof(a.sun_path));

        if (fits)
                (void)unlink(a.sun_path);
        mask = umask(0177);
        ok = fd >= 0 && fits && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
        umask(mask);
        if (ok && listen(fd, 64) == 0)
                return fd;
        if (!fits)
                errno = ENAMETOOLONG;
        snprintf(err, cap, "control unix:%s: %s", path, strerror(errno));
        if (fd >= 0)
                close(fd);
        if (fits)
                (void)unlink(a.sun_path);
        return -1;
}

/* Does another weir answer there? */
static bool somebody_listens(const char *path)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool there;

        snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
        there = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
        if (fd >= 0)
                close(fd);
        return there;
}

static void make_folder(const char *path)
{
        char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
        char *slash;

        snprintf(folder, sizeof(folder), "%s", path);
        slash = strrchr(folder, '/');
        if (!slash || slash == folder)
                return;
        *slash = 0;
        (void)mkdir(folder, 0755);
}

bool control_prepare(struct master *m, const char *path, char *err, size_t cap)
{
        if (strlen(path) + 12 > sizeof(m->control_path)) {
                snprintf(err, cap, "control unix:%s: the path is too long", path);
                return false;
        }
        make_folder(path);
        if (m->parent_fd < 0 && somebody_listens(path)) {
                snprintf(err, cap, "control unix:%s: another weir answers there", path);
                return false;
        }
        m->next_control_fd = bind_path(path, err, cap);
        if (m->next_control_fd < 0)
                return false;
        snprintf(m->next_control_path, sizeof(m->next_control_path), "%s", path);
        return true;
}

void control_abort(struct master *m)
{
        char waiting[sizeof(m->next_control_path) + 16];

        if (m->next_control_fd < 0)
                return;
        if (waiting_name(m->next_control_path, waiting, sizeof(waiting)))
                (void)unlink(waiting);
        close(m->next_control_fd);
        m->next_control_fd = -1;
}

void control_commit(struct master *m)
{
        char waiting[sizeof(m->next_control_path) + 16];
        struct stat st;

        if (m->next_control_fd < 0)
                return;
        if (!waiting_name(m->next_control_path, waiting, sizeof(waiting)) ||
            rename(waiting, m->next_control_path) != 0) {
                log_error("weir", "control unix:%s: %s: it stays where it was",
                          m->next_control_path, strerror(errno));
                control_abort(m);
                return;
        }
        control_close(m);
        m->control_fd = m->next_control_fd;
        m->next_control_fd = -1;
        memcpy(m->control_path, m->next_control_path, sizeof(m->control_path));
        m->control_inode = stat(m->control_path, &st) == 0 ? st.st_ino : 0;
        master_watch(m, m->control_fd, accept_client, NULL);
}

void control_close(struct master *m)
{
        struct stat st;

        if (m->control_fd < 0)
                return;
        master_unwatch(m, m->control_fd);
        close(m->control_fd);
        m->control_fd = -1;
        if (stat(m->control_path, &st) == 0 && st.st_ino == m->control_inode)
                unlink(m->control_path);
        m->control_path[0] = 0;
}
