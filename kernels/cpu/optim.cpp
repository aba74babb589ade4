// Steps of AdamW and SGD over many tensors at once.
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/element_of.h"
#include "kernels/cpu/isa/streams.h"
#include "kernels/cpu/rows.h"
#include "kernels/parallel.h"

namespace cambium::kernels::cpu {
namespace {

float* state(const Strided& s, std::int64_t i) { return s ? s.as<float>() + i : nullptr; }

// Calls `step(tensor, begin, end)` for pieces of all tensors that the vector code takes: one list of work, so that hundreds of small
// tensors share the threads. Returns the others.
template <class F>
std::vector<OptimizerTensor> for_each_piece(const OptimizerTensor* tensors, int n, F&& step) {
  struct Piece { const OptimizerTensor* tensor; std::int64_t begin, end; };
  std::vector<Piece> pieces;
  std::vector<OptimizerTensor> others;
  for (int k = 0; k < n; ++k) {
    const std::int64_t count = tensors[k].parameter.count();
    if (!is_vector_type(tensors[k].parameter.dtype)) others.push_back(tensors[k]);
    else for (std::int64_t begin = 0; begin < count; begin += kGrain) pieces.push_back({tensors + k, begin, std::min(count, begin + kGrain)});
  }
  parallel_for(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    step(*piece.tensor, piece.begin, piece.end);
  });
  return others;
}

// Calls `step(parameter, gradient, state1, state2, count)` with the C++ types of a tensor's operands.
template <class F>
void for_each_tensor(const OptimizerTensor* tensors, int n, const char* what, F&& step) {
  for (int k = 0; k < n; ++k) {
    const OptimizerTensor& t = tensors[k];
    visit_float(t.parameter.dtype, what, [&](auto tag) {
      using P = typename decltype(tag)::type;
      using S = acc_t<P>;
      const auto with_gradient = [&]<class G>(TypeTag<G>) {
        parallel_ranges(t.parameter.count(), 16384, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) {
            S parameter = convert<S>(t.parameter.as<P>()[i]);
            S none1 = 0, none2 = 0;
            step(parameter, convert<S>(t.gradient.as<G>()[i]), t.state1 ? t.state1.as<S>()[i] : none1, t.state2 ? t.state2.as<S>()[i] : none2);
            t.parameter.as<P>()[i] = convert<P>(parameter);
          }
        });
      };
      if (t.gradient.dtype == t.parameter.dtype) with_gradient(TypeTag<P>{});
      else with_gradient(TypeTag<float>{});
    });
  }
}

}  // namespace

// Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, with epsilon outside of the corrected root.
void adamw(Context&, const OptimizerTensor* tensors, int n, const AdamWOptions& o) {
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(o.step)), correction2 = std::sqrt(1 - std::pow(o.beta2, static_cast<double>(o.step)));
  const AdamWFactors factors{static_cast<float>(1 - o.learning_rate * o.weight_decay), static_cast<float>(o.beta1), static_cast<float>(1 - o.beta1),
                             static_cast<float>(o.beta2), static_cast<float>(1 - o.beta2), static_cast<float>(o.learning_rate / correction1),
                             static_cast<float>(1 / correction2), static_cast<float>(o.epsilon)};
  const std::vector<OptimizerTensor> others = for_each_piece(tensors, n, [&](const OptimizerTensor& t, std::int64_t begin, std::int64_t end) {
    isa().streams->adamw(element_of(t.parameter.dtype), element_of(t.gradient.dtype), element(t.parameter, begin), element(t.gradient, begin), state(t.state1, begin),
                         state(t.state2, begin), end - begin, factors);
  });
  for_each_tensor(others.data(), static_cast<int>(others.size()), "adamw", [&]<class S>(S& parameter, S gradient, S& first, S& second) {
    parameter *= static_cast<S>(1 - o.learning_rate * o.weight_decay);
    first = static_cast<S>(o.beta1) * first + static_cast<S>(1 - o.beta1) * gradient;
    second = static_cast<S>(o.beta2) * second + static_cast<S>(1 - o.beta2) * gradient * gradient;
    parameter -= static_cast<S>(o.learning_rate / correction1) * first / (std::sqrt(second) / static_cast<S>(correction2) + static_cast<S>(o.epsilon));
  });
}

void sgd(Context&, const OptimizerTensor* tensors, int n, const SgdOptions& o) {
  const SgdFactors factors{static_cast<float>(o.learning_rate), static_cast<float>(o.momentum), static_cast<float>(1 - o.dampening),
                           static_cast<float>(o.weight_decay), o.nesterov, o.first_step};
  const std::vector<OptimizerTensor> others = for_each_piece(tensors, n, [&](const OptimizerTensor& t, std::int64_t begin, std::int64_t end) {
    isa().streams->sgd(element_of(t.parameter.dtype), element_of(t.gradient.dtype), element(t.parameter, begin), element(t.gradient, begin), state(t.state1, begin),
                       end - begin, factors);
  });
  for_each_tensor(others.data(), static_cast<int>(others.size()), "sgd", [&]<class S>(S& parameter, S gradient, S& buffer, S&) {
    gradient += static_cast<S>(o.weight_decay) * parameter;
    if (o.momentum != 0) {
      buffer = o.first_step ? gradient : static_cast<S>(o.momentum) * buffer + static_cast<S>(1 - o.dampening) * gradient;
      gradient = o.nesterov ? gradient + static_cast<S>(o.momentum) * buffer : buffer;
    }
    parameter -= static_cast<S>(o.learning_rate) * gradient;
  });
}

}  // namespace cambium::kernels::cpu
