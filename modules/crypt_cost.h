/*
 * What it costs to try a password against a crypt(5) hash, as the hash says itself.
 *
 * Pure: nothing is tried, and nothing asked of libcrypt or of the host.  The one difficulty is
 * yescrypt, whose price is memory, written as two digits of a base 64 of crypt's own.
 *
 * Included by a module after <weir/module.h>.
 */
#ifndef MODULES_CRYPT_COST_H
#define MODULES_CRYPT_COST_H

#include <stdlib.h>

/* What costs: bcrypt's exponent, rounds of SHA, bytes of yescrypt. */
enum { CRYPT_BCRYPT, CRYPT_ROUNDS, CRYPT_YESCRYPT, CRYPT_KINDS };

struct crypt_form {
        const char *prefix;
        size_t n_hash; /* what follows the last $ */
        int kind;
};

static const struct crypt_form crypt_forms[] = {
        {"$2a$", 53, CRYPT_BCRYPT}, {"$2b$", 53, CRYPT_BCRYPT}, {"$2y$", 53, CRYPT_BCRYPT},
        {"$5$", 43, CRYPT_ROUNDS},  {"$6$", 86, CRYPT_ROUNDS},  {"$y$", 43, CRYPT_YESCRYPT},
};

/* NULL: it is none of those that cannot be guessed fast. */
static inline const struct crypt_form *crypt_form_of(const char *hash)
{
        for (size_t i = 0; i < WEIR_COUNT(crypt_forms); i++)
                if (strncmp(hash, crypt_forms[i].prefix, strlen(crypt_forms[i].prefix)) == 0)
                        return &crypt_forms[i];
        return NULL;
}

/* MD5 and DES, which are the same price for everybody. */
static inline int crypt_is_weak(const char *hash)
{
        return strncmp(hash, "$1$", 3) == 0 ||
               (strlen(hash) == 13 && hash[0] != '_' && strchr(hash, '$') == NULL);
}

/* Whether nothing is missing at the end. */
static inline int crypt_is_whole(const char *hash, const struct crypt_form *f)
{
        return strlen(strrchr(hash, '$') + 1) == f->n_hash;
}

/* -1: it is not one of the 48 that stand for themselves; those after them begin longer numbers. */
static inline int crypt_digit(char c)
{
        static const char digits[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghij";
        const char *at = c != '\0' ? strchr(digits, c) : NULL;

        return at ? (int)(at - digits) : -1;
}

/* "$y$j9T$": flavour j (the one there is), then of a table of N rows of 128 r bytes log2 N and r,
 * both less 1.  More before the next $ are parameters that no tool writes. */
static inline int64_t crypt_yescrypt_bytes(const char *hash)
{
        int n = -1, r = -1;

        if (hash[3] == 'j' && (n = crypt_digit(hash[4])) >= 0)
                r = crypt_digit(hash[5]);
        if (r < 0 || hash[6] != '$')
                return -1;
        return (int64_t)128 * (r + 1) * (INT64_C(1) << (n + 1));
}

/* In what the form's kind counts; -1: it does not say, in a way that is known. */
static inline int64_t crypt_cost(const char *hash, const struct crypt_form *f)
{
        switch (f->kind) {
        case CRYPT_BCRYPT:
                if (hash[4] < '0' || hash[4] > '9' || hash[5] < '0' || hash[5] > '9')
                        return -1;
                return (hash[4] - '0') * 10 + hash[5] - '0';
        case CRYPT_ROUNDS:
                if (strncmp(hash + 3, "rounds=", 7) != 0)
                        return 5000;
                return hash[10] >= '0' && hash[10] <= '9' ? strtol(hash + 10, NULL, 10) : -1;
        default:
                return crypt_yescrypt_bytes(hash);
        }
}

#endif
