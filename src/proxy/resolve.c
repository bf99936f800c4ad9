/*
 * Names of servers (resolve.h).
 *
 * The one difficulty: answers may come while a query is being made, and names may lose their last
 * user while a query is under way. So a name with a query outstanding is never freed, only left
 * alone until the answer comes.
 */
#include "proxy/resolve.h"

#include "base/check.h"
#include "base/crypto.h"

#include <stdlib.h>

#define TTL_MIN   SEC
#define TTL_MAX   (3600 * SEC)
#define RETRY_MIN SEC
#define RETRY_MAX (30 * SEC)

#define NAME_MAGIC UINT32_C(0x4e414d45)
struct name {
        uint32_t magic;
        struct upstreams *us;
        str host;
        struct list users; /* of name_use */
        struct deadline again;
        bool asking, ask_again, answered;
        const char *error; /* of the last answer: static text of the resolver */
        int64_t retry;
        size_t n;
        struct addr addrs[DNS_ADDRS_MAX]; /* sorted */
};

static void ask(struct name *name);

static void ask_due(struct deadline *d)
{
        ask(CONTAINER_OF(d, struct name, again));
}

static void name_free(struct name *name)
{
        deadline_clear(&name->again);
        map_del(name->us->names, name->host);
        free((char *)name->host.p);
        name->magic = DEAD_MAGIC;
        free(name);
}

static int64_t floor_of(const struct name *name)
{
        int64_t floor = 0;

        LIST_EACH (l, &name->users) {
                const struct name_use *nu = CONTAINER_OF(l, struct name_use, link);
                if (nu->floor > 0 && (floor == 0 || nu->floor < floor))
                        floor = nu->floor;
        }
        return floor;
}

static int addr_order(const void *a, const void *b)
{
        char ta[ADDR_TEXT], tb[ADDR_TEXT];
        size_t na = addr_print(a, ta), nb = addr_print(b, tb);

        return str_cmp(str_of(ta, na), str_of(tb, nb));
}

/* Takes the answer over; true: the addresses are others than before. */
static bool take_answer(struct name *name, const struct dns_answer *a)
{
        struct addr sorted[DNS_ADDRS_MAX];
        size_t n = 0;
        bool same;

        memcpy(sorted, a->a, a->n * sizeof(sorted[0]));
        qsort(sorted, a->n, sizeof(sorted[0]), addr_order);
        for (size_t i = 0; i < a->n; i++)
                if (n == 0 || !addr_equal(&sorted[i], &sorted[n - 1]))
                        sorted[n++] = sorted[i];
        same = n == name->n;
        for (size_t i = 0; same && i < n; i++)
                same = addr_equal(&sorted[i], &name->addrs[i]);
        memcpy(name->addrs, sorted, n * sizeof(sorted[0]));
        name->n = n;
        return !same;
}

static void tell_users(struct name *name)
{
        LIST_EACH (l, &name->users) {
                upstream_changed(CONTAINER_OF(l, struct name_use, link)->u);
        }
}

static void log_failure(struct name *name, const char *error)
{
        LIST_EACH (l, &name->users) {
                struct upstream *u = CONTAINER_OF(l, struct name_use, link)->u;
                if (name->n)
                        log_warn(u->subject,
                                 "server %.*s does not resolve: %s; its last addresses are kept",
                                 STR_ARG(name->host), error);
                else
                        log_warn(u->subject, "server %.*s is down: it does not resolve: %s",
                                 STR_ARG(name->host), error);
        }
}

static void on_answer(const struct dns_answer *a, void *arg)
{
        struct name *name = CAST(struct name, NAME_MAGIC, arg);
        bool first = !name->answered, good = a->ok && a->n > 0, other = false;
        const char *error = good ? NULL : a->error ? a->error : "no addresses";
        int64_t wait;

        name->asking = false;
        if (name->us->stopping || name->us->new_resolvers)
                return;
        if (list_empty(&name->users)) {
                name_free(name);
                return;
        }
        name->answered = true;
        if (error && (first || !name->error))
                log_failure(name, error);
        name->error = error;
        if (good) {
                other = take_answer(name, a);
                name->retry = RETRY_MIN;
                wait = MIN(MAX((int64_t)a->ttl_s * SEC, TTL_MIN), TTL_MAX);
                wait = MAX(wait, floor_of(name));
        } else {
                wait = name->retry;
                name->retry = MIN(name->retry * 2, RETRY_MAX);
        }
        if (name->ask_again)
                wait = 1;
        name->ask_again = false;
        deadline_set(name->us->control, &name->again, wait, ask_due);
        if (other || first)
                tell_users(name);
}

static void ask(struct name *name)
{
        if (name->asking) {
                name->ask_again = true;
                return;
        }
        deadline_clear(&name->again);
        name->asking = true;
        if (!name->us->dns)
                name->us->dns = dns_new(name->us->control, NULL, 0);
        dns_query(name->us->dns, name->host, on_answer, name); /* may answer, and free name */
}

void resolve_begin(struct name_use *nu, struct upstream *u, str host, int64_t floor)
{
        struct upstreams *us = u->us;
        struct name *name = map_get(us->names, host);

        *nu = (struct name_use){.u = u, .floor = floor};
        if (name) {
                nu->name = name;
                list_push(&name->users, &nu->link);
                return;
        }
        name = calloc(1, sizeof(*name));
        CHECK(name != NULL);
        name->magic = NAME_MAGIC;
        name->us = us;
        name->host = str_of(str_dupz(host), host.n);
        name->retry = RETRY_MIN;
        list_init(&name->users);
        map_put(us->names, name->host, name);
        nu->name = name;
        list_push(&name->users, &nu->link);
        ask(name);
}

void resolve_end(struct name_use *nu)
{
        struct name *name = nu->name;

        list_remove(&nu->link);
        nu->name = NULL;
        if (list_empty(&name->users) && !name->asking)
                name_free(name);
}

const struct addr *resolve_addrs(const struct name_use *nu, size_t *n, bool *answered)
{
        *n = nu->name->n;
        *answered = nu->name->answered;
        return nu->name->addrs;
}

const char *resolve_error(const struct name_use *nu)
{
        return nu->name->error;
}

void resolve_servers(struct upstreams *us, const str *servers, size_t n)
{
        size_t cursor = 0;
        str host;
        void *name;

        us->new_resolvers = true;
        if (us->dns)
                dns_free(us->dns); /* its queries end with an error that means nothing, and are made
                                      again below */
        us->new_resolvers = false;
        us->dns = dns_new(us->control, servers, n);
        while (map_at(us->names, &cursor, &host, &name)) {
                struct name *nm = name;
                deadline_set(us->control, &nm->again, 1, ask_due);
        }
}

void resolve_free(struct upstreams *us)
{
        size_t cursor;
        str host;
        void *name;

        CHECK(us->stopping);
        if (us->dns)
                dns_free(us->dns);
        us->dns = NULL;
        while (cursor = 0, map_at(us->names, &cursor, &host, &name))
                name_free(name);
}
