// Settings of the emulator, from the environment; the log of kernels; the perturbation of mathematical functions. Built without sanitizers.
#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "emulated_device.h"
#include "internal.h"

#undef expf

namespace kemu {

bool perturbing = false;

namespace {

std::int64_t number(const char* name, std::int64_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == 0) return otherwise;
  char* end = nullptr;
  const std::int64_t value = std::strtoll(text, &end, 10);
  if (*end == 0) return value;
  std::fprintf(stderr, "kemu: %s: expected a number, found '%s'\n", name, text);
  std::_Exit(2);
}

Settings from_environment() {
  Settings s;
  const char* order = std::getenv("KEMU_ORDER");
  if (order != nullptr && *order != 0) {
    if (std::strcmp(order, "forward") == 0) s.order = Order::forward;
    else if (std::strcmp(order, "reverse") == 0) s.order = Order::reverse;
    else if (std::strcmp(order, "random") == 0) s.order = Order::random;
    else {
      std::fprintf(stderr, "kemu: KEMU_ORDER: expected forward, reverse or random, found '%s'\n", order);
      std::_Exit(2);
    }
  }
  s.seed = static_cast<std::uint64_t>(number("KEMU_SEED", 1));
  s.strict = number("KEMU_STRICT", 1) != 0;
  s.lazy = number("KEMU_LAZY", 1) != 0;
  s.check_pointers = number("KEMU_CHECK_POINTERS", 1) != 0;
  s.trap_host = number("KEMU_TRAP_HOST", 0) != 0;
  s.perturb = number("KEMU_PERTURB", 0) != 0;
  s.quiet = number("KEMU_QUIET", 0) != 0;
  s.devices = static_cast<int>(number("KEMU_DEVICES", s.devices));
  s.capability = static_cast<int>(number("KEMU_CAPABILITY", s.capability));
  s.memory = static_cast<std::size_t>(number("KEMU_MEMORY", static_cast<std::int64_t>(s.memory)));
  s.watchdog = static_cast<int>(number("KEMU_WATCHDOG", s.watchdog));
  if (const char* text = std::getenv("KEMU_LEAVE_OUT")) s.leave_out = text;
  if (const char* text = std::getenv("KEMU_LOG")) s.log = text;
  if (s.order == Order::random) std::fprintf(stderr, "kemu: random order, KEMU_SEED=%llu\n", static_cast<unsigned long long>(s.seed));
  return s;
}

std::map<std::string, unsigned>& launches() {
  static auto* map = new std::map<std::string, unsigned>;
  return *map;
}

// Uniform in [-1, 1], from the bits of the value: the same result for the same argument, in whatever order threads run.
float draw(float value) {
  std::uint64_t x = std::bit_cast<std::uint32_t>(value) + settings().seed * 0x9E3779B97F4A7C15ULL;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ x >> 27) * 0x94D049BB133111EBULL;
  x ^= x >> 31;
  return static_cast<float>(static_cast<double>(x >> 11) * 0x1p-52 - 1.0);
}

}  // namespace

Settings& settings() {
  static Settings* instance = [] {
    auto* made = new Settings(from_environment());
    perturbing = made->perturb;
    return made;
  }();
  return *instance;
}

int capability() { return settings().capability; }

std::size_t most_shared_memory() {
  switch (settings().capability) {
    case 75: return 64 * 1024;
    case 80: return 163 * 1024;
    case 90: return 227 * 1024;
    default: return 99 * 1024;
  }
}

float moved(float value, float ulp) {
  if (!std::isfinite(value) || value == 0.0F) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
  return static_cast<float>(static_cast<double>(value) + std::nearbyint(static_cast<double>(draw(value) * ulp)) * unit);
}

float moved_absolutely(float value, float bound) { return std::isfinite(value) ? value + draw(value) * bound : value; }

bool note_launch(const char* name, unsigned threads) {
  perturbing = settings().perturb;
  const std::string text(name);
  std::string base = text.substr(0, text.find('<'));
  base = base.substr(base.rfind(':') == std::string::npos ? 0 : base.rfind(':') + 1);
  while (!base.empty() && (base.back() == ' ' || base.back() == ')')) base.pop_back();
  while (!base.empty() && (base.front() == ' ' || base.front() == '(')) base.erase(base.begin());
  unsigned& most = launches()[base];
  if (threads > most) {
    most = threads;
    if (!settings().log.empty()) {
      const std::string line = base + " " + std::to_string(threads) + "\n";
      const int file = open(settings().log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
      if (file < 0 || write(file, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::perror("kemu: KEMU_LOG");
      if (file >= 0) close(file);
    }
  }
  return base == settings().leave_out;
}

std::vector<std::string> launched_kernels() {
  std::vector<std::string> names;
  for (const auto& [name, threads] : launches()) names.push_back(name);
  return names;
}

}  // namespace kemu
