// LoRA's forward around matrices and around embeddings, with DoRA (Liu et al. 2024, arXiv 2402.09353) and biases on B.
#include "peft/lora.h"

namespace cambium {

namespace {

/// x in the wider of both types.
Tensor widened(const Tensor& x, const Tensor& other) { return item_size(other.dtype()) > item_size(x.dtype()) ? to_dtype(x, other.dtype()) : x; }

/// factor * x over the last dimension, in the wider of both types.
Tensor times(const Tensor& x, const Tensor& factor) {
  const Tensor wide = widened(x, factor);
  return mul(wide, to_dtype(factor, wide.dtype()));
}

}  // namespace

LoraTerm LoraLinear::term_of(const std::string& adapter, const ForwardContext& context) const {
  LoraTerm term{lora_A->at(adapter), lora_B->at(adapter), scaling(adapter)};
  if (context.training && lora_dropout(adapter) > 0.0) {
    const RandomKey key = context.key.fold(path()).fold(adapter);
    term.dropout_p = lora_dropout(adapter);
    term.seed = key.seed;
    term.offset = key.offset;
  }
  return term;
}

/// The base's bias and the scaled biases of B, in the base's type: they cost nothing when they are added with it.
Tensor LoraLinear::widened_bias(const std::vector<std::string>& names) const {
  Tensor sum;
  for (const std::string& name : names) {
    if (!lora_bias(name)) continue;
    const Tensor part = mul(lora_B->bias(name), scaling(name));
    if (!sum.defined()) sum = has_bias() ? add(to_dtype(bias(), part.dtype()), part) : part;
    else sum = add(to_dtype(sum, part.dtype()), part);
  }
  return to_dtype(sum, weight().get().dtype());
}

Tensor LoraLinear::forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const {
  bool any_dora = false, any_bias = false;
  std::vector<LoraTerm> terms;
  terms.reserve(names.size());
  for (const std::string& name : names) {
    any_dora = any_dora || use_dora(name);
    any_bias = any_bias || lora_bias(name);
    terms.push_back(term_of(name, context));
  }
  if (any_dora) return with_dora(x, names, context);
  if (any_bias) return lora_linear(x, weight(), widened_bias(names), terms, weight_is_transposed());
  return linear_base().forward_with_lora(x, terms, context);
}

// One DoRA adapter without dropout is y = b + f (W x + s B A x) with f its factor: the base product and the update stay one op.
// With dropout, PEFT drops the input of the base's part as well: y = W x + b + (f - 1) W d(x) + f s B A d(x) = W (x - d(x)) + b + f (W + s B A) d(x).
// Several adapters follow each other, each scaling what is there, as in PEFT.
Tensor LoraLinear::with_dora(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const {
  const bool transposed = weight_is_transposed();
  const Tensor& w = weight();
  const Tensor base_bias = has_bias() ? bias().get() : Tensor();
  const auto product = [&](const Tensor& in, const Tensor& with_bias) { return transposed ? linear_transposed(in, w, with_bias) : linear(in, w, with_bias); };
  const auto update = [&](const Tensor& in, const LoraTerm& term) {
    Tensor rows = to_dtype(in, term.a.dtype());
    if (term.dropout_p > 0.0) rows = dropout(rows, term.dropout_p, RandomKey{term.seed, term.offset});
    return linear(mul(linear(rows, term.a), term.scaling), term.b);
  };
  Tensor y;  // undefined: nothing but the base so far
  for (const std::string& name : names) {
    LoraTerm term = term_of(name, context);
    if (!use_dora(name)) {
      check<StateError>(!lora_bias(name), path(), ": adapter '", name, "' has a lora_bias and cannot be active together with DoRA adapters");
      if (!y.defined()) {
        y = lora_linear(x, w, base_bias, {&term, 1}, transposed);
      } else {
        const Tensor part = update(x, term);
        y = add(widened(y, part), part);
      }
      continue;
    }
    const Tensor factor = dora_factor(name);
    if (term.dropout_p == 0.0) {
      if (!y.defined()) {
        y = times(lora_linear(x, w, {}, {&term, 1}, transposed), factor);
        if (base_bias.defined()) y = add(y, to_dtype(base_bias, y.dtype()));
      } else {
        const Tensor part = update(x, term);
        const Tensor without_bias = base_bias.defined() ? sub(widened(y, part), to_dtype(base_bias, widened(y, part).dtype())) : widened(y, part);
        y = times(add(without_bias, part), factor);
        if (base_bias.defined()) y = add(y, to_dtype(base_bias, y.dtype()));
      }
      continue;
    }
    const Tensor dropped = dropout(x, term.dropout_p, RandomKey{term.seed, term.offset});
    term.dropout_p = 0.0;
    const Tensor scaled = times(lora_linear(dropped, w, {}, {&term, 1}, transposed), factor);
    const Tensor rest = y.defined() ? sub(widened(y, scaled), to_dtype(product(dropped, {}), scaled.dtype())) : product(sub(x, dropped), base_bias);
    y = add(widened(rest, scaled), scaled);
  }
  return to_dtype(y, x.dtype());
}

Tensor LoraEmbedding::forward_adapted(const Tensor& ids, const std::vector<std::string>& names, const ForwardContext& context) const {
  const Tensor base = base_layer->forward(ids, context);
  Tensor y = base;
  for (const std::string& name : names) {
    const Tensor row = embedding(ids, transpose(lora_embedding_A->at(name)), padding_index());  // (…, r)
    Tensor part = linear(mul(row, scaling(name)), lora_embedding_B->at(name));
    if (use_dora(name)) {
      const Tensor factor = dora_factor(name);
      y = times(y, factor);
      part = times(part, factor);
    }
    y = widened(y, part);
    y = add(y, to_dtype(part, y.dtype()));
  }
  return to_dtype(y, base.dtype());
}

}  // namespace cambium
