/*
 * Per-loop state of the codecs.
 */
#include "http/codecs.h"

#include "http/downstream.h"

#include <stdlib.h>
#include <string.h>

#define KEEP 256 /* recycled connection objects */

struct codecs *codecs(struct loop *l)
{
        struct codecs *h = l->slot[LOOP_SLOT_HTTP];
        if (LIKELY(h != NULL))
                return h;
        h = calloc(1, sizeof(*h));
        CHECK(h != NULL);
        slab_init(&h->servers, h1_conn_size, KEEP);
        slab_init(&h->clients, h1_client_size, KEEP);
        slab_init(&h->streams, h2_stream_size, KEEP);
        h2_memory_init(&h->h2_memory);
        list_init(&h->connections);
        l->slot[LOOP_SLOT_HTTP] = h;
        return h;
}

void codecs_end(struct loop *l)
{
        struct codecs *h = l->slot[LOOP_SLOT_HTTP];
        if (!h)
                return;
        CHECK(h->servers.live == 0 && h->clients.live == 0 && h->streams.live == 0);
        slab_end(&h->servers);
        slab_end(&h->clients);
        slab_end(&h->streams);
        h2_memory_end(&h->h2_memory);
        while (h->listeners) {
                struct codecs_listener *next = h->listeners->next;
                free(h->listeners->name);
                free(h->listeners);
                h->listeners = next;
        }
        free(h);
        l->slot[LOOP_SLOT_HTTP] = NULL;
}

/* A loop without metrics (tests) counts into the void. */
static metric_cell *series(struct loop *l, unsigned family, const struct buf *labels)
{
        static _Thread_local metric_cell nowhere;
        return l->metrics ? metric_series(l->metrics, family, buf_front(labels)) : &nowhere;
}

struct codecs_listener *codecs_listener(struct loop *l, const char *name)
{
        struct codecs *h = codecs(l);
        for (struct codecs_listener *i = h->listeners; i; i = i->next)
                if (strcmp(i->name, name) == 0)
                        return i;
        struct codecs_listener *new = calloc(1, sizeof(*new));
        struct buf labels = BUF_INIT;
        CHECK(new != NULL);
        new->name = str_dupz(str_z(name));
        metric_label(&labels, "listener", str_z(name));
        new->total = series(l, METRIC_CONNECTIONS, &labels);
        new->open_cell = series(l, METRIC_CONNECTIONS_OPEN, &labels);
        buf_clear(&labels);
        new->next = h->listeners;
        h->listeners = new;
        return new;
}
