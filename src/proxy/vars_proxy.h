/*
 * Values of the variables $proxy_protocol_*.
 */
#ifndef PROXY_VARS_PROXY_H
#define PROXY_VARS_PROXY_H

#include "proxy/txn.h"

/* Absent: the PROXY header said no such thing.  op->var: one of those, or VAR_PROXY_TLV. */
str vars_proxy(struct txn *t, const struct template_op *op);

#endif
