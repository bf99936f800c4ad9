/*
 * The control socket's protocol: one line of words up, a word for the outcome and a text down, then
 * the end.
 */
#ifndef DAEMON_ASK_H
#define DAEMON_ASK_H

#include "daemon/canary.h"

#define ASK_LINE 1024

enum ask_verb {
        ASK_RELOAD,
        ASK_REOPEN,
        ASK_DRAIN,
        ASK_QUIT,
        ASK_STOP,
        ASK_STATUS,
        ASK_FUNCTIONS,
        ASK_FUNCTIONS_JSON,
        ASK_SERVER,
        ASK_CLEAR
};

/* The words are also what the command exits with. */
enum ask_outcome { ASK_OK, ASK_FAILED, ASK_ROLLED_BACK, ASK_OUTCOMES };
extern const str ask_outcomes[ASK_OUTCOMES];

struct ask_words {
        enum ask_verb verb;
        struct canary_terms terms;   /* ASK_RELOAD: share 0: at once */
        str upstream, server, state; /* ASK_SERVER */
        str name;                    /* ASK_CLEAR */
};
/* A line without its newline.  Pure. */
MUST_CHECK bool ask_parse(str line, struct ask_words *out);
/* The line of a reload with a canary. */
str ask_canary_line(const struct canary_terms *t, struct arena *a);

/* The command's side: says line to the socket at path, prints what comes back; exit status. */
int ask_send(const char *path, str line);

#endif
