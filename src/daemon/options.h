/*
 * The command line.
 */
#ifndef DAEMON_OPTIONS_H
#define DAEMON_OPTIONS_H

#include "base/arena.h"

#ifndef WEIR_SYSCONFDIR
#define WEIR_SYSCONFDIR "/etc/weir"
#endif

enum options_action {
        OPTIONS_RUN,
        OPTIONS_TEST,
        OPTIONS_DUMP,
        OPTIONS_CONTROL,
        OPTIONS_MODULE_CHECK, /* words: the file */
        OPTIONS_MODULE_NEW,   /* the name, the folder */
        OPTIONS_MODULE_TEST,  /* the file, the cases or NULL */
        OPTIONS_VERSION,
        OPTIONS_BUILD,
        OPTIONS_HELP
};

struct options {
        enum options_action action;
        bool detach;
        str config;  /* absolute */
        str prefix;  /* absolute folder */
        str command; /* OPTIONS_CONTROL: the line for the control socket, "reload" */
        const char *words[2];
};

/* Texts live in a.  false: *error says what is wrong. */
MUST_CHECK bool options_parse(int argc, char **argv, struct arena *a, struct options *out,
                              str *error);
extern const char options_usage[];

#endif
