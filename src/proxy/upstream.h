/*
 * Upstreams at run time.  Process-wide, never pointing into a generation: servers with their
 * health, in-flight counts, pools per loop, names re-resolved by TTL.
 *
 * A `struct upstream` is made from an upstream_conf and shared by generations whose block is equal
 * (content hash); its servers are shared by address and by everything that shapes a connection, so
 * that a reload keeps health, counts and idle connections.
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "conf/model.h"
#include "net/dns.h"
#include "net/loop.h"
#include "net/tls.h"

struct json_writer;
struct upstreams; /* of this process */
struct upstream;

/* In-flight counts of servers, one cell per worker, shared by all workers (master, before fork). */
struct inflight_region;
struct inflight_region *inflight_region_new(unsigned workers);
void inflight_clear(struct inflight_region *r, unsigned worker); /* a replacement starts at zero */

/* control: the loop for probes and names.  loops: those that carry traffic.  worker: index of this
 * one. */
struct upstreams *upstreams_new(struct loop *control, struct loop **loops, unsigned n_loops,
                                struct inflight_region *inflight, unsigned worker);
/* Control thread, when every traffic loop has been freed (what was posted to them is done then) and
 * before control is. */
void upstreams_free(struct upstreams *us);
/* A reload may change it; n 0: the system's. */
void upstreams_resolvers(struct upstreams *us, const str *servers, size_t n);

/* Control thread.  true: what is held from now on is for a canary.  What servers and the process
 * itself are configured with (checks, ejection, kept connections, resolvers) stays as it is until
 * upstream_promote, but for servers that nobody else has. */
void upstreams_trial(struct upstreams *us, bool on);
/* Control thread.  Copies what it needs of conf; tls NULL: plain.  A name that does not resolve is
 * a server that is down. */
struct upstream *upstream_hold(struct upstreams *us, const struct upstream_conf *conf,
                               struct tls_client *tls);
void upstream_drop(struct upstream *u);
void upstream_promote(struct upstream *u); /* as if it were held anew: its settings count */
/* On each loop before its first request (generation's prepare) and after its last. */
void upstream_loop_begin(struct upstream *u, struct loop *l);
void upstream_loop_end(struct upstream *u, struct loop *l);

/* Seconds after which it may be worth to come again: for Retry-After when no server is up.  At
 * least 1.  On the loop. */
unsigned upstream_retry_after(struct upstream *u, const struct loop *l);

/* `weir server UPSTREAM ADDR drain|down|up`: process-wide, kept across reloads.  false: no such
 * server. */
bool upstreams_admin(struct upstreams *us, str upstream, str server, str state);
/* Gauges are kept up to half a second; before metrics are read this brings them up to date. */
void upstreams_gauges(struct upstreams *us);
void upstreams_status(struct upstreams *us, struct metric_region *metrics, struct json_writer *w);
/* Drain of the process: closes idle connections of this loop. */
void upstreams_close_idle(struct upstreams *us, struct loop *l);

#endif
