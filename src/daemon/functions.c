/*
 * What is known of functions and their modules, for `weir functions` and /status.
 *
 *   modules     the board, where every worker says which it has open, and the master's strikes
 *   functions   those of the configuration in force, with what all loops have counted of them
 *
 * The difficulty: there may be ten thousand of them, in dozens of slots of metrics.  So the slots
 * are walked once, and each part found its row by the label.
 */
#include "daemon/worker.h"

#include "base/check.h"
#include "base/crypto.h"
#include "daemon/master.h"
#include "proxy/instance.h"

#include <stdio.h>
#include <stdlib.h>

#define ANSWER_MAX (100 * KIB) /* the control socket takes a little more */

/* ------------------------------------------------------------------ modules */

/* One content, over all workers. */
struct module_row {
        struct board_module m;
        char id[13];
        const struct module *here; /* NULL: only another worker has it open */
        uint32_t strikes;
        bool quarantined;
};

struct module_rows {
        struct module_row *v;
        size_t n;
};

static void use_of(struct worker *w, const struct module *m, uint32_t *generations,
                   uint64_t *requests)
{
        *generations = 0;
        *requests = 0;
        LIST_EACH (n, &w->gens) {
                const struct gen *g = CONTAINER_OF(n, struct worker_gen, link)->gen;
                bool uses = false;
                for (size_t i = 0; i < g->n_modules; i++)
                        uses = uses || g->modules[i] == m;
                for (unsigned i = 0; uses && i < w->n_loops; i++)
                        *requests += gen_live(&g->per_loop[i]);
                *generations += uses;
        }
}

void functions_news(struct worker *w)
{
        const struct module *open[BOARD_COPIES];
        size_t n = MIN(module_list(open, BOARD_COPIES), (size_t)BOARD_COPIES);

        for (size_t i = 0; i < n; i++) {
                uint32_t generations;
                uint64_t requests;
                use_of(w, open[i], &generations, &requests);
                board_note_use(w->board, w->index, open[i]->copy, generations, requests);
        }
}

static const struct module *open_here(const uint8_t sha[32])
{
        const struct module *open[BOARD_COPIES];
        size_t n = MIN(module_list(open, BOARD_COPIES), (size_t)BOARD_COPIES);

        for (size_t i = 0; i < n; i++) {
                if (memcmp(open[i]->sha, sha, sizeof(open[i]->sha)) == 0)
                        return open[i];
        }
        return NULL;
}

static void add_module(struct worker *w, struct module_rows *rows, const struct board_module *m)
{
        struct module_row *r = rows->v;

        while (r < rows->v + rows->n &&
               (memcmp(r->m.sha, m->sha, sizeof(r->m.sha)) != 0 || strcmp(r->m.name, m->name) != 0))
                r++;
        if (r < rows->v + rows->n) { /* a generation is the same one in every worker */
                r->m.generations = MAX(r->m.generations, m->generations);
                r->m.requests += m->requests;
                return;
        }
        rows->n++;
        *r = (struct module_row){.m = *m, .here = open_here(m->sha)};
        crypto_hex(r->id, m->sha, 6);
        r->id[12] = 0;
        r->strikes = board_strikes(w->board, m->sha, &r->quarantined);
}

static int by_name(const void *a, const void *b)
{
        const struct module_row *x = a, *y = b;
        int order = strcmp(x->m.name, y->m.name);

        return order ? order : strcmp(x->id, y->id);
}

static struct module_rows collect_modules(struct worker *w, struct arena *a)
{
        struct board_module *open = ARENA_ARRAY(a, struct board_module, BOARD_COPIES);
        struct module_rows rows = {
                .v = ARENA_ARRAY(a, struct module_row, (size_t)w->n_workers * BOARD_COPIES)};

        board_note_modules(w->board, w->index);
        functions_news(w);
        for (unsigned i = 0; i < w->n_workers; i++) {
                bool there = atomic_load_explicit(&board_news(w->board, i)->pid,
                                                  memory_order_relaxed) != 0;
                size_t n = there ? board_modules(w->board, i, open, BOARD_COPIES) : 0;
                for (size_t k = 0; k < n; k++)
                        add_module(w, &rows, &open[k]);
        }
        qsort(rows.v, rows.n, sizeof(*rows.v), by_name);
        return rows;
}

/* ------------------------------------------------------------------ functions */

/* What was counted of one function. */
struct function_row {
        const struct function_conf *f;
        uint64_t results[CALL_RESULTS], over;
        uint64_t measured, buckets[METRIC_BOUNDS_MAX + 1];
        double sum;           /* seconds, of the measured */
        const double *bounds; /* n_bounds of them; lives in the region */
        size_t n_bounds;
};

struct function_rows {
        struct function_row *v;
        size_t n;
        struct map *by_label; /* function="NAME" */
};

static uint64_t cell(metric_cell *c)
{
        return atomic_load_explicit(c, memory_order_relaxed);
}

/* function="NAME" of labels that begin with it, and what follows its comma. */
static str cut_label(str labels, str *rest)
{
        size_t n = sizeof("function=\"") - 1;

        *rest = STR_NONE;
        if (!str_starts(labels, STR("function=\"")))
                return STR_NONE;
        while (n < labels.n && labels.p[n] != '"')
                n += labels.p[n] == '\\' ? 2 : 1;
        if (n >= labels.n)
                return STR_NONE;
        if (n + 2 <= labels.n)
                *rest = str_from(labels, n + 2);
        return str_head(labels, n + 1);
}

static void add_result(struct function_row *r, str rest, uint64_t n)
{
        for (unsigned i = 0; i < CALL_RESULTS; i++) {
                char text[64];
                snprintf(text, sizeof(text), "result=\"%s\"", instance_result(i));
                if (str_eq(rest, str_z(text)))
                        r->results[i] += n;
        }
}

static void add_duration(struct function_row *r, const struct metric_part *p)
{
        size_t n = p->n_cells - 1; /* the buckets, then the sum */

        if (p->n_cells < 3 || n > COUNT(r->buckets) || (r->bounds && r->n_bounds != n - 1))
                return;
        r->bounds = p->bounds;
        r->n_bounds = n - 1;
        for (size_t i = 0; i < n; i++) {
                r->buckets[i] += cell(p->cells + i);
                r->measured += cell(p->cells + i);
        }
        r->sum += metric_real(p->cells + n);
}

static void add_part(void *ctx, const struct metric_part *p)
{
        struct function_rows *rows = ctx;
        bool duration = p->family == METRIC_FAMILIES && str_eq(p->name, STR(INSTANCE_DURATION));
        struct function_row *r;
        str rest;

        if (!duration && p->family != METRIC_FUNCTION_CALLS && p->family != METRIC_FUNCTION_OVER)
                return;
        r = map_get(rows->by_label, cut_label(p->labels, &rest));
        if (!r)
                return; /* of an earlier configuration */
        if (duration)
                add_duration(r, p);
        else if (p->family == METRIC_FUNCTION_OVER)
                r->over += cell(p->cells);
        else
                add_result(r, rest, cell(p->cells));
}

static struct function_rows collect_functions(struct worker *w, struct arena *a)
{
        const struct conf *c = w->current ? w->current->conf : NULL;
        struct function_rows rows = {.by_label = map_new(), .n = c ? c->n_functions : 0};

        rows.v = ARENA_ARRAY(a, struct function_row, rows.n + 1);
        for (size_t i = 0; i < rows.n; i++) {
                struct buf label = BUF_INIT;
                rows.v[i].f = c->functions[i];
                metric_label(&label, "function", c->functions[i]->name);
                map_put(rows.by_label, arena_dup(a, buf_pullup(&label, label.n)), &rows.v[i]);
                buf_clear(&label);
        }
        metric_each(w->m->metrics, add_part, &rows);
        map_free(rows.by_label);
        return rows;
}

static uint64_t calls(const struct function_row *r)
{
        return r->results[CALL_CONTINUE] + r->results[CALL_RESPOND] + r->results[CALL_ERROR] +
               r->results[CALL_TIMEOUT];
}

static double mean_us(const struct function_row *r)
{
        return r->measured ? r->sum / (double)r->measured * (double)SEC : 0;
}

/* Microseconds that a share of the measured calls did not exceed: the upper bound of its bucket; of
 * the last bucket, which has none, the largest bound there is. */
static double quantile_us(const struct function_row *r, double share)
{
        double wanted = share * (double)r->measured;
        uint64_t seen = 0;
        size_t i = 0;

        if (r->measured == 0)
                return 0;
        for (; i < r->n_bounds; i++) {
                seen += r->buckets[i];
                if ((double)seen >= wanted)
                        break;
        }
        return r->bounds[MIN(i, r->n_bounds - 1)] * (double)SEC;
}

/* ------------------------------------------------------------------ JSON */

static void module_json(const struct module_row *r, struct json_writer *j)
{
        json_open(j, '{');
        json_key(j, STR("name"));
        json_str(j, str_z(r->m.name));
        json_key(j, STR("version"));
        json_str(j, str_z(r->m.version));
        json_key(j, STR("id"));
        json_str(j, str_z(r->id));
        json_key(j, STR("file"));
        json_str(j, r->here ? r->here->origin : STR_NONE);
        json_key(j, STR("pinned"));
        json_bool(j, r->here && r->here->pinned);
        json_key(j, STR("generations"));
        json_u64(j, r->m.generations);
        json_key(j, STR("requests"));
        json_u64(j, r->m.requests);
        json_key(j, STR("strikes"));
        json_u64(j, r->strikes);
        json_key(j, STR("quarantined"));
        json_bool(j, r->quarantined);
        json_close(j);
}

static void function_json(const struct function_row *r, struct json_writer *j)
{
        json_open(j, '{');
        json_key(j, STR("name"));
        json_str(j, r->f->name);
        json_key(j, STR("module"));
        json_str(j, r->f->module);
        json_key(j, STR("id"));
        json_str(j, r->f->mod ? str_z(r->f->mod->id) : STR_NONE);
        json_key(j, STR("calls"));
        json_u64(j, calls(r));
        json_key(j, STR("answers"));
        json_u64(j, r->results[CALL_RESPOND]);
        json_key(j, STR("errors"));
        json_u64(j, r->results[CALL_ERROR]);
        json_key(j, STR("timeouts"));
        json_u64(j, r->results[CALL_TIMEOUT]);
        json_key(j, STR("quarantined"));
        json_u64(j, r->results[CALL_QUARANTINED]);
        json_key(j, STR("over_budget"));
        json_u64(j, r->over);
        json_key(j, STR("measured"));
        json_u64(j, r->measured);
        if (r->measured) {
                json_key(j, STR("mean_us"));
                json_double(j, mean_us(r));
                json_key(j, STR("p50_us"));
                json_double(j, quantile_us(r, 0.5));
                json_key(j, STR("p99_us"));
                json_double(j, quantile_us(r, 0.99));
        }
        json_close(j);
}

void functions_json(struct worker *w, struct json_writer *j, size_t max)
{
        struct arena *a = arena_new(0);
        struct module_rows modules = collect_modules(w, a);
        struct function_rows functions = collect_functions(w, a);
        size_t n = 0;

        json_key(j, STR("modules"));
        json_open(j, '[');
        for (size_t i = 0; i < modules.n; i++)
                module_json(&modules.v[i], j);
        json_close(j);
        json_key(j, STR("functions"));
        json_open(j, '[');
        for (; n < functions.n && j->out->n < max; n++)
                function_json(&functions.v[n], j);
        json_close(j);
        if (n < functions.n) {
                json_key(j, STR("functions_left_out"));
                json_u64(j, functions.n - n);
        }
        arena_free(a);
}

/* ------------------------------------------------------------------ text */

/* What comes from a module may hold anything; each byte that is no printable one becomes '?'. */
static str printable(struct arena *a, str s)
{
        char *out = arena_alloc(a, s.n + 1);

        for (size_t i = 0; i < s.n; i++)
                out[i] = (unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f ? '?' : s.p[i];
        return str_of(out, s.n);
}

static str time_text(struct arena *a, double us)
{
        if (us < 1000)
                return arena_printf(a, "%.3gus", us);
        return us < 1e6 ? arena_printf(a, "%.3gms", us / 1e3) : arena_printf(a, "%.3gs", us / 1e6);
}

static int width(size_t now, str s)
{
        return (int)MIN(MAX(now, s.n), (size_t)60);
}

static void modules_text(struct module_rows *rows, struct arena *a, struct buf *out)
{
        int name = 6, version = 7;

        for (size_t i = 0; i < rows->n; i++) {
                name = width((size_t)name, str_z(rows->v[i].m.name));
                version = width((size_t)version, str_z(rows->v[i].m.version));
        }
        buf_printf(out, "%-*s  %-*s  %-12s  %11s  %8s  %7s  %s\n", name, "MODULE", version,
                   "VERSION", "CONTENT", "GENERATIONS", "REQUESTS", "STRIKES", "STATE");
        for (size_t i = 0; i < rows->n; i++) {
                const struct module_row *r = &rows->v[i];
                str v = printable(a, str_z(r->m.version));
                buf_printf(out, "%-*s  %-*.*s  %-12s  %11u  %8llu  %7u  %s\n", name, r->m.name,
                           version, STR_ARG(v), r->id, r->m.generations,
                           (unsigned long long)r->m.requests, r->strikes,
                           r->quarantined               ? "quarantined"
                           : r->m.generations == 0      ? "unused"
                           : r->here && r->here->pinned ? "serves, stays in memory"
                                                        : "serves");
        }
}

static void functions_text(struct function_rows *rows, struct arena *a, struct buf *out)
{
        int name = 8, module = 6;
        size_t n = 0;

        for (size_t i = 0; i < rows->n; i++) {
                name = width((size_t)name, rows->v[i].f->name);
                module = width((size_t)module, rows->v[i].f->module);
        }
        buf_printf(out, "\n%-*s  %-*s  %-12s  %10s  %8s  %8s  %8s  %8s  %7s  %7s\n", name,
                   "FUNCTION", module, "MODULE", "CONTENT", "CALLS", "ERRORS", "TIMEOUTS",
                   "REFUSED", "OVER", "MEAN", "P99");
        for (; n < rows->n && out->n < ANSWER_MAX; n++) {
                const struct function_row *r = &rows->v[n];
                str f = printable(a, r->f->name);
                str mean = r->measured ? time_text(a, mean_us(r)) : STR("-");
                str p99 = r->measured ? time_text(a, quantile_us(r, 0.99)) : STR("-");
                buf_printf(out,
                           "%-*.*s  %-*.*s  %-12s  %10llu  %8llu  %8llu  %8llu  %8llu  %7.*s  "
                           "%7.*s\n",
                           name, STR_ARG(f), module, STR_ARG(r->f->module), r->f->mod->id,
                           (unsigned long long)calls(r), (unsigned long long)r->results[CALL_ERROR],
                           (unsigned long long)r->results[CALL_TIMEOUT],
                           (unsigned long long)r->results[CALL_QUARANTINED],
                           (unsigned long long)r->over, STR_ARG(mean), STR_ARG(p99));
        }
        if (n < rows->n)
                buf_printf(out, "and %zu more: /status of the admin listener has all\n",
                           rows->n - n);
}

void functions_answer(struct worker *w, bool json, struct buf *out)
{
        struct arena *a;
        struct json_writer j;
        struct module_rows modules;
        struct function_rows functions;

        export_news(w); /* this one may just have started, and not have spoken yet */
        if (json) {
                json_begin(&j, out);
                json_open(&j, '{');
                functions_json(w, &j, ANSWER_MAX);
                json_close(&j);
                buf_put(out, "\n", 1);
                return;
        }
        a = arena_new(0);
        modules = collect_modules(w, a);
        functions = collect_functions(w, a);
        modules_text(&modules, a, out);
        functions_text(&functions, a, out);
        arena_free(a);
}
