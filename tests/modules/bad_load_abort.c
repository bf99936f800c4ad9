/* flags:
 * Aborts while it is being opened. */
#include <weir/module.h>

#include <stdlib.h>

__attribute__((constructor)) static void load(void)
{
        abort();
}

WEIR_MODULE(.name = "bad_load_abort", .version = "1");
