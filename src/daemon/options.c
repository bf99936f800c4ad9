/*
 * The command line: weir [-c FILE] [-p DIR] [-d | -t | -T | -s COMMAND | -v | -V | -h], weir server
 * UPSTREAM ADDR STATE; -s reload may have [--canary SHARE [--for TIME] [--tolerance SHARE]].
 */
#include "daemon/options.h"

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
        "       weir -v | -V | -h                version, how it was built, this text\n"
        "\n"
        "  -c FILE   configuration, default " WEIR_SYSCONFDIR "/weir.conf\n"
        "  -p DIR    folder of relative paths, default: the folder of FILE\n"
        "\n"
        "  --canary SHARE     try it on so many of the clients first (5%), then promote it or go "
        "back\n"
        "  --for TIME         for so long, default 60s\n"
        "  --tolerance SHARE  so many more errors than the old one's do not matter, default 1%\n";

enum { OPT_CANARY = 256, OPT_FOR, OPT_TOLERANCE };
static const struct option long_options[] = {{"canary", required_argument, NULL, OPT_CANARY},
                                             {"for", required_argument, NULL, OPT_FOR},
                                             {"tolerance", required_argument, NULL, OPT_TOLERANCE},
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

static const char *const signal_commands[] = {"reload", "reopen", "drain",
                                              "quit",   "stop",   "status"};

static bool set_command(struct options *o, const char *word, struct arena *a, str *error)
{
        for (size_t i = 0; i < COUNT(signal_commands); i++) {
                if (strcmp(word, signal_commands[i]) == 0) {
                        o->command = str_z(signal_commands[i]);
                        o->action = OPTIONS_CONTROL;
                        return true;
                }
        }
        *error = arena_printf(a, "-s %s: not one of reload reopen drain quit stop status", word);
        return false;
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

static bool set_server(struct options *o, int n, char **words, struct arena *a, str *error)
{
        static const char *const states[] = {"drain", "down", "up"};

        if (strcmp(words[0], "server") != 0) {
                *error = arena_printf(a, "%s: not understood", words[0]);
                return false;
        }
        if (n != 4 || !word_fits(words[1]) || !word_fits(words[2])) {
                *error = STR("server: wants UPSTREAM ADDR and one of drain down up");
                return false;
        }
        for (size_t i = 0; i < COUNT(states); i++) {
                if (strcmp(words[3], states[i]) == 0) {
                        o->command =
                                arena_printf(a, "server %s %s %s", words[1], words[2], states[i]);
                        o->action = OPTIONS_CONTROL;
                        return true;
                }
        }
        *error = arena_printf(a, "server: %s: not one of drain down up", words[3]);
        return false;
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
        if (optind < argc && !set_server(&o, argc - optind, argv + optind, a, error))
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
