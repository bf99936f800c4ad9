/*
 * The configuration before the one in force, kept as long as the two differ in one module's file
 * alone: then, when that version of the module is quarantined, the one before it can serve again.
 *
 * The difficulty is to be sure that nothing else goes back with it, a certificate, a route, another
 * module: all that the two were made from is compared, byte for byte.
 */
#include "daemon/master.h"

#include "base/crypto.h"
#include "base/log.h"
#include "daemon/bundle.h"

#include <unistd.h>

static void drop(struct fallback *f)
{
        if (!f->plan)
                return;
        plan_free(f->plan);
        close(f->plan_fd);
        close(f->bundle_fd);
        f->plan = NULL;
}

/* The module whose file differs, if it is the only one; -1. */
static int32_t differing_module(const struct plan *a, const struct plan *b)
{
        int32_t found = -1;

        if (a->head->n_modules != b->head->n_modules)
                return -1;
        for (uint32_t i = 0; i < a->head->n_modules; i++) {
                if (strcmp(a->modules[i].path, b->modules[i].path) != 0 ||
                    strcmp(a->modules[i].name, b->modules[i].name) != 0)
                        return -1;
                if (memcmp(a->modules[i].sha, b->modules[i].sha, sizeof(a->modules[i].sha)) == 0)
                        continue;
                if (found >= 0)
                        return -1;
                found = (int32_t)i;
        }
        return found;
}

static bool nothing_else_differs(int a_fd, int b_fd, const char *path)
{
        struct bundle *a = bundle_map(a_fd), *b = bundle_map(b_fd);
        bool same = a && b && bundle_same_but(a, b, str_z(path));

        bundle_free(a);
        bundle_free(b);
        return same;
}

/* Could that one come back in place of what the reload brings? */
static bool fits(struct fallback *f, const struct reload *r)
{
        int32_t i = f->plan ? differing_module(f->plan, r->plan) : -1;

        if (i < 0 || !nothing_else_differs(f->bundle_fd, r->bundle_fd, f->plan->modules[i].path))
                return false;
        f->module = (uint32_t)i;
        return true;
}

/* The nearest that fits: a reload that changes nothing does not make the one before it unfit.  What
 * has just been put back has none: the one it replaces is the bad one. */
void fallback_keep(struct master *m)
{
        const struct reload *r = &m->reload;
        struct fallback last = {m->plan, m->plan_fd, m->bundle_fd, 0};

        if (!r->put_back && fits(&last, r)) {
                drop(&m->fallback);
                m->fallback = last;
                return;
        }
        drop(&last);
        if (r->put_back || !fits(&m->fallback, r))
                drop(&m->fallback);
}

bool fallback_try(struct master *m, const uint8_t sha[32])
{
        struct fallback *f = &m->fallback, back = *f;
        const struct plan_module *module;
        char hex[17] = "";

        if (!f->plan || m->reload.state != RELOAD_IDLE || m->leave ||
            memcmp(m->plan->modules[f->module].sha, sha, 32) != 0)
                return false;
        module = &f->plan->modules[f->module];
        crypto_hex(hex, module->sha, sizeof(hex) / 2);
        log_error("weir",
                  "module %s: the version before it (%s) comes back, for nothing else is different",
                  module->name, hex);
        f->plan = NULL;
        reload_put_back(m, back.plan, back.plan_fd, back.bundle_fd);
        return true;
}
