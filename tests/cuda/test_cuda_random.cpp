// Random numbers and dropout: the CPU's bits, wherever a tensor begins and ends. Rotary embeddings and LSTM cells.
#include "cuda/device_arrays.h"

using namespace cambium;
using namespace cambium::kernels;
using namespace cambium::test;

namespace {

// All but the first `skip` elements of a dense vector.
Strided behind(Strided s, std::int64_t skip) {
  s.data = s.as<std::byte>() + skip * item_size(s.dtype);
  s.shape[0] -= skip;
  return s;
}

double relative_of(DType dtype) { return epsilon(dtype) + (dtype == DType::f64 ? 16 : 4) * epsilon(dtype == DType::f64 ? dtype : DType::f32); }

}  // namespace

TEST_CASE("random numbers are the CPU's bit for bit") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : {0, 1, 3, 4, 1027, 5000}) {
      for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5}, std::uint64_t{1} << 40}) {
        const std::uint64_t seed = 0x123456789abcdefU + offset;
        same_on_devices(Array(dtype, {n}), [&](const Kernels& k, Context& c, Strided out) { k.random_uniform(c, out, seed, offset, -1.5, 2.75); });
        same_on_devices(Array(dtype, {n}), [&](const Kernels& k, Context& c, Strided out) { k.random_normal(c, out, seed, offset, 0.3, 1.7); });
      }
    }
    same_on_devices(Array(dtype, {99}).random(1), [&](const Kernels& k, Context& c, Strided out) {
      k.random_uniform(c, behind(out, 1), 7, 1, 0, 1);
      k.random_normal(c, behind(out, 50), 7, 2, 0, 1);
    });
  }
}

TEST_CASE("dropout makes the CPU's masks, again in the backward pass, and in place") {
  for (const DType dtype : kFloats) {
    for (const double p : {0.0, 0.1, 0.5, 1.0}) {
      const auto call = [&](const Kernels& k, Context& c, Strided out, Strided x) { k.dropout(c, out, x, p, 11, 3); };
      for (const std::int64_t n : {0, 1, 6, 2049}) same_on_devices(Array(dtype, {n}), call, Array(dtype, {n}).random(2));
      same_on_devices(Array(dtype, {301}).random(3), [&](const Kernels& k, Context& c, Strided x) { k.dropout(c, x, x, p, 12, 4); });
      same_on_devices(Array(dtype, {301}).random(4), [&](const Kernels& k, Context& c, Strided out, Strided x) { k.dropout(c, behind(out, 1), behind(x, 1), p, 13, 5); },
                      Array(dtype, {301}).random(5));
    }
  }
}

TEST_CASE("rotary embedding") {
  for (const DType dtype : kFloats) {
    for (const bool interleaved : {false, true}) {
      for (const bool inverse : {false, true}) {
        for (const auto& [D, pairs, H] : {std::array<std::int64_t, 3>{8, 4, 3}, {80, 16, 2}, {96, 48, 9}, {5, 2, 1}}) {
          Array x(dtype, {2, 3, H, D}), positions(DType::i64, {2, 3}), one(DType::i64, {1, 3}), frequencies(DType::f32, {pairs});
          x.random(6);
          positions.generate([](std::int64_t i) { return static_cast<double>(i == 4 ? 2000000 : i * 7); });  // far beyond any context
          one.generate([](std::int64_t i) { return static_cast<double>(5 + i); });
          const double count = static_cast<double>(pairs);
          frequencies.generate([&](std::int64_t i) { return std::pow(10000.0, -static_cast<double>(i) / count); });
          const auto call = [&](const Kernels& k, Context& c, Strided out, Strided v, Strided at, Strided f) { k.rotary(c, out, v, at, f, 1.25, interleaved, inverse); };
          const auto in_place = [&](const Kernels& k, Context& c, Strided v, Strided at, Strided f) { k.rotary(c, v, v, at, f, 1, interleaved, inverse); };
          // A sum of two products of numbers up to 2, with cosines and sines that are off by one rounding.
          const double absolute = 16 * epsilon(DType::f32);
          compare_devices(Array(dtype, {2, 3, H, D}), relative_of(dtype), absolute, call, x, positions, frequencies);
          compare_devices(Array(dtype, {2, 3, H, D}, Lay::transposed), relative_of(dtype), absolute, call, x, one, frequencies);
          compare_devices(x, relative_of(dtype), absolute, in_place, positions, frequencies);
        }
      }
    }
    same_on_devices(Array(dtype, {0, 3, 1, 4}), [](const Kernels& k, Context& c, Strided out, Strided at, Strided f) { k.rotary(c, out, out, at, f, 1, false, false); },
                    Array(DType::i64, {0, 3}), Array(DType::f32, {2}));
  }
}

TEST_CASE("LSTM cells") {
  for (const DType dtype : kFloats) {
    for (const auto& [B, H] : {std::array<std::int64_t, 2>{1, 1}, {3, 5}, {4, 130}, {0, 3}}) {
      const Shape cell{B, H}, gates{B, 4 * H};
      Array previous(dtype, cell), preactivations(dtype, gates), g(dtype, cell), c(dtype, cell), activations(dtype, gates), squashed(dtype, cell);
      previous.random(7);
      preactivations.random(8, -4, 4);
      g.random(9);
      c.random(10);
      activations.random(11, 0.01, 0.99);
      squashed.random(12, -0.9, 0.9);
      // Both compute in double: one rounding to the element type, and double's own roundings.
      const double relative = dtype == DType::f64 ? 64 * epsilon(dtype) : epsilon(dtype), absolute = 64 * epsilon(DType::f64);
      for (int which = 0; which < 4; ++which) {
        const Array out(which == 3 ? preactivations : previous);
        compare_devices(out, relative, absolute, [&](const Kernels& k, Context& context, Strided result, Strided x, Strided before, Strided a, Strided b, Strided d) {
          if (which == 0) k.lstm_cell_forward(context, result, a, b, x, before);
          if (which == 1) k.lstm_cell_forward(context, a, result, b, x, before);
          if (which == 2) k.lstm_cell_forward(context, a, b, result, x, before);
          if (which == 3) k.lstm_cell_forward(context, a, b, d, result, before);
        }, preactivations, previous, Array(dtype, cell), Array(dtype, cell), Array(dtype, cell));
      }
      for (int absent = 0; absent < 3; ++absent) {
        const auto dh = [&](Strided s) { return absent == 1 ? Strided{} : s; };
        const auto dc = [&](Strided s) { return absent == 2 ? Strided{} : s; };
        compare_devices(Array(dtype, gates), relative, absolute, [&](const Kernels& k, Context& context, Strided dgates, Strided a, Strided b, Strided act, Strided t, Strided before, Strided dprevious) {
          k.lstm_cell_backward(context, dgates, dprevious, dh(a), dc(b), act, t, before);
        }, g, c, activations, squashed, previous, Array(dtype, cell));
        compare_devices(Array(dtype, cell), relative, absolute, [&](const Kernels& k, Context& context, Strided dprevious, Strided a, Strided b, Strided act, Strided t, Strided before, Strided dgates) {
          k.lstm_cell_backward(context, dgates, dprevious, dh(a), dc(b), act, t, before);
        }, g, c, activations, squashed, previous, Array(dtype, gates));
      }
    }
  }
}
