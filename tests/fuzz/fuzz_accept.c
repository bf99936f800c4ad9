/*
 * Accept-Encoding: weights are weights, nothing that is refused is chosen, and neither blanks nor
 * case nor how a list is divided into fields makes a difference.
 *
 * The first byte says where the list is cut: at its n-th comma.
 */
#include "base/check.h"
#include "base/str.h"

#include <weir/module.h>

#include "../../modules/accept.h"

#include <ctype.h>
#include <stdlib.h>

#define SAY_NOTHING ((struct accept_wishes)ACCEPT_NOTHING_SAID)

static const int32_t offered[] = {ACCEPT_GZIP, ACCEPT_ZSTD, ACCEPT_BROTLI};

static void judge(const struct accept_wishes *w)
{
        int32_t best = accept_best(w, offered, WEIR_COUNT(offered));
        int q;

        for (int i = 0; i < ACCEPT_ENCODINGS; i++)
                CHECK(w->of[i] >= -1 && w->of[i] <= 1000);
        CHECK(w->any >= -1 && w->any <= 1000 && w->identity >= -1 && w->identity <= 1000);
        CHECK(best >= -1 && best < ACCEPT_ENCODINGS);
        if (best < 0)
                return;
        q = w->of[best] >= 0 ? w->of[best] : w->any;
        CHECK(q > 0 && q >= w->identity);
        for (int i = 0; i < ACCEPT_ENCODINGS; i++)
                CHECK((w->of[i] >= 0 ? w->of[i] : w->any) <= q);
}

static void same(const struct accept_wishes *a, const struct accept_wishes *b)
{
        for (int i = 0; i < ACCEPT_ENCODINGS; i++)
                CHECK(a->of[i] == b->of[i]);
        CHECK(a->any == b->any && a->identity == b->identity);
}

/* A list that means the same: louder, and with a blank on both sides of each comma. */
static weir_str changed(weir_str s)
{
        char *out = malloc(3 * s.n + 1), *to = out;

        CHECK(out != NULL);
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == ',')
                        *to++ = '\t';
                *to++ = (char)toupper((unsigned char)s.p[i]);
                if (s.p[i] == ',')
                        *to++ = ' ';
        }
        return weir_bytes(out, (size_t)(to - out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct accept_wishes whole = SAY_NOTHING, parts = SAY_NOTHING, other = SAY_NOTHING;
        const char *comma = NULL;
        weir_str s, loud;

        if (size < 1)
                return 0;
        s = weir_bytes(data + 1, size - 1);
        accept_read(&whole, s);
        judge(&whole);
        for (size_t i = 0, n = data[0] % 8; i < s.n; i++)
                if (s.p[i] == ',' && n-- == 0)
                        comma = s.p + i;
        if (comma != NULL) {
                size_t n = (size_t)(comma - s.p);
                accept_read(&parts, weir_bytes(s.p, n));
                accept_read(&parts, weir_bytes(comma + 1, s.n - n - 1));
                same(&whole, &parts);
        }
        loud = changed(s);
        accept_read(&other, loud);
        same(&whole, &other);
        free((char *)(uintptr_t)loud.p);
        return 0;
}
