/*
 * Counters, gauges and histograms in shared memory.
 *
 *     region: [head][slot 0][slot 1]...      slot: [head][index][record][record]...->  used
 *
 * The difficulty: a writer may die between any two instructions, and readers never wait.  A record
 * is complete before `used` moves past it (release), and neither moves nor changes after that but
 * for its cells.  The index is the writer's alone; whoever takes the slot over builds it anew.
 */
#include "base/metric.h"

#include "base/arena.h"
#include "base/check.h"
#include "base/log.h"
#include "base/map.h"
#include "base/shm.h"

#include <stdio.h>
#include <unistd.h>

const struct metric_family metric_families[METRIC_FAMILIES] = {
#define METRIC(id, name, kind, unit, help) [METRIC_##id] = {name, kind, help, unit},
#include "base/metric.tbl"
#undef METRIC
};

const uint64_t metric_bounds[METRIC_BUCKETS] = {
        1000,   2500,    5000,    10000,   25000,    50000,    100000,   250000,
        500000, 1000000, 2500000, 5000000, 10000000, 30000000, 60000000,
};

#define CUSTOM UINT32_MAX /* family of what is not in the table */
#define BYTES_PER_INDEX                                                                            \
        ((size_t)64) /* a slot of n bytes has n / 64 index cells, a power of two                   \
                      */

/* One series: head, bounds (custom histograms), cells, then name, help and labels without NULs.
 * Only the cells and `hidden` change once it is published. */
struct record {
        uint32_t size; /* of it all, a multiple of 8 */
        uint32_t family, kind;
        uint32_t name_n, help_n, labels_n; /* name and help only when CUSTOM */
        uint32_t n_bounds, n_cells;
        _Atomic uint32_t
                hidden; /* another series of its name and labels came after it, or it was retired */
        uint32_t unused;
};

/* Invariant: records fill [first, used); all that is behind used is zero or garbage.  Offsets are
 * from the slot's start; index cells hold the offset of a record, 0 when empty. */
struct metric_slot {
        uint32_t size, first, index_cells;
        _Atomic uint32_t used;
        uint32_t indexed; /* series in the index */
        bool full_logged;
        metric_cell dummy[METRIC_BOUNDS_MAX + 2];
        uint32_t index[];
};

struct metric_region {
        unsigned slots;
        size_t per_slot, head, size;
};

/* What makes a series: the arguments of the two functions that look one up. */
struct series {
        uint32_t family;
        enum metric_kind kind;
        str name, help, labels;
        const double *bounds;
        size_t n_bounds, n_cells;
};

static double *bounds_of(const struct record *r)
{
        return (double *)(r + 1);
}

static metric_cell *cells_of(const struct record *r)
{
        return (metric_cell *)(bounds_of(r) + r->n_bounds);
}

static str text_of(const struct record *r, size_t skip, size_t n)
{
        return str_of((const char *)(cells_of(r) + r->n_cells) + skip, n);
}

static str name_of(const struct record *r)
{
        return text_of(r, 0, r->name_n);
}

static str help_of(const struct record *r)
{
        return text_of(r, r->name_n, r->help_n);
}

static str labels_of(const struct record *r)
{
        return text_of(r, r->name_n + r->help_n, r->labels_n);
}

static struct record *record_at(const struct metric_slot *s, uint32_t offset)
{
        return (struct record *)((char *)s + offset);
}

/* for each published record of slot s */
#define EACH_RECORD(r, s)                                                                          \
        for (uint32_t at_ = (s)->first,                                                            \
                      end_ = atomic_load_explicit(&(s)->used, memory_order_acquire);               \
             at_ < end_; at_ += record_at((s), at_)->size)                                         \
                for (struct record *r = record_at((s), at_); r; r = NULL)

static uint64_t get(metric_cell *c)
{
        return atomic_load_explicit(c, memory_order_relaxed);
}

static double real_of(uint64_t bits)
{
        double v;

        memcpy(&v, &bits, sizeof(v));
        return v;
}

static uint64_t bits_of(double v)
{
        uint64_t bits;

        memcpy(&bits, &v, sizeof(bits));
        return bits;
}

static uint32_t index_start(const struct metric_slot *s, uint32_t family, str name, str labels)
{
        uint64_t hash = map_hash(labels) + family * UINT64_C(0x9e3779b97f4a7c15);

        if (family == CUSTOM)
                hash += map_hash(name) * 3;
        return (uint32_t)(hash >> 20) & (s->index_cells - 1);
}

/* The index cell of the series with that name and labels, or the empty one where it belongs. */
static uint32_t *lookup(struct metric_slot *s, uint32_t family, str name, str labels)
{
        uint32_t i = index_start(s, family, name, labels);

        for (; s->index[i]; i = (i + 1) & (s->index_cells - 1)) {
                const struct record *r = record_at(s, s->index[i]);
                if (r->family == family && str_eq(labels_of(r), labels) &&
                    (family != CUSTOM || str_eq(name_of(r), name)))
                        break;
        }
        return &s->index[i];
}

static bool same_shape(const struct record *r, const struct series *w)
{
        return r->kind == (uint32_t)w->kind && r->n_bounds == w->n_bounds &&
               (w->n_bounds == 0 ||
                memcmp(bounds_of(r), w->bounds, w->n_bounds * sizeof(double)) == 0);
}

static void copy(char **p, str s)
{
        if (s.n)
                memcpy(*p, s.p, s.n);
        *p += s.n;
}

/* Writes and publishes a record; NULL when it does not fit. */
static struct record *record_new(struct metric_slot *s, const struct series *w)
{
        uint32_t used = atomic_load_explicit(&s->used, memory_order_relaxed);
        size_t size = sizeof(struct record) + (w->n_bounds + w->n_cells) * 8 + w->name.n +
                      w->help.n + w->labels.n;
        struct record *r = record_at(s, used);
        char *text;

        size = (size + 7) & ~(size_t)7;
        if (size > s->size - used || s->indexed >= s->index_cells / 8 * 7)
                return NULL;
        memset(r, 0, size);
        r->size = (uint32_t)size;
        r->family = w->family;
        r->kind = w->kind;
        r->name_n = (uint32_t)w->name.n;
        r->help_n = (uint32_t)w->help.n;
        r->labels_n = (uint32_t)w->labels.n;
        r->n_bounds = (uint32_t)w->n_bounds;
        r->n_cells = (uint32_t)w->n_cells;
        if (w->n_bounds)
                memcpy(bounds_of(r), w->bounds, w->n_bounds * sizeof(double));
        text = (char *)(cells_of(r) + r->n_cells);
        copy(&text, w->name);
        copy(&text, w->help);
        copy(&text, w->labels);
        atomic_store_explicit(&s->used, used + (uint32_t)size, memory_order_release);
        return r;
}

static metric_cell *no_room(struct metric_slot *s, const struct series *w)
{
        metric_add(metric_series(s, METRIC_METRICS_DROPPED, STR("")), 1);
        if (!s->full_logged)
                log_warn("metrics", "no room for %.*s{%.*s}: series are dropped from now on",
                         STR_ARG(w->name.n ? w->name : str_z(metric_families[w->family].name)),
                         STR_ARG(w->labels));
        s->full_logged = true;
        return s->dummy;
}

static metric_cell *find_or_make(struct metric_slot *s, const struct series *w)
{
        uint32_t *cell = lookup(s, w->family, w->name, w->labels);
        struct record *old = *cell ? record_at(s, *cell) : NULL, *r;

        if (old && same_shape(old, w)) {
                atomic_store_explicit(&old->hidden, 0, memory_order_relaxed);
                return cells_of(old);
        }
        r = record_new(s, w);
        if (!r)
                return no_room(s, w);
        if (old)
                atomic_store_explicit(&old->hidden, 1, memory_order_relaxed);
        else
                s->indexed++;
        *cell = (uint32_t)((char *)r - (char *)s);
        return cells_of(r);
}

metric_cell *metric_series(struct metric_slot *s, unsigned family, str labels)
{
        struct series w = {.family = family, .labels = labels, .n_cells = 1};

        CHECK(family < METRIC_FAMILIES);
        w.kind = metric_families[family].kind;
        if (w.kind == METRIC_HISTOGRAM)
                w.n_cells = METRIC_BUCKETS + 2;
        return find_or_make(s, &w);
}

void metric_retire(struct metric_slot *s, unsigned family, str labels)
{
        uint32_t *cell = lookup(s, family, STR(""), labels);
        struct record *r = *cell ? record_at(s, *cell) : NULL;

        if (!r)
                return;
        metric_set(cells_of(r), 0);
        atomic_store_explicit(&r->hidden, 1, memory_order_relaxed);
}

metric_cell *metric_series_custom(struct metric_slot *s, str name, enum metric_kind kind, str help,
                                  str labels, const double *bounds, size_t n_bounds)
{
        struct series w = {CUSTOM, kind, name, help, labels, bounds, n_bounds, 1};

        CHECK(name.n > 0 && n_bounds <= METRIC_BOUNDS_MAX);
        CHECK(kind == METRIC_HISTOGRAM || n_bounds == 0);
        if (kind == METRIC_HISTOGRAM)
                w.n_cells = n_bounds + 2;
        return find_or_make(s, &w);
}

void metric_slot_begin(struct metric_slot *s)
{
        memset(s->index, 0, s->index_cells * sizeof(*s->index));
        s->indexed = 0;
        s->full_logged = false;
        EACH_RECORD(r, s)
        {
                uint32_t *cell = lookup(s, r->family, name_of(r), labels_of(r));
                if (*cell)
                        atomic_store_explicit(&record_at(s, *cell)->hidden, 1,
                                              memory_order_relaxed);
                else
                        s->indexed++;
                *cell = (uint32_t)((char *)r - (char *)s);
                if (r->kind == METRIC_GAUGE || r->kind == METRIC_GAUGE_MAX ||
                    r->kind == METRIC_GAUGE_REAL)
                        metric_set(cells_of(r), 0);
        }
}

struct metric_slot *metric_slot(struct metric_region *r, unsigned i)
{
        CHECK(i < r->slots);
        return (struct metric_slot *)((char *)r + r->head + i * r->per_slot);
}

struct metric_region *metric_region_new(unsigned slots, size_t bytes_per_slot)
{
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t per_slot = (bytes_per_slot + page - 1) & ~(page - 1), size;
        struct metric_region *r;

        CHECK(per_slot >= page && per_slot <= UINT32_MAX / 2);
        size = page + slots * per_slot;
        r = shm_new(size);
        *r = (struct metric_region){slots, per_slot, page, size};
        for (unsigned i = 0; i < slots; i++) {
                struct metric_slot *s = metric_slot(r, i);
                s->size = (uint32_t)per_slot;
                s->index_cells = 16;
                while (s->index_cells * 2 * BYTES_PER_INDEX <= per_slot)
                        s->index_cells *= 2;
                s->first = (uint32_t)(sizeof(*s) + s->index_cells * sizeof(*s->index) + 7) & ~7u;
                atomic_store(&s->used, s->first);
                metric_series(s, METRIC_METRICS_DROPPED, STR("")); /* while there is room */
        }
        return r;
}

void metric_region_free(struct metric_region *r)
{
        if (r)
                shm_free(r, r->size);
}

void metric_observe(metric_cell *hist, uint64_t us)
{
        unsigned i = 0;

        while (i < METRIC_BUCKETS && us > metric_bounds[i])
                i++;
        metric_add(hist + i, 1);
        metric_add(hist + METRIC_BUCKETS + 1, us);
}

void metric_real_add(metric_cell *c, double v)
{
        uint64_t old = get(c);

        while (!atomic_compare_exchange_weak_explicit(c, &old, bits_of(real_of(old) + v),
                                                      memory_order_relaxed, memory_order_relaxed))
                ;
}

void metric_real_set(metric_cell *c, double v)
{
        atomic_store_explicit(c, bits_of(v), memory_order_relaxed);
}

void metric_custom_observe(metric_cell *hist, const double *bounds, size_t n, double v)
{
        size_t i = 0;

        while (i < n && !(v <= bounds[i]))
                i++;
        atomic_fetch_add_explicit(hist + i, 1, memory_order_relaxed);
        metric_real_add(hist + n + 1, v);
}

void metric_label(struct buf *out, const char *name, str value)
{
        if (out->n > 0)
                buf_put(out, ",", 1);
        buf_puts(out, str_z(name));
        buf_put(out, "=\"", 2);
        while (value.n > 0) {
                size_t n = str_utf8(value);
                if (n == 0)
                        buf_puts(out, STR("\xef\xbf\xbd"));
                else if (*value.p == '\n')
                        buf_puts(out, STR("\\n"));
                else if (*value.p == '"' || *value.p == '\\')
                        buf_put(out, (char[]){'\\', *value.p}, 2);
                else
                        buf_put(out, value.p, n);
                value = str_from(value, MAX(n, (size_t)1));
        }
        buf_put(out, "\"", 1);
}

uint64_t metric_sum(struct metric_region *region, unsigned family, str labels)
{
        bool max = metric_families[family].kind == METRIC_GAUGE_MAX;
        int64_t sum = 0;

        for (unsigned i = 0; i < region->slots; i++) {
                struct metric_slot *s = metric_slot(region, i);
                EACH_RECORD(r, s)
                {
                        size_t n = r->n_cells > 1 ? r->n_cells - 1 : 1;
                        if (r->family != family || !str_eq(labels_of(r), labels))
                                continue;
                        for (size_t k = 0; k < n; k++) {
                                int64_t v = (int64_t)get(cells_of(r) + k);
                                sum = max ? MAX(sum, v) : sum + v;
                        }
                }
        }
        return (uint64_t)sum;
}

void metric_each(struct metric_region *region, void (*fn)(void *ctx, const struct metric_part *p),
                 void *ctx)
{
        for (unsigned i = 0; i < region->slots; i++) {
                struct metric_slot *s = metric_slot(region, i);
                EACH_RECORD(r, s)
                {
                        struct metric_part p = {.family = MIN(r->family, METRIC_FAMILIES),
                                                .name = name_of(r),
                                                .labels = labels_of(r),
                                                .cells = cells_of(r),
                                                .n_cells = r->n_cells,
                                                .bounds = bounds_of(r)};
                        if (!atomic_load_explicit(&r->hidden, memory_order_relaxed))
                                fn(ctx, &p);
                }
        }
}

double metric_real(metric_cell *c)
{
        return real_of(get(c));
}

/* ------------------------------------------------------------------------ export */

/* The sum of a series over all slots; shape and texts are those of the first record found. */
struct total {
        struct total *next;
        const struct record *r;
        uint64_t cells[];
};

/* A family with its series in the order they were found; lives in the arena of one export. */
struct group {
        struct group *next;
        str name, help;
        enum metric_kind kind;
        bool seconds;
        struct total *first, **tail;
};

struct exporter {
        struct arena *arena;
        struct map *totals, *customs;
        struct group builtin[METRIC_FAMILIES];
        struct group *custom, **custom_tail;
        struct buf *out;
};

static struct group *group_of(struct exporter *e, const struct record *r)
{
        struct group *g;

        if (r->family != CUSTOM)
                return &e->builtin[r->family];
        g = map_get(e->customs, name_of(r));
        if (g)
                return g;
        g = ARENA_NEW(e->arena, struct group);
        *g = (struct group){.name = name_of(r), .help = help_of(r), .kind = r->kind};
        g->tail = &g->first;
        *e->custom_tail = g;
        e->custom_tail = &g->next;
        map_put(e->customs, g->name, g);
        return g;
}

static bool is_real(const struct record *r, uint32_t cell)
{
        return r->kind == METRIC_COUNTER_REAL || r->kind == METRIC_GAUGE_REAL ||
               (r->kind == METRIC_HISTOGRAM && r->family == CUSTOM && cell == r->n_cells - 1);
}

static void add_cells(struct total *t, const struct record *r)
{
        for (uint32_t i = 0; i < r->n_cells; i++) {
                uint64_t v = get(cells_of(r) + i);
                if (is_real(r, i))
                        t->cells[i] = bits_of(real_of(t->cells[i]) + real_of(v));
                else if (r->kind == METRIC_GAUGE_MAX)
                        t->cells[i] = (uint64_t)MAX((int64_t)t->cells[i], (int64_t)v);
                else
                        t->cells[i] += v;
        }
}

static bool same_bounds(const struct record *a, const struct record *b)
{
        return a->kind == b->kind && a->n_bounds == b->n_bounds &&
               memcmp(bounds_of(a), bounds_of(b), a->n_bounds * sizeof(double)) == 0;
}

static void collect(struct exporter *e, const struct record *r)
{
        struct group *g = group_of(e, r);
        str parts[] = {g->name, STR("{"), labels_of(r)}, key = arena_cat(e->arena, parts, 3);
        struct total *t = map_get(e->totals, key);

        /* during a change of a function's metric slots differ for a moment: the first one counts */
        if (g->first && !same_bounds(g->first->r, r))
                return;
        if (!t) {
                t = arena_zalloc(e->arena, sizeof(*t) + r->n_cells * sizeof(t->cells[0]));
                t->r = r;
                if (r->kind == METRIC_GAUGE_MAX)
                        t->cells[0] = (uint64_t)INT64_MIN;
                *g->tail = t;
                g->tail = &t->next;
                map_put(e->totals, key, t);
        }
        add_cells(t, r);
}

static void put_real(struct buf *out, double v)
{
        char text[STR_DOUBLE_MAX];

        buf_put(out, text, str_put_double(text, v));
}

static void put_seconds(struct buf *out, uint64_t us)
{
        char text[32];
        int n = snprintf(text, sizeof(text), "%llu.%06llu", (unsigned long long)us / 1000000,
                         (unsigned long long)us % 1000000);

        while (text[n - 1] == '0')
                n--;
        n -= text[n - 1] == '.';
        buf_put(out, text, (size_t)n);
}

/* NAME SUFFIX {LABELS, le="LE"} and a space; le NULL: none */
static void put_name(struct exporter *e, const struct group *g, const char *suffix, str labels,
                     const struct buf *le)
{
        buf_puts(e->out, g->name);
        buf_puts(e->out, str_z(suffix));
        if (labels.n || le) {
                buf_put(e->out, "{", 1);
                buf_puts(e->out, labels);
                if (le) {
                        buf_puts(e->out, labels.n ? STR(",le=\"") : STR("le=\""));
                        buf_puts(e->out, buf_front(le));
                        buf_put(e->out, "\"", 1);
                }
                buf_put(e->out, "}", 1);
        }
        buf_put(e->out, " ", 1);
}

static void put_value(struct exporter *e, const struct group *g, const struct total *t, uint32_t i)
{
        int64_t v = (int64_t)t->cells[i];

        if (is_real(t->r, i)) {
                put_real(e->out, real_of(t->cells[i]));
        } else if (g->kind == METRIC_GAUGE || g->kind == METRIC_GAUGE_MAX) {
                if (v < 0)
                        buf_put(e->out, "-", 1);
                v = v < 0 ? -v : v;
                if (g->seconds)
                        put_seconds(e->out, (uint64_t)v);
                else
                        buf_printf(e->out, "%llu", (unsigned long long)v);
        } else if (g->seconds) {
                put_seconds(e->out, t->cells[i]);
        } else {
                buf_printf(e->out, "%llu", (unsigned long long)t->cells[i]);
        }
        buf_put(e->out, "\n", 1);
}

static void put_histogram(struct exporter *e, const struct group *g, const struct total *t)
{
        uint32_t n = t->r->n_cells - 1; /* buckets, +Inf included; then comes the sum */
        uint64_t count = 0;

        for (uint32_t i = 0; i < n; i++) {
                struct buf le = BUF_INIT;
                if (i == n - 1)
                        buf_puts(&le, STR("+Inf"));
                else if (t->r->family == CUSTOM)
                        put_real(&le, bounds_of(t->r)[i]);
                else
                        put_seconds(&le, metric_bounds[i]);
                count += t->cells[i];
                put_name(e, g, "_bucket", labels_of(t->r), &le);
                buf_printf(e->out, "%llu\n", (unsigned long long)count);
                buf_clear(&le);
        }
        put_name(e, g, "_sum", labels_of(t->r), NULL);
        put_value(e, g, t, n);
        put_name(e, g, "_count", labels_of(t->r), NULL);
        buf_printf(e->out, "%llu\n", (unsigned long long)count);
}

static void put_help(struct buf *out, str help)
{
        for (size_t i = 0; i < help.n; i++) {
                if (help.p[i] == '\n')
                        buf_puts(out, STR("\\n"));
                else if (help.p[i] == '\\')
                        buf_puts(out, STR("\\\\"));
                else
                        buf_put(out, help.p + i, 1);
        }
}

static void put_group(struct exporter *e, const struct group *g)
{
        static const char *const types[] = {
                [METRIC_COUNTER] = "counter",      [METRIC_GAUGE] = "gauge",
                [METRIC_HISTOGRAM] = "histogram",  [METRIC_GAUGE_MAX] = "gauge",
                [METRIC_COUNTER_REAL] = "counter", [METRIC_GAUGE_REAL] = "gauge",
        };

        if (!g->first)
                return;
        buf_printf(e->out, "# HELP %.*s ", STR_ARG(g->name));
        put_help(e->out, g->help);
        buf_printf(e->out, "\n# TYPE %.*s %s\n", STR_ARG(g->name), types[g->kind]);
        for (const struct total *t = g->first; t; t = t->next) {
                if (g->kind == METRIC_HISTOGRAM) {
                        put_histogram(e, g, t);
                } else {
                        put_name(e, g, "", labels_of(t->r), NULL);
                        put_value(e, g, t, 0);
                }
        }
}

void metric_export(struct metric_region *region, struct buf *out)
{
        struct exporter e = {
                .arena = arena_new(0), .totals = map_new(), .customs = map_new(), .out = out};

        e.custom_tail = &e.custom;
        for (unsigned i = 0; i < METRIC_FAMILIES; i++) {
                const struct metric_family *f = &metric_families[i];
                e.builtin[i] = (struct group){.name = str_z(f->name),
                                              .help = str_z(f->help),
                                              .kind = f->kind,
                                              .seconds = strcmp(f->unit, "seconds") == 0};
                e.builtin[i].tail = &e.builtin[i].first;
        }
        for (unsigned i = 0; i < region->slots; i++) {
                struct metric_slot *s = metric_slot(region, i);
                EACH_RECORD(r, s)
                if (!atomic_load_explicit(&r->hidden, memory_order_relaxed))
                        collect(&e, r);
        }
        for (unsigned i = 0; i < METRIC_FAMILIES; i++)
                put_group(&e, &e.builtin[i]);
        for (const struct group *g = e.custom; g; g = g->next)
                put_group(&e, g);
        map_free(e.totals);
        map_free(e.customs);
        arena_free(e.arena);
}
