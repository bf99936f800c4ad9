/*
 * Aho-Corasick over byte classes.
 *
 * The difficulty is memory: a dense row for each state is what makes a step one load, so bytes that
 * no word tells apart share a column (paths use some 40 to 70 of them).
 */
#include "proxy/automaton.h"

#include "base/check.h"

#include <stdlib.h>

#define NONE UINT32_MAX

struct automaton {
        uint8_t class_of[256];
        uint32_t classes, states;
        uint32_t *next;   /* states x classes */
        uint32_t *hits;   /* by state: first entry in out, or NONE */
        uint32_t *suffix; /* by state: nearest proper suffix state that has hits, or NONE */
        struct out {
                uint32_t value, more;
        } * out; /* chains */
        size_t n_out;
};

static void *grab(size_t n, size_t size)
{
        void *p = calloc(n ? n : 1, size);
        CHECK(p != NULL);
        return p;
}

static void make_classes(struct automaton *m, const struct automaton_word *words, size_t n)
{
        m->classes = 1; /* 0: bytes in no word */
        for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < words[i].text.n; j++) {
                        uint8_t c = (uint8_t)words[i].text.p[j];
                        if (m->class_of[c] == 0)
                                m->class_of[c] = (uint8_t)m->classes++;
                }
        }
        for (int c = 'A'; c <= 'Z'; c++)
                m->class_of[c] = m->class_of[c - 'A' + 'a'];
}

static uint32_t *edge(const struct automaton *m, uint32_t state, uint8_t c)
{
        return &m->next[(size_t)state * m->classes + m->class_of[c]];
}

/* The trie; returns its depth-first memory as is: 0 in next means no edge (the root is never a
 * target here). */
static void insert_words(struct automaton *m, const struct automaton_word *words, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                uint32_t s = 0;
                for (size_t j = 0; j < words[i].text.n; j++) {
                        uint32_t *e = edge(m, s, (uint8_t)words[i].text.p[j]);
                        if (*e == 0)
                                *e = m->states++;
                        s = *e;
                }
                m->out[m->n_out] = (struct out){words[i].value, m->hits[s]};
                m->hits[s] = (uint32_t)m->n_out++;
        }
}

/* Breadth first: fills missing edges from the failure state, so that matching never goes back. */
static void link_states(struct automaton *m)
{
        uint32_t *fail = grab(m->states, sizeof *fail), *queue = grab(m->states, sizeof *queue);
        size_t head = 0, tail = 0;
        for (uint32_t c = 0; c < m->classes; c++)
                if (m->next[c] != 0)
                        queue[tail++] = m->next[c];
        while (head < tail) {
                uint32_t s = queue[head++], f = fail[s];
                m->suffix[s] = m->hits[f] != NONE ? f : m->suffix[f];
                for (uint32_t c = 0; c < m->classes; c++) {
                        uint32_t *e = &m->next[(size_t)s * m->classes + c];
                        uint32_t via = m->next[(size_t)f * m->classes + c];
                        if (*e == 0) {
                                *e = via;
                                continue;
                        }
                        fail[*e] = via;
                        queue[tail++] = *e;
                }
        }
        free(fail);
        free(queue);
}

struct automaton *automaton_new(const struct automaton_word *words, size_t n)
{
        struct automaton *m = grab(1, sizeof *m);
        size_t states = 1;
        for (size_t i = 0; i < n; i++)
                states += words[i].text.n;
        CHECK(states < NONE);
        make_classes(m, words, n);
        m->next = grab(states * m->classes, sizeof *m->next);
        m->hits = grab(states, sizeof *m->hits);
        m->suffix = grab(states, sizeof *m->suffix);
        m->out = grab(n, sizeof *m->out);
        for (size_t i = 0; i < states; i++)
                m->hits[i] = m->suffix[i] = NONE;
        m->states = 1;
        insert_words(m, words, n);
        link_states(m);
        m->next = realloc(m->next, (size_t)m->states * m->classes * sizeof *m->next);
        m->hits = realloc(m->hits, m->states * sizeof *m->hits);
        m->suffix = realloc(m->suffix, m->states * sizeof *m->suffix);
        CHECK(m->next != NULL && m->hits != NULL && m->suffix != NULL);
        return m;
}

void automaton_free(struct automaton *m)
{
        if (m == NULL)
                return;
        free(m->next);
        free(m->hits);
        free(m->suffix);
        free(m->out);
        free(m);
}

size_t automaton_find(const struct automaton *m, str s, uint32_t *out, size_t max)
{
        uint32_t state = 0;
        size_t n = 0;
        for (size_t i = 0; i < s.n; i++) {
                state = *edge(m, state, (uint8_t)s.p[i]);
                uint32_t from = m->hits[state] != NONE ? state : m->suffix[state];
                for (; UNLIKELY(from != NONE); from = m->suffix[from]) {
                        for (uint32_t o = m->hits[from]; o != NONE; o = m->out[o].more) {
                                if (n == max)
                                        return max + 1;
                                out[n++] = m->out[o].value;
                        }
                }
        }
        return n;
}

size_t automaton_bytes(const struct automaton *m)
{
        return (size_t)m->states * (m->classes + 2) * 4 + m->n_out * sizeof *m->out;
}
