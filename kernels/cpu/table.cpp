// The table of the CPU's kernels and the choice of a device's table.
#include <atomic>

#include "kernels/backend.h"
#include "kernels/complete.h"
#include "kernels/cpu/cpu.h"

namespace cambium::kernels {
namespace cpu {
namespace {

constexpr Kernels kTable{
    .copy = &cpu::copy,
    .fill = &cpu::fill,
    .arange = &cpu::arange,
    .dequantize = &cpu::dequantize,
    .unary = &cpu::unary,
    .unary_backward = &cpu::unary_backward,
    .binary = &cpu::binary,
    .compare = &cpu::compare,
    .where = &cpu::where,
    .gated = &cpu::gated,
    .gated_backward = &cpu::gated_backward,
    .reduce = &cpu::reduce,
    .arg_reduce = &cpu::arg_reduce,
    .cumsum = &cpu::cumsum,
    .sort = &cpu::sort,
    .topk = &cpu::topk,
    .gemm = &cpu::gemm,
    .layer_norm_forward = &cpu::layer_norm_forward,
    .layer_norm_backward = &cpu::layer_norm_backward,
    .rms_norm_forward = &cpu::rms_norm_forward,
    .rms_norm_backward = &cpu::rms_norm_backward,
    .softmax_forward = &cpu::softmax_forward,
    .softmax_backward = &cpu::softmax_backward,
    .cross_entropy_forward = &cpu::cross_entropy_forward,
    .cross_entropy_backward = &cpu::cross_entropy_backward,
    .gather = &cpu::gather,
    .scatter_add = &cpu::scatter_add,
    .index_select = &cpu::index_select,
    .index_add = &cpu::index_add,
    .attention_forward = &cpu::attention_forward,
    .attention_backward = &cpu::attention_backward,
    .rotary = &cpu::rotary,
    .random_uniform = &cpu::random_uniform,
    .random_normal = &cpu::random_normal,
    .dropout = &cpu::dropout,
    .lstm_cell_forward = &cpu::lstm_cell_forward,
    .lstm_cell_backward = &cpu::lstm_cell_backward,
    .adamw = &cpu::adamw,
    .sgd = &cpu::sgd,
    .sum_of_squares = &cpu::sum_of_squares,
    .scale_all = &cpu::scale_all,
    .count_not_finite = &cpu::count_not_finite,
    .qr = &cpu::qr,
    .svd = &cpu::svd,
};
// g++ does not take an address as a constant under -fsanitize=undefined; other builds check.
static_assert(!__builtin_constant_p(is_complete(kTable)) || is_complete(kTable), "a kernel of kernels.h is missing in the table of the CPU");

}  // namespace

const Kernels& table() { return kTable; }

}  // namespace cpu

namespace {
std::atomic<const Kernels*> replacement{nullptr};
}

void detail::replace_cpu_table(const Kernels* table) { replacement = table; }

const Kernels& kernels_for(Device device) {
  if (device.type != DeviceType::cpu) {
    const Backend* backend = cuda_backend();
    check<DeviceError>(backend != nullptr, "kernels: this build has no kernels for device ", device);
    check<DeviceError>(device.index >= 0 && device.index < backend->count(), "kernels: there is no device ", device, ", found ", backend->count());
    return backend->table();
  }
  const Kernels* other = replacement.load(std::memory_order_relaxed);
  return other != nullptr ? *other : cpu::table();
}

}  // namespace cambium::kernels
