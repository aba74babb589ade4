// Choice of the instruction set from CPUID, XGETBV and the environment.
#include "kernels/cpu/dispatch.h"

#include <cpuid.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/error.h"

namespace cambium::kernels::cpu {
namespace {

constexpr std::string_view kNames[] = {"portable", "avx2", "avx512"};
constexpr const IsaTable* kTables[] = {&portable::isa_table, &avx2::isa_table, &avx512::isa_table};

/// The register state that the operating system saves; 0 without XGETBV.
std::uint64_t saved_state(unsigned ecx1) {
  if (!(ecx1 & bit_OSXSAVE)) return 0;
  std::uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

Isa widest() {
  static const Isa found = [] {
    unsigned a, b, ecx1, d, ebx7, c;
    if (!__get_cpuid(1, &a, &b, &ecx1, &d) || !__get_cpuid_count(7, 0, &a, &ebx7, &c, &d)) return Isa::portable;
    const std::uint64_t state = saved_state(ecx1);
    constexpr unsigned need1 = bit_AVX | bit_FMA | bit_F16C, need2 = bit_AVX2 | bit_BMI | bit_BMI2;
    constexpr unsigned need512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    if ((ecx1 & need1) != need1 || (ebx7 & need2) != need2 || (state & 0x6) != 0x6) return Isa::portable;
    return (ebx7 & need512) == need512 && (state & 0xe6) == 0xe6 ? Isa::avx512 : Isa::avx2;
  }();
  return found;
}

const IsaTable* choose() {
  const char* name = std::getenv("CAMBIUM_KERNELS");
  return kTables[static_cast<int>(name && *name ? parse_isa(name) : widest())];
}

std::atomic<const IsaTable*> active{nullptr};

}  // namespace

const IsaTable& isa() {
  const IsaTable* table = active.load(std::memory_order_relaxed);
  if (!table) [[unlikely]] {
    table = choose();
    active.store(table, std::memory_order_relaxed);
  }
  return *table;
}

Isa parse_isa(std::string_view name) {
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (isa_name(isa) != name) continue;
    check<DeviceError>(isa_supported(isa), "CAMBIUM_KERNELS: this machine does not run ", name, " code: its widest set is ", isa_name(widest()));
    return isa;
  }
  fail<ConfigError>("CAMBIUM_KERNELS: expected portable, avx2 or avx512, found ", name, ": unset it to use the widest set of the machine");
}

Isa active_isa() { return isa().isa; }
std::string_view isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }
bool isa_supported(Isa isa) { return isa <= widest(); }

std::vector<Isa> supported_isas() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512})
    if (isa_supported(isa)) all.push_back(isa);
  return all;
}

UseIsa::UseIsa(Isa isa) : before_(active.load(std::memory_order_relaxed)) {
  check<DeviceError>(isa_supported(isa), "UseIsa: this machine does not run ", isa_name(isa), " code: its widest set is ", isa_name(widest()));
  active.store(kTables[static_cast<int>(isa)], std::memory_order_relaxed);
}
UseIsa::~UseIsa() { active.store(before_, std::memory_order_relaxed); }

}  // namespace cambium::kernels::cpu
