// The ONNX parser's library: its entry points, which hand on to the core library.
#include "../fault.h"
#include "trap.h"

extern "C" {
void* standInCreateParser(void* network, void* logger) noexcept;
int32_t getInferLibMajorVersion() noexcept;
int32_t getInferLibMinorVersion() noexcept;

STAND_IN_EXPORT void* createNvOnnxParser_INTERNAL(void* network, void* logger, int) noexcept {
  return standInCreateParser(network, logger);
}

// The interface's version: 0.2 once it had setRefitObserver.
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
