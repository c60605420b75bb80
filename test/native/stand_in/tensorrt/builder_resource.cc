// Contains kernels in the real TensorRT.
extern "C" __attribute__((visibility("default"))) const int standInBuilderResource = 1;
