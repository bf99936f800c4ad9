/*
 * Values of variables for one request (conf/variable.tbl), and conditions of routes.
 */
#ifndef PROXY_VARS_H
#define PROXY_VARS_H

#include "proxy/txn.h"

/* Absent when there is no such value. */
str vars_get(struct txn *t, const struct template_op *op);
/* By name, as functions ask ("client_ip", "arg_x", "1"). Absent: unknown or no value. */
str vars_get_name(struct txn *t, str name);
template_lookup vars_lookup; /* ctx is a struct txn */
static inline str vars_expand(struct txn *t, const struct template *tpl)
{
        return template_expand(tpl, t->r->arena, vars_lookup, t);
}
/* Target as it will be sent: encoded, with the query. */
str vars_uri(struct txn *t);
/* Value of query parameter name in query, decoded ('+' is a space); absent when there is none. */
str vars_query_arg(struct arena *a, str query, str name);
/* Encodes for a query: everything but unreserved characters. */
str vars_query_encode(struct arena *a, str value);
/* Percent-encodes what may not stand in a URI reference: controls, space, non-ASCII. */
str vars_clean_uri(struct arena *a, str uri);
bool vars_when(void *txn, const struct route_conf *route, enum reason *refused); /* a route_when */

#endif
