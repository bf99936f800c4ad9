/*
 * The board: shared memory in which a worker leaves word of what it is doing, for the master that
 * must explain its death.
 *
 * One row for each worker (and one for the checker): a crumb for its control thread and for each
 * loop, and which module content each copy number stands for.  A row has one writer, the process
 * that has it now; the master reads it while that process lives and clears it before the next one
 * takes it.
 */
#ifndef DAEMON_BOARD_H
#define DAEMON_BOARD_H

#include "base/crumb.h"
#include "daemon/canary.h"
#include "module/module.h"

#define BOARD_COPIES 64 /* modules open in one process that can be named */

struct board;

struct board *board_new(unsigned rows, unsigned loops);
void board_free(struct board *b); /* this process no longer looks at it; NULL is fine */
void board_clear(struct board *b, unsigned row);
/* loop: 0.., or BOARD_CONTROL. */
#define BOARD_CONTROL (~0U)
struct crumb *board_crumb(struct board *b, unsigned row, unsigned loop);
unsigned board_loops(const struct board *b);

/* How a worker is doing, as its control thread last wrote it: for /status, which any worker
 * answers. */
#define BOARD_GENS 32
struct board_news {
        _Atomic uint32_t pid; /* 0: none is there */
        _Atomic uint32_t generation, ready, draining, loops, leaked, n_gens;
        _Atomic uint64_t connections;
        struct board_gen {
                _Atomic uint64_t number, requests, made_ms;
        } gens[BOARD_GENS];
};
struct board_news *board_news(struct board *b, unsigned row);

/* What a worker has counted of a canary, both sides: written by its control thread, summed by the
 * master. */
void board_count(struct board *b, unsigned row, uint32_t canary,
                 const struct trial_sum sides[CANARY_SIDES]);
/* Adds what that row says of this canary; nothing if it speaks of another. */
void board_counted(struct board *b, unsigned row, uint32_t canary,
                   struct trial_sum sides[CANARY_SIDES]);

/* The last canary, as the master wrote it down: for /status. */
struct board_canary {
        uint32_t number; /* 0: there was none */
        bool over;       /* then verdict is PROMOTE or BACK, else WAIT */
        enum canary_verdict verdict;
        struct canary_terms terms;
        int64_t since, elapsed; /* wall clock; us */
        struct trial_sum sides[CANARY_SIDES];
        char reason[CANARY_REASON]; /* empty while it lasts */
};
void board_put_canary(struct board *b, const struct board_canary *c); /* the master only */
bool board_get_canary(struct board *b, struct board_canary *out);     /* false: there was none */

/* The process of that row: writes down the modules that are open now. */
void board_note_modules(struct board *b, unsigned row);

/* A module that a process has open. */
struct board_module {
        char name[MODULE_NAME_MAX + 1], version[32];
        uint8_t sha[32];
        uint32_t generations; /* of the configuration, that use it */
        uint64_t requests;    /* that hold these */
};
/* The process of that row: how its copy of that number is used. */
void board_note_use(struct board *b, unsigned row, uint32_t copy, uint32_t generations,
                    uint64_t requests);
/* Anybody: those of that row, at most max; returns how many. */
size_t board_modules(struct board *b, unsigned row, struct board_module *out, size_t max);

/* The master: what module contents have against them; begin, then one call for each.  Readers may
 * see a part of it meanwhile. */
void board_strikes_begin(struct board *b);
void board_note_strikes(struct board *b, const uint8_t sha[32], uint32_t n, bool quarantined);
/* Anybody: how many strikes a content has; *quarantined is whether it is. */
uint32_t board_strikes(struct board *b, const uint8_t sha[32], bool *quarantined);

/* What a process was in when it died. */
struct board_word {
        unsigned loop;  /* or BOARD_CONTROL */
        uint64_t where; /* 0: in no function */
        uint64_t sig, pc, addr;
        bool known; /* the module has a name */
        char name[MODULE_NAME_MAX + 1];
        char function[CRUMB_FUNCTION], route[CRUMB_ROUTE]; /* empty: not known, or none */
        uint8_t sha[32];
};
/* The loop that took a signal, else the first that was in a function; false: nothing is known. */
bool board_last_words(struct board *b, unsigned row, struct board_word *out);
/* In what that was, in words: "in module x: on_request of function x f (weir.conf:3) on route /f",
 * or "in no function". */
#define BOARD_PLACE (MODULE_NAME_MAX + CRUMB_FUNCTION + CRUMB_ROUTE + 96)
void board_put_place(const struct board_word *w, char out[BOARD_PLACE]);
/* In what a loop of this process is now, by the same means.  Control thread: it is the one that
 * frees what has the names.  False: in no function. */
bool board_where(struct board *b, unsigned row, unsigned loop, struct board_word *out);
/* Names the module of a copy number; false: not on the board. */
bool board_module(struct board *b, unsigned row, uint32_t copy, char name[MODULE_NAME_MAX + 1],
                  uint8_t sha[32]);
/* How the process of that row ended, in words: "exit status 3", "signal 11 (...) in module x: ...,
 * on loop 2, pc 0x...".  status: of waitpid. */
#define BOARD_OBITUARY (BOARD_PLACE + 128)
void board_obituary(struct board *b, unsigned row, int status, char out[BOARD_OBITUARY]);

#endif
