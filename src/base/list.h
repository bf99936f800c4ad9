/*
 * Intrusive doubly linked list.  A head points at itself when empty; an unlinked node has next
 * NULL.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/defs.h"

struct list {
        struct list *next, *prev;
};

static inline void list_init(struct list *h)
{
        h->next = h->prev = h;
}

static inline bool list_empty(const struct list *h)
{
        return h->next == h;
}

static inline bool list_linked(const struct list *n)
{
        return n->next != NULL;
}

static inline void list_insert_(struct list *n, struct list *prev, struct list *next)
{
        n->next = next;
        n->prev = prev;
        prev->next = n;
        next->prev = n;
}

static inline void list_push(struct list *h, struct list *n) /* at the tail */
{
        list_insert_(n, h->prev, h);
}

static inline void list_push_front(struct list *h, struct list *n)
{
        list_insert_(n, h, h->next);
}

static inline void list_remove(struct list *n)
{
        n->prev->next = n->next;
        n->next->prev = n->prev;
        n->next = n->prev = NULL;
}

static inline struct list *list_pop(struct list *h) /* the first, or NULL */
{
        struct list *n = h->next;
        if (n == h)
                return NULL;
        list_remove(n);
        return n;
}

/* LIST_EACH(n, head) visits nodes; the body may unlink n. */
#define LIST_EACH(n, h)                                                                            \
        for (struct list *n = (h)->next, *n##_next = n->next; n != (h);                            \
             n = n##_next, n##_next = n->next)

#endif
