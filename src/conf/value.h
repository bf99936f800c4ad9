/*
 * The units of the language: text in, number out.  Pure.
 */
#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include "base/str.h"

#include <weir/module.h>

MUST_CHECK bool value_time(str s, int64_t *us);    /* 250ms 5s 2m 1h 7d, 0 */
MUST_CHECK bool value_size(str s, int64_t *bytes); /* 512 8k 1m 2g */
MUST_CHECK bool value_int(str s, int64_t *out);    /* -5 200 */
MUST_CHECK bool value_number(str s, double *out);  /* 0.2 20% */
MUST_CHECK bool value_bool(str s, bool *out);      /* on off */
MUST_CHECK bool value_rate(str s, weir_rate *out); /* 100/s 600/m 20/60s */
MUST_CHECK bool value_name(str s);                 /* of a block: letters, digits, _ - . */

/* How such a value would be written. */
#define VALUE_TEXT 32
str value_time_text(int64_t us, char out[VALUE_TEXT]);
str value_size_text(uint64_t bytes, char out[VALUE_TEXT]);

#endif
