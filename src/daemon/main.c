/*
 * weir: the command.
 */
#include "base/log.h"
#include "conf/conf.h"
#include "daemon/ask.h"
#include "daemon/checker.h"
#include "daemon/desk.h"
#include "daemon/master.h"
#include "daemon/options.h"
#include "daemon/skeleton.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int print_build(void)
{
        printf("weir %s\nmodule interface %d.%d\n%s\ncompiler %s\nmodules %s\n"
               "module copies %s\nconfiguration %s/weir.conf\n",
               WEIR_VERSION, WEIR_ABI_MAJOR, WEIR_ABI_MINOR, tls_library(), __VERSION__,
               WEIR_MODULE_PATH, COPIES_DIR, WEIR_SYSCONFDIR);
        return 0;
}

static int ask(const struct options *o, struct arena *a)
{
        str path = conf_control_path(source_system(), o->config, o->prefix, a);

        return ask_send(path.p ? arena_dupz(a, path) : CONF_CONTROL_DEFAULT, o->command);
}

/* The parent of a detached weir: returns when that one serves, or has failed. */
static int await_ready(int fd)
{
        char word;
        ssize_t n;

        do
                n = read(fd, &word, 1);
        while (n < 0 && errno == EINTR);
        return n == 1 ? 0 : 1;
}

static int run(const struct options *o, char **argv)
{
        int ready[2], null;
        pid_t pid;

        if (!o->detach || upgrade_is_one()) /* the old one's descendants are detached already */
                return master_run(o, argv, -1);
        if (pipe2(ready, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
                fprintf(stderr, "weir: %s\n", strerror(errno));
                return 1;
        }
        if (pid > 0) {
                close(ready[1]);
                return await_ready(ready[0]);
        }
        close(ready[0]);
        setsid();
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
                dup2(null, STDIN_FILENO);
                dup2(null, STDOUT_FILENO);
                close(null);
        }
        return master_run(o, argv, ready[1]);
}

int main(int argc, char **argv)
{
        static struct arena *a; /* lives as long as the process, and is seen to */
        struct options o;
        str error;

        a = arena_new(0);
        if (!options_parse(argc, argv, a, &o, &error)) {
                fprintf(stderr, "weir: %.*s\n%s", STR_ARG(error), options_usage);
                return 1;
        }
        switch (o.action) {
        case OPTIONS_HELP:
                fputs(options_usage, stdout);
                return 0;
        case OPTIONS_VERSION:
                puts("weir " WEIR_VERSION);
                return 0;
        case OPTIONS_BUILD:
                return print_build();
        case OPTIONS_TEST:
        case OPTIONS_DUMP:
                return checker_foreground(&o);
        case OPTIONS_CONTROL:
                return ask(&o, a);
        case OPTIONS_MODULE_CHECK:
                return desk_check(o.words[0], a);
        case OPTIONS_MODULE_NEW:
                return skeleton_new(o.words[0], o.words[1] ? o.words[1] : ".");
        case OPTIONS_MODULE_TEST:
                return desk_test(o.words[0], o.words[1], a);
        case OPTIONS_RUN:
                break;
        }
        return run(&o, argv);
}
