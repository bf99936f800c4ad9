/*
 * What is known of one request while it passes through the proxy: facts that variables, functions,
 * balancing and the access log read.  Data only; flow fills it, api lets functions change a part.
 *
 * Invariant: lives in the request's arena; strings in it live there or in the generation that the
 * request holds.
 */
#ifndef PROXY_TXN_H
#define PROXY_TXN_H

#include "conf/model.h"
#include "http/path.h"
#include "http/request.h"
#include "proxy/route.h"

struct gen;
struct gen_loop;
struct tls_facts;
struct trial_tally;
struct filter;

struct txn_var {
        struct txn_var *next;
        str name, value;
}; /* set by functions: "jwt_user", or "arg_x" overrides */

struct txn {
        struct request *r;
        struct gen *gen;
        struct gen_loop *gl; /* this loop's part of gen; NULL before it is known */
        const struct listen_conf *listen;
        struct path path; /* of the client's target */
        str host;
        uint16_t port;      /* lower case, without port; 0: none given */
        str client_ip;      /* text; after trusted_proxies */
        struct addr client; /* the same as an address; port 0 when reported */
        bool trusted;       /* the peer is one of trusted_proxies */
        str scheme; /* "http" "https" (of the client's connection, or reported by a trusted one) */
        str request_id;              /* made here, or what a trusted peer sent */
        bool early;                  /* it came as TLS early data */
        const struct tls_facts *tls; /* of the client's connection; NULL: plain */
        str proxy_tlvs;              /* of the client's PROXY header, as tls */
        const struct settings
                *eff; /* effective now: listener's/top's, then the route's, then the target's */
        struct txn_var *vars;
        struct filter *filter[2]; /* of the request's and the response's body; NULL: no function
                                     asked for it */

        /* What is sent; absent or NULL: as it came.  Functions may set these in on_request. */
        str method, uri, authority;
        str wanted_server; /* as long as it is up */
        const struct upstream_conf *upstream;
        const struct proxy_target *target;
        bool rewriting; /* the route's rewrite is being expanded */

        /* Filled by origin. */
        str server; /* of the last attempt */
        uint32_t attempts;
        int64_t upstream_us; /* until the head of the last response; -1: none */

        int64_t deadline;   /* loop time when the whole exchange has taken too long; 0: none */
        enum reason reason; /* why weir answered itself or cut the response */
        int64_t finished;   /* loop time of the end */

        /* While a canary lasts. */
        bool trial;                /* the generation is on trial */
        uint8_t tally_seen;        /* trial.c: what was counted already */
        uint32_t tally_number;     /* trial.c: of the canary */
        struct trial_tally *tally; /* where it is counted; NULL: nowhere */
        uint32_t failures;         /* verdicts of its functions that were failures */

        /* route NULL: none.  Last, for its captures are many bytes that few requests touch. */
        struct route_match match;
};

#endif
