/*
 * A canary as requests meet it (trial.h).
 *
 * The difficulty: requests outlive a canary, and a generation may be the old side of several.  So a
 * request remembers for which canary it is counted, and what ends too late is left out.
 */
#include "proxy/trial.h"

#include "base/check.h"
#include "base/crypto.h"
#include "http/grpc.h"
#include "proxy/txn.h"

#include <stdlib.h>

#define LOWEST  4  /* 2^4 us */
#define HIGHEST 26 /* 2^26 us */

enum { SEEN_ANSWER = 1, SEEN_ERROR = 2, SEEN_FAILURE = 4 };

/* ------------------------------------------------------------------ who */

uint64_t trial_below(uint32_t ppm)
{
        return ppm * TRIAL_ALL / TRIAL_PARTS;
}

bool trial_has(const struct trial_share *s, uint64_t below, const struct addr *client)
{
        uint8_t ip[16] = {0};

        (void)!addr_bytes(client, ip);
        return crypto_siphash(s->key, str_of((const char *)ip, sizeof(ip))) >> 32 < below;
}

/* ------------------------------------------------------------------ buckets */

unsigned trial_bucket(uint64_t us)
{
        unsigned octave;

        if (us < 1u << LOWEST)
                return 0;
        octave = 63u - (unsigned)__builtin_clzll(us);
        if (octave >= HIGHEST)
                return TRIAL_BUCKETS - 1;
        return 1 + (octave - LOWEST) * 4 + (unsigned)(us >> (octave - 2) & 3);
}

uint64_t trial_bound(unsigned bucket)
{
        if (bucket >= TRIAL_BUCKETS - 1)
                return UINT64_MAX;
        return (uint64_t)(4 + bucket % 4) << (bucket / 4 + LOWEST - 2);
}

_Static_assert(TRIAL_BUCKETS == (HIGHEST - LOWEST) * 4 + 2, "as many as there are");

/* ------------------------------------------------------------------ tallies */

struct trial_tally *trial_tally_begin(struct trial_tally *there, uint32_t number)
{
        struct trial_tally *t = there ? there : calloc(1, sizeof(*t));

        CHECK(t != NULL);
        t->number = number;
        for (unsigned i = 0; i < TRIAL_CELLS; i++)
                metric_set(&t->cells[i], 0);
        return t;
}

void trial_add(struct trial_sum *sum, const struct trial_tally *t)
{
        for (unsigned i = 0; i < TRIAL_CELLS; i++)
                sum->cells[i] += atomic_load_explicit(&t->cells[i], memory_order_relaxed);
}

uint64_t trial_quantile(const struct trial_sum *s, unsigned per_mille)
{
        const uint64_t *times = s->cells + TRIAL_TIMES;
        uint64_t all = 0, want, n = 0;
        unsigned i = 0;

        for (unsigned k = 0; k < TRIAL_BUCKETS; k++)
                all += times[k];
        if (all == 0)
                return 0;
        want = (all * per_mille + 999) / 1000;
        while (i < TRIAL_BUCKETS - 1 && (n += times[i]) < want)
                i++;
        return i < TRIAL_BUCKETS - 1 ? trial_bound(i) : UINT64_C(1) << HIGHEST;
}

/* ------------------------------------------------------------------ requests */

void trial_begin(struct txn *t, struct trial_tally *tally)
{
        t->tally = tally;
        t->tally_number = tally->number;
        metric_add(&tally->cells[TRIAL_REQUESTS], 1);
}

void trial_leave(struct txn *t)
{
        if (t->tally != NULL)
                metric_add(&t->tally->cells[TRIAL_REQUESTS], UINT64_MAX); /* one less */
        t->tally = NULL;
}

static void once(struct txn *t, unsigned seen, enum trial_cell cell)
{
        if (t->tally_seen & seen)
                return;
        t->tally_seen |= (uint8_t)seen;
        metric_add(&t->tally->cells[cell], 1);
}

static bool is_late(const struct txn *t)
{
        return t->tally_number != t->tally->number;
}

void trial_answered(struct txn *t)
{
        const struct request *r = t->r;
        uint64_t us = (uint64_t)MAX(r->loop->now - r->started, 0);

        if (is_late(t) || t->tally_seen & SEEN_ANSWER)
                return;
        once(t, SEEN_ANSWER, TRIAL_ANSWERED);
        metric_add(&t->tally->cells[TRIAL_TIME], us);
        metric_add(&t->tally->cells[TRIAL_TIMES + trial_bucket(us)], 1);
        if (r->res.status >= 500 && r->refused == REASON_NONE)
                once(t, SEEN_ERROR, TRIAL_ERRORS);
        if (t->failures)
                once(t, SEEN_FAILURE, TRIAL_FAILED);
}

/* A server's answer to a call that says that the server is at fault.  What weir itself answers was
 * seen before it was put into gRPC's words. */
static bool grpc_failed(const struct txn *t)
{
        static const uint32_t faults = 1u << GRPC_UNKNOWN | 1u << GRPC_DEADLINE_EXCEEDED |
                                       1u << GRPC_UNIMPLEMENTED | 1u << GRPC_INTERNAL |
                                       1u << GRPC_UNAVAILABLE | 1u << GRPC_DATA_LOSS;
        int status;

        if (t->reason != REASON_NONE || !grpc_is_request(&t->r->req))
                return false;
        status = grpc_status_in(&t->r->res);
        return status >= 0 && status < 32 && faults >> status & 1;
}

void trial_ended(struct txn *t)
{
        if (is_late(t))
                return;
        trial_answered(t); /* a client that did not wait for it has waited so long */
        if (t->r->refused == REASON_NONE &&
            (reason_rows[t->reason].status >= 500 || grpc_failed(t)))
                once(t, SEEN_ERROR, TRIAL_ERRORS);
        if (t->failures)
                once(t, SEEN_FAILURE, TRIAL_FAILED);
}
