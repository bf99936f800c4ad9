/*
 * What operators see of upstreams and may do to them: /status, and `weir server UPSTREAM ADDR
 * drain|down|up`. Control thread only.
 *
 * The one difficulty: a command outlives the server it was given for, so it is remembered by name
 * and found again by whatever server comes under that name.
 */
#include "base/json.h"
#include "proxy/health.h"
#include "proxy/resolve.h"
#include "proxy/upstreams.h"

bool upstreams_admin(struct upstreams *us, str upstream, str server, str state)
{
        uint32_t flags;
        bool found = false;

        if (str_eq(state, STR("up")))
                flags = 0;
        else if (str_eq(state, STR("down")))
                flags = SERVER_ADMIN_DOWN;
        else if (str_eq(state, STR("drain")))
                flags = SERVER_ADMIN_DRAIN;
        else
                return false;
        LIST_EACH (l, &us->servers) {
                struct server *s = CONTAINER_OF(l, struct server, link);
                if (!str_eq(s->upstream, upstream) ||
                    !(str_eq(s->label, server) || str_eq(s->line, server)))
                        continue;
                server_admin(s, flags, us->control->now);
                found = true;
        }
        if (found)
                upstreams_remember_admin(us, upstream, server, flags);
        return found;
}

static void status_server(struct json_writer *w, const struct upstreams *us, const struct member *m)
{
        const struct server *s = m->server;
        const char *words = health_words(s);
        int64_t now = us->control->now, until = 0;

        json_open(w, '{');
        json_key(w, STR("server"));
        json_str(w, s->label);
        json_key(w, STR("state"));
        json_str(w, str_z(server_state(s, now)));
        if (words) {
                json_key(w, STR("check"));
                json_str(w, str_z(words));
        }
        json_key(w, STR("weight"));
        json_u64(w, m->weight);
        json_key(w, STR("weight_now"));
        json_double(w, server_weight(s, m->weight, now, &until) / (double)SERVER_WEIGHT_ONE);
        json_key(w, STR("backup"));
        json_bool(w, m->backup);
        json_key(w, STR("requests"));
        json_u64(w, inflight_total(&m->inflight));
        if (m->max_connections) {
                json_key(w, STR("max_connections"));
                json_u64(w, m->max_connections);
        }
        json_key(w, STR("idle_connections"));
        json_u64(w, inflight_idle(&s->inflight));
        json_key(w, STR("head_ms"));
        json_double(w, (double)server_head_us(s, now) / 1000);
        json_close(w);
}

static void status_name(struct json_writer *w, const struct upstream *u, size_t line)
{
        const char *error = resolve_error(&u->name_uses[line]);
        size_t n;
        bool answered;

        (void)resolve_addrs(&u->name_uses[line], &n, &answered);
        if (n > 0)
                return;
        json_open(w, '{');
        json_key(w, STR("server"));
        json_str(w, u->conf.servers[line].text);
        json_key(w, STR("state"));
        json_str(w, answered ? STR("down") : STR("resolving"));
        if (error) {
                json_key(w, STR("error"));
                json_str(w, str_z(error));
        }
        json_close(w);
}

static void status_upstream(struct json_writer *w, const struct upstream *u,
                            struct metric_region *metrics)
{
        static const char *const words[] = {"round_robin", "least_conn", "random",
                                            "p2c",         "least_time", "hash"};
        struct buf labels = BUF_INIT;

        metric_label(&labels, "upstream", u->name);
        json_open(w, '{');
        json_key(w, STR("upstream"));
        json_str(w, u->name);
        json_key(w, STR("balance"));
        json_str(w, str_z(words[u->balance]));
        json_key(w, STR("queued"));
        json_u64(w, metric_sum(metrics, METRIC_QUEUED, buf_pullup(&labels, labels.n)));
        buf_clear(&labels);
        json_key(w, STR("servers"));
        json_open(w, '[');
        for (uint32_t i = 0; i < u->set->n; i++)
                status_server(w, u->us, &u->set->m[i]);
        for (size_t i = 0; i < u->conf.n_servers; i++)
                if (u->name_uses[i].name)
                        status_name(w, u, i);
        json_close(w);
        json_close(w);
}

void upstreams_status(struct upstreams *us, struct metric_region *metrics, struct json_writer *w)
{
        upstreams_gauges(us); /* our part of what is summed below */
        json_open(w, '[');
        LIST_EACH (l, &us->upstreams) {
                status_upstream(w, CONTAINER_OF(l, struct upstream, link), metrics);
        }
        json_close(w);
}
