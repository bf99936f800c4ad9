/*
 * Which server: a set of members, the candidates among them, and policies that choose one.
 *
 *     set (immutable) -> candidates (usable now; kept until something changes) ->
 * policy(candidates) -> member
 *
 * Who may be chosen and who is chosen are kept apart: a policy sees a list of candidates with
 * weights and returns one of them.
 */
#ifndef PROXY_BALANCE_H
#define PROXY_BALANCE_H

#include "conf/model.h"
#include "proxy/server.h"

struct member {
        struct server *server;
        struct inflight inflight; /* the server's, copied: one pointer less to follow */
        uint64_t hash;            /* likewise */
        uint32_t weight;
        uint32_t max_connections; /* 0: none */
        bool backup;
};

/* Indexes of members with their weights (times SERVER_WEIGHT_ONE). */
struct candidates {
        uint32_t n;
        bool even; /* all weights are equal */
        uint64_t weight_sum;
        uint32_t *index, *weight;
};

/* What a loop remembers between picks from a set.  Belongs to that loop. */
struct balance_loop {
        uint64_t epoch;                 /* usable was built when the epoch was this */
        int64_t until;                  /* ... and is good until then */
        struct candidates usable, some; /* some: for one pick */
        int64_t *current;               /* by member: smooth weighted round robin */
        uint32_t cursor;
};

/* Immutable but for the loops' parts.  Made by the control thread, read by a loop from the message
 * that publishes it until the loop has answered the next one. */
struct server_set {
        uint32_t n, n_loops;
        uint32_t unresolved; /* names that were never answered yet */
        bool limited;        /* some member has max_connections */
        bool backups;        /* some member is a backup */
        const _Atomic uint64_t *epoch;
        struct balance_loop *loops;
        struct member m[];
};

struct server_set *server_set_new(uint32_t n, uint32_t n_loops, const _Atomic uint64_t *epoch);
void server_set_ready(struct server_set *set); /* after members were filled in */
void server_set_free(struct server_set *set);  /* not the servers */

/* Servers that this request has been at; compared, never followed. */
#define TRIED_MAX 16
struct tried {
        uint32_t n;
        const struct server *s[TRIED_MAX];
};

/* One choice. */
struct balance_pick {
        const struct server_set *set;
        unsigned loop; /* index */
        enum balance policy;
        int64_t now;
        uint64_t key;    /* BALANCE_HASH */
        uint64_t sticky; /* value of the client's cookie; 0: none */
        str named;       /* label of the server that a function wants; empty: any */
        const struct tried *tried;
};
enum balance_result { BALANCE_OK, BALANCE_FULL, BALANCE_NONE };

/* BALANCE_OK: *out is chosen and one more request is counted in flight there (inflight_sub ends
 * it).  FULL: all that are up have max_connections.  NONE: none is up. */
enum balance_result balance_pick(const struct balance_pick *p, const struct member **out);
/* When an ejection ends that keeps all servers away, or 0. */
int64_t balance_next_change(const struct server_set *set, int64_t now);

#endif
