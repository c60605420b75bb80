// Configures and includes node-addon-api. No other file does.
#pragma once

#define NODE_ADDON_API_DISABLE_DEPRECATED
// While a worker is being terminated, exceptions can't be thrown into it, and nobody is left to catch them.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS

#include <napi.h>
