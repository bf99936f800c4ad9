/*
 * The control socket's protocol: one line of words up, "ok\n" or "failed\n" and a text down, then
 * the end.
 */
#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include "base/arena.h"

#define CONTROL_LINE 1024

enum control_verb {
        CONTROL_RELOAD,
        CONTROL_REOPEN,
        CONTROL_DRAIN,
        CONTROL_QUIT,
        CONTROL_STOP,
        CONTROL_STATUS,
        CONTROL_SERVER
};

struct control_words {
        enum control_verb verb;
        str upstream, server, state; /* CONTROL_SERVER */
};
/* A line without its newline.  Pure. */
MUST_CHECK bool control_parse(str line, struct control_words *out);

/* The command's side: says line to the socket at path, prints what comes back; exit status. */
int control_ask(const char *path, str line);

#endif
