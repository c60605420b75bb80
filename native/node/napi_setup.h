// The only place that configures and includes node-addon-api.
#pragma once

#define NODE_ADDON_API_DISABLE_DEPRECATED
// While a worker is being terminated no exception can be thrown into it; there is nobody left to catch one.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS

#include <napi.h>
