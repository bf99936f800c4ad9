/*
 * A worker, seen from its own files: worker.c (life, channel, generations), entrance.c (listeners),
 * watchdog.c, export.c.
 *
 * One control thread (the process's first) and N loops.  Everything in struct worker belongs to the
 * control thread, but what is said to be read elsewhere.
 */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include "base/json.h"
#include "daemon/board.h"
#include "daemon/copies.h"
#include "daemon/wire.h"
#include "net/listen.h"
#include "proxy/flow.h"
#include "proxy/gen.h"

#include <pthread.h>

struct worker;
struct watchdog;
struct export;

/* Asks every loop to do something and goes on when all have.  One at a time: the channel is not
 * read meanwhile. */
struct fan {
        struct worker *w;
        bool (*on_loop)(struct worker *w, struct loop *l, void *arg); /* on each loop */
        void (*done)(struct worker *w, bool ok, void *arg); /* control thread; ok: all said true */
        void *arg;
        unsigned waiting;
        bool ok;
        struct fan_part {
                struct loop_msg msg;
                struct fan *fan;
                struct loop *loop;
                bool ok;
        } parts[];
};

/* One address whose sockets we have.  The lists of it change only while no fan is out, so loops may
 * read them in one. */
struct entrance {
        struct list link;
        uint64_t id;
        enum wire_listen_kind kind;
        enum { ENTRANCE_NEW, ENTRANCE_OPEN, ENTRANCE_LEAVING } state;
        struct flow_listener *flow; /* of the process: connections keep pointing to it */
        unsigned total, n;
        int *fds;
        struct listen_accept **accepts; /* by loop, then by turn; written by that loop */
        unsigned per_loop;
};

/* A generation that has not ended. */
struct worker_gen {
        struct list link;
        struct gen *gen;
};

struct worker_copy {
        struct list link;
        struct wire_copy copy;
};

struct worker {
        struct house house;
        struct loop **loops; /* of house */
        pthread_t *threads;
        unsigned n_loops, n_workers, index;
        struct master *m; /* as it was at the fork: shared memory, options; read only */
        struct board *board;
        int channel;
        struct event *channel_event;
        struct list entrances, gens, copies;
        struct list *adoptions; /* by loop, which alone touches its own */
        bool *absent;           /* by worker: we accept from its sockets; changes with a fan */
        struct memory_copies memory;
        struct gen *current, *preparing;
        uint32_t preparing_number;
        bool trial;               /* preparing is on trial */
        struct trial_share share; /* of it; for the fan that is out */
        bool counting;            /* every loop has begun it, and counts both sides */
        bool serving;             /* the master said so */
        bool not_ready;           /* a drain was announced: /readyz fails */
        bool draining, empty_said;
        struct deadline drain_look;
        struct watchdog *watchdog;
        struct export *export;
        metric_cell *ticket_age;
};

/* ---- worker.c */
void worker_fan(struct worker *w, bool (*on_loop)(struct worker *, struct loop *, void *),
                void (*done)(struct worker *, bool, void *), void *arg);
/* Says it to the master; a master that is gone ends the worker. */
void worker_say(struct worker *w, enum wire_type type, uint32_t number, const void *data, size_t n,
                int fd);

/* ---- worker_canary.c */
/* Begins it, or changes its share. */
void worker_canary_share(struct worker *w, const struct wire_canary *c);
void worker_canary_end(struct worker *w);
void worker_canary_count(struct worker *w); /* writes down what both sides have come to */

/* ---- entrance.c */
void entrance_add(struct worker *w, const struct wire_listen *l, struct wire *fds);
void entrance_mark_leaving(struct worker *w, uint64_t id);
/* On loop l: stops what leaves (all traffic: a drain); starts what is new. */
void entrance_stop(struct worker *w, struct loop *l, bool all);
void entrance_start(struct worker *w, struct loop *l);
/* Control thread, after every loop has done so. */
void entrance_settle(struct worker *w, bool all_stopped);
void entrance_undo(struct worker *w); /* an abort: new ones go, leaving ones stay */
/* On loop l: accepts for another place (a loop of a worker) too; alone: keeps what it accepts
 * there, because the one who would share is stalled. */
void entrance_adopt(struct worker *w, struct loop *l, unsigned place, bool alone);
void entrance_return(struct worker *w, struct loop *l, unsigned place);
unsigned entrance_place(const struct worker *w, unsigned worker, unsigned loop);

/* ---- watchdog.c */
struct watchdog *watchdog_new(struct worker *w);

/* ---- functions.c: the control thread's. */
/* Writes down, for the others, how often this worker's modules are used. */
void functions_news(struct worker *w);
/* "modules": [...], "functions": [...], of all workers; nothing more is begun once out holds max
 * bytes, and what was left out is counted. */
void functions_json(struct worker *w, struct json_writer *j, size_t max);
/* What `weir functions` prints. */
void functions_answer(struct worker *w, bool json, struct buf *out);

/* ---- export.c */
struct export *export_new(struct worker *w);
/* Takes fd over; it is served from the next commit on (settle), or not at all (undo). */
void export_listen(struct export *e, uint64_t id, int fd);
void export_mark_leaving(struct export *e, uint64_t id);
void export_settle(struct export *e);
void export_undo(struct export *e);
/* Writes down for the others how this worker is doing. */
void export_news(struct worker *w);

#endif
