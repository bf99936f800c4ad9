/*
 * Whose a request is: the generation in force, or one that a canary tries (trial.h).
 */
#ifndef PROXY_SIDE_H
#define PROXY_SIDE_H

#include "proxy/txn.h"

/* t->r is set: the request takes its generation, holds it, and looks at its client as that one
 * does. */
void side_take(struct txn *t);
/* The one on trial is not for this client after all: from here on it is the old one's. */
void side_go_back(struct txn *t);

#endif
