/*
 * SipHash (Aumasson, Bernstein 2012) with c rounds a word and d at the end; in a header so that
 * the compiler unrolls each variant where it is used.  Pure.
 */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include "base/str.h"

static inline uint64_t siphash_rotl(uint64_t x, int b)
{
        return x << b | x >> (64 - b);
}

static inline void siphash_rounds(uint64_t v[4], int n)
{
        for (int i = 0; i < n; i++) {
                v[0] += v[1];
                v[2] += v[3];
                v[1] = siphash_rotl(v[1], 13) ^ v[0];
                v[3] = siphash_rotl(v[3], 16) ^ v[2];
                v[0] = siphash_rotl(v[0], 32);
                v[2] += v[1];
                v[0] += v[3];
                v[1] = siphash_rotl(v[1], 17) ^ v[2];
                v[3] = siphash_rotl(v[3], 21) ^ v[0];
                v[2] = siphash_rotl(v[2], 32);
        }
}

static inline uint64_t siphash_word(const char *p, size_t n) /* little endian, n <= 8 */
{
        uint64_t w = 0;

        for (size_t i = 0; i < n; i++)
                w |= (uint64_t)(unsigned char)p[i] << (8 * i);
        return w;
}

static inline uint64_t siphash(int c, int d, uint64_t k0, uint64_t k1, str s)
{
        uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                         k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
        uint64_t last = (uint64_t)s.n << 56;

        for (; s.n >= 8; s = str_from(s, 8)) {
                uint64_t w = siphash_word(s.p, 8);
                v[3] ^= w;
                siphash_rounds(v, c);
                v[0] ^= w;
        }
        last |= siphash_word(s.p, s.n);
        v[3] ^= last;
        siphash_rounds(v, c);
        v[0] ^= last;
        v[2] ^= 0xff;
        siphash_rounds(v, d);
        return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
