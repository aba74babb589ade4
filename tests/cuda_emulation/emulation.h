// The emulator of CUDA as tests see it: its settings, what it counted, what went wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kemu {

enum class Order { forward, reverse, random };

/// Read from the environment at the first use; tests may alter them between launches.
struct Settings {
  Order order = Order::forward;     ///< KEMU_ORDER=forward|reverse|random: in which order threads and blocks run
  std::uint64_t seed = 1;           ///< KEMU_SEED: of the random order and of the perturbation
  bool strict = true;               ///< KEMU_STRICT=0: accept divergent barriers and early exits that most GPUs happen to accept
  bool lazy = true;                 ///< KEMU_LAZY=0: run work when it is queued, not when somebody waits for it
  bool check_pointers = true;       ///< KEMU_CHECK_POINTERS=0: do not refuse kernel arguments that point outside device memory
  bool trap_host = false;           ///< KEMU_TRAP_HOST=1: the host may not touch device memory (a fault); not under sanitizers
  bool perturb = false;             ///< KEMU_PERTURB=1: mathematical functions are wrong by up to their documented error
  bool quiet = false;               ///< KEMU_QUIET=1: errors are not printed when they happen
  int devices = 2;                  ///< KEMU_DEVICES: how many there are
  int capability = 86;              ///< KEMU_CAPABILITY=75|80|86|89|90|120: decides shared memory and what ptx.h falls back to
  std::size_t memory = std::size_t{8} << 30;  ///< KEMU_MEMORY: bytes of each device
  int watchdog = 300;               ///< KEMU_WATCHDOG: seconds a grid may run before the program is ended, 0 for ever
  std::string leave_out;            ///< KEMU_LEAVE_OUT: launches of this kernel (name without template arguments) do nothing
  std::string log;                  ///< KEMU_LOG: a file to which "name threads" is added at the first launch of a kernel and when a block is larger than before
};
Settings& settings();

/// Counted since the start of the program. Copies are counted when they are asked for.
struct Counters {
  std::int64_t launches = 0, library_calls = 0;  ///< kernels; cuBLAS and cuSOLVER
  std::int64_t host_to_device = 0, device_to_host = 0, device_to_device = 0;
  std::int64_t host_to_device_bytes = 0, device_to_host_bytes = 0, device_to_device_bytes = 0;
  std::int64_t allocations = 0, live_allocations = 0, live_bytes = 0;  ///< of all devices
};
const Counters& counters();

/// Names of the kernels launched so far, without template arguments, sorted.
std::vector<std::string> launched_kernels();

/// Text of the error that the next call of the run-time would report, "" if all is well. Does not run queued work.
std::string last_error();
/// The same, and forgets the error, as cudaGetLastError does.
std::string take_error();

}  // namespace kemu
