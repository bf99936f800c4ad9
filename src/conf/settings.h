/*
 * Defaults of settings; settings_merge is in conf/model.h.
 */
#ifndef CONF_SETTINGS_H
#define CONF_SETTINGS_H

#include "conf/model.h"

/* Every setting as the table of directives has it, with all bits set. */
void settings_defaults(struct settings *out);

#endif
