// generate.
#include "nn/generation.h"

#include <algorithm>

#include "nn/generation_rows.h"
#include "nn/generation_seq2seq.h"
#include "nn/kv_cache.h"

namespace cambium {

namespace {

/// The rows so far: padded ids, and which of them are real.
struct Rows {
  std::int64_t count = 0, length = 0;
  std::vector<std::vector<std::int64_t>> ids, real;  ///< by row; real as 0 and 1

  Rows(const Tensor& input_ids, const Tensor& attention_mask) : count(input_ids.size(0)), length(input_ids.size(1)) {
    check<ShapeError>(!attention_mask.defined() || attention_mask.shape() == input_ids.shape(), "generate: expected attention_mask ", input_ids.shape(), ", found ",
                      attention_mask.defined() ? attention_mask.shape() : Shape());
    const std::vector<std::int64_t> all = input_ids.to_vector<std::int64_t>();
    std::vector<std::int64_t> mask(all.size(), 1);
    if (attention_mask.defined()) mask = attention_mask.to_vector<std::int64_t>();
    for (std::int64_t row = 0; row < count; ++row) {
      const auto cut = [&](const std::vector<std::int64_t>& values) { return std::vector(values.begin() + row * length, values.begin() + (row + 1) * length); };
      ids.push_back(cut(all));
      real.push_back(cut(mask));
      for (std::int64_t& value : real.back()) value = value != 0;
      check<ShapeError>(std::is_sorted(real.back().begin(), real.back().end()) && real.back().back() == 1, "generate: row ", row,
                        " is not padded on the left: its last token must be a real one");
    }
  }

  /// Of tokens [first, length): behind `before`, max(cumsum(mask) - 1, 0), or the place in the row where padding counts.
  Tensor positions(std::int64_t first, std::int64_t before, bool count_padding) const {
    std::vector<std::int64_t> out;
    for (const auto& row : real) {
      std::int64_t seen = 0;
      for (std::int64_t t = 0; t < length; ++t) {
        seen += row[static_cast<std::size_t>(t)];
        if (t >= first) out.push_back(before + (count_padding ? t : std::max<std::int64_t>(seen - 1, 0)));
      }
    }
    return from_vector(out, {count, length - first});
  }
  /// One token more in each row.
  void append(const std::vector<std::int64_t>& next) {
    for (std::size_t row = 0; row < next.size(); ++row) {
      ids[row].push_back(next[row]);
      real[row].push_back(1);
    }
    ++length;
  }
  Tensor tokens(std::int64_t first) const { return joined(ids, first); }
  Tensor mask() const { return joined(real, 0); }
  /// What a row has said, without padding.
  std::vector<std::int64_t> seen(std::size_t row) const {
    std::vector<std::int64_t> out;
    for (std::size_t t = 0; t < ids[row].size(); ++t)
      if (real[row][t] != 0) out.push_back(ids[row][t]);
    return out;
  }

 private:
  Tensor joined(const std::vector<std::vector<std::int64_t>>& rows, std::int64_t first) const {
    std::vector<std::int64_t> out;
    for (const auto& row : rows) out.insert(out.end(), row.begin() + first, row.end());
    return from_vector(out, {count, length - first});
  }
};

}  // namespace

std::vector<std::vector<std::int64_t>> generate(const PretrainedModel& model, const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options,
                                                const ForwardContext& context) {
  NoGrad no_grad;
  if (model.task() == Task::seq2seq_lm) {
    ModelInput read;
    read.input_ids = input_ids;
    read.attention_mask = attention_mask;
    return generate_seq2seq(model, read, options, context);
  }
  check<StateError>(model.task() == Task::causal_lm, "generate: expected a language model, found one for ", name_of(model.task()));
  check<ShapeError>(input_ids.defined() && input_ids.rank() == 2 && input_ids.count() > 0, "generate: expected input_ids (batch, time) with a token to start from, found ",
                    input_ids.defined() ? input_ids.shape() : Shape());
  Rows rows(input_ids, attention_mask);
  GenerationRows chosen(static_cast<std::size_t>(rows.count), model.config(), options, context);
  std::unique_ptr<KvCache> cache;
  if (options.use_cache && options.max_new_tokens > 0) cache = model.make_cache(rows.count, rows.length + options.max_new_tokens - 1);
  while (!chosen.finished()) {
    const std::int64_t first = cache ? cache->length() : 0;
    ModelInput input;
    input.input_ids = rows.tokens(first);
    input.attention_mask = rows.mask();
    input.position_ids = rows.positions(first, options.past ? options.past->length() : 0, options.positions_count_padding);
    input.past = options.past;
    input.cache = cache.get();
    input.last_logits_only = true;
    rows.append(chosen.choose(model.forward(input, context).logits, [&](std::size_t row) { return rows.seen(row); }));
  }
  return chosen.tokens();
}

std::vector<std::int64_t> generate(const PretrainedModel& model, const std::vector<std::int64_t>& input_ids, const GenerationOptions& options,
                                   const ForwardContext& context) {
  return generate(model, from_vector(input_ids, {1, static_cast<std::int64_t>(input_ids.size())}), Tensor(), options, context).front();
}

}  // namespace cambium
