/* PROXY headers: what is taken is no longer than what was given, and more bytes never change a
 * verdict. */
#include "base/check.h"
#include "net/proxyproto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct addr src = {0}, dst = {0};
        char text[ADDR_TEXT];
        int whole = proxyproto_parse(str_of(data, size), &src, &dst), n = 0;

        CHECK(whole >= -1 && (whole <= 0 || (size_t)whole <= size));
        if (whole > 0) {
                addr_print(&src, text);
                addr_print(&dst, text);
        }
        for (size_t i = 0; i <= size && n == 0; i++)
                n = proxyproto_parse(str_of(data, i), &src, &dst);
        CHECK(n == whole);
        return 0;
}
