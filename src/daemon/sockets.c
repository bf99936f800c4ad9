/*
 * The listening sockets.
 *
 * The difficulty: SO_REUSEPORT lets anybody of the same user bind an address silently, so a new
 * address is first proven free by a plain bind (listen_socket does it), except where weir itself
 * already holds what overlaps.
 */
#include "daemon/sockets.h"

#include "base/check.h"
#include "net/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void sockets_init(struct sockets *s)
{
        *s = (struct sockets){.places = 1};
        list_init(&s->all);
}

void sockets_give(struct sockets *s, int fd, bool shared)
{
        struct socket_given g = {.fd = fd, .shared = shared};

        g.addr.len = sizeof(g.addr.un);
        if (getsockname(fd, &g.addr.sa, &g.addr.len) != 0 || g.addr.len > sizeof(g.addr.un)) {
                close(fd);
                return;
        }
        s->given = realloc(s->given, (s->n_given + 1) * sizeof(*s->given));
        CHECK(s->given);
        s->given[s->n_given++] = g;
}

void sockets_drop_given(struct sockets *s)
{
        for (unsigned i = 0; i < s->n_given; i++) {
                if (s->given[i].fd >= 0)
                        close(s->given[i].fd);
        }
        free(s->given);
        s->given = NULL;
        s->n_given = 0;
}

static void set_free(struct socket_set *set, bool remove_path)
{
        struct stat st;

        if (remove_path && set->inode != 0 && stat(set->addr.un.sun_path, &st) == 0 &&
            st.st_ino == set->inode)
                unlink(set->addr.un.sun_path);
        for (unsigned i = 0; i < set->n; i++)
                close(set->fds[i]);
        if (list_linked(&set->link))
                list_remove(&set->link);
        free(set->fds);
        free(set);
}

static void set_add(struct socket_set *set, int fd)
{
        set->fds = realloc(set->fds, (set->n + 1) * sizeof(*set->fds));
        CHECK(set->fds);
        set->fds[set->n++] = fd;
}

static struct socket_set *find(struct sockets *s, enum wire_listen_kind kind, const struct addr *a,
                               bool v6only)
{
        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                if (set->kind == kind && set->v6only == v6only && addr_equal(&set->addr, a))
                        return set;
        }
        return NULL;
}

/* Does weir itself hold a socket that a plain bind to a would collide with? */
static bool overlaps(struct sockets *s, const struct addr *a)
{
        if (a->sa.sa_family == AF_UNIX)
                return false;
        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                if (set->addr.sa.sa_family != AF_UNIX && addr_port(&set->addr) == addr_port(a))
                        return true;
        }
        for (unsigned i = 0; i < s->n_given; i++) {
                if (s->given[i].addr.sa.sa_family != AF_UNIX &&
                    addr_port(&s->given[i].addr) == addr_port(a))
                        return true;
        }
        return false;
}

static void take_given(struct sockets *s, struct socket_set *set)
{
        bool shared = false;

        for (unsigned i = 0; i < s->n_given; i++) {
                if (s->given[i].fd < 0 || !addr_equal(&s->given[i].addr, &set->addr))
                        continue;
                shared = shared || s->given[i].shared;
                set_add(set, s->given[i].fd);
                s->given[i].fd = -1;
        }
        if (shared || set->n == 0 || set->addr.sa.sa_family != AF_UNIX)
                return;
        struct stat st; /* from the weir before this one, which leaves its path to us */
        if (stat(set->addr.un.sun_path, &st) == 0)
                set->inode = st.st_ino;
}

static bool bind_all(struct sockets *s, struct socket_set *set, int backlog, char *err, size_t cap)
{
        bool is_unix = set->addr.sa.sa_family == AF_UNIX;
        bool one = is_unix || set->kind == WIRE_ADMIN, ours = overlaps(s, &set->addr);
        unsigned wanted = one ? 1 : s->places;
        struct stat st;

        while (set->n < wanted) {
                int fd = listen_socket(&set->addr, backlog, !one, set->v6only, ours || set->n > 0,
                                       err, cap);
                if (fd < 0)
                        return false;
                set_add(set, fd);
        }
        if (is_unix && stat(set->addr.un.sun_path, &st) == 0)
                set->inode = st.st_ino;
        return true;
}

static bool want(struct sockets *s, enum wire_listen_kind kind, const struct plan_listen *l,
                 char *err, size_t cap)
{
        struct socket_set *set = find(s, kind, &l->addr, l->v6only);

        if (set) {
                set->leaving = false;
                return true;
        }
        set = calloc(1, sizeof(*set));
        CHECK(set);
        set->id = ++s->last_id;
        set->kind = kind;
        set->addr = l->addr;
        set->v6only = l->v6only;
        set->fresh = true;
        take_given(s, set);
        if (set->n == 0 && !bind_all(s, set, l->backlog, err, cap)) {
                set_free(set, true);
                return false;
        }
        list_push(&s->all, &set->link);
        return true;
}

bool sockets_prepare(struct sockets *s, const struct plan *p, char *err, size_t cap)
{
        struct plan_listen admin = {.addr = p->head->admin, .backlog = 64, .v6only = false};
        bool ok = true;

        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                set->fresh = false;
                set->leaving = true;
        }
        for (uint32_t i = 0; ok && i < p->head->n_listens; i++)
                ok = want(s, WIRE_TRAFFIC, &p->listens[i], err, cap);
        if (ok && p->head->has_admin)
                ok = want(s, WIRE_ADMIN, &admin, err, cap);
        if (!ok)
                sockets_abort(s);
        return ok;
}

void sockets_commit(struct sockets *s)
{
        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                set->fresh = false;
                if (set->leaving)
                        set_free(set, true);
        }
}

void sockets_abort(struct sockets *s)
{
        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                set->leaving = false;
                if (set->fresh)
                        set_free(set, true);
        }
}

void sockets_close_traffic(struct sockets *s)
{
        LIST_EACH (n, &s->all) {
                struct socket_set *set = CONTAINER_OF(n, struct socket_set, link);
                if (set->kind == WIRE_TRAFFIC)
                        set_free(set, true);
        }
}

void sockets_end(struct sockets *s, bool remove_paths)
{
        LIST_EACH (n, &s->all)
                set_free(CONTAINER_OF(n, struct socket_set, link), remove_paths);
        sockets_drop_given(s);
}

static struct wire_listen describe(const struct socket_set *set)
{
        struct wire_listen l;

        memset(&l, 0, sizeof(l));
        l.id = set->id;
        l.kind = set->kind;
        l.total = set->n;
        l.addr = set->addr;
        return l;
}

bool sockets_send(const struct socket_set *set, int channel)
{
        struct wire_listen l = describe(set);

        for (unsigned i = 0; i < set->n; i += WIRE_FDS) {
                if (!wire_send_fds(channel, WIRE_LISTEN, 0, &l, sizeof(l), set->fds + i,
                                   MIN(set->n - i, (unsigned)WIRE_FDS)))
                        return false;
        }
        return true;
}

bool sockets_send_id(const struct socket_set *set, int channel)
{
        struct wire_listen l = describe(set);

        return wire_send(channel, WIRE_UNLISTEN, 0, &l, sizeof(l));
}
