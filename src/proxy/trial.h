/*
 * A canary as requests meet it: whose requests the generation on trial gets, and what is counted of
 * both sides.
 *
 * The choice is a keyed hash of the client's address, so every loop of every worker makes the same
 * one for as long as the canary lasts.  Both sides are counted from the same moment on, and only
 * requests that began after it.
 */
#ifndef PROXY_TRIAL_H
#define PROXY_TRIAL_H

#include "base/addr.h"
#include "base/metric.h"

struct txn;

/* Who takes part: those whose hash is below.  It changes at a moment that is the same on all loops:
 * from nobody to the share, and from the share to everybody or nobody. */
struct trial_share {
        uint8_t key[16];
        uint64_t before, then; /* of TRIAL_ALL */
        int64_t at;            /* loop time: then counts from here on */
};
#define TRIAL_ALL   (UINT64_C(1) << 32)
#define TRIAL_PARTS 1000000 /* a share is given in millionths */
/* ppm: 0..TRIAL_PARTS. */
uint64_t trial_below(uint32_t ppm);
static inline uint64_t trial_now(const struct trial_share *s, int64_t now)
{
        return now >= s->at ? s->then : s->before;
}
/* Clients of unix sockets have no address and are one client. */
bool trial_has(const struct trial_share *s, uint64_t below, const struct addr *client);

/* Times are counted in quarters of octaves of microseconds: a bound is at most a quarter more than
 * what is in its bucket.  The first is below 16 us, the last from 2^26 us (67 s) on. */
#define TRIAL_BUCKETS 90
enum trial_cell {
        TRIAL_REQUESTS, /* begun */
        TRIAL_ANSWERED, /* their response's head was sent, or they ended without */
        TRIAL_ERRORS,   /* 5xx of weir or a server, or its kin in gRPC, or a response cut by their
                           fault */
        TRIAL_FAILED,   /* a function failed in them */
        TRIAL_TIME,     /* sum of the times until ANSWERED, us */
        TRIAL_TIMES,    /* how many took how long, by bucket */
        TRIAL_CELLS = TRIAL_TIMES + TRIAL_BUCKETS
};
unsigned trial_bucket(uint64_t us);
uint64_t
trial_bound(unsigned bucket); /* what is in it is below that; the last has none: UINT64_MAX */

/* What one loop has counted of one side.  Written by that loop only; any thread may read cells. */
struct trial_tally {
        uint32_t number; /* of the canary */
        metric_cell cells[TRIAL_CELLS];
};
/* What there was, or a new one (NULL), begins at zero.  malloc'd. */
struct trial_tally *trial_tally_begin(struct trial_tally *there, uint32_t number);

/* Sums, to judge by. */
struct trial_sum {
        uint64_t cells[TRIAL_CELLS];
};
void trial_add(struct trial_sum *sum, const struct trial_tally *t);
/* Upper bound of the time within which per_mille of the answers came, us; 0: there are none. */
uint64_t trial_quantile(const struct trial_sum *s, unsigned per_mille);

/* The request is counted there from now on. */
void trial_begin(struct txn *t, struct trial_tally *tally);
void trial_leave(struct txn *t); /* it never was, if it was */
/* Its response's head is about to be sent (status as it was made), and its end. */
void trial_answered(struct txn *t);
void trial_ended(struct txn *t);

#endif
