/*
 * The Priority field (RFC 9218 4): how urgent a response is, and whether parts of it are of use.
 */
#ifndef HTTP_H2_PRIORITY_H
#define HTTP_H2_PRIORITY_H

#include "base/str.h"

struct h2_priority {
        uint8_t urgency; /* 0: first, 7: last */
        bool incremental;
};
#define H2_PRIORITY_DEFAULT ((struct h2_priority){.urgency = 3})

/* Lays what a field says over *p; what it does not say, or says wrongly, stays.  Pure. */
void h2_priority_read(struct h2_priority *p, str field);

#endif
