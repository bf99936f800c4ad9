/*
 * The listening sockets, which the master makes and keeps so that neither a reload nor a death
 * refuses a connection.
 *
 * Each address has one set: one SO_REUSEPORT socket for each loop of each worker (its place), or a
 * single one where that is not possible (unix sockets, sockets from systemd), which all loops
 * share.  Every worker has them all, so that the living can serve the places of the dead.
 */
#ifndef DAEMON_SOCKETS_H
#define DAEMON_SOCKETS_H

#include "base/list.h"
#include "daemon/plan.h"
#include "daemon/wire.h"

struct socket_set {
        struct list link;
        uint64_t id; /* never used again in this master */
        enum wire_listen_kind kind;
        struct addr addr;
        bool v6only;
        bool fresh;     /* made by the reload that is under way */
        bool leaving;   /* not in its plan */
        uint64_t inode; /* of a unix socket's path: removed at the end if it is still ours; 0: not
                           ours to remove */
        unsigned n;
        int *fds;
};

/* A socket from systemd or from the weir before this one. */
struct socket_given {
        int fd; /* -1: taken */
        struct addr addr;
        bool shared; /* from systemd: it was not made with SO_REUSEPORT */
};

struct sockets {
        struct list all;
        uint64_t last_id;
        unsigned places; /* loops of all workers */
        struct socket_given *given;
        unsigned n_given;
};

void sockets_init(struct sockets *s);
/* Takes fd over: it serves the first plan that wants its address. */
void sockets_give(struct sockets *s, int fd, bool shared);
void sockets_drop_given(struct sockets *s); /* what nobody wanted */
/* Binds what plan wants and is not there (fresh), marks what it does not want (leaving).  false:
 * err names the address; all is as before. */
MUST_CHECK bool sockets_prepare(struct sockets *s, const struct plan *p, char *err, size_t cap);
void sockets_commit(struct sockets *s);        /* fresh ones stay, leaving ones are closed */
void sockets_abort(struct sockets *s);         /* the other way round */
void sockets_close_traffic(struct sockets *s); /* a drain: all but the admin listener */
void sockets_end(struct sockets *s, bool remove_paths);
/* Hands a set to a worker. */
bool sockets_send(const struct socket_set *set, int channel);
bool sockets_send_id(const struct socket_set *set, int channel); /* UNLISTEN */

#endif
