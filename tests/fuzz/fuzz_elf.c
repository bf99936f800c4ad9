/* ELF lint: any bytes are either refused with a reason or described. */
#include "base/check.h"
#include "module/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct elf_facts facts;
        struct elf_error err = {""};

        if (!elf_lint(str_of(data, size), &facts, &err))
                CHECK(err.text[0] != '\0');
        return 0;
}
