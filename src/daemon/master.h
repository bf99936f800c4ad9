/*
 * The master, seen from its own files: master.c (waiting, signals, drain, end), reload.c,
 * children.c, control.c, upgrade.c.
 *
 * One thread, one poll.  It parses nothing that a user wrote and maps no module.  Everything here
 * belongs to struct master.
 */
#ifndef DAEMON_MASTER_H
#define DAEMON_MASTER_H

#include "base/buf.h"
#include "base/list.h"
#include "base/metric.h"
#include "base/shm.h"
#include "daemon/board.h"
#include "daemon/canary.h"
#include "daemon/checker.h"
#include "daemon/copies.h"
#include "daemon/logs.h"
#include "daemon/options.h"
#include "daemon/plan.h"
#include "daemon/sockets.h"
#include "daemon/strikes.h"
#include "daemon/watch.h"
#include "daemon/wire.h"
#include "net/tls.h"
#include "proxy/upstream.h"

struct master;

/* fn is called when fd is readable or has ended.  Owned by the master's table. */
struct master_watch {
        int fd; /* -1: taken out */
        void (*fn)(struct master *m, void *arg);
        void *arg;
};

/* Invariant: linked exactly while at is to come; fn is called once, unlinked. */
struct master_timer {
        struct list link;
        int64_t at; /* CLOCK_MONOTONIC, us */
        void (*fn)(struct master *m, struct master_timer *t);
};

enum child_state {
        CHILD_NONE,     /* not there; respawn is set, or nobody wants one */
        CHILD_STARTING, /* builds the configuration in force */
        CHILD_SERVING
};

/* One worker's place; its process comes and goes. */
struct child {
        unsigned index;
        enum child_state state;
        pid_t pid;
        int channel, crash_fd; /* -1 when there is no process */
        bool ready, committed; /* in the reload under way */
        bool empty;            /* drained */
        struct master_timer respawn;
        uint64_t beat; /* of its control thread, when last looked at */
        unsigned still;
        uint32_t n_alive; /* modules it has mapped */
        uint8_t alive[WIRE_COPIES][32];
};

enum reload_state {
        RELOAD_IDLE,
        RELOAD_CHECKING,
        RELOAD_WAITING,
        RELOAD_PREPARING,
        RELOAD_CANARY, /* what is prepared has a share of the clients */
        RELOAD_COMMITTING
};

/* The reload under way.  Invariant: what it holds is empty when IDLE. */
struct reload {
        enum reload_state state;
        uint32_t number;
        int64_t began;
        struct checker checker; /* pid 0: it has ended */
        bool checker_reaped;    /* and this is how: */
        int checker_status;
        struct master_timer wall;
        int plan_fd, bundle_fd;
        struct plan *plan;
        struct buf text;           /* the report */
        bool again;                /* somebody asked for another one meanwhile */
        bool put_back;             /* nobody asked: what was in force before comes back */
        bool rebuild;              /* or for what is in force to be built again */
        bool rebuilding;           /* this is that */
        struct canary_terms terms; /* share 0: it is committed at once */
};

/* The canary of the reload under way, or the last one.  Invariant: look runs exactly in
 * RELOAD_CANARY. */
struct rollout {
        uint8_t key[16];             /* of this master: who takes part */
        int64_t from;                /* of proc_now: when it begins everywhere */
        enum canary_verdict verdict; /* decided, and about to be carried out */
        struct board_canary note;
        struct master_timer look;
        bool rejected; /* what the files say was rolled back, and nothing has come into force since
                        */
};

enum drain_state { DRAIN_NO, DRAIN_ANNOUNCED, DRAIN_CLOSED, DRAIN_STOPPING };

/* What was in force before, where it differs in one module's file alone; plan NULL: it does not. */
struct fallback {
        struct plan *plan;
        int plan_fd, bundle_fd;
        uint32_t module; /* which, in both plans */
};

/* `weir server`: said again to a worker that replaces another. */
struct server_word {
        struct list link;
        struct wire_server said;
};

struct master {
        const struct options *options;
        struct master_watch *watches;
        size_t n_watches, cap_watches;
        struct list timers;
        int signal_fd;

        /* The configuration in force; NULL before the first. */
        struct plan *plan;
        int plan_fd, bundle_fd;
        uint32_t number; /* its reload */
        struct fallback fallback;
        uint32_t last_number;
        struct plan_head first; /* what is fixed at start */
        struct reload reload;
        struct rollout rollout;

        /* What all workers share. */
        unsigned n_children, loops;
        struct child *children;
        struct metric_region *metrics;
        struct metric_slot *slot;
        struct inflight_region *inflight;
        struct store *store;
        struct tls_tickets *tickets;
        struct tls_staples *staples;
        struct tls_replay *replay;
        struct board *board, *checker_board;
        struct master_timer rotate;
        pid_t fetcher_pid;    /* 0: none */
        int fetcher_lifeline; /* it ends when this is closed */
        struct master_timer fetcher_again;

        struct sockets sockets;
        struct logs logs;
        struct copies copies;
        struct strikes strikes;
        struct list server_words;
        struct pace pace;
        struct watch watch;
        struct master_timer watch_timer;

        int control_fd;
        char control_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
        uint64_t control_inode;
        int next_control_fd; /* of the reload under way; -1: it stays where it is */
        char next_control_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
        struct list clients; /* of control.c */

        enum drain_state drain;
        bool leave; /* the drain ends in an exit */
        struct master_timer drain_timer, heart;
        bool ready; /* the first configuration serves */
        int exit_status;
        bool done;
        int ready_fd; /* -d: whoever waits for us to be ready; -1 */

        pid_t upgrade_pid; /* the new master being tried; 0 */
        int upgrade_fd;    /* tells when it is ready */
        int parent_fd;     /* we are the new one: tell the old one here; -1 */
        bool replaced;     /* the new one has taken over: leave its files alone */
        const char *binary;
        char **argv;
};

/* ---- master.c */
int master_run(const struct options *o, char **argv, int ready_fd);
void master_watch(struct master *m, int fd, void (*fn)(struct master *, void *), void *arg);
void master_unwatch(struct master *m, int fd);
void master_timer_set(struct master *m, struct master_timer *t, int64_t in_us,
                      void (*fn)(struct master *, struct master_timer *));
void master_timer_clear(struct master_timer *t);
void master_drain(struct master *m, bool leave);
void master_stop(struct master *m); /* at once */
void master_exit_if_empty(struct master *m);
void master_end_drain(struct master *m); /* a reload was committed */
bool master_reopen(struct master *m, char *err, size_t cap);
void master_pid_file(struct master *m);
void master_serving(struct master *m); /* the first configuration serves */
void master_fail(struct master *m);    /* it could not: exit 1 */
void master_count(struct master *m, unsigned family, const char *label, str value);

/* ---- reload.c */
/* Starts a reload, or lets one follow the one under way: it gets the number last_number + 1 either
 * way.  A canary ends for it. */
void reload_ask(struct master *m);
/* Could a reload with a canary begin now? */
bool reload_takes_canary(const struct master *m);
/* The same, but what is new is tried first.  Only if reload_takes_canary. */
void reload_ask_canary(struct master *m, const struct canary_terms *terms);
/* A configuration that was in force, and need not be checked again, comes back; they are the
 * reload's from here on.  Only if nothing is under way. */
void reload_put_back(struct master *m, struct plan *plan, int plan_fd, int bundle_fd);
/* Another configuration comes into force: takes over what was until now, to keep or to free. */
void fallback_keep(struct master *m);
/* A module's version has been quarantined: true if the one before it comes back. */
bool fallback_try(struct master *m, const uint8_t sha[32]);
void reload_checker_reaped(struct master *m, int status); /* what it said comes by the channel */
void reload_cancel(struct master *m, const char *why);
/* The canary is over.  Promoting comes in two steps, for the first may fail: err. */
MUST_CHECK bool reload_prepare_promotion(struct master *m, char *err, size_t cap);
void reload_promote(struct master *m, const char *why);
void reload_roll_back(struct master *m, const char *why);
/* Workers build what is in force again, from the same files, because a quarantine has ended: at
 * once, or after the reload under way.  control_cleared is told. */
void reload_rebuild(struct master *m);
void reload_child_ready(struct master *m, struct child *c, bool ok, str report);
void reload_child_committed(struct master *m, struct child *c);
/* started: it had served. */
void reload_child_gone(struct master *m, struct child *c, bool started);

/* ---- rollout.c */
void rollout_init(struct rollout *r);
void rollout_begin(struct master *m); /* every worker has prepared it */
void rollout_end(struct master *m, enum canary_verdict v, const char *why);

/* ---- children.c */
void children_prepare_house(struct master *m,
                            const struct plan_head *h); /* memory that all share; once */
void children_start(struct master *m);                  /* all of them, first time */
void children_spawn(struct master *m, struct child *c);
void children_reaped(struct master *m, pid_t pid, int status);
unsigned children_alive(const struct master *m);
bool children_starting(const struct master *m);
bool children_serving(const struct master *m); /* all of them */
/* To every worker that is there; one that does not listen is killed. */
void children_tell(struct master *m, enum wire_type type, const void *data, size_t n);
void children_tell_error_log(struct master *m);
bool children_send_copies(struct master *m, int channel, const struct plan *p, struct child *c);
void children_sweep_copies(struct master *m);
void children_show_strikes(struct master *m); /* they have changed: to the board */
void children_look_after(struct master *m);   /* the heart's beat */
void children_distrust(struct master *m, struct child *c, const char *why); /* kill it */

/* ---- control.c */
/* Binds path under a name of its own; control_commit gives it its name, control_abort undoes it. */
bool control_prepare(struct master *m, const char *path, char *err, size_t cap);
void control_commit(struct master *m);
void control_abort(struct master *m);
void control_close(struct master *m);
enum reload_end { RELOAD_DONE, RELOAD_REFUSED, RELOAD_ROLLED_BACK };
void control_reload_done(struct master *m, uint32_t number, enum reload_end how, str text);
void control_answer(struct master *m, uint32_t question, struct child *c, bool ok);
void control_words(struct master *m, uint32_t question, struct child *c, str text);
void control_cleared(struct master *m, bool ok, str text); /* what reload_rebuild came to */
void control_child_gone(struct master *m, struct child *c);
void control_ended(struct master *m); /* just before the exit: answers who waits for it */
void control_drained(struct master *m, bool closed); /* or a reload has ended the drain */

/* ---- upgrade.c */
bool upgrade_is_one(void); /* was this process started by a weir that wants to be replaced? */
void upgrade_start(struct master *m);
void upgrade_take_over(struct master *m); /* at start: what the old master left to us */
void upgrade_ready(struct master *m);     /* we serve: tell the old one */
void upgrade_reaped(struct master *m, int status);

/* ---- worker.c */
struct worker_gift {
        struct master *m; /* as it was when forked: shared memory and options */
        unsigned index;
        int channel, crash_fd;
};
void worker_main(const struct worker_gift *g) NORETURN;

#endif
