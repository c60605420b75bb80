// The GPUs of the machine that is played: STAND_IN_CUDA_DEVICES lists them, separated by commas, each as
// `name:capability:mebibytes`. `none` means no GPU.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

struct Device {
  std::string name;
  int capability;  // 89 for sm_89
  size_t memory;   // bytes, as CUDA counts them
};

inline std::vector<Device> readDevices() {
  const char* list = std::getenv("STAND_IN_CUDA_DEVICES");
  std::string text = list != nullptr ? list : "Stand-in GPU A:89:24576,Stand-in GPU B:120:24576";
  std::vector<Device> devices;
  if (text == "none") return devices;
  while (!text.empty()) {
    const std::string entry = text.substr(0, text.find(','));
    text.erase(0, entry.size() + 1);
    const size_t first = entry.find(':');
    const size_t second = first == std::string::npos ? first : entry.find(':', first + 1);
    if (second == std::string::npos) {
      std::fprintf(stderr, "stand-in: STAND_IN_CUDA_DEVICES has an entry \"%s\"\n", entry.c_str());
      std::abort();
    }
    devices.push_back({entry.substr(0, first), std::stoi(entry.substr(first + 1)),
                       std::stoull(entry.substr(second + 1)) << 20});
  }
  return devices;
}
