/*
 * The OCSP responses of a generation's certificates: what was read from files is judged here, what
 * is fetched is found here; and how long each still counts is shown.
 */
#ifndef PROXY_STAPLE_H
#define PROXY_STAPLE_H

#include "base/metric.h"
#include "conf/model.h"
#include "net/tls.h"

struct report;

/* Of one certificate that has, or should have, a response.  In the generation's arena; the control
 * thread's. */
struct staple_show {
        str file; /* the certificate's */
        struct tls_staple_ref fetched;
        int64_t next_update; /* of one that was read from a file */
        metric_cell *cell;
};

struct staples {
        struct staple_show *v;
        size_t n, cap;
        int64_t shown; /* the second for which it was said */
};

/* Fills in what pair needs to know of cert's response; mistakes go to rep.  false: there is one. */
MUST_CHECK bool staple_prepare(struct staples *s, const struct listen_cert *cert,
                               struct tls_pair *pair, struct arena *a, struct report *rep);
/* States in slot how long each still counts, once for each second; or no longer (the generation
 * has been replaced). */
void staple_show(struct staples *s, struct metric_slot *slot, int64_t now_s);
void staple_hide(struct staples *s, struct metric_slot *slot);

#endif
