/*
 * A Redis server given by name: its addresses, asked for again when they expire or when it cannot
 * be reached.
 *
 * Each loop asks for itself: an answer is needed once in a while only, and nothing has to pass
 * between threads.
 */
#include "net/redis_type.h"

#include "base/log.h"

#include <stdio.h>

#define RETRY_MIN (1 * SEC)
#define RETRY_MAX (30 * SEC)

static void ask_again(struct deadline *d);

/* The addresses with the server's port; the one in use stays if the name still has it. */
static void take(struct redis *r, const struct dns_answer *a)
{
        bool still = false;

        r->n_addrs = (unsigned)MIN(a->n, COUNT(r->addrs));
        for (unsigned i = 0; i < r->n_addrs; i++) {
                r->addrs[i] = a->a[i];
                addr_set_port(&r->addrs[i], r->port);
                still = still || addr_equal(&r->addrs[i], &r->addr);
        }
        r->addr_i = 0;
        if (!still)
                redis_set_addr(r, &r->addrs[0]);
}

static void on_answer(const struct dns_answer *a, void *arg)
{
        struct redis *r = arg;

        r->asking = false;
        if (r->name_ending)
                return;
        if (a->ok) {
                r->name_retry = 0;
                take(r, a);
                deadline_set(r->loop, &r->name_timer, a->ttl_s * SEC, ask_again);
                return;
        }
        if (r->name_retry == 0)
                log_warn(r->subject, "%s does not resolve: %s%s", r->host, a->error,
                         r->addr.len ? "; its last address is kept" : "");
        if (r->addr.len == 0)
                snprintf(r->why, sizeof(r->why), "%s does not resolve: %s", r->host, a->error);
        r->name_retry = r->name_retry ? MIN(r->name_retry * 2, RETRY_MAX) : RETRY_MIN;
        deadline_set(r->loop, &r->name_timer, r->name_retry, ask_again);
}

static void ask(struct redis *r)
{
        if (r->asking)
                return;
        r->asking = true;
        r->asked = r->loop->now;
        dns_query(r->dns, str_z(r->host), on_answer, r);
}

static void ask_again(struct deadline *d)
{
        ask(CONTAINER_OF(d, struct redis, name_timer));
}

void redis_name_begin(struct redis *r, const str *resolvers, size_t n)
{
        r->dns = dns_new(r->loop, resolvers, n);
        ask(r);
}

void redis_name_failed(struct redis *r)
{
        if (r->dns == NULL)
                return;
        if (r->n_addrs > 1)
                r->addr = r->addrs[++r->addr_i % r->n_addrs];
        if (r->addr.len != 0 && r->loop->now - r->asked >= RETRY_MIN)
                ask(r);
}

void redis_name_end(struct redis *r)
{
        if (r->dns == NULL)
                return;
        r->name_ending = true;
        deadline_clear(&r->name_timer);
        dns_free(r->dns);
        r->dns = NULL;
}
