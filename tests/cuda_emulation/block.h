// One block of a grid while it runs: its threads, warps and shared memory. For files that are built without sanitizers; fixed arrays, because
// a container's functions might be linked in a version that is instrumented, and would look like races of the kernel.
#pragma once

#include "emulated_device.h"
#include "fiber.h"
#include "internal.h"

namespace kemu {

constexpr unsigned kMostThreads = 1024, kLanes = 32;
constexpr int kMostWords = 12, kMostCopies = 192, kMostArrays = 64;
constexpr std::size_t kGap = 64;         // on both sides of a shared array
constexpr std::size_t kSyncBytes = 1024;  // at the start of the arena: addresses that stand for barriers
constexpr std::size_t kArena = kSyncBytes + 256 * 1024 + kMostArrays * 2 * kGap;

enum class State : unsigned char { ready, at_barrier, at_warp_op, done };

struct AsyncCopy {
  char* to;
  const char* from;
  std::size_t bytes, source_bytes;
  unsigned group;
};

struct Fiber : Thread {
  State state = State::done;
  unsigned linear = 0, lane = 0, warp = 0;
  const char* file = "";
  int line = 0;
  unsigned mask = 0;
  std::uint32_t in[kMostWords] = {}, out[kMostWords] = {};
  Context context;
  AsyncCopy copies[kMostCopies];
  int n_copies = 0;
  unsigned group = 0;  // copies of this group are not committed yet
};

struct Meeting {  // lanes that wait for each other
  unsigned mask = 0, arrived = 0;
  Op op{};
  const char* file = "";
  int line = 0;
};
struct Warp {
  unsigned exited = 0;
  Meeting meetings[8];
  int n_meetings = 0;
};

struct SharedArray {
  const void* key;
  char* address;
  std::size_t size;
  const char* name;
};

struct Block {
  Fiber* fibers[kMostThreads] = {};
  Warp warps[kMostThreads / kLanes];
  unsigned order[kMostThreads] = {};
  unsigned n = 0, position = 0, done = 0, arrived = 0, parity = 0;
  const char* barrier_file = nullptr;
  int barrier_line = 0;
  int votes = 0;
  const std::function<void()>* body = nullptr;
  Context host;
  bool failed = false;
  char error[1024] = {};
  std::uint64_t random_state = 0;
  char* arena = nullptr;
  char* arena_top = nullptr;
  char* dynamic = nullptr;
  std::size_t static_bytes = 0, dynamic_bytes = 0;
  SharedArray arrays[kMostArrays];
  int n_arrays = 0;
  char launch_order = 0, done_order = 0, fence_order = 0;

  std::uint64_t random() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
  }
  void* barrier_order(unsigned which) { return arena + which * 8; }
  void* warp_order(unsigned warp) { return arena + 64 + warp * 8; }
};
extern Block block;

inline Fiber* me() { return static_cast<Fiber*>(current); }

/// Runs the next thread that can run, or goes back to the host.
void yield_from(Fiber* fiber);
/// Ends the grid with a message.
[[noreturn]] void stop_with(const char* message);
/// Wakes the lanes of a meeting that has become complete, with their results.
void complete_meetings(Warp& warp, unsigned index);
/// Results of one operation: lanes[i] is null where lane i takes no part.
void compute_warp_op(Op op, Fiber* const (&lanes)[kLanes]);

void begin_shared(std::size_t dynamic_bytes, bool new_grid);
void end_shared();
void forget_shared();

}  // namespace kemu
