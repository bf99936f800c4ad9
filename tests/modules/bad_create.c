/* flags:
 * Refuses its configuration. */
#include <weir/module.h>

static weir_err create(weir_conf *c, void *inst)
{
        (void)c, (void)inst;
        return weir->conf_error(c, NULL, "this will not do");
}

WEIR_MODULE(.name = "bad_create", .version = "1", .create = create);
