/*
 * What master, checker and workers say to each other: records with descriptors over a
 * SOCK_SEQPACKET pair.
 *
 *   checker -> master   PLAN (plan, bundle)  ...  VERDICT (report)        the last record; without
 * it the reload has failed master -> worker    LISTEN* UNLISTEN* LOG* COPY*  PREPARE (bundle)  then
 * COMMIT or ABORT, perhaps after a CANARY worker -> master    READY | FAILED (report)  then
 * COMMITTED master -> worker at any time: ERROR_LOG, LOG (reopened), SERVING, NOT_READY, DRAIN,
 * STOP, COVER, SERVER, FUNCTIONS worker -> master at any time: ENDED, EMPTY, ANSWER, WORDS
 *
 * Records keep their order, so what comes before PREPARE belongs to it.  A peer that is gone is an
 * end of file.
 */
#ifndef DAEMON_WIRE_H
#define DAEMON_WIRE_H

#include "base/addr.h"
#include "base/str.h"
#include "proxy/trial.h"

#include <limits.h>

enum wire_type {
        WIRE_PLAN = 1,  /* fds: plan, bundle */
        WIRE_VERDICT,   /* data: struct wire_verdict; fds: the report's text */
        WIRE_LISTEN,    /* data: struct wire_listen; fds: some of its sockets */
        WIRE_UNLISTEN,  /* data: struct wire_listen with its id: leaves with the next COMMIT */
        WIRE_LOG,       /* data: path of an access log; fds: it */
        WIRE_ERROR_LOG, /* data: uint32_t level; fds: it */
        WIRE_COPY,    /* data: struct wire_copy: all that PREPARE may load; the first forgets those
                         before */
        WIRE_PREPARE, /* fds: bundle; data: uint32_t, 1: a canary comes first */
        WIRE_READY,
        WIRE_FAILED, /* fds: the report's text */
        WIRE_COMMIT,
        WIRE_ABORT,     /* data: uint32_t, the reload that is meant; ends its canary too */
        WIRE_COMMITTED, /* every loop has switched */
        WIRE_ENDED,     /* a generation was freed; data: struct wire_copies_alive */
        WIRE_SERVING,   /* weir as a whole serves: /readyz may say so */
        WIRE_NOT_READY, /* a drain was announced: /readyz fails */
        WIRE_DRAIN,     /* listeners close; data: struct wire_drain */
        WIRE_EMPTY,     /* drained: nothing is open any more */
        WIRE_STOP,      /* write the logs and exit */
        WIRE_COVER,     /* data: struct wire_cover: another worker died, or is back */
        WIRE_SERVER,    /* data: struct wire_server; number: of the question */
        WIRE_ANSWER,    /* data: uint32_t, 1: done */
        WIRE_CANARY, /* what was prepared gets a share, or another one; data: struct wire_canary */
        WIRE_FUNCTIONS, /* data: uint32_t, 1: as JSON; number: of the question */
        WIRE_WORDS      /* the answer to it; fds: the text */
};

enum wire_listen_kind { WIRE_TRAFFIC, WIRE_ADMIN };

struct wire_listen {
        uint64_t id;    /* of this address's sockets, never used again */
        uint32_t kind;  /* enum wire_listen_kind */
        uint32_t total; /* sockets of this id in all */
        struct addr addr;
};

struct wire_verdict {
        uint32_t ok;
};

struct wire_copy {
        uint8_t sha[32];
        uint32_t first, quarantined;
        char path[PATH_MAX]; /* empty: no place for programs: make a memfd */
};

struct wire_drain {
        int64_t timeout; /* us; 0: none */
        uint32_t leave;  /* exit when empty */
};

struct wire_cover {
        uint32_t worker;
        uint32_t absent; /* accept from its sockets too, until it is back */
};

struct wire_canary {
        struct trial_share share;
};

struct wire_server {
        char upstream[256], server[512], state[16];
};

#define WIRE_DATA   (12 * KIB)
#define WIRE_FDS    128 /* of one record; the kernel takes 253 */
#define WIRE_COPIES 64

/* Modules that a worker has mapped. */
struct wire_copies_alive {
        uint32_t n;
        uint8_t sha[WIRE_COPIES][32];
};

struct wire {
        uint32_t type, number; /* number: of the reload */
        uint32_t n;            /* bytes in data */
        unsigned n_fds;
        int fds[WIRE_FDS]; /* the receiver's; wire_close closes those that were not taken (set to
                              -1) */
        _Alignas(16) char data[WIRE_DATA];
};

bool wire_pair(int fds[2]); /* both ends close-on-exec and non-blocking */

/* Waits at most a second for room.  false: the peer is gone or does not read. */
bool wire_send_fds(int fd, enum wire_type type, uint32_t number, const void *data, size_t n,
                   const int *fds, unsigned n_fds);
static inline bool wire_send(int fd, enum wire_type type, uint32_t number, const void *data,
                             size_t n)
{
        return wire_send_fds(fd, type, number, data, n, NULL, 0);
}

enum wire_result { WIRE_GOT, WIRE_NONE, WIRE_END };
MUST_CHECK enum wire_result wire_recv(int fd, struct wire *w);
void wire_close(struct wire *w);
/* The i-th descriptor, now the caller's; -1: there is none. */
int wire_take(struct wire *w, unsigned i);
/* data as a struct of exactly that size, or NULL. */
const void *wire_data(const struct wire *w, size_t size);

#endif
