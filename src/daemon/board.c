/*
 * The board.
 *
 * The difficulty: it is read after a crash that may have come in the middle of a write, so a reader
 * takes nothing for granted: texts are bounded, and a copy that is half written has number 0.
 */
#include "daemon/board.h"

#include "base/check.h"
#include "base/shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

struct board_copy {
        _Atomic uint32_t copy; /* 0: free; stored last */
        char name[MODULE_NAME_MAX + 1], version[32];
        uint8_t sha[32];
        _Atomic uint32_t generations;
        _Atomic uint64_t requests;
};

struct board_strike {
        _Atomic uint32_t n; /* 0: free; stored last */
        _Atomic uint32_t quarantined;
        uint8_t sha[32];
};

/* Invariant: cells are those of canary number; 0 while they are being replaced. */
struct board_tally {
        _Atomic uint32_t number;
        _Atomic uint64_t cells[CANARY_SIDES][TRIAL_CELLS];
};

/* Its turn is odd while the master writes it. */
struct board_note {
        _Atomic uint32_t turn;
        struct board_canary canary;
};

struct board_row {
        struct board_copy copies[BOARD_COPIES];
        struct board_news news;
        struct board_tally tally;
        struct crumb crumbs[]; /* the control thread's, then each loop's */
};

struct board {
        unsigned rows, loops;
        size_t row_size;
        struct board_strike *strikes; /* BOARD_COPIES of them, the master's */
        char *memory;
        struct board_note *note;
};

static struct board_row *row_of(struct board *b, unsigned row)
{
        CHECK(row < b->rows);
        return (struct board_row *)(b->memory + row * b->row_size);
}

struct board *board_new(unsigned rows, unsigned loops)
{
        struct board *b = malloc(sizeof(*b));

        CHECK(b);
        b->rows = rows;
        b->loops = loops;
        b->row_size = sizeof(struct board_row) + (loops + 1) * sizeof(struct crumb);
        b->memory = shm_new(rows * b->row_size);
        b->note = shm_new(sizeof(*b->note));
        b->strikes = shm_new(BOARD_COPIES * sizeof(*b->strikes));
        return b;
}

void board_free(struct board *b)
{
        if (!b)
                return;
        shm_free(b->memory, b->rows * b->row_size);
        shm_free(b->note, sizeof(*b->note));
        shm_free(b->strikes, BOARD_COPIES * sizeof(*b->strikes));
        free(b);
}

void board_clear(struct board *b, unsigned row)
{
        memset(row_of(b, row), 0, b->row_size);
}

struct crumb *board_crumb(struct board *b, unsigned row, unsigned loop)
{
        CHECK(loop == BOARD_CONTROL || loop < b->loops);
        return &row_of(b, row)->crumbs[loop == BOARD_CONTROL ? 0 : loop + 1];
}

struct board_news *board_news(struct board *b, unsigned row)
{
        return &row_of(b, row)->news;
}

unsigned board_loops(const struct board *b)
{
        return b->loops;
}

/* ------------------------------------------------------------------ canaries */

void board_count(struct board *b, unsigned row, uint32_t canary,
                 const struct trial_sum sides[CANARY_SIDES])
{
        struct board_tally *t = &row_of(b, row)->tally;

        if (atomic_load_explicit(&t->number, memory_order_relaxed) != canary)
                atomic_store(&t->number, 0);
        for (unsigned s = 0; s < CANARY_SIDES; s++) {
                for (unsigned i = 0; i < TRIAL_CELLS; i++)
                        atomic_store_explicit(&t->cells[s][i], sides[s].cells[i],
                                              memory_order_relaxed);
        }
        atomic_store(&t->number, canary);
}

void board_counted(struct board *b, unsigned row, uint32_t canary,
                   struct trial_sum sides[CANARY_SIDES])
{
        struct board_tally *t = &row_of(b, row)->tally;

        if (atomic_load(&t->number) != canary)
                return;
        for (unsigned s = 0; s < CANARY_SIDES; s++) {
                for (unsigned i = 0; i < TRIAL_CELLS; i++)
                        sides[s].cells[i] +=
                                atomic_load_explicit(&t->cells[s][i], memory_order_relaxed);
        }
}

void board_put_canary(struct board *b, const struct board_canary *c)
{
        atomic_fetch_add(&b->note->turn, 1);
        memcpy(&b->note->canary, c, sizeof(*c));
        atomic_thread_fence(memory_order_release);
        atomic_fetch_add(&b->note->turn, 1);
}

bool board_get_canary(struct board *b, struct board_canary *out)
{
        for (int tries = 0; tries < 1000; tries++) {
                uint32_t turn = atomic_load(&b->note->turn);
                if (turn % 2)
                        continue;
                memcpy(out, &b->note->canary, sizeof(*out));
                atomic_thread_fence(memory_order_acquire);
                if (atomic_load(&b->note->turn) != turn)
                        continue;
                out->reason[CANARY_REASON - 1] = 0;
                return out->number != 0;
        }
        return false;
}

/* ------------------------------------------------------------------ deaths */

static void copy_text(char *to, size_t cap, str s)
{
        memset(to, 0, cap);
        memcpy(to, s.p, MIN(s.n, cap - 1));
}

void board_note_modules(struct board *b, unsigned row)
{
        const struct module *open[BOARD_COPIES];
        size_t n = MIN(module_list(open, BOARD_COPIES), (size_t)BOARD_COPIES);
        struct board_row *r = row_of(b, row);

        for (size_t i = 0; i < BOARD_COPIES; i++) {
                struct board_copy *c = &r->copies[i];
                uint32_t now = i < n ? open[i]->copy : 0;
                if (atomic_load_explicit(&c->copy, memory_order_relaxed) == now)
                        continue;
                atomic_store_explicit(&c->copy, 0, memory_order_release);
                if (now == 0)
                        continue;
                copy_text(c->name, sizeof(c->name), open[i]->name);
                copy_text(c->version, sizeof(c->version), str_z(open[i]->desc->version));
                atomic_store_explicit(&c->generations, 0, memory_order_relaxed);
                atomic_store_explicit(&c->requests, 0, memory_order_relaxed);
                memcpy(c->sha, open[i]->sha, sizeof(c->sha));
                atomic_store_explicit(&c->copy, now, memory_order_release);
        }
}

bool board_module(struct board *b, unsigned row, uint32_t copy, char name[MODULE_NAME_MAX + 1],
                  uint8_t sha[32])
{
        struct board_row *r = row_of(b, row);

        for (size_t i = 0; copy != 0 && i < BOARD_COPIES; i++) {
                struct board_copy *c = &r->copies[i];
                if (atomic_load_explicit(&c->copy, memory_order_acquire) != copy)
                        continue;
                memcpy(name, c->name, sizeof(c->name));
                name[MODULE_NAME_MAX] = 0;
                memcpy(sha, c->sha, sizeof(c->sha));
                return true;
        }
        return false;
}

void board_note_use(struct board *b, unsigned row, uint32_t copy, uint32_t generations,
                    uint64_t requests)
{
        struct board_row *r = row_of(b, row);

        for (size_t i = 0; i < BOARD_COPIES; i++) {
                struct board_copy *c = &r->copies[i];
                if (atomic_load_explicit(&c->copy, memory_order_relaxed) != copy)
                        continue;
                atomic_store_explicit(&c->generations, generations, memory_order_relaxed);
                atomic_store_explicit(&c->requests, requests, memory_order_relaxed);
        }
}

size_t board_modules(struct board *b, unsigned row, struct board_module *out, size_t max)
{
        struct board_row *r = row_of(b, row);
        size_t n = 0;

        for (size_t i = 0; n < max && i < BOARD_COPIES; i++) {
                struct board_copy *c = &r->copies[i];
                struct board_module *o = &out[n];
                if (atomic_load_explicit(&c->copy, memory_order_acquire) == 0)
                        continue;
                memcpy(o->name, c->name, sizeof(o->name));
                memcpy(o->version, c->version, sizeof(o->version));
                memcpy(o->sha, c->sha, sizeof(o->sha));
                o->name[sizeof(o->name) - 1] = o->version[sizeof(o->version) - 1] = 0;
                o->generations = atomic_load_explicit(&c->generations, memory_order_relaxed);
                o->requests = atomic_load_explicit(&c->requests, memory_order_relaxed);
                n++;
        }
        return n;
}

void board_strikes_begin(struct board *b)
{
        for (size_t i = 0; i < BOARD_COPIES; i++)
                atomic_store_explicit(&b->strikes[i].n, 0, memory_order_release);
}

void board_note_strikes(struct board *b, const uint8_t sha[32], uint32_t n, bool quarantined)
{
        for (size_t i = 0; i < BOARD_COPIES; i++) {
                struct board_strike *s = &b->strikes[i];
                if (atomic_load_explicit(&s->n, memory_order_relaxed) != 0)
                        continue;
                memcpy(s->sha, sha, sizeof(s->sha));
                atomic_store_explicit(&s->quarantined, quarantined, memory_order_relaxed);
                atomic_store_explicit(&s->n, n, memory_order_release);
                return;
        }
}

uint32_t board_strikes(struct board *b, const uint8_t sha[32], bool *quarantined)
{
        *quarantined = false;
        for (size_t i = 0; i < BOARD_COPIES; i++) {
                struct board_strike *s = &b->strikes[i];
                uint32_t n = atomic_load_explicit(&s->n, memory_order_acquire);
                if (n == 0 || memcmp(s->sha, sha, sizeof(s->sha)) != 0)
                        continue;
                *quarantined = atomic_load_explicit(&s->quarantined, memory_order_relaxed);
                return n;
        }
        return 0;
}

bool board_last_words(struct board *b, unsigned row, struct board_word *out)
{
        struct board_word found = {0};
        bool any = false;

        for (unsigned i = 0; i <= b->loops; i++) {
                unsigned loop = i == 0 ? BOARD_CONTROL : i - 1;
                struct crumb *c = board_crumb(b, row, loop);
                uint64_t sig = atomic_load(&c->sig), where = atomic_load(&c->where);
                if (sig == 0 && (where == 0 || any))
                        continue;
                found.loop = loop;
                found.where = where;
                found.sig = sig;
                found.pc = atomic_load(&c->pc);
                found.addr = atomic_load(&c->addr);
                copy_text(found.function, sizeof(found.function),
                          str_of(c->function_text, strnlen(c->function_text, CRUMB_FUNCTION)));
                copy_text(found.route, sizeof(found.route),
                          str_of(c->route_text, strnlen(c->route_text, CRUMB_ROUTE)));
                any = true;
                if (sig != 0)
                        break;
        }
        if (!any)
                return false;
        found.known = board_module(b, row, (uint32_t)(found.where >> 32), found.name, found.sha);
        *out = found;
        return true;
}

bool board_where(struct board *b, unsigned row, unsigned loop, struct board_word *out)
{
        struct crumb *c = board_crumb(b, row, loop);

        *out = (struct board_word){.loop = loop,
                                   .where = atomic_load_explicit(&c->where, memory_order_acquire)};
        if (out->where == 0)
                return false;
        crumb_names(c, out->function, out->route);
        out->known = board_module(b, row, (uint32_t)(out->where >> 32), out->name, out->sha);
        return true;
}

void board_put_place(const struct board_word *w, char out[BOARD_PLACE])
{
        char number[16];

        if (w->where == 0) {
                snprintf(out, BOARD_PLACE, "in no function");
                return;
        }
        snprintf(number, sizeof(number), "%u", (unsigned)(w->where >> 8 & 0xffffff));
        snprintf(out, BOARD_PLACE, "in module %s: %s of function %s%s%s",
                 w->known ? w->name : "unknown", module_phase_name(w->where & 0xff),
                 w->function[0] ? w->function : number, w->route[0] ? " on route " : "", w->route);
}

void board_obituary(struct board *b, unsigned row, int status, char out[BOARD_OBITUARY])
{
        char place[BOARD_PLACE];
        struct board_word w;
        size_t n;

        if (WIFSIGNALED(status))
                n = (size_t)snprintf(out, BOARD_OBITUARY, "signal %d (%.40s)", WTERMSIG(status),
                                     strsignal(WTERMSIG(status)));
        else
                n = (size_t)snprintf(out, BOARD_OBITUARY, "exit status %d", WEXITSTATUS(status));
        if (!board_last_words(b, row, &w))
                return;
        if (w.where != 0) {
                board_put_place(&w, place);
                n += (size_t)snprintf(out + n, BOARD_OBITUARY - n, " %s", place);
        }
        if (w.loop != BOARD_CONTROL)
                n += (size_t)snprintf(out + n, BOARD_OBITUARY - n, "%s on loop %u",
                                      w.where != 0 ? "," : "", w.loop);
        if (w.sig != 0)
                snprintf(out + n, BOARD_OBITUARY - n, ", pc 0x%llx, address 0x%llx",
                         (unsigned long long)w.pc, (unsigned long long)w.addr);
}
