/* flags:
 * Was built for another major of the interface. */
#include <weir/module.h>

WEIR_EXPORT const weir_module *weir_module_entry(const weir_host *host);
const weir_module *weir_module_entry(const weir_host *host)
{
        static const weir_module module = {.magic = WEIR_ABI_MAGIC,
                                           .abi_major = WEIR_ABI_MAJOR + 1,
                                           .size = sizeof(weir_module),
                                           .arg_size = sizeof(weir_arg),
                                           .case_size = sizeof(weir_case),
                                           .name = "bad_abi",
                                           .version = "1"};

        (void)host;
        return &module;
}
