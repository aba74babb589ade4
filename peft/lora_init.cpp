// Initial values of LoRA's factors.
#include "peft/lora_init.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"

namespace cambium {

namespace {

/// Orthonormal columns that span nearly what the r largest right singular vectors of w (M, N) map to: w times a random (N, r), multiplied by w wᵀ `iterations` times.
Tensor range_basis(const Tensor& w, std::int64_t r, std::int64_t iterations, RandomKey key) {
  Tensor q = qr(matmul(w, random_normal({w.size(1), r}, key.fold("pissa"), 0.0, 1.0, w.dtype(), w.device()))).q;
  for (std::int64_t i = 0; i < iterations; ++i) {
    const Tensor back = qr(matmul(transpose(w), q)).q;
    q = qr(matmul(w, back)).q;
  }
  return q;
}

}  // namespace

LoraFactors initial_factors(const LoraInit& init, std::int64_t r, std::int64_t in, std::int64_t out, bool is_embedding, bool with_bias, DType dtype, Device device, RandomKey key) {
  using Way = LoraInit::Way;
  NoGrad no_grad;
  const auto uniform = [&](const Shape& shape, std::int64_t fan, std::string_view which) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(fan));  // Kaiming uniform with a = sqrt(5) is exactly ±1/sqrt(fan_in)
    return random_uniform(shape, key.fold(which), -bound, bound, dtype, device);
  };
  const auto normal = [&](const Shape& shape, double deviation, std::string_view which) { return random_normal(shape, key.fold(which), 0.0, deviation, dtype, device); };
  LoraFactors out_values;
  if (is_embedding) {
    out_values.a = init.way == Way::uniform ? normal({r, in}, 1.0, "lora_A") : zeros({r, in}, dtype, device);
    out_values.b = normal({out, r}, 1.0, "lora_B");
    return out_values;
  }
  if (init.way == Way::orthogonal) {
    check<ConfigError>(r % 2 == 0, "init_lora_weights \"orthogonal\": expected an even r, found ", r);
    const std::int64_t half = r / 2;
    const Tensor q = qr(random_normal({r, r}, key.fold("orthogonal"), 0.0, 1.0)).q;
    const Tensor even = slice(q, 0, 0, r, 2), odd = slice(q, 0, 1, r, 2);  // rows that are orthogonal to each other
    const Tensor left = random_normal({in, half}, key.fold("lora_A"), 0.0, 1.0), right = random_normal({out, half}, key.fold("lora_B"), 0.0, 1.0);
    out_values.a = to_device(to_dtype(contiguous(transpose(mul(matmul(left, even), 0.1))), dtype), device);
    out_values.b = to_device(to_dtype(mul(matmul(right, odd), 0.1), dtype), device);
    return out_values;
  }
  out_values.a = init.way == Way::gaussian ? normal({r, in}, 1.0 / static_cast<double>(r), "lora_A") : uniform({r, in}, in, "lora_A");
  out_values.b = init.way == Way::uniform ? uniform({out, r}, r, "lora_B") : zeros({out, r}, dtype, device);
  if (with_bias) out_values.bias = init.way == Way::uniform ? uniform({out}, r, "lora_B.bias") : zeros({out}, dtype, device);
  return out_values;
}

LoraFactors principal_factors(const Tensor& weight, bool transposed, const LoraInit& init, std::int64_t r, double scaling, RandomKey key) {
  NoGrad no_grad;
  const char* name = init.way == LoraInit::Way::pissa ? "pissa" : "olora";
  const DType dtype = weight.dtype();
  check<ConfigError>(scaling > 0.0, "init_lora_weights \"", name, "\": expected a positive scaling, found ", scaling);
  const Tensor stored = to_dtype(detach(weight), dtype == DType::f64 ? DType::f64 : DType::f32);
  const Tensor w = contiguous(transposed ? transpose(stored) : stored);  // (out, in)
  const std::int64_t most = std::min(w.size(0), w.size(1));
  check<ConfigError>(r <= most, "init_lora_weights \"", name, "\": r ", r, " is larger than the ", most, " that a weight of ", weight.shape(), " has");
  LoraFactors out;
  if (init.way == LoraInit::Way::olora) {
    const QrResult result = qr(w);
    out.a = contiguous(slice(result.r, 0, 0, r));
    out.b = contiguous(slice(result.q, 1, 0, r));
  } else {
    Tensor u, s, vt;
    if (init.iterations) {
      const Tensor q = range_basis(w, r, *init.iterations, key);
      const SvdResult small = svd(matmul(transpose(q), w));
      u = matmul(q, small.u);
      s = small.s;
      vt = small.vt;
    } else {
      const SvdResult whole = svd(w);
      u = slice(whole.u, 1, 0, r);
      s = slice(whole.s, 0, 0, r);
      vt = slice(whole.vt, 0, 0, r);
    }
    const Tensor root = sqrt(div(s, scaling));
    out.a = contiguous(mul(unsqueeze(root, 1), vt));
    out.b = contiguous(mul(u, root));
  }
  // The factors take the base's type, and what they then give is what is taken out.
  out.a = to_dtype(out.a, dtype);
  out.b = to_dtype(out.b, dtype);
  Tensor rest = sub(w, mul(matmul(to_dtype(out.b, w.dtype()), to_dtype(out.a, w.dtype())), scaling));
  rest = to_dtype(transposed ? contiguous(transpose(rest)) : rest, dtype);
  out.base = weight.requires_grad() ? rest.set_requires_grad(true) : rest;
  return out;
}

}  // namespace cambium
