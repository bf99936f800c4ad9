/*
 * OCSP responses as a generation sees them (staple.h).
 *
 * The difficulty is what to refuse: a file that can never be right (another certificate's, broken,
 * forged, revoked) is a mistake, but one that has expired, or a certificate that names no
 * responder, is what time and authorities do to a configuration that was right: it is said, and
 * weir serves without.
 */
#include "proxy/staple.h"

#include "base/check.h"
#include "conf/report.h"

#include <time.h>

static bool judge_file(const struct listen_cert *cert, const struct tls_ocsp *o,
                       struct tls_pair *pair, struct report *rep)
{
        struct tls_ocsp_times times;
        str file = cert->ocsp_file.file;
        enum tls_ocsp_verdict v =
                tls_ocsp_judge(o, cert->ocsp_file.text, (int64_t)time(NULL), &times);

        if (v == TLS_OCSP_EXPIRED) {
                report_warning(rep, &cert->ocsp_pos, "%.*s: %s: clients get none", STR_ARG(file),
                               tls_ocsp_text(v));
                return true;
        }
        if (v != TLS_OCSP_GOOD) {
                report_error(rep, &cert->ocsp_pos, "%.*s: %s", STR_ARG(file), tls_ocsp_text(v));
                return false;
        }
        pair->ocsp = cert->ocsp_file.text;
        pair->ocsp_next = times.next_update;
        return true;
}

static void find_place(const struct listen_cert *cert, const struct tls_ocsp *o,
                       struct tls_pair *pair, struct arena *a, struct report *rep)
{
        uint8_t id[32];

        tls_staple_id(cert->cert.text, id);
        pair->staple = tls_staple_find(id);
        if (tls_ocsp_url(o, a).p == NULL)
                report_warning(rep, &cert->ocsp_pos,
                               "%.*s: the certificate names no OCSP responder with an http "
                               "address: there is nothing to fetch",
                               STR_ARG(cert->cert.file));
}

static void note(struct staples *s, const struct listen_cert *cert, const struct tls_pair *pair)
{
        for (size_t i = 0; i < s->n; i++)
                if (str_eq(s->v[i].file, cert->cert.file))
                        return;
        CHECK(s->n < s->cap);
        s->v[s->n++] = (struct staple_show){.file = cert->cert.file,
                                            .fetched = pair->staple,
                                            .next_update = pair->ocsp.n ? pair->ocsp_next : 0};
}

bool staple_prepare(struct staples *s, const struct listen_cert *cert, struct tls_pair *pair,
                    struct arena *a, struct report *rep)
{
        struct tls_ocsp *o;
        str error = STR_NONE;
        bool ok = true;

        if (cert->ocsp != LISTEN_OCSP_OFF) {
                o = tls_ocsp_new(cert->cert.text, cert->cert.file, a, &error);
                if (o == NULL) {
                        report_error(rep, &cert->ocsp_pos, "%.*s", STR_ARG(error));
                        return false;
                }
                if (cert->ocsp == LISTEN_OCSP_FILE)
                        ok = judge_file(cert, o, pair, rep);
                else
                        find_place(cert, o, pair, a, rep);
                tls_ocsp_free(o);
                note(s, cert, pair);
        }
        if (ok && pair->ocsp.n == 0 && cert->ocsp != LISTEN_OCSP_FETCH &&
            tls_ocsp_must_staple(cert->cert.text))
                report_warning(rep, &cert->cert_pos,
                               "%.*s: the certificate asks for OCSP stapling (must-staple) and has "
                               "no response: many clients will refuse it",
                               STR_ARG(cert->cert.file));
        return ok;
}

/* ------------------------------------------------------------------ metrics */

void staple_show(struct staples *s, struct metric_slot *slot, int64_t now_s)
{
        if (s->shown == now_s)
                return;
        s->shown = now_s;
        for (size_t i = 0; i < s->n; i++) {
                struct staple_show *v = &s->v[i];
                struct tls_ocsp_times times = {.next_update = v->next_update};
                if (v->fetched.all && !tls_staple_times(&v->fetched, &times))
                        times.next_update = 0;
                if (v->cell == NULL) {
                        struct buf labels = BUF_INIT;
                        metric_label(&labels, "certificate", v->file);
                        v->cell = metric_series(slot, METRIC_OCSP_EXPIRES, buf_front(&labels));
                        buf_clear(&labels);
                }
                metric_set(v->cell, MAX(times.next_update - now_s, 0));
        }
}

void staple_hide(struct staples *s, struct metric_slot *slot)
{
        for (size_t i = 0; i < s->n; i++) {
                struct buf labels = BUF_INIT;
                metric_label(&labels, "certificate", s->v[i].file);
                metric_retire(slot, METRIC_OCSP_EXPIRES, buf_front(&labels));
                buf_clear(&labels);
                s->v[i].cell = NULL;
        }
}
