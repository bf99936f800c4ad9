/*
 * The control socket's protocol: one line of words up, "ok\n" or "failed\n" and a text down, then
 * the end.
 */
#ifndef DAEMON_ASK_H
#define DAEMON_ASK_H

#include "base/arena.h"

#define ASK_LINE 1024

enum ask_verb { ASK_RELOAD, ASK_REOPEN, ASK_DRAIN, ASK_QUIT, ASK_STOP, ASK_STATUS, ASK_SERVER };

struct ask_words {
        enum ask_verb verb;
        str upstream, server, state; /* ASK_SERVER */
};
/* A line without its newline.  Pure. */
MUST_CHECK bool ask_parse(str line, struct ask_words *out);

/* The command's side: says line to the socket at path, prints what comes back; exit status. */
int ask_send(const char *path, str line);

#endif
