/* flags:
 * Is a shared object, and no module. */
__attribute__((visibility("default"))) int something;
