/*
 * The command line: weir [-c FILE] [-p DIR] [-d | -t | -T | -s COMMAND | -v | -V | -h], or a
 * command in words: server, functions, module; -s reload may have [--canary SHARE [--for TIME]
 * [--tolerance SHARE]].
 */
#include "daemon/options.h"

#include "conf/report.h"
#include "daemon/ask.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

const char options_usage[] =
        "usage: weir [-d] [-c FILE] [-p DIR]     run (in the foreground; -d: detach)\n"
        "       weir -t|-T [-c FILE] [-p DIR]    check FILE; -T: print what is in effect too\n"
        "       weir -s COMMAND [-c FILE]        tell the running one: reload reopen drain quit "
        "stop status\n"
        "       weir -s reload --canary SHARE [--for TIME] [--tolerance SHARE] [-c FILE]\n"
        "       weir server UPSTREAM ADDR drain|down|up [-c FILE]\n"
        "       weir functions [--json] [-c FILE]       which are at work, and how they do\n"
        "       weir functions clear NAME [-c FILE]     end the quarantine of a module\n"
        "       weir module check FILE.so               what it is, or why it cannot be used\n"
        "       weir module new NAME [DIR]              write one to start from\n"
        "       weir module test FILE.so [CASES]        run its cases, or those of a file\n"
        "       weir -v | -V | -h                version, how it was built, this text\n"
        "\n"
        "  -c FILE   configuration, default " WEIR_SYSCONFDIR "/weir.conf\n"
        "  -p DIR    folder of relative paths, default: the folder of FILE\n"
        "\n"
        "  --canary SHARE     try it on so many of the clients first (5%), then promote it or go "
        "back\n"
        "  --for TIME         for so long, default 60s\n"
        "  --tolerance SHARE  so many more errors than the old one's do not matter, default 1%\n";

enum { OPT_CANARY = 256, OPT_FOR, OPT_TOLERANCE, OPT_JSON };
static const struct option long_options[] = {{"canary", required_argument, NULL, OPT_CANARY},
                                             {"for", required_argument, NULL, OPT_FOR},
                                             {"tolerance", required_argument, NULL, OPT_TOLERANCE},
                                             {"json", no_argument, NULL, OPT_JSON},
                                             {0}};

/* What --canary and its like said.  NULL: they were not there. */
struct canary_words {
        const char *share, *period, *tolerance;
};

static bool set_canary(struct options *o, const struct canary_words *w, struct arena *a, str *error)
{
        struct canary_terms t = {.period = CANARY_PERIOD, .tolerance = CANARY_TOLERANCE};

        if (!w->share && !w->period && !w->tolerance)
                return true;
        if (o->action != OPTIONS_CONTROL || !str_eq(o->command, STR("reload")))
                *error = STR("--canary, --for and --tolerance go with -s reload");
        else if (!w->share)
                *error = STR("--for and --tolerance go with --canary");
        else if (!canary_share(str_z(w->share), &t.share))
                *error = arena_printf(a,
                                      "--canary %s: not a share of the clients between 0 and 1, "
                                      "as 5%% or 0.05",
                                      w->share);
        else if (w->period && !canary_period(str_z(w->period), &t.period))
                *error = arena_printf(a, "--for %s: not a time from 1s to 1d, as 60s or 5m",
                                      w->period);
        else if (w->tolerance && !canary_tolerance(str_z(w->tolerance), &t.tolerance))
                *error = arena_printf(a, "--tolerance %s: not a share from 0 to 1, as 1%% or 0.01",
                                      w->tolerance);
        else {
                o->command = ask_canary_line(&t, a);
                return true;
        }
        return false;
}

static const str signal_commands[] = {STR_INIT("reload"), STR_INIT("reopen"), STR_INIT("drain"),
                                      STR_INIT("quit"),   STR_INIT("stop"),   STR_INIT("status")};

/* "WHAT: WORD: not one of A B C (did you mean "B"?)" */
static void not_one_of(const char *what, const char *word, const str *names, size_t n,
                       struct arena *a, str *error)
{
        str near = report_nearest(str_z(word), names, n), all = STR_NONE;

        for (size_t i = 0; i < n; i++)
                all = arena_printf(a, "%.*s%s%.*s", STR_ARG(all), i ? " " : "", STR_ARG(names[i]));
        *error = arena_printf(a, "%s%s%s: not one of %.*s", what, *what ? ": " : "", word,
                              STR_ARG(all));
        if (near.p)
                *error = arena_printf(a, "%.*s (did you mean \"%.*s\"?)", STR_ARG(*error),
                                      STR_ARG(near));
}

/* Where word is among names, or n. */
static size_t which(const char *word, const str *names, size_t n)
{
        size_t i = 0;

        while (i < n && !str_eq(str_z(word), names[i]))
                i++;
        return i;
}

static bool set_command(struct options *o, const char *word, struct arena *a, str *error)
{
        size_t i = which(word, signal_commands, COUNT(signal_commands));

        if (i == COUNT(signal_commands)) {
                not_one_of("-s", word, signal_commands, COUNT(signal_commands), a, error);
                return false;
        }
        o->command = signal_commands[i];
        o->action = OPTIONS_CONTROL;
        return true;
}

/* A word of a control line: no white space, no controls. */
static bool word_fits(const char *w)
{
        for (const char *p = w; *p; p++) {
                if ((unsigned char)*p <= ' ' || *p == 0x7f)
                        return false;
        }
        return *w != 0;
}

/* What is written after the name of a command. */
struct words {
        int n;
        char **v;
        bool json; /* --json was given */
};

static bool set_server(struct options *o, const struct words *w, struct arena *a, str *error)
{
        static const str states[] = {STR_INIT("drain"), STR_INIT("down"), STR_INIT("up")};

        if (w->n != 3 || !word_fits(w->v[0]) || !word_fits(w->v[1])) {
                *error = STR("server: wants UPSTREAM ADDR and one of drain down up");
                return false;
        }
        if (which(w->v[2], states, COUNT(states)) == COUNT(states)) {
                not_one_of("server", w->v[2], states, COUNT(states), a, error);
                return false;
        }
        o->command = arena_printf(a, "server %s %s %s", w->v[0], w->v[1], w->v[2]);
        o->action = OPTIONS_CONTROL;
        return true;
}

static bool set_functions(struct options *o, const struct words *w, struct arena *a, str *error)
{
        static const str clear[] = {STR_INIT("clear")};

        o->action = OPTIONS_CONTROL;
        o->command = w->json ? STR("functions json") : STR("functions");
        if (w->n == 0)
                return true;
        if (which(w->v[0], clear, 1) != 0) {
                not_one_of("functions", w->v[0], clear, 1, a, error);
                return false;
        }
        if (w->n != 2 || !word_fits(w->v[1]) || w->json) {
                *error = STR("functions clear: wants the NAME of a module");
                return false;
        }
        o->command = arena_printf(a, "functions clear %s", w->v[1]);
        return true;
}

static bool set_module(struct options *o, const struct words *w, struct arena *a, str *error)
{
        static const str verbs[] = {STR_INIT("check"), STR_INIT("new"), STR_INIT("test")};
        static const struct {
                enum options_action action;
                int most;
                const char *wants;
        } row[] = {{OPTIONS_MODULE_CHECK, 1, "module check: wants a FILE.so"},
                   {OPTIONS_MODULE_NEW, 2, "module new: wants a NAME, and perhaps a DIR"},
                   {OPTIONS_MODULE_TEST, 2, "module test: wants a FILE.so, and perhaps CASES"}};
        size_t i = w->n > 0 ? which(w->v[0], verbs, COUNT(verbs)) : COUNT(verbs);

        if (w->n == 0) {
                *error = STR("module: wants one of check new test");
                return false;
        }
        if (i == COUNT(verbs)) {
                not_one_of("module", w->v[0], verbs, COUNT(verbs), a, error);
                return false;
        }
        if (w->n < 2 || w->n - 1 > row[i].most || *w->v[1] == 0) {
                *error = str_z(row[i].wants);
                return false;
        }
        o->action = row[i].action;
        o->words[0] = w->v[1];
        o->words[1] = w->n > 2 ? w->v[2] : NULL;
        return true;
}

static bool set_words(struct options *o, const struct words *all, struct arena *a, str *error)
{
        static const str names[] = {STR_INIT("server"), STR_INIT("functions"), STR_INIT("module")};
        struct words w = {all->n - 1, all->v + 1, all->json};
        size_t i = which(all->v[0], names, COUNT(names));

        if (i == COUNT(names)) {
                not_one_of("", all->v[0], names, COUNT(names), a, error);
                return false;
        }
        if (w.json && i != 1) {
                *error = STR("--json: only `weir functions` has it");
                return false;
        }
        return i == 0   ? set_server(o, &w, a, error)
               : i == 1 ? set_functions(o, &w, a, error)
                        : set_module(o, &w, a, error);
}

/* Absolute, but symbolic links are left as they are: the configuration's folder is where the user
 * sees it. */
static bool absolute(const char *path, struct arena *a, str *out, str *error)
{
        char *cwd;

        if (path[0] == '/') {
                *out = arena_dup(a, str_z(path));
                return true;
        }
        cwd = getcwd(NULL, 0);
        if (!cwd) {
                *error = arena_printf(a, "the current folder: %s", strerror(errno));
                return false;
        }
        *out = arena_printf(a, "%s/%s", strcmp(cwd, "/") == 0 ? "" : cwd,
                            strncmp(path, "./", 2) == 0 ? path + 2 : path);
        free(cwd);
        return true;
}

static str folder_of(str path)
{
        ptrdiff_t slash = str_rchr(path, '/');

        return slash <= 0 ? STR("/") : str_head(path, (size_t)slash);
}

/* c: what getopt_long returned; word: where it stopped. */
static str wrong_option(int c, const char *word, struct arena *a)
{
        const char *what = c == ':' ? "wants a value" : "is not an option";

        if (optopt > 0 && optopt < 256)
                return arena_printf(a, "-%c %s", optopt, what);
        return arena_printf(a, "%s %s", word, what);
}

bool options_parse(int argc, char **argv, struct arena *a, struct options *out, str *error)
{
        struct options o = {.action = OPTIONS_RUN};
        const char *config = WEIR_SYSCONFDIR "/weir.conf", *prefix = NULL;
        struct canary_words canary = {0};
        struct words words = {.json = false};
        bool test = false, dump = false;
        int c;

        optind = 0; /* GNU: start again, whoever was here before */
        opterr = 0;
        while ((c = getopt_long(argc, argv, ":c:p:s:dtTvVh", long_options, NULL)) != -1) {
                if (c == 'c')
                        config = optarg;
                else if (c == 'p')
                        prefix = optarg;
                else if (c == OPT_CANARY)
                        canary.share = optarg;
                else if (c == OPT_FOR)
                        canary.period = optarg;
                else if (c == OPT_TOLERANCE)
                        canary.tolerance = optarg;
                else if (c == 'd')
                        o.detach = true;
                else if (c == 't')
                        test = true;
                else if (c == 'T')
                        dump = true;
                else if (c == OPT_JSON)
                        words.json = true;
                else if (c == 'v' || c == 'V' || c == 'h')
                        o.action = c == 'v'   ? OPTIONS_VERSION
                                   : c == 'V' ? OPTIONS_BUILD
                                              : OPTIONS_HELP;
                else if (c == 's') {
                        if (!set_command(&o, optarg, a, error))
                                return false;
                } else {
                        *error = wrong_option(c, argv[optind - 1], a);
                        return false;
                }
        }
        words.n = argc - optind;
        words.v = argv + optind;
        if (words.n == 0 && words.json) {
                *error = STR("--json: only `weir functions` has it");
                return false;
        }
        if (words.n > 0 && !set_words(&o, &words, a, error))
                return false;
        if (!set_canary(&o, &canary, a, error))
                return false;
        if (*config == 0 || (prefix && *prefix == 0)) {
                *error = STR("-c and -p want a path");
                return false;
        }
        if ((test || dump) && o.action == OPTIONS_RUN)
                o.action = dump ? OPTIONS_DUMP : OPTIONS_TEST;
        if (!absolute(config, a, &o.config, error))
                return false;
        o.prefix = folder_of(o.config);
        if (prefix && !absolute(prefix, a, &o.prefix, error))
                return false;
        *out = o;
        return true;
}
