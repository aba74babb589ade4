// The watchdog's thread and the handler of faults. Built without sanitizers.
#include "watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "block.h"

namespace kemu {

namespace {

std::atomic<const char*> running{nullptr};
std::atomic<std::int64_t> started{0};

std::int64_t seconds() { return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void watch() {
  for (;;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const char* kernel = running.load();
    const int limit = settings().watchdog;
    if (kernel == nullptr || limit <= 0 || seconds() - started.load() <= limit) continue;
    const Fiber* fiber = me();  // a race with the grid, but the grid does not get anywhere
    std::fprintf(stderr, "kemu: watchdog: kernel %s has run for more than %d s", kernel, limit);
    if (fiber != nullptr)
      std::fprintf(stderr, "; thread %u of block (%u, %u, %u) runs, it last waited at %s:%d", fiber->linear, fiber->block_index.x, fiber->block_index.y, fiber->block_index.z,
                   fiber->file, fiber->line);
    std::fprintf(stderr, "\n");
    std::_Exit(87);
  }
}

// Not safe in general to call in a handler, but the program ends anyhow and this says why.
void on_fault(int signal_number, siginfo_t* info, void*) {
  const char* kernel = running.load();
  const Fiber* fiber = me();
  char text[700];
  int n = 0;
  if (kernel != nullptr && fiber != nullptr) {
    n = std::snprintf(text, sizeof text, "kemu: kernel %s: thread %u of block (%u, %u, %u) made an invalid access at %p (last waited at %s:%d); %s\n", kernel, fiber->linear,
                      fiber->block_index.x, fiber->block_index.y, fiber->block_index.z, info->si_addr, fiber->file, fiber->line,
                      info->si_addr == nullptr ? "no address: a null pointer, or a vector access that is not aligned" : describe_address(info->si_addr).c_str());
  } else {
    n = std::snprintf(text, sizeof text, "kemu: the host made an invalid access at %p; %s\n", info->si_addr, describe_address(info->si_addr).c_str());
  }
  if (n > 0) (void)!write(STDERR_FILENO, text, static_cast<std::size_t>(n) < sizeof text ? static_cast<std::size_t>(n) : sizeof text - 1);
  signal(signal_number, SIG_DFL);
}

}  // namespace

void explain_faults() {
#if !KEMU_ADDRESS_SANITIZER && !KEMU_THREAD_SANITIZER  // these have handlers of their own
  thread_local bool done = false;
  if (done) return;
  done = true;
  stack_t stack{};
  stack.ss_size = 64 * 1024;
  stack.ss_sp = std::malloc(stack.ss_size);  // as long as the thread
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
#else
  (void)on_fault;
#endif
}

Watch::Watch(const char* kernel) {
  static const bool begun = [] {
    std::thread(watch).detach();
    return true;
  }();
  (void)begun;
  explain_faults();
  started = seconds();
  running = kernel;
}

Watch::~Watch() { running = nullptr; }

}  // namespace kemu
