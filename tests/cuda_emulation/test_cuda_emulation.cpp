// The emulator's own tests: kernels without a bug pass in every mode, every planted bug is found in the way that docs/cuda-emulation.md names.
// With an argument the program runs one case of planted_kernels.h and says how it went: bugs that end the program are run as children.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "internal.h"
#include "planted_kernels.h"

namespace {

std::string program;

int run_case(const std::string& name) {
  bool right = false;
  std::string error;
  if (name == "never_asked") {
    cudaFree(&right);
    return 0;
  }
  try {
    right = planted::cases().at(name)();
  } catch (const std::exception& e) {
    std::printf("exception: %s\n", e.what());
  }
  error = kemu::take_error();
  std::printf("%s%s\n", right ? "right" : "WRONG", error.empty() ? "" : (", ERROR " + error).c_str());
  std::fflush(stdout);
  return right && error.empty() ? 0 : 1;
}

struct Outcome {
  int status = 0;
  std::string text;
  bool says(const std::string& words) const { return text.find(words) != std::string::npos; }
};

/// "KEMU_ORDER=reverse …" and a case's name.
Outcome child(const std::string& environment, const std::string& name) {
  const std::string command = "env " + environment + " KEMU_QUIET=1 " + program + " --case " + name + " 2>&1";
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) outcome.text.append(buffer, n);
  outcome.status = pclose(pipe);
  return outcome;
}

enum class How { plain, address, thread };
constexpr How kHow = KEMU_ADDRESS_SANITIZER ? How::address : KEMU_THREAD_SANITIZER ? How::thread : How::plain;
const std::vector<std::string> kOrders{"KEMU_ORDER=forward", "KEMU_ORDER=reverse", "KEMU_ORDER=random KEMU_SEED=1", "KEMU_ORDER=random KEMU_SEED=2"};
constexpr const char* kRace = "WARNING: ThreadSanitizer: data race";

/// What the output has to contain, one of several where two tools see it. "" where that mode cannot see the bug and must stay silent; "*" where it may see it or not.
struct Planted {
  const char* name;
  const char* greedy;   // forward and reverse
  const char* random;
  const char* address;  // forward, AddressSanitizer and UBSan
  const char* thread;   // forward, ThreadSanitizer
};

const std::vector<Planted> kPlanted{
    {"missing_barrier", "WRONG", "WRONG", "WRONG", kRace},
    {"missing_second_barrier", "WRONG", "*", "WRONG", kRace},
    {"missing_barrier_in_loop", "WRONG", "WRONG", "WRONG", kRace},
    {"missing_barrier_after_copy", "WRONG", "WRONG", "WRONG", kRace},
    {"missing_barrier_before_copy", "WRONG", "*", "WRONG", kRace},
    {"missing_barrier_after_zeroing", "WRONG", "*", "WRONG", kRace},
    {"missing_warp_sync", "WRONG", "WRONG", "WRONG", kRace},
    {"shuffle_as_barrier", "", "", "", kRace},
    {"missing_wait", "WRONG", "WRONG", "WRONG", "WRONG"},
    {"never_waited", "cp.async copies that it never waited for", "cp.async copies that it never waited for", "cp.async copies that it never waited for", "cp.async copies that it never waited for"},
    {"past_static_array", "write outside shared array 'partial' of 12 bytes", "write outside shared array 'partial'", "AddressSanitizer: use-after-poison|index 3 out of bounds", "write outside shared array 'partial'"},
    {"past_dynamic_memory", "write outside shared array 'dynamic shared memory'", "write outside shared array 'dynamic shared memory'", "AddressSanitizer: use-after-poison", "write outside shared array"},
    {"uninitialised_shared", "WRONG", "WRONG", "WRONG", "WRONG"},
    {"missing_output", "WRONG", "WRONG", "WRONG", "WRONG"},
    {"past_global", "write past the end of a device allocation of 3200 bytes", "write past the end", "AddressSanitizer: heap-buffer-overflow", "*"},
    {"misaligned", "a vector access that is not aligned to 16 bytes", "a vector access that is not aligned", "a vector access that is not aligned", "a vector access that is not aligned"},
    {"missing_atomic", "", "", "", kRace},
    {"missing_atomic_after_barrier", "", "", "", kRace},
    {"barrier_after_exit", "__syncthreads", "__syncthreads", "__syncthreads", "__syncthreads"},
    {"divergent_barrier", "divergent __syncthreads: other threads of the block wait at", "divergent __syncthreads", "divergent __syncthreads", "divergent __syncthreads"},
    {"divergent_shuffle", "ERROR kernel softmax_kernel<bug>", "ERROR kernel softmax_kernel<bug>", "ERROR kernel softmax_kernel<bug>", "ERROR kernel softmax_kernel<bug>"},
    {"trap", "__trap()", "__trap()", "__trap()", "__trap()"},
    {"shared_limit", "(cudaFuncSetAttribute)", "(cudaFuncSetAttribute)", "(cudaFuncSetAttribute)", "(cudaFuncSetAttribute)"},
    {"host_pointer", "points to no device memory", "points to no device memory", "points to no device memory", "points to no device memory"},
    {"read_too_early", "WRONG", "WRONG", "WRONG", "WRONG"},
    {"unordered_streams", "WRONG", "WRONG", "WRONG", "WRONG"},
    {"late_kernel", "which was freed before the kernel ran", "which was freed", "which was freed", "which was freed"},
    {"double_free", "is freed already", "is freed already", "is freed already", "is freed already"},
    {"other_device", "points to memory of device 0", "points to memory of device 0", "points to memory of device 0", "points to memory of device 0"},
};

void expect(const Planted& bug, const std::string& environment, const std::string& words) {
  if (words == "*") return;
  const Outcome outcome = child(environment, bug.name);
  INFO(std::string(bug.name), ", ", environment, ": ", outcome.text);
  if (words.empty()) {
    CHECK(outcome.says("right\n"));
    CHECK(outcome.status == 0);
  } else {
    bool said = false;
    for (std::istringstream alternatives(words); !alternatives.eof();) {
      std::string one;
      std::getline(alternatives, one, '|');
      said = said || outcome.says(one);
    }
    CHECK(said);
  }
}

}  // namespace

TEST_CASE("kernels without a bug are right in every order, and on every generation of chips") {
  for (const auto& entry : planted::cases()) {
    const std::string& name = entry.first;
    if (name.rfind("right_", 0) != 0) continue;
    for (const std::string order : {"KEMU_ORDER=forward", "KEMU_ORDER=reverse", "KEMU_ORDER=random KEMU_SEED=3", "KEMU_CAPABILITY=75", "KEMU_LAZY=0", "KEMU_PERTURB=1"}) {
      const Outcome outcome = child(order, name);
      INFO(name, ", ", order, ": ", outcome.text);
      CHECK(outcome.status == 0);
      CHECK_FALSE(outcome.says("Sanitizer"));
    }
  }
}

TEST_CASE("every planted bug is found") {
  for (const Planted& bug : kPlanted) {
    if (kHow == How::address) {
      expect(bug, kOrders[0], bug.address);
    } else if (kHow == How::thread) {
      expect(bug, kOrders[0], bug.thread);
    } else {
      for (std::size_t i = 0; i < kOrders.size(); ++i) expect(bug, kOrders[i], i < 2 ? bug.greedy : bug.random);
    }
  }
}

TEST_CASE("what ends or alters a program") {
  SUBCASE("a kernel that never ends is ended by the watchdog, which names it") {
    const Outcome outcome = child("KEMU_WATCHDOG=1", "spin");
    CHECK(outcome.says("kemu: watchdog: kernel spin_kernel has run for more than 1 s; thread"));
    CHECK(outcome.status == 87 << 8);
  }
  SUBCASE("the host may not touch device memory, if that is asked for") {
    const Outcome outcome = child("KEMU_TRAP_HOST=1", "host_reads_device");
    if (kHow == How::plain) CHECK(outcome.says("the host may not touch it"));
    if (kHow == How::plain)
      for (const std::string name : {"right_softmax", "right_read_back", "right_two_streams"}) CHECK(child("KEMU_TRAP_HOST=1", name).status == 0);
  }
  SUBCASE("memory that is never freed") {
    const Outcome outcome = child("ASAN_OPTIONS=detect_leaks=1", "leak");
    CHECK(outcome.says("1000 byte(s)") == (kHow == How::address));
  }
  SUBCASE("a kernel that is left out leaves its output as it was") {
    const Outcome outcome = child("KEMU_LEAVE_OUT=softmax_kernel", "right_softmax");
    CHECK(outcome.text == "WRONG\n");
    CHECK(child("KEMU_LEAVE_OUT=softmax_kernel", "right_rotate").status == 0);
  }
  SUBCASE("the log has names and the largest blocks") {
    const std::string log = "/tmp/kemu_log_" + std::to_string(getpid());
    child("KEMU_LOG=" + log, "right_softmax");
    child("KEMU_LOG=" + log, "right_rotate");
    std::ifstream file(log);
    std::ostringstream text;
    text << file.rdbuf();
    CHECK(text.str() == "softmax_kernel 96\nrotate_kernel 64\n");
    std::remove(log.c_str());
  }
  SUBCASE("an error that nobody asked for changes the status of the program") {
    const Outcome outcome = child("", "never_asked");
    CHECK(outcome.says("kemu: the program ends with an error that it never asked for: cudaFree: the pointer is not that of an allocation"));
    CHECK(outcome.status == 86 << 8);
  }
  SUBCASE("a setting that is no setting") {
    CHECK(child("KEMU_ORDER=sideways", "right_rotate").says("KEMU_ORDER: expected forward, reverse or random, found 'sideways'"));
    CHECK(child("KEMU_SEED=many", "right_rotate").says("KEMU_SEED: expected a number, found 'many'"));
  }
}

int main(int argc, char** argv) {
  program = argv[0];
  if (argc == 3 && std::string(argv[1]) == "--case") return run_case(argv[2]);
  doctest::Context context(argc, argv);
  return context.run();
}
