/*
 * A module is loaded, looked at, and put through test cases.
 *
 *   weir module test --fork--> loads it, says what it is
 *                    --fork--> loads it, runs case 1 ...
 *
 * The difficulty: it may crash, hang, exit or write over everything.  So its code runs in a child
 * for each question, without root's rights and with a time limit; the child answers in shared
 * memory, where what it was doing stays when it is gone, and the parent never maps the module.
 */
#include "daemon/desk.h"

#include "base/check.h"
#include "base/crumb.h"
#include "base/log.h"
#include "base/shm.h"
#include "conf/source.h"
#include "daemon/casefile.h"
#include "daemon/copies.h"
#include "daemon/proc.h"
#include "proxy/cases.h"
#include "proxy/gen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

/* What a child says.  Shared; written by the child, read by the parent when the child is gone.
 * Invariant: text is a C string once done. */
struct answer {
        struct crumb crumb;
        _Atomic bool done; /* stored last: an exit without it is a failure */
        bool ok;
        uint32_t n_cases;
        uint32_t line; /* of the file of cases; 0: none */
        char name[128];
        char text[8192];
};

struct trial {
        const char *file;
        str bytes; /* of the module */
        const char *cases_name;
        struct casefile cases;
        struct arena *a;
        struct answer *answer;
        int output; /* what the child writes to standard output and standard error */
};

/* Texts come from a module or a file: nothing that would move a terminal's cursor. */
static void copy_text(char *to, size_t cap, str s)
{
        size_t n = MIN(s.n, cap - 1);

        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char)s.p[i];
                to[i] = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : (char)c;
        }
        to[n] = 0;
}

/* ------------------------------------------------------------------ in the child */

static NORETURN void say(struct trial *t, bool ok, str text)
{
        copy_text(t->answer->text, sizeof(t->answer->text), text);
        t->answer->ok = ok;
        atomic_store(&t->answer->done, true);
        fflush(NULL);
        _exit(0);
}

static struct module *load(struct trial *t)
{
        static struct memory_copies copies; /* seen to as long as the process lives */
        struct module_file file = {.origin = str_z(t->file), .bytes = t->bytes};
        str error = STR_NONE;
        struct module *m = NULL;

        memory_copies_init(&copies);
        file.path = memory_copies_make(&copies, t->bytes, t->a, &error);
        if (file.path)
                m = module_open(&file, &api_host, t->a, &error);
        if (!m)
                say(t, false, error);
        t->answer->n_cases = (uint32_t)m->desc->n_cases;
        return m;
}

static void put_hooks(struct buf *out, const weir_module *d)
{
        const struct {
                const char *name;
                bool there;
        } hooks[] = {
                {"on_request", d->on_request != NULL},
                {"on_request_body", d->on_request_body != NULL},
                {"on_response", d->on_response != NULL},
                {"on_response_body", d->on_response_body != NULL},
                {"on_log", d->on_log != NULL},
        };
        bool some = false;

        for (size_t i = 0; i < COUNT(hooks); i++) {
                if (hooks[i].there)
                        buf_printf(out, "%s %s", some ? "" : ", hooks", hooks[i].name);
                some = some || hooks[i].there;
        }
        if (!some)
                buf_puts(out, STR(", no hooks"));
}

static void describe(struct buf *out, const struct module *m)
{
        const weir_module *d = m->desc;

        buf_printf(out, "%s %s (%.*s): ABI %u.%u, content %s", d->name, d->version,
                   STR_ARG(m->origin), d->abi_major, d->abi_minor, m->id);
        put_hooks(out, d);
        buf_printf(out,
                   ", %zu argument%s, %zu case%s, needs %u bytes of the host's table (this weir "
                   "has %u)",
                   d->n_args, d->n_args == 1 ? "" : "s", d->n_cases, d->n_cases == 1 ? "" : "s",
                   d->host_size_min, api_host.size);
        if (m->pinned)
                buf_printf(out, ", stays in memory when it is replaced: %s", m->pinned);
}

/* The module, then its own cases, as before an activation. */
static NORETURN void look(struct trial *t, size_t unused)
{
        struct module *m = load(t);
        struct report rep = {0};
        struct buf out = BUF_INIT;
        str first, text;

        (void)unused;
        cases_run(m, NULL, &rep);
        if (rep.errors > 0) {
                text = buf_pullup(&rep.out, rep.out.n);
                str_cut(text, '\n', &first, &text);
                say(t, false, arena_printf(t->a, "%s: %.*s", t->file, STR_ARG(first)));
        }
        describe(&out, m);
        say(t, true, buf_pullup(&out, out.n));
}

static NORETURN void run_case(struct trial *t, size_t i)
{
        const struct casefile_case *written = t->cases_name ? &t->cases.v[i] : NULL;
        struct module *m;
        const weir_case *c;
        struct case_result r;

        if (written) {
                copy_text(t->answer->name, sizeof(t->answer->name), str_z(written->c.name));
                t->answer->line = written->line;
        }
        m = load(t);
        c = written ? &written->c : &m->desc->cases[i];
        if (!written)
                copy_text(t->answer->name, sizeof(t->answer->name), str_z(c->name ? c->name : "?"));
        cases_one(m, c, t->a, &r);
        if (written)
                t->answer->line = casefile_line(written, r.at);
        say(t, r.why.p == NULL, r.why.p ? r.why : STR("ok"));
}

/* Root does not lend its rights to what it tries. */
static void give_up_rights(struct trial *t)
{
        struct proc_user nobody = {.set = geteuid() == 0, .uid = NOBODY, .gid = NOBODY};

        if (!proc_drop(&nobody))
                say(t, false,
                    arena_printf(t->a, "the rights cannot be given up: %s", strerror(errno)));
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static NORETURN void child(struct trial *t, int alive, void (*job)(struct trial *, size_t),
                           size_t i)
{
        int keep[] = {alive};

        if (dup2(t->output, STDOUT_FILENO) < 0 || dup2(t->output, STDERR_FILENO) < 0)
                _exit(1);
        proc_close_others(keep, COUNT(keep));
        give_up_rights(t);
        crumb_use(&t->answer->crumb);
        crumb_catch_faults(-1);
        log_level = LOG_INFO;
        job(t, i);
        UNREACHABLE();
}

/* ------------------------------------------------------------------ in the parent */

/* Where the child was: "while loading", "in on_request". */
static str place(const struct trial *t)
{
        unsigned phase = (unsigned)(atomic_load(&t->answer->crumb.where) & 0xff);

        if (phase == 0)
                return STR("");
        if (phase == MODULE_LOAD)
                return STR(" while loading");
        return arena_printf(t->a, " in %s", module_phase_name(phase));
}

/* How a child ended that did not answer. */
static void obituary(struct trial *t, int status, bool late)
{
        int sig = (int)atomic_load(&t->answer->crumb.sig);
        str where = place(t), how;

        if (sig == 0 && WIFSIGNALED(status))
                sig = WTERMSIG(status);
        if (late)
                how = arena_printf(t->a, "did not end within %d s%.*s", DESK_SECONDS,
                                   STR_ARG(where));
        else if (sig != 0)
                how = arena_printf(t->a, "signal %d (%s)%.*s", sig, strsignal(sig), STR_ARG(where));
        else
                how = arena_printf(t->a, "exit status %d%.*s", WEXITSTATUS(status), STR_ARG(where));
        copy_text(t->answer->text, sizeof(t->answer->text), how);
        t->answer->ok = false;
}

/* Until the other end of fd is closed; false: that took too long. */
static bool await_end(int fd)
{
        int64_t until = proc_now() + DESK_SECONDS * SEC, left;

        while ((left = until - proc_now()) > 0) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                if (poll(&p, 1, (int)(left / MSEC) + 1) > 0)
                        return true;
        }
        return false;
}

/* Puts a question to a child of its own; the answer is in t->answer whatever became of it. */
static bool ask(struct trial *t, void (*job)(struct trial *, size_t), size_t i)
{
        int alive[2], status = 0;
        bool late;
        pid_t pid;

        memset(t->answer, 0, sizeof(*t->answer));
        if (ftruncate(t->output, 0) != 0 || lseek(t->output, 0, SEEK_SET) != 0 ||
            pipe2(alive, O_CLOEXEC) != 0)
                goto failed;
        fflush(NULL);
        pid = fork();
        if (pid == 0)
                child(t, alive[1], job, i);
        close(alive[1]);
        if (pid < 0) {
                close(alive[0]);
                goto failed;
        }
        late = !await_end(alive[0]);
        if (late)
                kill(pid, SIGKILL);
        close(alive[0]);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (!atomic_load(&t->answer->done))
                obituary(t, status, late);
        return t->answer->ok;
failed:
        snprintf(t->answer->text, sizeof(t->answer->text), "fork: %s", strerror(errno));
        return false;
}

static bool read_file(const char *path, FILE *complain, struct arena *a, str *out)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        str error = STR_NONE;
        bool ok = fd >= 0 && source_read(fd, a, out, &error);

        if (fd < 0)
                error = str_z(strerror(errno));
        else
                close(fd);
        if (!ok)
                fprintf(complain, "%s%s: %.*s\n", complain == stderr ? "weir: " : "", path,
                        STR_ARG(error));
        return ok;
}

/* What the child wrote beside its answer, each line indented. */
static void print_output(struct trial *t, FILE *to)
{
        char buf[4096];
        bool begin = true;
        off_t at = 0;
        ssize_t n;

        while ((n = pread(t->output, buf, sizeof(buf), at)) > 0 && at < (off_t)(64 * KIB)) {
                at += n;
                for (ssize_t i = 0; i < n; i++) {
                        if (begin)
                                fputs("    ", to);
                        begin = buf[i] == '\n';
                        fputc(buf[i], to);
                }
        }
        if (!begin)
                fputc('\n', to);
}

/* "its cases line: text", the further lines of text indented. */
static void print_failure(struct trial *t)
{
        str text = str_z(t->answer->text), line;

        printf("FAILED %s: ", t->answer->name);
        if (t->cases_name && t->answer->line != 0)
                printf("%s:%u: ", t->cases_name, t->answer->line);
        str_cut(text, '\n', &line, &text);
        printf("%.*s\n", STR_ARG(line));
        while (text.n > 0) {
                str_cut(text, '\n', &line, &text);
                printf("    %.*s\n", STR_ARG(line));
        }
        print_output(t, stdout);
}

static bool desk_begin(struct trial *t, const char *file, struct arena *a)
{
        *t = (struct trial){.file = file, .a = a, .output = memfd_create("weir-desk", MFD_CLOEXEC)};
        t->answer = shm_new(sizeof(*t->answer));
        if (t->output >= 0)
                return true;
        fprintf(stderr, "weir: memfd: %s\n", strerror(errno));
        return false;
}

int desk_check(const char *file, struct arena *a)
{
        struct trial t;
        bool ok;

        if (!desk_begin(&t, file, a) || !read_file(file, stdout, t.a, &t.bytes))
                return 1;
        ok = ask(&t, look, 0);
        if (!ok && !atomic_load(&t.answer->done))
                printf("%s: %s\n", file, t.answer->text); /* it is not the module that says so */
        else
                printf("%s\n", t.answer->text);
        if (!ok)
                print_output(&t, stderr);
        return ok ? 0 : 1;
}

static bool read_cases(struct trial *t, const char *path)
{
        struct report rep = {0};
        bool ok;
        str text;

        if (!read_file(path, stderr, t->a, &text))
                return false;
        t->cases_name = path;
        ok = casefile_parse(str_z(path), text, t->a, &t->cases, &rep);
        if (!ok) {
                str said = buf_pullup(&rep.out, rep.out.n);
                fwrite(said.p, 1, said.n, stderr);
        }
        buf_clear(&rep.out);
        return ok;
}

static NORETURN void only_load(struct trial *t, size_t unused)
{
        (void)unused;
        (void)load(t);
        say(t, true, STR("ok"));
}

int desk_test(const char *file, const char *cases, struct arena *a)
{
        struct trial t;
        size_t n, passed = 0;

        if (!desk_begin(&t, file, a) || !read_file(file, stderr, t.a, &t.bytes) ||
            (cases && !read_cases(&t, cases)))
                return 1;
        if (!ask(&t, only_load, 0)) {
                bool said = atomic_load(&t.answer->done);
                printf("FAILED %s%s%s\n", said ? "" : file, said ? "" : ": ", t.answer->text);
                print_output(&t, stdout);
                printf("0 passed, %zu failed\n", MAX(t.cases.n, (size_t)1));
                return 1;
        }
        n = cases ? t.cases.n : t.answer->n_cases;
        if (n == 0)
                fprintf(stderr, "weir: %s has no cases of its own\n", file);
        for (size_t i = 0; i < n; i++) {
                if (ask(&t, run_case, i)) {
                        passed++;
                        printf("ok %s\n", t.answer->name);
                } else {
                        print_failure(&t);
                }
        }
        printf("%zu passed, %zu failed\n", passed, n - passed);
        return passed == n && n > 0 ? 0 : 1;
}
