// TensorRT's own plugins, which are there once this library has registered them.
extern "C" void standInRegisterPlugins() noexcept;

extern "C" __attribute__((visibility("default"))) bool initLibNvInferPlugins(void*, char const*) {
  standInRegisterPlugins();
  return true;
}
