/* PROXY headers: what is taken is no longer than what was given, and more bytes never change a
 * verdict. */
#include "base/check.h"
#include "net/proxyproto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct proxyproto h = {0}, shorter = {0};
        struct proxyproto_ssl ssl;
        char text[ADDR_TEXT];
        int whole = proxyproto_parse(str_of(data, size), &h), n = 0;

        CHECK(whole >= -1 && (whole <= 0 || (size_t)whole <= size));
        if (whole > 0) {
                addr_print(&h.src, text);
                addr_print(&h.dst, text);
                CHECK(h.tlvs.n <= (size_t)whole);
                for (unsigned type = 0; type < 256; type++)
                        CHECK(proxyproto_tlv(h.tlvs, type).n <= h.tlvs.n);
                if (proxyproto_ssl(h.tlvs, &ssl))
                        CHECK(ssl.version.n + ssl.cn.n < h.tlvs.n);
        }
        for (size_t i = 0; i <= size && n == 0; i++)
                n = proxyproto_parse(str_of(data, i), &shorter);
        CHECK(n == whole);
        return 0;
}
