/*
 * When certificates expire (expiry.h).
 *
 * The difficulty is not to cry wolf: an expired certificate is no mistake that stops a reload, for
 * the rest of the configuration may be what saves the day.
 */
#include "proxy/expiry.h"

#include "net/tls.h"

#include <time.h>

#define DAY  INT64_C(86400)
#define SOON (14 * DAY)

/* ------------------------------------------------------------------ warnings */

static int64_t days_left(int64_t at, int64_t now_s)
{
        int64_t left = at - now_s;

        return left >= 0 ? left / DAY : -((DAY - 1 - left) / DAY);
}

static bool is_soon(int64_t at)
{
        return at - (int64_t)time(NULL) < SOON;
}

static void warn(struct report *rep, const struct conf_pos *pos, str file, const char *what,
                 int64_t at, const char *then)
{
        int64_t now_s = (int64_t)time(NULL), days = days_left(at, now_s);
        time_t when = (time_t)at;
        struct tm tm;
        char day[32] = "";

        if (!is_soon(at))
                return;
        if (gmtime_r(&when, &tm) != NULL)
                strftime(day, sizeof(day), "%Y-%m-%d %H:%M UTC", &tm);
        if (at <= now_s)
                report_warning(rep, pos, "%.*s: the %s expired on %s%s", STR_ARG(file), what, day,
                               then);
        else
                report_warning(rep, pos, "%.*s: the %s expires in %d day%s, on %s", STR_ARG(file),
                               what, (int)days, days == 1 ? "" : "s", day);
}

/* The same text may be named in many places. */
static bool same_crl_before(const struct conf *c, size_t n, const struct listen_conf *l)
{
        for (size_t i = 0; i < n; i++) {
                const struct listen_conf *o =
                        i < c->n_listens ? &c->listens[i] : c->hosts[i - c->n_listens].tls;
                if (o != NULL && o->client_crl.file.p != NULL &&
                    str_eq(o->client_crl.file, l->client_crl.file))
                        return true;
        }
        return false;
}

static void lists(const struct conf *c, struct report *rep)
{
        int64_t at;

        for (size_t i = 0; i < c->n_listens + c->n_hosts; i++) {
                const struct listen_conf *l =
                        i < c->n_listens ? &c->listens[i] : c->hosts[i - c->n_listens].tls;
                if (l == NULL || l->client_crl.file.p == NULL || same_crl_before(c, i, l) ||
                    !tls_crl_expires(l->client_crl.text, &at) || at > (int64_t)time(NULL))
                        continue;
                warn(rep, &l->client_crl_pos, l->client_crl.file, "revocation list", at,
                     ": until there is a new one, certificates are refused for it");
        }
}

void expiry_read(struct expiry *e, const struct conf *c, struct report *rep)
{
        e->at = ARENA_ARRAY(c->arena, int64_t, c->n_certs + 1);
        for (size_t i = 0; i < c->n_certs; i++) {
                const struct listen_cert *cert = c->certs[i];
                bool again = false;
                if (!tls_certificate_expires(cert->cert.text, &e->at[i])) {
                        e->at[i] = 0;
                        continue;
                }
                for (size_t k = 0; k < i && is_soon(e->at[i]) && !again; k++)
                        again = str_eq(c->certs[k]->cert.file, cert->cert.file);
                if (!again)
                        warn(rep, &cert->cert_pos, cert->cert.file, "certificate", e->at[i], "");
        }
        lists(c, rep);
}

/* ------------------------------------------------------------------ metrics and status */

static bool is_host(const struct listen_cert *cert)
{
        return cert->of->addr.len == 0;
}

static str labels_of(struct buf *b, const struct listen_cert *cert)
{
        metric_label(b, is_host(cert) ? "host" : "listener", cert->of->text);
        metric_label(b, "certificate", cert->cert.file);
        return buf_pullup(b, b->n);
}

void expiry_show(struct expiry *e, const struct conf *c, struct metric_slot *slot)
{
        if (e->shown)
                return;
        e->shown = true;
        for (size_t i = 0; i < c->n_certs; i++) {
                struct buf b = BUF_INIT;
                metric_set(
                        metric_series(slot, METRIC_CERTIFICATE_EXPIRY, labels_of(&b, c->certs[i])),
                        e->at[i]);
                buf_clear(&b);
        }
}

void expiry_hide(struct expiry *e, const struct conf *c, struct metric_slot *slot)
{
        for (size_t i = 0; i < c->n_certs; i++) {
                struct buf b = BUF_INIT;
                metric_retire(slot, METRIC_CERTIFICATE_EXPIRY, labels_of(&b, c->certs[i]));
                buf_clear(&b);
        }
        e->shown = false;
}

void expiry_status(const struct expiry *e, const struct conf *c, int64_t now_s,
                   struct json_writer *j)
{
        json_open(j, '[');
        for (size_t i = 0; i < c->n_certs; i++) {
                const struct listen_cert *cert = c->certs[i];
                json_open(j, '{');
                json_key(j, is_host(cert) ? STR("host") : STR("listener"));
                json_str(j, cert->of->text);
                json_key(j, STR("file"));
                json_str(j, cert->cert.file);
                json_key(j, STR("expires"));
                json_i64(j, e->at[i]);
                json_key(j, STR("days_left"));
                json_i64(j, days_left(e->at[i], now_s));
                json_close(j);
        }
        json_close(j);
}
