/*
 * Counters, gauges and histograms in memory that the master makes before it forks and all workers
 * share.  The difficulty: no lock on the hot path, and counters that survive a worker's death.
 *
 * The region is cut into slots, one for each loop of each worker (and one for each worker's control
 * thread, one for the master).  A slot has ONE writer and is a self-describing table: name + labels
 * -> cells.  The writer finds or makes a series once (metric_series; the only slow call) and keeps
 * the pointer to its cells; an update is a relaxed load and store.  Readers sum equal series over
 * all slots.  A replacement worker takes over the slots of the dead one: counters go on; gauges of
 * such a slot are reset to 0 by metric_slot_begin.
 *
 * Series that nobody has bound for a whole generation stay (a counter never goes back) until the
 * slot is full; then metric_series returns a dummy cell set, counts it in
 * weir_metrics_dropped_total, and logs once.
 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include "base/buf.h"

#include <stdatomic.h>

/* What a cell holds, and how the slots' cells make one value: counts and gauges are summed, of a
 * GAUGE_MAX the largest counts (a fact that every loop states).  REAL cells hold the bits of a
 * double and are for functions' metrics. */
enum metric_kind {
        METRIC_COUNTER,      /* uint64 */
        METRIC_GAUGE,        /* int64 */
        METRIC_HISTOGRAM,    /* uint64 counts, then the sum: microseconds; custom: a double */
        METRIC_GAUGE_MAX,    /* int64 */
        METRIC_COUNTER_REAL, /* double */
        METRIC_GAUGE_REAL,   /* double */
};

typedef _Atomic uint64_t metric_cell;

/* Static description of a family; rows in metric.tbl become metric_families[]. */
struct metric_family {
        const char *name; /* "weir_requests_total" */
        enum metric_kind kind;
        const char *help;
        const char *unit; /* "" or "seconds" (cells then hold microseconds), "bytes" */
};
enum {
#define METRIC(id, name, kind, unit, help) METRIC_##id,
#include "base/metric.tbl"
#undef METRIC
        METRIC_FAMILIES
};
extern const struct metric_family metric_families[METRIC_FAMILIES];

/* Bounds of every built-in histogram, in microseconds: 1ms 2.5ms 5ms ... 60s. */
#define METRIC_BUCKETS 15
extern const uint64_t metric_bounds[METRIC_BUCKETS];

struct metric_region;
struct metric_slot;

/* Master, before the first fork.  bytes_per_slot is address space; pages are touched as used. */
struct metric_region *metric_region_new(unsigned slots, size_t bytes_per_slot);
void metric_region_free(struct metric_region *r); /* unmaps it; NULL is fine */
struct metric_slot *metric_slot(struct metric_region *r, unsigned i);
void metric_slot_begin(struct metric_slot *s); /* a new writer takes the slot over */

/* labels: "route=\"/x\",code=\"2xx\"" already escaped, or empty; see metric_label.
 * Returns the cells (one; a histogram: METRIC_BUCKETS + 1 counts, then the sum).  Never NULL.
 * Called by the slot's writer only. */
metric_cell *metric_series(struct metric_slot *s, unsigned family, str labels);

/* The series is no longer shown, until somebody asks for it again: for gauges of what has gone. */
void metric_retire(struct metric_slot *s, unsigned family, str labels);

/* Families made at run time (functions' metrics): the same as a row of the table.  bounds: for a
 * histogram, n <= METRIC_BOUNDS_MAX ascending upper ones.  Another kind or other bounds than the
 * series had replace it: it begins anew, and the old cells are counted no more. */
#define METRIC_BOUNDS_MAX 64
metric_cell *metric_series_custom(struct metric_slot *s, str name, enum metric_kind kind, str help,
                                  str labels, const double *bounds, size_t n_bounds);

/* Escapes a label value and appends name="value" (with a comma if out is not empty). */
void metric_label(struct buf *out, const char *name, str value);

static inline void metric_add(metric_cell *c, uint64_t n)
{
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                              memory_order_relaxed);
}
static inline void metric_set(metric_cell *c, int64_t v)
{
        atomic_store_explicit(c, (uint64_t)v, memory_order_relaxed);
}
void metric_observe(metric_cell *hist, uint64_t us); /* built-in bounds */

/* For cells of functions' metrics; any thread of the slot's process may call these. */
void metric_real_add(metric_cell *c, double v);
void metric_real_set(metric_cell *c, double v);
void metric_custom_observe(metric_cell *hist, const double *bounds, size_t n, double v);

/* Any process that maps the region: Prometheus text exposition 0.0.4 of all families, summed. */
void metric_export(struct metric_region *r, struct buf *out);
/* The value of one series over all slots (tests, /status); of a histogram how many were observed.
 */
uint64_t metric_sum(struct metric_region *r, unsigned family, str labels);

/* One slot's part of a series, as its writer has it now. */
struct metric_part {
        unsigned family; /* METRIC_FAMILIES: made at run time, then name says which */
        str name, labels;
        metric_cell *cells; /* to read; n_cells of them: see metric_series */
        size_t n_cells;
        const double *bounds; /* of a histogram made at run time: n_cells - 2 */
};
/* Calls fn for every part of every series, slot by slot: for who wants many of them at once. */
void metric_each(struct metric_region *r, void (*fn)(void *ctx, const struct metric_part *p),
                 void *ctx);
double metric_real(metric_cell *c); /* of a REAL cell, or the sum of a custom histogram */

#endif
