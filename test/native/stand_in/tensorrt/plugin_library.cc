// TensorRT's own plugins, which can be used once this library has registered them.
extern "C" void standInRegisterPlugins() noexcept;

extern "C" __attribute__((visibility("default"))) bool initLibNvInferPlugins(void*, char const*) {
  standInRegisterPlugins();
  return true;
}
