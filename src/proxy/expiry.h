/*
 * When the certificates of a generation expire: warned of when it is built, told in metrics and
 * status as moments, so that nobody has to look again.
 */
#ifndef PROXY_EXPIRY_H
#define PROXY_EXPIRY_H

#include "base/json.h"
#include "base/metric.h"
#include "conf/model.h"

struct report;

/* In the configuration's arena.  at: by number of the certificate, seconds of the epoch; 0: not
 * known.  The control thread's once built. */
struct expiry {
        int64_t *at;
        bool shown;
};

/* Reads them; what has expired, or will within 14 days, is a warning in rep. */
void expiry_read(struct expiry *e, const struct conf *c, struct report *rep);
/* States them in slot, once; or no longer (the generation has been replaced). */
void expiry_show(struct expiry *e, const struct conf *c, struct metric_slot *slot);
void expiry_hide(struct expiry *e, const struct conf *c, struct metric_slot *slot);
/* A list of objects. */
void expiry_status(const struct expiry *e, const struct conf *c, int64_t now_s,
                   struct json_writer *j);

#endif
