/*
 * Plans: from the model to fixed structs, and back with every field checked.
 */
#include "daemon/plan.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/crypto.h"
#include "daemon/memfd.h"
#include "net/tls_staple.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LISTENS_MAX 4096u /* far above what anybody writes; keeps sizes small */

static bool put_text(char *to, size_t cap, str s, const char *setting, struct arena *a, str *error)
{
        if (str_copyz(to, cap, s.p ? s : STR("")))
                return true;
        *error = arena_printf(a, "%s: %zu bytes are more than %zu", setting, s.n, cap - 1);
        return false;
}

static bool fill_head(struct plan_head *h, const struct conf *c, struct arena *a, str *error)
{
        h->magic = PLAN_MAGIC;
        h->size = sizeof(*h);
        h->threads = c->threads;
        h->workers = c->workers;
        h->has_user = c->has_user;
        h->uid = c->uid;
        h->gid = c->gid;
        h->log_level = c->log_level;
        h->store_size = c->store_size;
        h->max_connections = c->max_connections;
        h->shutdown_timeout = c->shutdown_timeout;
        h->drain_delay = c->drain_delay;
        h->has_admin = c->has_admin;
        h->admin = c->admin;
        h->n_listens = (uint32_t)c->n_listens;
        h->n_logs = (uint32_t)c->n_access_logs;
        h->n_modules = (uint32_t)c->n_modules;
        h->ticket_source = c->ticket_file.file.p ? PLAN_TICKETS_FILE
                           : c->ticket_redis.p   ? PLAN_TICKETS_REDIS
                                                 : PLAN_TICKETS_OWN;
        h->ticket_rotate = c->ticket_rotate;
        h->ticket_check = c->ticket_check;
        return put_text(h->ticket_file, sizeof(h->ticket_file), c->ticket_file.file, "ticket_keys",
                        a, error) &&
               put_text(h->error_log, sizeof(h->error_log), c->error_log, "error_log", a, error) &&
               put_text(h->pid_file, sizeof(h->pid_file), c->pid_file, "pid_file", a, error) &&
               put_text(h->control, sizeof(h->control), c->control, "control", a, error);
}

/* The certificates with ocsp=fetch, each once, to ids; false: there are too many. */
static bool list_fetches(const struct conf *c, uint8_t (*ids)[32], uint32_t *n)
{
        for (size_t i = 0; i < c->n_certs; i++) {
                const struct listen_cert *cert = c->certs[i];
                uint8_t id[32];
                uint32_t at = 0;
                if (cert->ocsp != LISTEN_OCSP_FETCH)
                        continue;
                tls_staple_id(cert->cert.text, id);
                while (at < *n && memcmp(ids[at], id, sizeof(id)) != 0)
                        at++;
                if (at == TLS_STAPLES_MAX)
                        return false;
                memcpy(ids[at], id, sizeof(id));
                *n = MAX(*n, at + 1);
        }
        return true;
}

struct watched_list {
        struct map *seen;
        struct buf out;
};

static void watch_file(struct watched_list *w, const struct file_text *f)
{
        uint8_t sha[32];

        if (f->file.p == NULL || map_get(w->seen, f->file) != NULL)
                return;
        map_put(w->seen, f->file, w);
        crypto_sha256(f->text, sha);
        buf_put(&w->out, sha, sizeof(sha));
        buf_puts(&w->out, f->file);
        buf_put(&w->out, "", 1);
}

static void watch_listen(struct watched_list *w, const struct listen_conf *l)
{
        for (size_t i = 0; i < l->n_certs; i++) {
                watch_file(w, &l->certs[i].cert);
                watch_file(w, &l->certs[i].key);
                watch_file(w, &l->certs[i].ocsp_file);
        }
        watch_file(w, &l->client_ca);
        watch_file(w, &l->client_crl);
}

/* Every file that an authority renews, once; too many bytes to tell of are left out. */
static str list_watched(const struct conf *c, struct arena *a)
{
        struct watched_list w = {.seen = map_new()};
        str all;

        for (size_t i = 0; i < c->n_listens; i++)
                watch_listen(&w, &c->listens[i]);
        for (size_t i = 0; i < c->n_hosts; i++)
                if (c->hosts[i].tls)
                        watch_listen(&w, c->hosts[i].tls);
        for (size_t i = 0; i < c->n_upstreams; i++) {
                watch_file(&w, &c->upstreams[i].tls_ca);
                watch_file(&w, &c->upstreams[i].tls_cert);
                watch_file(&w, &c->upstreams[i].tls_key);
        }
        for (size_t i = 0; i < c->n_redises; i++) {
                watch_file(&w, &c->redises[i].tls_ca);
                watch_file(&w, &c->redises[i].tls_cert);
                watch_file(&w, &c->redises[i].tls_key);
        }
        all = w.out.n < INT32_MAX ? arena_dup(a, buf_pullup(&w.out, w.out.n)) : STR("");
        buf_clear(&w.out);
        map_free(w.seen);
        return all;
}

int plan_make(const struct conf *c, const uint8_t (*shas)[32], struct arena *a, str *error)
{
        struct plan_head *h = ARENA_NEW(a, struct plan_head);
        struct plan_listen *listens = ARENA_ARRAY(a, struct plan_listen, c->n_listens + 1);
        struct plan_log *logs = ARENA_ARRAY(a, struct plan_log, c->n_access_logs + 1);
        struct plan_module *modules = ARENA_ARRAY(a, struct plan_module, c->n_modules + 1);
        uint8_t(*fetches)[32] = arena_zalloc(a, TLS_STAPLES_MAX * sizeof(*fetches));
        str parts[6];
        int fd;

        if (c->n_listens > LISTENS_MAX || c->n_access_logs > LISTENS_MAX ||
            c->n_modules > LISTENS_MAX) {
                *error = arena_printf(a, "more than %u listen, access_log or module lines",
                                      LISTENS_MAX);
                return -1;
        }
        if (!fill_head(h, c, a, error))
                return -1;
        for (size_t i = 0; i < c->n_listens; i++) {
                listens[i].addr = c->listens[i].addr;
                listens[i].backlog = c->listens[i].backlog;
                listens[i].v6only = c->listens[i].v6only;
        }
        for (size_t i = 0; i < c->n_access_logs; i++) {
                if (!put_text(logs[i].path, sizeof(logs[i].path), c->access_logs[i].path,
                              "access_log", a, error))
                        return -1;
        }
        for (size_t i = 0; i < c->n_modules; i++) {
                struct plan_module *m = &modules[i];
                if (!put_text(m->name, sizeof(m->name), c->modules[i].name, "module", a, error) ||
                    !put_text(m->path, sizeof(m->path), c->modules[i].path, "module", a, error))
                        return -1;
                memcpy(m->sha, shas[i], sizeof(m->sha));
        }
        if (!list_fetches(c, fetches, &h->n_fetches)) {
                *error = arena_printf(a, "more than %u certificates with ocsp=fetch",
                                      TLS_STAPLES_MAX);
                return -1;
        }
        parts[0] = str_of(h, sizeof(*h));
        parts[1] = str_of(listens, c->n_listens * sizeof(*listens));
        parts[2] = str_of(logs, c->n_access_logs * sizeof(*logs));
        parts[3] = str_of(modules, c->n_modules * sizeof(*modules));
        parts[4] = str_of(fetches, h->n_fetches * sizeof(*fetches));
        parts[5] = c->watch_certificates ? list_watched(c, a) : STR("");
        h->watched_bytes = (uint32_t)parts[5].n;
        fd = memfd_make("weir-plan", parts, COUNT(parts));
        if (fd < 0)
                *error = arena_printf(a, "memfd: %s", strerror(errno));
        return fd;
}

#define ENDS(text) (memchr((text), 0, sizeof(text)) != NULL)

static bool addr_fits(const struct addr *a)
{
        return a->len <= sizeof(struct sockaddr_un) &&
               (a->len == 0 || a->len > (socklen_t)offsetof(struct sockaddr, sa_data));
}

static bool head_sane(const struct plan_head *h, size_t n)
{
        uint64_t size;

        if (n < sizeof(*h) || h->magic != PLAN_MAGIC || h->size != sizeof(*h))
                return false;
        if (h->n_listens > LISTENS_MAX || h->n_logs > LISTENS_MAX || h->n_modules > LISTENS_MAX ||
            h->n_fetches > TLS_STAPLES_MAX)
                return false;
        size = sizeof(*h) + (uint64_t)h->n_listens * sizeof(struct plan_listen) +
               (uint64_t)h->n_logs * sizeof(struct plan_log) +
               (uint64_t)h->n_modules * sizeof(struct plan_module) + (uint64_t)h->n_fetches * 32 +
               h->watched_bytes;
        return size == n && ENDS(h->error_log) && ENDS(h->pid_file) && ENDS(h->control) &&
               ENDS(h->ticket_file) && h->ticket_source <= PLAN_TICKETS_REDIS &&
               addr_fits(&h->admin);
}

bool plan_watched_next(const struct plan *p, uint32_t *at, struct plan_watched *out)
{
        uint32_t left = p->head->watched_bytes - *at;
        const char *path = p->watched + *at + 32;

        if (left <= 32 || memchr(path, 0, left - 32) == NULL)
                return false;
        *out = (struct plan_watched){path, (const uint8_t *)(p->watched + *at)};
        *at += 32 + (uint32_t)strlen(path) + 1;
        return true;
}

static bool watched_sane(const struct plan *p)
{
        struct plan_watched one;
        uint32_t at = 0;

        while (plan_watched_next(p, &at, &one)) {
                if (one.path[0] != '/')
                        return false;
        }
        return at == p->head->watched_bytes;
}

static bool lists_sane(const struct plan *p)
{
        for (uint32_t i = 0; i < p->head->n_listens; i++) {
                if (p->listens[i].addr.len == 0 || !addr_fits(&p->listens[i].addr))
                        return false;
        }
        for (uint32_t i = 0; i < p->head->n_logs; i++) {
                if (!ENDS(p->logs[i].path))
                        return false;
        }
        for (uint32_t i = 0; i < p->head->n_modules; i++) {
                if (!ENDS(p->modules[i].name) || !ENDS(p->modules[i].path))
                        return false;
        }
        return watched_sane(p);
}

struct plan *plan_map(int fd)
{
        struct plan p = {.map = memfd_map(fd)}, *out;

        p.head = (const void *)p.map.p;
        if (!p.map.p || !head_sane(p.head, p.map.n))
                goto refused;
        p.listens = (const void *)(p.head + 1);
        p.logs = (const void *)(p.listens + p.head->n_listens);
        p.modules = (const void *)(p.logs + p.head->n_logs);
        p.fetches = (const void *)(p.modules + p.head->n_modules);
        p.watched = (const void *)(p.fetches + p.head->n_fetches);
        if (!lists_sane(&p))
                goto refused;
        out = malloc(sizeof(*out));
        CHECK(out);
        *out = p;
        return out;
refused:
        memfd_unmap(p.map);
        return NULL;
}

void plan_free(struct plan *p)
{
        if (!p)
                return;
        memfd_unmap(p->map);
        free(p);
}
