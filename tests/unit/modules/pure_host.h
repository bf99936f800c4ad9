/*
 * The host calls that parsers of bundled modules make, over base alone: no proxy, and a clock that
 * stands.  Included before a module's source of which it is the host; a task is an arena.
 */
#ifndef UNIT_MODULES_PURE_HOST_H
#define UNIT_MODULES_PURE_HOST_H

#include "base/check.h"
#include "base/crypto.h"
#include "base/json.h"

#define WEIR_MODULE_SHARED
#include <weir/module.h>

#define PURE_WALL_US INT64_C(1700000000000000)

static weir_task *pure_task(struct arena *a)
{
        return (weir_task *)(void *)a;
}

static void *pure_alloc(weir_task *t, size_t n)
{
        return arena_alloc((struct arena *)(void *)t, n);
}

static weir_str pure_decode(weir_task *t, int32_t how, weir_str s)
{
        str out;

        CHECK(how == WEIR_BASE64URL);
        if (s.p == NULL ||
            !crypto_base64_decode((struct arena *)(void *)t, str_of(s.p, s.n), true, &out))
                return weir_bytes(NULL, 0);
        return weir_bytes(out.p, out.n);
}

/* base/json.h makes its values in the public layout. */
static const weir_value *pure_json_parse(weir_task *t, weir_str s)
{
        return s.p == NULL ? NULL
                           : (const weir_value *)(const void *)json_parse((struct arena *)(void *)t,
                                                                          str_of(s.p, s.n));
}

static int64_t pure_wall_us(void)
{
        return PURE_WALL_US;
}

static const weir_host pure_host = {.size = sizeof(weir_host),
                                    .alloc = pure_alloc,
                                    .decode = pure_decode,
                                    .json_parse = pure_json_parse,
                                    .wall_us = pure_wall_us};
const weir_host *weir = &pure_host;

#endif
