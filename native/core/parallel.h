// Loops whose steps run on several threads.
#pragma once

#include <cstddef>
#include <functional>

namespace node_tensorrt {

// Calls `body` with 0, 1 and so on to `count - 1`, each once and in no particular order, on this thread and
// as many more as the process has processors. Returns when all calls have returned. If one throws, no further
// calls begin, and this function throws the same exception.
void parallelFor(size_t count, const std::function<void(size_t)>& body);

}  // namespace node_tensorrt
