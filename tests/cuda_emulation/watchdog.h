// Ends the program when a grid runs for too long, and says which memory a fault came from.
#pragma once

namespace kemu {

/// A grid that runs while this lives.
class Watch {
 public:
  explicit Watch(const char* kernel);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
};

/// For this host thread, once: faults say which kernel and which allocation they concern.
void explain_faults();

}  // namespace kemu
