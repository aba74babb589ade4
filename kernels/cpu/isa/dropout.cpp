// Dropout: Philox4x32-10 on as many counters at once as there are lanes. Bits and mapping are those of kernels/philox.h.
#include "kernels/cpu/isa/element_visit.h"
#include "kernels/cpu/isa/streams.h"

namespace cambium::kernels::cpu::CAMBIUM_ISA {

void dropout(Element, void* out, const void* x, int64_t block, int64_t n, float p, float scale, uint64_t seed, uint64_t offset);

namespace {

typedef uint64_t vul __attribute__((vector_size(4 * kLanes)));

#if defined(__AVX512F__)
inline vul multiply_even(vu a, vu b) { return reinterpret_cast<vul>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))); }
inline vf unpack_low(vf a, vf b) { return reinterpret_cast<vf>(_mm512_unpacklo_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b))); }
inline vf unpack_high(vf a, vf b) { return reinterpret_cast<vf>(_mm512_unpackhi_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b))); }
inline vf unpack_low_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm512_unpacklo_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b))); }
inline vf unpack_high_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm512_unpackhi_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b))); }
#elif defined(__AVX2__)
inline vul multiply_even(vu a, vu b) { return reinterpret_cast<vul>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b))); }
inline vf unpack_low(vf a, vf b) { return reinterpret_cast<vf>(_mm256_unpacklo_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b))); }
inline vf unpack_high(vf a, vf b) { return reinterpret_cast<vf>(_mm256_unpackhi_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b))); }
inline vf unpack_low_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm256_unpacklo_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b))); }
inline vf unpack_high_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm256_unpackhi_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b))); }
#else
inline vul multiply_even(vu a, vu b) { return reinterpret_cast<vul>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b))); }
inline vf unpack_low(vf a, vf b) { return reinterpret_cast<vf>(_mm_unpacklo_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))); }
inline vf unpack_high(vf a, vf b) { return reinterpret_cast<vf>(_mm_unpackhi_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b))); }
inline vf unpack_low_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm_unpacklo_pd(reinterpret_cast<__m128d>(a), reinterpret_cast<__m128d>(b))); }
inline vf unpack_high_pair(vf a, vf b) { return reinterpret_cast<vf>(_mm_unpackhi_pd(reinterpret_cast<__m128d>(a), reinterpret_cast<__m128d>(b))); }
#endif

// The 64-bit products of all lanes as upper and lower words.
inline void multiply_wide(vu a, uint32_t factor, vu& high, vu& low) {
  const vu f = vu{} + factor;
  const vul even = multiply_even(a, f), odd = multiply_even(reinterpret_cast<vu>(reinterpret_cast<vul>(a) >> 32), f);
  const vul lower = vul{} + 0xffffffffU;
  low = reinterpret_cast<vu>((even & lower) | (odd << 32));
  high = reinterpret_cast<vu>((even >> 32) | (odd & ~lower));
}

// Words of kLanes successive blocks as 4 kLanes successive uniform numbers. Lane 4 l + c works on block (kLanes / 4) c + l, so that
// transposing the words inside of 128-bit pieces leaves them in order.
inline void uniforms(vf to[4], uint64_t block, uint64_t seed, uint64_t offset) {
  constexpr int kPieces = kLanes / 4;
  uint32_t low[kLanes], high[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t counter = block + static_cast<uint64_t>(kPieces * (lane % 4) + lane / 4);
    low[lane] = static_cast<uint32_t>(counter);
    high[lane] = static_cast<uint32_t>(counter >> 32);
  }
  vu c0, c1, c2 = vu{} + static_cast<uint32_t>(offset), c3 = vu{} + static_cast<uint32_t>(offset >> 32);
  memcpy(&c0, low, sizeof c0);
  memcpy(&c1, high, sizeof c1);
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    vu high0, low0, high2, low2;
    multiply_wide(c0, 0xD2511F53U, high0, low0);
    multiply_wide(c2, 0xCD9E8D57U, high2, low2);
    c0 = high2 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low2;
    c3 = low0;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const vf a = reinterpret_cast<vf>(c0), b = reinterpret_cast<vf>(c1), c = reinterpret_cast<vf>(c2), d = reinterpret_cast<vf>(c3);
  const vf ab = unpack_low(a, b), cd = unpack_low(c, d), AB = unpack_high(a, b), CD = unpack_high(c, d);
  const vf words[4] = {unpack_low_pair(ab, cd), unpack_high_pair(ab, cd), unpack_low_pair(AB, CD), unpack_high_pair(AB, CD)};
  for (int i = 0; i < 4; ++i) to[i] = to_float(reinterpret_cast<vi>(reinterpret_cast<vu>(words[i]) >> 8)) * 0x1p-24F;
}

template <class T>
void dropout_rows(T* out, const T* x, int64_t block, int64_t n, float p, float scale, uint64_t seed, uint64_t offset) {
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
    vf u[4];
    uniforms(u, static_cast<uint64_t>(block + i / 4), seed, offset);
    for (int k = 0; k < 4; ++k) {
      const int64_t at = i + k * kLanes;
      if (at >= n) break;
      const int lanes = n - at < kLanes ? static_cast<int>(n - at) : kLanes;
      const vf v = lanes == kLanes ? load(x + at) : load_partial(x + at, lanes), kept = select(u[k] >= p, v * scale, vf{});
      if (lanes == kLanes) store(out + at, kept);
      else store_partial(out + at, kept, lanes);
    }
  }
}

}  // namespace

void dropout(Element type, void* out, const void* x, int64_t block, int64_t n, float p, float scale, uint64_t seed, uint64_t offset) {
  visit_element(type, [&](auto* pointer) {
    using T = Pointee<decltype(pointer)>;
    dropout_rows(static_cast<T*>(out), static_cast<const T*>(x), block, n, p, scale, seed, offset);
  });
}

}  // namespace cambium::kernels::cpu::CAMBIUM_ISA
