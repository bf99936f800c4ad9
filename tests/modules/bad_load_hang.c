/* flags:
 * Never comes back from being opened. */
#include <weir/module.h>

__attribute__((constructor)) static void load(void)
{
        for (volatile int i = 0;; i++)
                ;
}

WEIR_MODULE(.name = "bad_load_hang", .version = "1");
