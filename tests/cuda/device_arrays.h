// Arrays of tests/kernel_arrays.h on the device, and calls of the tables of CPU and CUDA on the same inputs.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "emulation.h"
#include "kernel_arrays.h"
#include "kernels/cuda/cuda.h"
#include "kernels/device.h"

namespace cambium::test {

inline constexpr Device kGpu{DeviceType::cuda, 0};
inline kernels::Context& gpu() {
  static kernels::Context context{kGpu};
  return context;
}

/// A copy of a host array in device memory, with the same gaps between its elements.
class DeviceArray {
 public:
  explicit DeviceArray(const Array& host) : host_(host), view_(host.view()), bytes_(host.bytes().size()), data_(static_cast<std::byte*>(kernels::allocate(kGpu, bytes_))) {
    kernels::copy_bytes(kGpu, data_, Device{}, host.bytes().data(), bytes_);
    view_.data = data_ + start();
  }
  ~DeviceArray() { kernels::deallocate(kGpu, data_, bytes_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator kernels::Strided() const { return view_; }
  /// What is on the device now.
  Array fetch() const {
    Array result(host_);
    kernels::copy_bytes(Device{}, result.view().as<std::byte>() - start(), kGpu, data_, bytes_);
    return result;
  }

 private:
  std::ptrdiff_t start() const { return host_.view().as<std::byte>() - host_.bytes().data(); }

  const Array host_;
  kernels::Strided view_;
  std::size_t bytes_;
  std::byte* data_;
};

/// "float32 [2, 3]: " for the message of a failed check.
inline std::string name_of(const kernels::Strided& s) {
  std::string text(cambium::name_of(s.dtype));
  for (int i = 0; i < s.rank; ++i) text += (i == 0 ? " [" : ", ") + std::to_string(s.shape[i]);
  return text + "]";
}

inline void require_close(const Array& found, const Array& expected, double relative, double absolute) {
  CHECK(found.gaps_untouched());
  for (std::int64_t i = 0; i < expected.count(); ++i) {
    if (close(found[i], expected[i], relative, absolute)) continue;
    FAIL_CHECK(name_of(found.view()), ": element ", i, ": expected ", expected[i], ", found ", found[i]);
    return;
  }
}

/// Runs `call(table, context, out, in...)` on the CPU and on the device in every order of threads and blocks. The device's elements must be as close to the
/// CPU's as said, and the same bits in every order. `out` holds what the call finds there.
template <class Call, class... In>
void compare_devices(const Array& out, double relative, double absolute, Call&& call, const In&... in) {
  Array expected(out);
  call(table(), cpu(), expected.view(), static_cast<kernels::Strided>(Array(in))...);  // copies: some calls write into their inputs
  std::vector<std::byte> bits;
  for (const kemu::Order order : {kemu::Order::forward, kemu::Order::reverse, kemu::Order::random}) {
    const kemu::Order before = kemu::settings().order;
    kemu::settings().order = order;
    const DeviceArray result(out);
    const auto run = [&](const auto&... inputs) { call(kernels::cuda::table(), gpu(), static_cast<kernels::Strided>(result), static_cast<kernels::Strided>(inputs)...); };
    run(DeviceArray(in)...);
    const Array found = result.fetch();
    kemu::settings().order = before;
    if (bits.empty()) require_close(found, expected, relative, absolute);
    CHECK((bits.empty() || bits == found.bytes()));
    bits = found.bytes();
  }
}
template <class Call, class... In>
void same_on_devices(const Array& out, Call&& call, const In&... in) { compare_devices(out, 0, 0, call, in...); }

}  // namespace cambium::test
