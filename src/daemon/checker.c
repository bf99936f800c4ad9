/*
 * The checker.
 *
 *   as root:        read all files (collecting) -> model -> plan + bundle -> PLAN
 *   unprivileged:   build the whole generation from the bundle, modules loaded from memory,
 * per-thread set-up on one loop -> VERDICT
 *
 * The difficulty: code of modules runs here for the first time.  So the rights are gone before it
 * does, the memory that leaves is sealed, and success is a record sent last: a module that exits,
 * crashes or loops cannot fake it by ending.
 */
#include "daemon/checker.h"

#include "base/crypto.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/shm.h"
#include "conf/conf.h"
#include "daemon/bundle.h"
#include "daemon/copies.h"
#include "daemon/memfd.h"
#include "daemon/plan.h"
#include "daemon/proc.h"
#include "daemon/trust.h"
#include "daemon/wire.h"
#include "proxy/gen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct checking {
        const struct options *o;
        uint32_t number;
        int channel;
        bool dump;
        struct board *board;
        struct memory_copies copies;
        struct arena *arena;
};

static NORETURN void verdict(struct checking *c, struct report *rep, bool ok)
{
        struct wire_verdict v = {.ok = ok};
        str text = buf_pullup(&rep->out, rep->out.n);
        int fd = memfd_make("weir-report", &text, 1);

        if (!wire_send_fds(c->channel, WIRE_VERDICT, c->number, &v, sizeof(v), &fd, fd >= 0))
                _exit(1);
        _exit(ok ? 0 : 1);
}

/* As it is between two moments at which nothing was written to it: of a file that is overwritten
 * meanwhile we would have parts of two builds, which may well load. */
static bool read_whole(int fd, struct arena *a, str *bytes, str *why)
{
        struct stat before, after;

        if (fstat(fd, &before) != 0) {
                *why = str_z(strerror(errno));
                return false;
        }
        if (!source_read(fd, a, bytes, why))
                return false;
        if (fstat(fd, &after) == 0 && after.st_size == (off_t)bytes->n &&
            before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
            before.st_mtim.tv_nsec == after.st_mtim.tv_nsec)
                return true;
        *why = STR("it was changed while it was read: rename a new file over the old one");
        return false;
}

static bool read_module(struct checking *c, struct bundle *b, const struct module_conf *m,
                        const struct proc_user *user, uint8_t sha[32], str *error)
{
        int fd = trust_open(m->path, user, c->arena, error);
        str bytes, why;
        bool ok;

        if (fd < 0)
                return false;
        ok = read_whole(fd, c->arena, &bytes, &why);
        close(fd);
        if (ok) {
                bundle_put_file(b, m->path, bytes);
                crypto_sha256(bytes, sha);
        } else {
                *error = arena_printf(c->arena, "%.*s: %.*s", STR_ARG(m->path), STR_ARG(why));
        }
        return ok;
}

/* Reads every module into the bundle; NULL: mistakes are in rep. */
static uint8_t (*read_modules(struct checking *c, struct bundle *b, const struct conf *conf,
                              const struct proc_user *user, struct report *rep))[32]
{
        unsigned mistakes = rep->errors;
        uint8_t(*shas)[32] = arena_zalloc(c->arena, sizeof(*shas) * (conf->n_modules + 1));

        for (size_t i = 0; i < conf->n_modules; i++) {
                const struct module_conf *m = &conf->modules[i];
                str error;
                if (!read_module(c, b, m, user, shas[i], &error))
                        report_error(rep, &m->pos, "module %.*s: %.*s", STR_ARG(m->name),
                                     STR_ARG(error));
        }
        return rep->errors > mistakes ? NULL : shas;
}

/* Tells the master what it needs to know. */
static void send_plan(struct checking *c, const struct conf *conf, const uint8_t (*shas)[32],
                      int bundle_fd, struct report *rep)
{
        str error = STR_NONE;
        int fds[2] = {plan_make(conf, shas, c->arena, &error), bundle_fd};

        if (fds[0] < 0) {
                buf_printf(&rep->out, "%.*s\n", STR_ARG(error.p ? error : str_z(strerror(errno))));
                verdict(c, rep, false);
        }
        if (!wire_send_fds(c->channel, WIRE_PLAN, c->number, NULL, 0, fds, 2))
                _exit(1);
        close(fds[0]);
}

/* The privileged half.  Returns the bundle's descriptor.  With a mistake the master is told nothing
 * yet: the other half finds it again in the bundle, and reports it together with those in
 * functions' arguments. */
static int collect(struct checking *c, struct report *rep, struct proc_user *user)
{
        struct bundle *b = bundle_collect();
        struct source *src = bundle_source(b);
        struct conf *conf = conf_read_all(src, c->o->config, c->o->prefix, rep);
        unsigned mistakes = rep->errors;
        uint8_t(*shas)[32];
        int fd;

        if (!conf)
                verdict(c, rep, false);
        *user = (struct proc_user){conf->has_user, conf->uid, conf->gid};
        shas = read_modules(c, b, conf, user, rep);
        if (!shas)
                verdict(c, rep, false);
        fd = bundle_seal(b);
        if (fd < 0) {
                buf_printf(&rep->out, "%s\n", strerror(errno));
                verdict(c, rep, false);
        }
        if (mistakes == 0)
                send_plan(c, conf, (const uint8_t(*)[32])shas, fd, rep);
        conf_free(conf);
        bundle_free(b);
        return fd;
}

static const char *checker_module_path(struct house *h, const struct module_conf *m, str bytes,
                                       struct arena *a, str *error)
{
        struct checking *c = h->ctx;

        (void)m;
        return memory_copies_make(&c->copies, bytes, a, error);
}

/* A crash in its cases or later is told with its name. */
static void checker_module_opened(struct house *h)
{
        struct checking *c = h->ctx;

        if (c->board)
                board_note_modules(c->board, 0);
}

static bool checker_quarantined(const uint8_t sha[32])
{
        (void)sha; /* a new configuration is proven as if nothing had happened */
        return false;
}

static void limit_cpu(void)
{
        struct rlimit cpu = {CHECKER_CPU_SECONDS, CHECKER_CPU_SECONDS};

        (void)setrlimit(RLIMIT_CPU, &cpu);
}

/* The unprivileged half. */
static bool prove(struct checking *c, int bundle_fd, struct report *rep, struct buf *dump)
{
        struct metric_region *region = metric_region_new(2, 4 * MIB);
        struct loop *control = loop_new(~0U, metric_slot(region, 0));
        struct loop *loop = loop_new(0, metric_slot(region, 1));
        struct house house = {.control = control,
                              .loops = &loop,
                              .n_loops = 1,
                              .store = store_new(64 * KIB),
                              .checker = true,
                              .quarantined = checker_quarantined,
                              .module_path = checker_module_path,
                              .module_opened = checker_module_opened,
                              .ctx = c};
        struct bundle *b = bundle_map(bundle_fd);
        struct gen *g;

        CHECK(b);
        loop_self = control;
        g = gen_build(&house, c->number, bundle_source(b), c->o->config, c->o->prefix, rep);
        if (!g)
                return false;
        loop_self = loop;
        if (!gen_prepare(g, loop)) {
                buf_printf(&rep->out,
                           "a function's set-up for a loop failed (the log says which)\n");
                rep->errors++;
                return false;
        }
        gen_abort(g, loop);
        if (c->dump) /* now it is known which arguments are secret */
                conf_dump(g->conf, dump);
        return true;
}

static NORETURN void checker_run(struct checking *c, int log_fd)
{
        struct report first = {0}, rep = {0};
        struct buf dump = BUF_INIT;
        struct proc_user user;
        int keep[] = {c->channel, log_fd}, bundle_fd;
        bool ok;

        proc_child_signals();
        proc_close_others(keep, COUNT(keep));
        c->arena = arena_new(0);
        memory_copies_init(&c->copies);
        if (c->board)
                crumb_use(board_crumb(c->board, 0, BOARD_CONTROL));
        bundle_fd = collect(c, &first, &user);
        if (!proc_drop(&user)) {
                buf_printf(&rep.out, "user: the rights cannot be given up: %s\n", strerror(errno));
                verdict(c, &rep, false);
        }
        limit_cpu();
        crumb_catch_faults(-1);
        ok = prove(c, bundle_fd, &rep, &dump);
        if (ok && c->dump) {
                str text = buf_pullup(&dump, dump.n);
                ok = fwrite(text.p, 1, text.n, stdout) == text.n && fflush(stdout) == 0;
        }
        verdict(c, &rep, ok);
}

bool checker_start(const struct options *o, uint32_t number, struct board *board, int log_fd,
                   bool dump, struct checker *out)
{
        int pair[2];
        pid_t pid;

        if (!wire_pair(pair))
                return false;
        if (board)
                board_clear(board, 0);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
                struct checking c = {
                        .o = o, .number = number, .channel = pair[1], .dump = dump, .board = board};
                checker_run(&c, log_fd);
        }
        close(pair[1]);
        if (pid < 0) {
                close(pair[0]);
                return false;
        }
        *out = (struct checker){pid, pair[0]};
        return true;
}

/* ------------------------------------------------------------------ weir -t */

static void print_report(struct wire *w)
{
        int fd = wire_take(w, 0);
        str text = fd >= 0 ? memfd_map(fd) : STR_NONE;

        if (text.n > 0)
                fwrite(text.p, 1, text.n, stderr);
        memfd_unmap(text);
        if (fd >= 0)
                close(fd);
}

/* Waits for the verdict; false: there was none, or a bad one. */
static bool await_verdict(struct checker *c, bool *came)
{
        int64_t until = proc_now() + CHECKER_WALL;
        struct wire *w = malloc(sizeof(*w));
        bool ok = false, end = false;

        CHECK(w);
        *came = false;
        while (!end) {
                struct pollfd p = {.fd = c->channel, .events = POLLIN};
                int64_t left = until - proc_now();
                if (left <= 0)
                        break;
                if (poll(&p, 1, (int)(left / MSEC) + 1) <= 0)
                        continue;
                switch (wire_recv(c->channel, w)) {
                case WIRE_NONE:
                        continue;
                case WIRE_END:
                        end = true;
                        continue;
                case WIRE_GOT:
                        break;
                }
                if (w->type == WIRE_VERDICT) {
                        const struct wire_verdict *v = wire_data(w, sizeof(*v));
                        *came = true;
                        ok = v && v->ok;
                        print_report(w);
                }
                wire_close(w);
        }
        free(w);
        return ok;
}

int checker_foreground(const struct options *o)
{
        static struct board *board; /* lives as long as the process, and is seen to */
        struct checker c;
        bool came, ok;
        int status = 0;

        board = board_new(1, 0);
        if (!checker_start(o, 0, board, -1, o->action == OPTIONS_DUMP, &c)) {
                fprintf(stderr, "weir: fork: %s\n", strerror(errno));
                return 1;
        }
        ok = await_verdict(&c, &came);
        if (!came)
                kill(c.pid, SIGKILL);
        waitpid(c.pid, &status, 0);
        if (!came) {
                char how[BOARD_OBITUARY];
                board_obituary(board, 0, status, how);
                fprintf(stderr, "weir: the check ended without a verdict: %s\n", how);
        } else if (ok)
                fprintf(stderr, "weir: %.*s is good\n", STR_ARG(o->config));
        return ok ? 0 : 1;
}
