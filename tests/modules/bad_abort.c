/* flags:
 * Aborts while it is being created. */
#include <weir/module.h>

#include <stdlib.h>

static weir_err create(weir_conf *c, void *inst)
{
        (void)c, (void)inst;
        abort();
}

WEIR_MODULE(.name = "bad_abort", .version = "1", .create = create);
