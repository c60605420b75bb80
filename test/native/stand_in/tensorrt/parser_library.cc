// The ONNX parser's library: its entry points, which call the core library.
#include "../fault.h"
#include "trap.h"

extern "C" {
void* standInCreateParser(void* network, void* logger) noexcept;
int32_t getInferLibMajorVersion() noexcept;
int32_t getInferLibMinorVersion() noexcept;

STAND_IN_EXPORT void* createNvOnnxParser_INTERNAL(void* network, void* logger, int) noexcept {
  return standInCreateParser(network, logger);
}

// The version of the interface: 0.2 since it has setRefitObserver.
STAND_IN_EXPORT int getNvOnnxParserVersion() noexcept {
  const int minor = getInferLibMinorVersion();
  switch (getInferLibMajorVersion()) {
    case 1:
      return minor >= 6 ? 200 : 100;
    case 11:
      return minor >= 4 ? 200 : 100;
    default:
      return 100;
  }
}
}
