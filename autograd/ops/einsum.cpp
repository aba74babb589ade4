// einsum of two operands: permuted to one batched matrix product and back.
#include <algorithm>
#include <string>

#include "autograd/ops.h"
#include "autograd/ops/helpers.h"

namespace cambium {

namespace {

bool has(const std::string& letters, char letter) { return letters.find(letter) != std::string::npos; }

void check_letters(const std::string& letters, std::string_view equation) {
  for (std::size_t i = 0; i < letters.size(); ++i) {
    const bool is_letter = (letters[i] >= 'a' && letters[i] <= 'z') || (letters[i] >= 'A' && letters[i] <= 'Z');
    check<ShapeError>(is_letter, "einsum: '", equation, "': expected letters, found '", letters[i], "'");
    check<ShapeError>(letters.find(letters[i], i + 1) == std::string::npos, "einsum: '", equation, "': letter '", letters[i], "' appears twice in '", letters, "'");
  }
}

// Sums over the letters that are neither in the other operand nor in the result.
Tensor drop_lonely(Tensor x, std::string& letters, const std::string& other, const std::string& result) {
  std::vector<int> dims;
  std::string kept;
  for (std::size_t i = 0; i < letters.size(); ++i) {
    if (has(other, letters[i]) || has(result, letters[i])) kept += letters[i];
    else dims.push_back(static_cast<int>(i));
  }
  letters = kept;
  return dims.empty() ? x : sum(x, dims);
}

Tensor permuted(const Tensor& x, const std::string& from, const std::string& to) {
  if (from == to) return x;
  std::vector<int> order;
  for (char letter : to) order.push_back(static_cast<int>(from.find(letter)));
  return detail::permute_by(x, order);
}

std::int64_t size_of(const Tensor& x, const std::string& letters, char letter) { return x.shape()[static_cast<int>(letters.find(letter))]; }

}  // namespace

Tensor einsum(std::string_view equation, const Tensor& a, const Tensor& b) {
  detail::check_float("einsum", "the left operand", a);
  detail::check_alike("einsum", "the left operand", a, "the right one", b);
  std::string text;
  for (char c : equation)
    if (c != ' ') text += c;
  const std::size_t comma = text.find(','), arrow = text.find("->");
  check<ShapeError>(comma != std::string::npos && arrow != std::string::npos && comma < arrow, "einsum: '", equation, "': expected 'letters,letters->letters'");
  std::string left = text.substr(0, comma), right = text.substr(comma + 1, arrow - comma - 1);
  const std::string result = text.substr(arrow + 2);
  for (const std::string& letters : {left, right, result}) check_letters(letters, equation);
  check<ShapeError>(static_cast<int>(left.size()) == a.rank() && static_cast<int>(right.size()) == b.rank(), "einsum: '", equation, "' does not fit shapes ", a.shape(),
                    " and ", b.shape());
  for (char letter : result) check<ShapeError>(has(left, letter) || has(right, letter), "einsum: '", equation, "': letter '", letter, "' of the result is in no operand");
  for (char letter : left)
    check<ShapeError>(!has(right, letter) || size_of(a, left, letter) == size_of(b, right, letter), "einsum: '", equation, "': letter '", letter, "' is ",
                      size_of(a, left, letter), " in the left operand, ", has(right, letter) ? size_of(b, right, letter) : 0, " in the right one");

  const Tensor x = drop_lonely(a, left, right, result), y = drop_lonely(b, right, left, result);
  std::string batch, rows, inner, columns;
  for (char letter : left) {
    if (!has(right, letter)) rows += letter;
    else if (has(result, letter)) batch += letter;
    else inner += letter;
  }
  for (char letter : right)
    if (!has(left, letter)) columns += letter;

  std::vector<std::int64_t> batch_sizes, full_sizes;
  std::int64_t m = 1, k = 1, n = 1;
  for (char letter : batch) batch_sizes.push_back(size_of(x, left, letter));
  full_sizes = batch_sizes;
  for (char letter : rows) m *= full_sizes.emplace_back(size_of(x, left, letter));
  for (char letter : inner) k *= size_of(x, left, letter);
  for (char letter : columns) n *= full_sizes.emplace_back(size_of(y, right, letter));
  const auto shaped = [&](const Tensor& t, std::int64_t second_last, std::int64_t last) {
    std::vector<std::int64_t> sizes = batch_sizes;
    sizes.push_back(second_last);
    sizes.push_back(last);
    return reshape(t, sizes);
  };
  const Tensor product = matmul(shaped(permuted(x, left, batch + rows + inner), m, k), shaped(permuted(y, right, batch + inner + columns), k, n));
  return permuted(reshape(product, full_sizes), batch + rows + columns, result);
}

}  // namespace cambium
