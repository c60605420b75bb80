// Kernels, in the real one.
extern "C" __attribute__((visibility("default"))) const int standInBuilderResource = 1;
