// Calls of kernels with several operands on CPU and CUDA: the device in every order of threads and blocks, its results against float64 and the CPU's.
#pragma once

#include <memory>
#include <vector>

#include "tests/cuda/device_arrays.h"

namespace cambium::test {

using Arrays = std::vector<Array>;
using Views = std::vector<kernels::Strided>;

/// The same numbers in another type, laid out densely.
inline Array converted(const Array& from, DType dtype) {
  Array result(dtype, from.shape());
  return result.generate([&](std::int64_t i) { return from[i]; });
}
/// Float arrays as float64, others as they are.
inline Arrays in_float64(const Arrays& from) {
  Arrays result;
  for (const Array& a : from) result.push_back(is_float(a.view().dtype) ? converted(a, DType::f64) : a);
  return result;
}
inline Views views_of(const Arrays& arrays) { return Views(arrays.begin(), arrays.end()); }

/// `call(table, context, outs, ins)` on the CPU; what `outs` holds afterwards.
template <class Call>
Arrays on_cpu(const Arrays& outs, const Arrays& ins, Call&& call) {
  Arrays results(outs);
  call(table(), cpu(), views_of(results), views_of(ins));
  return results;
}

/// The same on the device: in every order, which must give the same bits, with nothing written between the elements, and no input altered.
template <class Call>
Arrays on_device(const Arrays& outs, const Arrays& ins, Call&& call) {
  Arrays first;
  const kemu::Order before = kemu::settings().order;
  for (const kemu::Order order : {kemu::Order::forward, kemu::Order::reverse, kemu::Order::random}) {
    kemu::settings().order = order;
    std::vector<std::unique_ptr<DeviceArray>> device_outs, device_ins;
    for (const Array& a : outs) device_outs.push_back(std::make_unique<DeviceArray>(a));
    for (const Array& a : ins) device_ins.push_back(std::make_unique<DeviceArray>(a));
    Views out_views, in_views;
    for (const auto& a : device_outs) out_views.push_back(*a);
    for (const auto& a : device_ins) in_views.push_back(*a);
    call(kernels::cuda::table(), gpu(), out_views, in_views);
    Arrays found;
    for (const auto& a : device_outs) found.push_back(a->fetch());
    for (std::size_t i = 0; i < ins.size(); ++i) CHECK(device_ins[i]->fetch().bytes() == ins[i].bytes());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].gaps_untouched());
      if (!first.empty()) CHECK(found[i].bytes() == first[i].bytes());
    }
    if (first.empty()) first.swap(found);
  }
  kemu::settings().order = before;
  return first;
}

/// Spacing of the type that sums of `dtype` are made in.
inline double sum_epsilon(DType dtype) { return dtype == DType::f64 ? 0x1p-52 : 0x1p-23; }
inline DType sum_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// Every element of `found` within half a spacing of its type and `roundings` spacings of the type of sums, relative to |expected| + `size`, of `expected`.
inline void require_near(const Array& found, const Array& expected, double roundings, double size) {
  const DType dtype = found.view().dtype;
  for (std::int64_t i = 0; i < expected.count(); ++i) {
    const double sums = roundings * sum_epsilon(dtype);
    // Just below its normal range float16 has absolute spacings of 2^-24.
    const double least = dtype == DType::f16 ? 0x1p-25 : 0;
    if (close(found[i], expected[i], sums + epsilon(dtype) / 2, sums * size + least)) continue;
    FAIL_CHECK(name_of(found.view()), ": element ", i, ": expected ", expected[i], ", found ", found[i]);
    return;
  }
}

}  // namespace cambium::test
