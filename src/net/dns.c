/*
 * Names to addresses: c-ares on one loop.
 *
 * The difficulty is c-ares' calls back out of its own functions, from where it must not be touched.
 * So answers are put aside and handed over at the end of the turn, when a caller may do what it
 * likes, freeing the resolver included.
 */
#include "net/dns.h"

#include "base/log.h"

#include <ares.h>
#include <event2/event_struct.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>

#define TTL_MIN 5
#define TTL_MAX 3600
#define TRY_MS  2000
#define UDP_MAX 1232 /* passes unfragmented everywhere */
#define TRIES   3
#define RESOLV  "/etc/resolv.conf"

/* A socket of c-ares that waits for something.  Invariant: linked in dns->watches, its event is
 * added. */
struct watch {
        struct list link;
        struct event ev;
        struct dns *dns;
        int fd;
};

/* A question; once answered, linked in dns->answered. */
struct query {
        struct list link;
        struct dns *dns;
        void (*fn)(const struct dns_answer *, void *);
        void *arg;
        struct dns_answer answer;
};

struct dns {
        struct loop *loop;
        ares_channel channel;
        struct list watches, answered;
        struct deadline timer;
        struct loop_task task;
        size_t asking;          /* queries within c-ares */
        char *servers;          /* NULL: the system's */
        struct timespec resolv; /* when the system's were read */
        unsigned delivering; /* answers are being handed over: dns_free leaves the memory to that */
        bool dead;
};

static void on_watch(evutil_socket_t fd, short what, void *arg);
static void on_timer(struct deadline *t);

/* The next time c-ares wants to look at its time-outs. */
static void set_timer(struct dns *d)
{
        struct timeval tv, *left = ares_timeout(d->channel, NULL, &tv);

        if (left == NULL)
                deadline_clear(&d->timer);
        else
                deadline_set(d->loop, &d->timer,
                             MAX(left->tv_sec * SEC + left->tv_usec, INT64_C(1)), on_timer);
}

static void on_timer(struct deadline *t)
{
        struct dns *d = CONTAINER_OF(t, struct dns, timer);

        ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        set_timer(d);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
        struct dns *d = ((struct watch *)arg)->dns; /* the watch may go meanwhile */

        loop_woke(d->loop);
        ares_process_fd(d->channel, what & EV_READ ? fd : ARES_SOCKET_BAD,
                        what & EV_WRITE ? fd : ARES_SOCKET_BAD);
        set_timer(d);
}

/* c-ares: this socket waits for reading and/or writing from now on, or for nothing any more. */
static void on_state(void *data, ares_socket_t fd, int readable, int writable)
{
        struct dns *d = data;
        struct watch *w = NULL;

        LIST_EACH (n, &d->watches) {
                if (CONTAINER_OF(n, struct watch, link)->fd == fd)
                        w = CONTAINER_OF(n, struct watch, link);
        }
        if (w != NULL)
                event_del(&w->ev);
        if (!readable && !writable) {
                if (w != NULL) {
                        list_remove(&w->link);
                        free(w);
                }
                return;
        }
        if (w == NULL) {
                w = calloc(1, sizeof(*w));
                CHECK(w != NULL);
                w->dns = d;
                w->fd = fd;
                list_push(&d->watches, &w->link);
        }
        event_assign(&w->ev, d->loop->base, fd,
                     (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0)),
                     on_watch, w);
        CHECK(event_add(&w->ev, NULL) == 0);
}

static struct timespec resolv_time(void)
{
        struct stat st;

        return stat(RESOLV, &st) == 0 ? st.st_mtim : (struct timespec){0, 0};
}

static void open_channel(struct dns *d)
{
        struct ares_options o = {
                .flags = ARES_FLAG_EDNS, /* so that a name with many addresses needs no TCP */
                .ednspsz = UDP_MAX,
                .timeout = TRY_MS,
                .tries = TRIES,
                .sock_state_cb = on_state,
                .sock_state_cb_data = d,
        };
        int r = ares_init_options(&d->channel, &o,
                                  ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS |
                                          ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);

        CHECK(r == ARES_SUCCESS);
        d->resolv = resolv_time();
        if (d->servers != NULL) {
                r = ares_set_servers_ports_csv(d->channel, d->servers);
                if (r != ARES_SUCCESS)
                        log_error("resolver", "%s: %s", d->servers, ares_strerror(r));
        }
}

struct dns *dns_new(struct loop *l, const str *servers, size_t n)
{
        struct dns *d = calloc(1, sizeof(*d));

        CHECK(d != NULL);
        CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
        d->loop = l;
        list_init(&d->watches);
        list_init(&d->answered);
        if (n > 0) {
                struct buf b = BUF_INIT;
                for (size_t i = 0; i < n; i++)
                        buf_printf(&b, "%s%.*s", i ? "," : "", STR_ARG(servers[i]));
                d->servers = str_dupz(buf_pullup(&b, b.n));
                buf_clear(&b);
        }
        open_channel(d);
        return d;
}

/* ---- answers ---- */

static void deliver(struct dns *d)
{
        d->delivering++;
        while (!list_empty(&d->answered)) {
                struct query *q = CONTAINER_OF(list_pop(&d->answered), struct query, link);
                q->fn(&q->answer, q->arg);
                free(q);
        }
        if (--d->delivering == 0 && d->dead)
                free(d);
}

static void end_of_turn(struct loop_task *t)
{
        deliver(CONTAINER_OF(t, struct dns, task));
}

static void take_addresses(struct dns_answer *a, const struct ares_addrinfo *info)
{
        const struct ares_addrinfo_node *n;
        uint32_t ttl = TTL_MAX;

        for (n = info->nodes; n != NULL && a->n < DNS_ADDRS_MAX; n = n->ai_next) {
                struct addr *to = &a->a[a->n];
                if ((n->ai_family != AF_INET && n->ai_family != AF_INET6) ||
                    n->ai_addrlen > sizeof(*to) - offsetof(struct addr, sa))
                        continue;
                memset(to, 0, sizeof(*to));
                memcpy(&to->sa, n->ai_addr, n->ai_addrlen);
                to->len = n->ai_addrlen;
                addr_set_port(to, 0);
                ttl = MIN(ttl, (uint32_t)MAX(n->ai_ttl, 0));
                a->n++;
        }
        a->ttl_s = MAX(ttl, TTL_MIN);
        a->ok = a->n > 0;
        if (!a->ok)
                a->error = "the name has no address";
}

static void answered(struct query *q)
{
        struct dns *d = q->dns;

        d->asking--;
        list_push(&d->answered, &q->link);
        loop_defer(d->loop, &d->task, end_of_turn);
}

static void on_answer(void *arg, int status, int timeouts UNUSED, struct ares_addrinfo *info)
{
        struct query *q = arg;

        if (status == ARES_SUCCESS && info != NULL)
                take_addresses(&q->answer, info);
        else
                q->answer.error = ares_strerror(status);
        if (info != NULL)
                ares_freeaddrinfo(info);
        answered(q);
}

/* RFC 6761 6.3: these names are the loopback addresses, and nobody is asked for them. */
static bool is_localhost(str name)
{
        str dot = STR(".");

        if (str_ends(name, dot))
                name.n--;
        return str_ieq(name, STR("localhost")) ||
               (name.n > 10 && str_ieq(str_from(name, name.n - 10), STR(".localhost")));
}

static void answer_localhost(struct query *q)
{
        struct dns_answer *a = &q->answer;

        a->ok = addr_parse_ip(STR("127.0.0.1"), 0, &a->a[0]) &&
                addr_parse_ip(STR("::1"), 0, &a->a[1]);
        a->n = 2;
        a->ttl_s = TTL_MAX;
        answered(q);
}

void dns_query(struct dns *d, str name, void (*fn)(const struct dns_answer *, void *arg), void *arg)
{
        struct ares_addrinfo_hints hints = {
                .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
        struct timespec now = resolv_time();
        struct query *q = calloc(1, sizeof(*q));
        char z[256];

        CHECK(q != NULL);
        q->dns = d;
        q->fn = fn;
        q->arg = arg;
        d->asking++;
        if (!str_copyz(z, sizeof(z), name) || name.n == 0) {
                on_answer(q, ARES_EBADNAME, 0, NULL);
                return;
        }
        /* c-ares reads the system's servers once; a machine that changes network changes them. */
        if (d->servers == NULL && d->asking == 1 &&
            (now.tv_sec != d->resolv.tv_sec || now.tv_nsec != d->resolv.tv_nsec)) {
                ares_destroy(d->channel);
                open_channel(d);
        }
        if (is_localhost(name)) {
                answer_localhost(q);
                return;
        }
        ares_getaddrinfo(d->channel, z, NULL, &hints, on_answer, q);
        set_timer(d);
}

void dns_free(struct dns *d)
{
        if (d == NULL)
                return;
        ares_destroy(d->channel); /* answers all queries, closes all sockets */
        ares_library_cleanup();
        CHECK(d->asking == 0 && list_empty(&d->watches));
        deadline_clear(&d->timer);
        if (list_linked(&d->task.link))
                list_remove(&d->task.link);
        free(d->servers);
        d->dead = true;
        deliver(d); /* the outermost one frees */
}
