/*
 * What a module says of itself, checked before anything else of it is called.
 */
#ifndef MODULE_DESC_H
#define MODULE_DESC_H

#include "base/arena.h"

#include <weir/module.h>

/* A copy of theirs in a, widened to the struct sizes of this weir (what their header did not know
 * reads as zero), so that its tables can be walked as arrays.  name: what the configuration calls
 * it; absent: any will do.  NULL: *error says which rule is broken. */
MUST_CHECK const weir_module *desc_adopt(const weir_module *theirs, str name, const weir_host *host,
                                         struct arena *a, str *error);

/* Bytes of one value of a WEIR_T_ type in a module's struct. */
size_t desc_value_size(uint32_t type);

#endif
