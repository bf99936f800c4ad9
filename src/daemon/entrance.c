/*
 * Where connections come in: the listening sockets in a worker, spread over its loops.
 *
 * A place is a loop of a worker; socket j of an address belongs to place j mod the number of
 * places (fewer sockets than places: they share).  A place whose loop is stalled or whose worker is
 * dead is adopted by others.
 *
 * The difficulty: a removed address is accepted empty by the loops that served it, under the
 * configuration that knew it, before the descriptor goes.
 */
#include "daemon/worker.h"

#include "base/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* Of w->entrances (a process has one worker): the control thread changes them for a reload while
 * the watchdog has a loop adopt a stalled one's. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned places(const struct worker *w)
{
        return w->n_workers * w->n_loops;
}

unsigned entrance_place(const struct worker *w, unsigned worker, unsigned loop)
{
        return worker * w->n_loops + loop;
}

/* Connections point to the listener they came by, and outlive it; so there is one for each address
 * that the process ever listened on. */
struct flow_name {
        struct flow_listener listener;
        struct flow_name *next;
};
static struct flow_name *names;

static struct flow_listener *flow_of(const struct addr *a)
{
        struct flow_name *n = names;

        while (n && !addr_equal(&n->listener.addr, a))
                n = n->next;
        if (n)
                return &n->listener;
        n = calloc(1, sizeof(*n));
        CHECK(n);
        n->listener.addr = *a;
        n->next = names;
        names = n;
        return &n->listener;
}

static struct entrance *find(struct worker *w, uint64_t id)
{
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                if (e->id == id)
                        return e;
        }
        return NULL;
}

static void entrance_free(struct entrance *e)
{
        for (unsigned i = 0; i < e->n; i++)
                close(e->fds[i]);
        list_remove(&e->link);
        free(e->fds);
        free(e->accepts);
        free(e);
}

void entrance_add(struct worker *w, const struct wire_listen *l, struct wire *fds)
{
        struct entrance *e;

        if (l->kind == WIRE_ADMIN) {
                int fd = wire_take(fds, 0);
                if (fd >= 0)
                        export_listen(w->export, l->id, fd);
                return;
        }
        pthread_mutex_lock(&lock);
        e = find(w, l->id);
        if (!e) {
                e = calloc(1, sizeof(*e));
                CHECK(e && l->total > 0);
                e->id = l->id;
                e->kind = WIRE_TRAFFIC;
                e->total = l->total;
                e->flow = flow_of(&l->addr);
                e->per_loop = (l->total + places(w) - 1) / places(w);
                e->fds = calloc(l->total, sizeof(*e->fds));
                e->accepts =
                        calloc((size_t)w->n_loops * e->per_loop, sizeof(struct listen_accept *));
                CHECK(e->fds && e->accepts);
                list_push(&w->entrances, &e->link);
        }
        for (unsigned i = 0; i < fds->n_fds && e->n < e->total; i++)
                e->fds[e->n++] = wire_take(fds, i);
        pthread_mutex_unlock(&lock);
}

void entrance_mark_leaving(struct worker *w, uint64_t id)
{
        struct entrance *e;

        pthread_mutex_lock(&lock);
        e = find(w, id);
        if (e)
                e->state = ENTRANCE_LEAVING;
        pthread_mutex_unlock(&lock);
        if (!e)
                export_mark_leaving(w->export, id);
}

/* The socket that place serves as its turn-th; -1: none. */
static int socket_of(const struct worker *w, const struct entrance *e, unsigned place,
                     unsigned turn)
{
        unsigned j = place + turn * places(w);

        if (e->n == 0)
                return -1;
        if (e->n < places(w))
                return turn == 0 ? e->fds[place % e->n] : -1;
        return j < e->n ? e->fds[j] : -1;
}

/* ------------------------------------------------------------------ for others */

/* The sockets of another place, accepted from by this loop, which owns it. */
struct adoption {
        struct list link;
        unsigned place, n;
        struct listen_accept *accepts[];
};

static void adoption_end(struct adoption *a)
{
        for (unsigned i = 0; i < a->n; i++)
                listen_stop(a->accepts[i]);
        list_remove(&a->link);
        free(a);
}

static void adopt(struct worker *w, struct loop *l, unsigned place, bool alone, bool fresh_too)
{
        struct loop **peers = alone ? &w->loops[l->index] : w->loops;
        struct adoption *a;
        unsigned most = 0;

        pthread_mutex_lock(&lock);
        LIST_EACH (n, &w->entrances)
                most += CONTAINER_OF(n, struct entrance, link)->per_loop;
        a = calloc(1, sizeof(*a) + most * sizeof(a->accepts[0]));
        CHECK(a);
        a->place = place;
        list_push(&w->adoptions[l->index], &a->link);
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                bool open = e->state == ENTRANCE_OPEN || (fresh_too && e->state == ENTRANCE_NEW);
                for (unsigned i = 0; open && e->n > 1 && i < e->per_loop; i++) {
                        int fd = socket_of(w, e, place, i);
                        if (fd >= 0)
                                a->accepts[a->n++] = listen_start(
                                        l, fd, peers, alone ? 1 : w->n_loops, flow_accept, e->flow);
                }
        }
        pthread_mutex_unlock(&lock);
}

void entrance_adopt(struct worker *w, struct loop *l, unsigned place, bool alone)
{
        entrance_return(w, l, place);
        adopt(w, l, place, alone, false);
}

void entrance_return(struct worker *w, struct loop *l, unsigned place)
{
        LIST_EACH (n, &w->adoptions[l->index]) {
                struct adoption *a = CONTAINER_OF(n, struct adoption, link);
                if (a->place == place)
                        adoption_end(a);
        }
}

/* ------------------------------------------------------------------ by all loops */

void entrance_stop(struct worker *w, struct loop *l, bool all)
{
        LIST_EACH (n,
                   &w->adoptions[l->index]) /* what still holds is begun again by entrance_start */
                adoption_end(CONTAINER_OF(n, struct adoption, link));
        pthread_mutex_lock(&lock);
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                for (unsigned i = 0; (all || e->state == ENTRANCE_LEAVING) && i < e->per_loop;
                     i++) {
                        struct listen_accept **a = &e->accepts[l->index * e->per_loop + i];
                        if (*a)
                                listen_stop(*a);
                        *a = NULL;
                }
        }
        pthread_mutex_unlock(&lock);
}

void entrance_start(struct worker *w, struct loop *l)
{
        unsigned place = entrance_place(w, w->index, l->index);

        pthread_mutex_lock(&lock);
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                for (unsigned i = 0; e->state == ENTRANCE_NEW && i < e->per_loop; i++) {
                        int fd = socket_of(w, e, place, i);
                        if (fd >= 0)
                                e->accepts[l->index * e->per_loop + i] = listen_start(
                                        l, fd, w->loops, w->n_loops, flow_accept, e->flow);
                }
        }
        pthread_mutex_unlock(&lock);
        for (unsigned i = 0; i < w->n_workers; i++) {
                if (w->absent[i])
                        adopt(w, l, entrance_place(w, i, l->index), false, true);
        }
}

void entrance_settle(struct worker *w, bool all_stopped)
{
        export_settle(w->export);
        pthread_mutex_lock(&lock);
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                if (all_stopped || e->state == ENTRANCE_LEAVING)
                        entrance_free(e);
                else
                        e->state = ENTRANCE_OPEN;
        }
        pthread_mutex_unlock(&lock);
}

void entrance_undo(struct worker *w)
{
        export_undo(w->export);
        pthread_mutex_lock(&lock);
        LIST_EACH (n, &w->entrances) {
                struct entrance *e = CONTAINER_OF(n, struct entrance, link);
                if (e->state == ENTRANCE_NEW)
                        entrance_free(e);
                else
                        e->state = ENTRANCE_OPEN;
        }
        pthread_mutex_unlock(&lock);
}
