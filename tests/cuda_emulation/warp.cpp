// Warp operations: lanes of a mask meet, the last one computes everybody's results. Built without sanitizers.
#include "block.h"

#include <bit>

namespace kemu {

namespace {

constexpr std::uint32_t kNoLane = 0xFFFFFFFFU;  // what a lane that takes no part hands over

float low_bf16(std::uint32_t w) { return std::bit_cast<float>(w << 16); }
float high_bf16(std::uint32_t w) { return std::bit_cast<float>(w & 0xFFFF0000U); }
float f16(std::uint32_t w) { return __half2float(__half(__half_raw{static_cast<unsigned short>(w & 0xFFFFU)})); }
float tf32(std::uint32_t w) { return std::bit_cast<float>(w & 0xFFFFE000U); }  // tensor cores do not look at the last 13 bits

void shuffle_lanes(Op op, Fiber* const (&lanes)[kLanes]) {
  for (int i = 0; i < 32; ++i) {
    if (lanes[i] == nullptr) continue;
    const int argument = static_cast<int>(lanes[i]->in[0]), width = static_cast<int>(lanes[i]->in[1]);
    const int first = i / width * width, end = first + width;
    int source = i;
    if (op == Op::shuffle) source = first + (argument & (width - 1));
    if (op == Op::shuffle_up && i - argument >= first) source = i - argument;
    if (op == Op::shuffle_down && i + argument < end) source = i + argument;
    // Lanes of a later segment are out of reach, those of an earlier one are not.
    if (op == Op::shuffle_xor && (i ^ argument) < end) source = i ^ argument;
    const Fiber* from = source >= 0 && source < 32 ? lanes[source] : nullptr;
    for (int w = 0; w < 2; ++w) lanes[i]->out[w] = from != nullptr ? from->in[2 + w] : kNoLane;
  }
}

std::uint32_t reduced(Op op, std::uint32_t a, std::uint32_t b) {
  switch (op) {
    case Op::reduce_add: return a + b;
    case Op::reduce_min: return std::min(a, b);
    case Op::reduce_max: return std::max(a, b);
    case Op::reduce_min_signed: return static_cast<std::uint32_t>(std::min(static_cast<int>(a), static_cast<int>(b)));
    case Op::reduce_max_signed: return static_cast<std::uint32_t>(std::max(static_cast<int>(a), static_cast<int>(b)));
    case Op::reduce_and: return a & b;
    case Op::reduce_or: return a | b;
    default: return a ^ b;
  }
}

// D (16, 8) = A (16, K) B (K, 8) + C, the fragments as PTX lays them over the lanes ("Matrix Fragments for mma.m16n8k16" and ".m16n8k8"):
// lane = 4 group + t; registers of A and B hold two 16-bit numbers or one tf32.
void multiply(Op op, Fiber* const (&lanes)[kLanes]) {
  const bool wide = op == Op::mma_tf32;
  const int depth = wide ? 8 : 16, per_word = wide ? 1 : 2;
  float a[16][16], b[16][8];
  const auto number = [op](std::uint32_t w, int half) {
    if (op == Op::mma_tf32) return tf32(w);
    if (op == Op::mma_f16) return f16(half != 0 ? w >> 16 : w);
    return half != 0 ? high_bf16(w) : low_bf16(w);
  };
  for (int i = 0; i < 32; ++i) {
    const int group = i >> 2, t = i & 3;
    const std::uint32_t* in = lanes[i]->in;
    for (int half = 0; half < per_word; ++half) {
      for (int r = 0; r < 4; ++r) a[group + (r & 1) * 8][t * per_word + half + (r >> 1) * depth / 2] = number(in[r], half);
      for (int r = 0; r < 2; ++r) b[t * per_word + half + r * depth / 2][group] = number(in[4 + r], half);
    }
  }
  for (int i = 0; i < 32; ++i)
    for (int r = 0; r < 4; ++r) {
      const int row = (i >> 2) + (r >> 1) * 8, column = (i & 3) * 2 + (r & 1);
      float sum = std::bit_cast<float>(lanes[i]->in[6 + r]);
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
      lanes[i]->out[r] = std::bit_cast<std::uint32_t>(sum);
    }
}

// Lane 8 m + r hands in row r of matrix m (8 x 8 numbers of 16 bits, 4 words); lane l gets of each matrix row l / 4, numbers 2 (l % 4) and the next one,
// or the same of the transposed matrix.
void distribute(Op op, Fiber* const (&lanes)[kLanes]) {
  for (int i = 0; i < 32; ++i)
    for (int m = 0; m < 4; ++m) {
      const int row = i / 4, pair = i % 4;
      if (op == Op::load_matrix) {
        lanes[i]->out[m] = lanes[8 * m + row]->in[pair];
      } else {
        const auto element = [&](int r) { return lanes[8 * m + r]->in[row / 2] >> (16 * (row % 2)) & 0xFFFFU; };
        lanes[i]->out[m] = element(2 * pair) | element(2 * pair + 1) << 16;
      }
    }
}

bool everybody_is_here(const Warp& warp, const Meeting& m) { return (m.mask & ~warp.exited) == m.arrived; }

void complete(Warp& warp, int meeting, unsigned index) {
  const Meeting m = warp.meetings[meeting];
  warp.meetings[meeting] = warp.meetings[--warp.n_meetings];
  Fiber* lanes[kLanes];
  for (unsigned i = 0; i < kLanes; ++i) lanes[i] = (m.arrived >> i & 1U) != 0 ? block.fibers[index * kLanes + i] : nullptr;
  compute_warp_op(m.op, lanes);
  for (Fiber* lane : lanes)
    if (lane != nullptr) lane->state = State::ready;
}

}  // namespace

void compute_warp_op(Op op, Fiber* const (&lanes)[kLanes]) {
  switch (op) {
    case Op::sync: return;
    case Op::shuffle: case Op::shuffle_up: case Op::shuffle_down: case Op::shuffle_xor: return shuffle_lanes(op, lanes);
    case Op::mma_bf16: case Op::mma_f16: case Op::mma_tf32: return multiply(op, lanes);
    case Op::load_matrix: case Op::load_matrix_transposed: return distribute(op, lanes);
    case Op::ballot: {
      std::uint32_t votes = 0;
      for (unsigned i = 0; i < kLanes; ++i) votes |= (lanes[i] != nullptr && lanes[i]->in[0] != 0 ? 1U : 0U) << i;
      for (Fiber* lane : lanes)
        if (lane != nullptr) lane->out[0] = votes;
      return;
    }
    case Op::match_any:
      for (Fiber* lane : lanes) {
        if (lane == nullptr) continue;
        lane->out[0] = 0;
        for (unsigned i = 0; i < kLanes; ++i)
          if (lanes[i] != nullptr && lanes[i]->in[0] == lane->in[0] && lanes[i]->in[1] == lane->in[1]) lane->out[0] |= 1U << i;
      }
      return;
    default: {
      bool first = true;
      std::uint32_t result = 0;
      for (const Fiber* lane : lanes) {
        if (lane == nullptr) continue;
        result = first ? lane->in[0] : reduced(op, result, lane->in[0]);
        first = false;
      }
      for (Fiber* lane : lanes)
        if (lane != nullptr) lane->out[0] = result;
    }
  }
}

void complete_meetings(Warp& warp, unsigned index) {
  for (int i = 0; i < warp.n_meetings;) {
    if (everybody_is_here(warp, warp.meetings[i])) {
      complete(warp, i, index);
      i = 0;
    } else {
      ++i;
    }
  }
}

void warp_op(Op op, unsigned mask, const std::uint32_t* in, int in_words, std::uint32_t* out, int out_words, const char* file, int line) {
  Fiber* fiber = me();
  if ((mask >> fiber->lane & 1U) == 0) fail_thread(file, line, "lane %u is not in its own mask %08x", fiber->lane, mask);
  fiber->file = file;
  fiber->line = line;
  fiber->mask = mask;
  for (int i = 0; i < in_words; ++i) {
    fiber->in[i] = in[i];
    asm volatile("" ::: "memory");  // or the loop would become a call of memcpy
  }
  Warp& warp = block.warps[fiber->warp];
  const bool whole = op >= Op::mma_bf16;
  if (whole && (mask != ~0U || warp.exited != 0)) fail_thread(file, line, "mma and ldmatrix need all 32 lanes");
  if (op >= Op::shuffle && op <= Op::shuffle_xor && (in[1] == 0 || in[1] > 32 || (in[1] & (in[1] - 1)) != 0)) fail_thread(file, line, "shuffle of width %u: a power of two up to 32 is allowed", in[1]);
  if (op == Op::sync) order_release(block.warp_order(fiber->warp));  // shuffles order no memory, __syncwarp does
  int at = 0;
  for (; at < warp.n_meetings && warp.meetings[at].mask != mask; ++at) {
    const Meeting& m = warp.meetings[at];
    if (settings().strict && (m.mask & mask) != 0)
      fail_thread(file, line, "warp operation with mask %08x overlaps one with mask %08x that waits at %.200s:%d", mask, m.mask, m.file, m.line);
  }
  if (at == warp.n_meetings) {
    if (warp.n_meetings == 8) fail_thread(file, line, "more than 8 groups of lanes wait in one warp");
    warp.meetings[warp.n_meetings++] = {mask, 0, op, file, line};
  }
  Meeting& meeting = warp.meetings[at];
  if (meeting.op != op || (settings().strict && (meeting.line != line || std::strcmp(meeting.file, file) != 0)))
    fail_thread(file, line, "divergent warp operation: other lanes of mask %08x wait at %.200s:%d", mask, meeting.file, meeting.line);
  meeting.arrived |= 1U << fiber->lane;
  fiber->state = State::at_warp_op;
  if (everybody_is_here(warp, meeting)) complete(warp, at, fiber->warp);
  if (fiber->state != State::ready || settings().order == Order::random) yield_from(fiber);
  if (op == Op::sync) order_acquire(block.warp_order(fiber->warp));
  for (int i = 0; i < out_words; ++i) {
    out[i] = fiber->out[i];
    asm volatile("" ::: "memory");
  }
}

unsigned lane_id() { return me()->lane; }

unsigned active_lanes() {  // at least: lanes that have not exited
  return ~block.warps[me()->warp].exited;
}

}  // namespace kemu
