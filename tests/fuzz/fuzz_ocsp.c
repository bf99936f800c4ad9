/* OCSP: any bytes are judged, and only what was signed for this certificate is good. */
#include "net/tls_ocsp.h"

#include "base/check.h"
#include "net/tls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the corpus is about: its keys were made for it and thrown away. */
#define NOW 1795771725
static const char chain[] = "-----BEGIN CERTIFICATE-----\n"
                            "MIIBNzCB3qADAgECAgEDMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWF1dGhvcml0\n"
                            "eTAeFw0yNjExMTcwOTI4NDVaFw0yNjEyMjcwOTI4NDVaMA8xDTALBgNVBAMMBGxl\n"
                            "YWYwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASWl6V3exOv0zdy+NXrVsmZ9uzl\n"
                            "2VIBDraJ4rWCXTsGknnO4YP4os1G2/V8y/FYzn9R5a2K5q871RrtmHkdnXyEoyYw\n"
                            "JDAMBgNVHRMBAf8EAjAAMBQGA1UdEQQNMAuCCWxlYWYudGVzdDAKBggqhkjOPQQD\n"
                            "AgNIADBFAiEAungz4qBcB8neH7ZTyP3aHFJK6cz8De1mo1vT0w+G29ICICUkByfD\n"
                            "6lLSZLt+lhLL678ES/zFj8lRvYqTEQ/01P+R\n"
                            "-----END CERTIFICATE-----\n"
                            "-----BEGIN CERTIFICATE-----\n"
                            "MIIBKDCB0KADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWF1dGhvcml0\n"
                            "eTAeFw0yNjExMTcwOTI4NDVaFw0yNjEyMjcwOTI4NDVaMBQxEjAQBgNVBAMMCWF1\n"
                            "dGhvcml0eTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJSmOxf4nxQXuB4MlInH\n"
                            "BrPWiVxPQ/iTtf9e2mvRgw61oeKRkJF7ngZpOA82DvLd/RVDKn6SSHRHM3mUMC0M\n"
                            "kD+jEzARMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgFYvxaVkh\n"
                            "603nc0NEp+1ASS3nisAEKD/fgEo4f6wUzsYCIH6zFsWAyu0F1gLyOmoAZepzBd8p\n"
                            "LqfMQeQ8Y6L49tcS\n"
                            "-----END CERTIFICATE-----\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct tls_ocsp *o;
        struct tls_ocsp_times t;
        enum tls_ocsp_verdict v;

        if (o == NULL) {
                struct arena *a = arena_new(0);
                str err;
                tls_init();
                o = tls_ocsp_new(str_z(chain), STR("chain"), a, &err);
                CHECK(o != NULL);
                arena_free(a);
        }
        v = tls_ocsp_judge(o, str_of(data, size), NOW, &t);
        CHECK(v < TLS_OCSP_VERDICTS && tls_ocsp_name(v) && tls_ocsp_text(v));
        if (v == TLS_OCSP_GOOD) {
                CHECK(t.next_update > NOW && t.this_update <= NOW + TLS_OCSP_SKEW_S);
                CHECK(tls_ocsp_refresh(&t, NOW, size) >= 1);
        }
        return 0;
}
