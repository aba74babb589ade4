// The table of the CUDA kernels. Each entry selects the context's device for the call.
#include "kernels/complete.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runtime.h"

namespace cambium::kernels::cuda {
namespace {

template <auto Launcher> struct OnDevice;
template <class... Arguments, void (*Launcher)(Context&, Arguments...)>
struct OnDevice<Launcher> {
  static void call(Context& context, Arguments... arguments) {
    const DeviceScope scope(context.device);
    Launcher(context, arguments...);
  }
};
template <auto Launcher>
constexpr auto on_device = &OnDevice<Launcher>::call;

constexpr Kernels kTable{
    .copy = on_device<&cuda::copy>,
    .fill = on_device<&cuda::fill>,
    .arange = on_device<&cuda::arange>,
    .dequantize = on_device<&cuda::dequantize>,
    .unary = on_device<&cuda::unary>,
    .unary_backward = on_device<&cuda::unary_backward>,
    .binary = on_device<&cuda::binary>,
    .compare = on_device<&cuda::compare>,
    .where = on_device<&cuda::where>,
    .gated = on_device<&cuda::gated>,
    .gated_backward = on_device<&cuda::gated_backward>,
    .reduce = on_device<&cuda::reduce>,
    .arg_reduce = on_device<&cuda::arg_reduce>,
    .cumsum = on_device<&cuda::cumsum>,
    .sort = on_device<&cuda::sort>,
    .topk = on_device<&cuda::topk>,
    .gemm = on_device<&cuda::gemm>,
    .layer_norm_forward = on_device<&cuda::layer_norm_forward>,
    .layer_norm_backward = on_device<&cuda::layer_norm_backward>,
    .rms_norm_forward = on_device<&cuda::rms_norm_forward>,
    .rms_norm_backward = on_device<&cuda::rms_norm_backward>,
    .softmax_forward = on_device<&cuda::softmax_forward>,
    .softmax_backward = on_device<&cuda::softmax_backward>,
    .cross_entropy_forward = on_device<&cuda::cross_entropy_forward>,
    .cross_entropy_backward = on_device<&cuda::cross_entropy_backward>,
    .gather = on_device<&cuda::gather>,
    .scatter_add = on_device<&cuda::scatter_add>,
    .index_select = on_device<&cuda::index_select>,
    .index_add = on_device<&cuda::index_add>,
    .attention_forward = on_device<&cuda::attention_forward>,
    .attention_backward = on_device<&cuda::attention_backward>,
    .rotary = on_device<&cuda::rotary>,
    .random_uniform = on_device<&cuda::random_uniform>,
    .random_normal = on_device<&cuda::random_normal>,
    .dropout = on_device<&cuda::dropout>,
    .lstm_cell_forward = on_device<&cuda::lstm_cell_forward>,
    .lstm_cell_backward = on_device<&cuda::lstm_cell_backward>,
    .adamw = on_device<&cuda::adamw>,
    .sgd = on_device<&cuda::sgd>,
    .sum_of_squares = on_device<&cuda::sum_of_squares>,
    .scale_all = on_device<&cuda::scale_all>,
    .count_not_finite = on_device<&cuda::count_not_finite>,
    .qr = on_device<&cuda::qr>,
    .svd = on_device<&cuda::svd>,
};
// g++ does not take an address as a constant under -fsanitize=undefined; other builds check.
static_assert(!__builtin_constant_p(is_complete(kTable)) || is_complete(kTable), "a kernel of kernels.h is missing in the table of CUDA");

}  // namespace

const Kernels& table() { return kTable; }

}  // namespace cambium::kernels::cuda
